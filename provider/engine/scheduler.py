"""The order in which runs enter a batch of bounded size, clients in turn, and are prefilled.

Pure policy: no thread, no clock, no tensor. The worker asks it before every step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import chain
from typing import Generic, Protocol, TypeVar

from provider.engine.prompt_share import PromptShare
from provider.engine.run_queue import RunQueue
from provider.engine.step_share import StepShare

__all__ = [
    "Reading",
    "Scheduler",
    "may_go_on",
    "must_park",
]

MAX_PADDING = 32  # tokens of padding per prompt, on average; more costs as much as another pass
# Changed places in the queue that are told in one step, each to another client's stream; a run that
# ends changes the place of every run that waits.
MAX_TOLD = 64
MAX_ASKED = 32  # clients whose first run is tried before each step while runs wait for memory
LINGER = 64  # turns for which a client whose last run has ended counts as one with a run
PATIENCE = 1.05  # times as long as a run may make a step before it is let in, before it must leave

Key = TypeVar("Key", bound=Hashable)


class Reading(Protocol):
    """How far the reader of a run is behind it."""

    @property
    def unread(self) -> int:
        """How many generated tokens have text that the reader has not taken."""

    @property
    def caught_up(self) -> bool:
        """Whether the reader has taken all delivered text; text held back does not count."""


def must_park(run: Reading, limit: int) -> bool:
    """Return whether a run must leave the batch until its reader has caught up."""
    return run.unread >= limit and not run.caught_up


def may_go_on(run: Reading, limit: int) -> bool:
    """Return whether a parked run can go on.

    Its unread tokens must be at most half of `limit`, so that it is not parked again at once.
    """
    return run.caught_up or run.unread <= limit // 2


class Scheduler(Generic[Key]):
    """The runs in the queue, those whose prompt is being read, and those that decode.

    `client_of` returns the client of a run. `share` says how many runs of one client may be in the
    batch beside those of others, `prompts` whose prompts wait while others' runs decode.
    """

    def __init__(
        self,
        max_batch: int,
        client_of: Callable[[Key], Hashable],
        share: StepShare,
        prompts: PromptShare,
    ):
        self.max_batch = max_batch
        self._share = share
        self._prompts = prompts
        self._held: set[Hashable] = set()  # clients whose prompts wait
        self._places: Counter[Hashable] = Counter()  # in the batch, by client
        self._left: dict[Hashable, int] = {}  # clients without one, by the turn of their last
        self._turn = 0
        self._client_of = client_of
        self._waiting: RunQueue[Key] = RunQueue()
        self._in_batch: dict[Key, Hashable] = {}  # with the client of each run
        self._prefilling: dict[Key, int] = {}  # prompt tokens left to read, in order of admission
        self._decoding: dict[Key, None] = {}  # in the order in which they began to decode
        self._streaming: set[Key] = set()  # decoding runs whose first token was delivered
        self._unfit: set[Key] = set()  # runs that did not fit when there was a place for them
        self._told: dict[Key, int] = {}  # last reported position of each waiting run
        self._untold = False  # whether a position may have changed that was not reported
        self._chunks: dict[Hashable, int] = {}  # number of the last chunk of each client
        self._chunk = 0  # how many chunks were planned
        self._short_turn = False  # whether the next chunk is for short prompts, not the long one

    def __len__(self) -> int:
        return len(self._waiting) + self.running

    @property
    def running(self) -> int:
        """How many runs are in the batch."""
        return len(self._prefilling) + len(self._decoding)

    @property
    def decoding(self) -> int:
        """How many runs take part in a decode step."""
        return len(self._decoding)

    @property
    def waiting(self) -> int:
        """How many runs are in the queue."""
        return len(self._waiting)

    @property
    def streaming(self) -> bool:
        """Whether a decoding run has delivered a token, whose next one a long chunk would delay."""
        return bool(self._streaming)

    @property
    def oldest(self) -> Key | None:
        """The run whose prompt is next in turn to be read, None if there is none.

        It is the oldest of the client that has waited longest for a chunk, and need not wait.
        """
        return next(iter(self._turns()), None)

    def _turns(self) -> list[Key]:
        """Return the runs whose prompts may be read; clients that have waited longest first."""
        turns = [key for key in self._prefilling if self._in_batch[key] not in self._held]
        if len(turns) < 2:
            return turns
        return sorted(turns, key=lambda key: self._chunks.get(self._in_batch[key], 0))

    def hold(self, now: float) -> None:
        """Let prompts wait of clients that have used up their share beside others' runs."""
        if not self._prefilling:
            return
        self._held.clear()
        for client in {self._in_batch[key] for key in self._prefilling}:
            others = self._decoding_beside(client)
            if others and self._prompts.owes(client, now, others):
                self._held.add(client)

    def prefilled(self, plan: Sequence[tuple[Key, int]], seconds: float, now: float) -> None:
        """Count a chunk that has just been read for the clients that it was for."""
        total = sum(tokens for _, tokens in plan)
        for key, tokens in plan:
            client = self._in_batch[key]
            if others := self._decoding_beside(client):
                self._prompts.took(client, seconds * tokens / total, now, others)

    def _decoding_beside(self, client: Hashable) -> int:
        """Return how many other clients have a run that decodes."""
        return len({self._in_batch[key] for key in self._decoding} - {client})

    def submit(self, key: Key) -> None:
        """Put a run at the end of its client's queue."""
        self._waiting.join(key, self._client_of(key))
        self._untold = True

    def stream(self, *keys: Key) -> None:
        """Note that runs have delivered a token; those that don't decode are ignored."""
        self._streaming.update(self._decoding.keys() & keys)

    def park(self, key: Key) -> None:
        """Take a run out of the batch because it waits for its reader."""
        if key not in self._in_batch:
            return
        client = self._in_batch.pop(key)
        self._waiting.give_back(client)
        self._places[client] -= 1
        if not self._places[client]:
            del self._places[client]
            self._left[client] = self._turn
        self._prefilling.pop(key, None)  # present if a failed pass has to be repeated
        self._decoding.pop(key, None)
        self._streaming.discard(key)
        self._untold = True
        if not self._in_batch:
            self._chunks.clear()
            self._left.clear()

    def resume(self, key: Key) -> None:
        """Put a run at the head of its client's queue, because it has waited before."""
        self._waiting.join(key, self._client_of(key), ahead=True)
        self._untold = True

    def must_yield(self) -> Key | None:
        """Return the run that must leave the batch for other clients, None if none must.

        While the runs of one client make the step much longer for others, one of them must: the
        last that began to decode. While the batch is full and a client has at least two places more
        than a client with a waiting run, which fits as far as is known, one of its runs must: the
        one that has decoded longest, so that they give way in turn. If none of its runs decodes, it
        is the one that came last, of whose prompt least is read.
        """
        if (slows := self._slowing()) is not None:
            return slows
        if not self._waiting or self.running < self.max_batch:
            return None
        heads = self._waiting.heads(MAX_ASKED)
        first = next((key for key in heads if key not in self._unfit), None)
        if first is None:
            return None
        runs = chain(self._decoding, reversed(self._prefilling))
        lead = {key: self._waiting.lead(self._in_batch[key], first) for key in runs}
        most = max(lead, key=lead.__getitem__)  # of the client's runs, the first of these
        return most if lead[most] > 1 else None

    def _slowing(self) -> Key | None:
        if len(self._places) + len(self._left) < 2:
            return None
        client = max(self._places, key=self._places.__getitem__, default=None)
        if client is None or self._share.allows(*self._rows_with(client, 0), PATIENCE):
            return None
        own = (key for key in reversed(self._decoding) if self._in_batch[key] == client)
        return next(own, None)

    def _rows_with(self, client: Hashable, more: int) -> tuple[int, int]:
        """Return the rows there are with `more` of a client, and if it had no more than others.

        A client whose last run ended a few turns ago counts as one with a row.
        """
        for gone in [one for one, turn in self._left.items() if turn < self._turn - LINGER]:
            del self._left[gone]
        own, absent = self._places[client], len(self._left) - (client in self._left)
        others = self.running - own + absent
        largest = max((n for one, n in self._places.items() if one != client), default=0)
        fair = max(largest, 1) if others else own + more
        return others + own + more, others + min(own + more, fair)

    def _may_enter(self, key: Key) -> bool:
        """Return whether a run's client may have another place beside others."""
        if not self._places and not self._left:
            return True
        return self._share.allows(*self._rows_with(self._client_of(key), 1))

    def admit(
        self,
        fits: Callable[[Key], bool] = lambda key: True,
        deferred: Callable[[Key], bool] = lambda key: False,
        awaited: Callable[[], Key | None] = lambda: None,
    ) -> list[Key]:
        """Move runs from the queue into the batch, in turn, while they fit; return them.

        A run that does not fit, or would make the step much longer for other clients, keeps its
        client's other runs waiting; runs of up to MAX_ASKED clients may go past it. The run that
        `awaited` returns comes before all others. One that is `deferred` leaves the queue until
        `resume`. The caller must call `read` for each returned run with the tokens that remain of
        its prompt.
        """
        admitted = []
        self._turn += 1
        while self.running < self.max_batch:
            self._unfit.clear()
            for key in self._candidates(first := awaited()):
                if key != first and not self._may_enter(key):
                    continue
                leaves = deferred(key)
                if leaves or fits(key):
                    break
                self._unfit.add(key)
            else:
                break
            if leaves:
                self._waiting.leave(key)
            else:
                client = self._in_batch[key] = self._waiting.take(key)
                self._places[client] += 1
                self._left.pop(client, None)
                self._prefilling[key] = 0
                admitted.append(key)
            self._told.pop(key, None)
            self._untold = True
        return admitted

    def _candidates(self, awaited: Key | None) -> Iterator[Key]:
        if awaited is not None and awaited in self._waiting:
            yield awaited
        for key in self._waiting.heads(MAX_ASKED):
            if key != awaited:
                yield key

    def read(self, key: Key, left: int) -> None:
        """Record how many tokens of a prompt remain to be read; with none left, the run decodes."""
        if key not in self._prefilling and key not in self._decoding:
            return
        if left:
            self._decoding.pop(key, None)
            self._prefilling[key] = left
        else:
            self._prefilling.pop(key, None)
            self._decoding[key] = None

    def remove(self, key: Key) -> None:
        """Forget a run that has ended, wherever it is."""
        self._waiting.leave(key)
        self._told.pop(key, None)
        self._untold = True
        self.park(key)

    def moved(self) -> list[tuple[Key, int]]:
        """Return the runs whose place in the queue has changed, with the new place, from 1.

        Returns at most MAX_TOLD runs: first those that this method has never returned, then those
        that are next in the queue.
        """
        if not self._untold:
            return []
        places = enumerate(self._waiting.order(), 1)
        changed = [(key, place) for place, key in places if self._told.get(key) != place]
        self._untold = len(changed) > MAX_TOLD
        if self._untold:
            changed.sort(key=lambda one: one[0] in self._told)
            del changed[MAX_TOLD:]
        self._told.update(changed)
        return changed

    def plan(self, budget: int, *, together: bool = True) -> list[tuple[Key, int]]:
        """Return the next prefill chunk as pairs `(key, tokens)`, at most `budget` with padding.

        The chunk completes several prompts, or is a part of one. A prompt longer than the budget
        takes turns with shorter ones, so that neither waits for the other, and clients take turns.
        `together` is False if a forward pass can read only one prompt.
        """
        turns = self._turns()
        if not turns:
            return []
        chunk = self._next_chunk(turns, budget, together=together)
        self._chunk += 1
        self._chunks.update((self._in_batch[key], self._chunk) for key, _ in chunk)
        return chunk

    def _next_chunk(
        self, turns: Sequence[Key], budget: int, *, together: bool
    ) -> list[tuple[Key, int]]:
        short = self._short(turns, budget, together=together)
        left = self._prefilling[turns[0]]
        if short and (left <= budget or self._short_turn):
            self._short_turn = False
            return short
        self._short_turn = True
        return [(turns[0], min(left, budget))]

    def _short(self, turns: Sequence[Key], budget: int, *, together: bool) -> list[tuple[Key, int]]:
        """Return the prompts, in turn, that one forward pass can read to their ends."""
        chosen: list[tuple[Key, int]] = []
        widest = real = 0
        for key in turns:
            left = self._prefilling[key]
            padded = max(widest, left) * (len(chosen) + 1)
            if padded > budget or padded - real - left > MAX_PADDING * (len(chosen) + 1):
                continue
            chosen.append((key, left))
            widest, real = max(widest, left), real + left
            if not together:
                break
        return chosen
