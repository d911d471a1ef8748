"""The order of runs: first come, first served, into a batch of bounded size.

Pure policy: no thread, no clock, no tensor. The worker asks it before every step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

__all__ = [
    "Reading",
    "Scheduler",
    "may_go_on",
    "must_park",
]

MAX_PADDING = 32  # tokens of padding per prompt, on average; more costs as much as another pass


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

    It needs to fall to half of `limit`, so that it is not parked again at once.
    """
    return run.caught_up or run.unread <= limit // 2


class Scheduler(Generic[Key]):
    """The runs in the queue, those whose prompt is being read, and those that decode."""

    def __init__(self, max_batch: int):
        self.max_batch = max_batch
        self._waiting: deque[Key] = deque()
        self._prefilling: dict[Key, int] = {}  # prompt tokens left to read, in order of admission
        self._decoding: set[Key] = set()
        self._streaming: set[Key] = set()  # decoding runs whose first token was delivered
        self._told: dict[Key, int] = {}  # last reported position of each waiting run
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
        """Whether a decoding run has delivered a token; a long chunk would delay its next one."""
        return bool(self._streaming)

    @property
    def oldest(self) -> Key | None:
        """The first admitted run whose prompt is still being read, None if there is none."""
        return next(iter(self._prefilling), None)

    def submit(self, key: Key) -> None:
        """Put a run at the end of the queue."""
        self._waiting.append(key)

    def stream(self, key: Key) -> None:
        """Note that a decoding run has delivered a token."""
        if key in self._decoding:
            self._streaming.add(key)

    def park(self, key: Key) -> None:
        """Take a run out of the batch because it waits for its reader."""
        self._prefilling.pop(key, None)  # present if a failed pass has to be repeated
        self._decoding.discard(key)
        self._streaming.discard(key)

    def resume(self, key: Key) -> None:
        """Put a run at the head of the queue, because it has waited before."""
        if key not in self._waiting:
            self._waiting.appendleft(key)

    def admit(
        self,
        fits: Callable[[Key], bool] = lambda key: True,
        deferred: Callable[[Key], bool] = lambda key: False,
    ) -> list[Key]:
        """Move runs from the queue into the batch, in order, while they fit; return them.

        The first that does not fit keeps those behind it waiting too. One that is `deferred` leaves
        the queue until `resume`. The caller must call `read` for each returned run with the tokens
        that remain of its prompt.
        """
        admitted = []
        while self._waiting and self.running < self.max_batch:
            key = self._waiting[0]
            leaves = deferred(key)
            if not leaves and not fits(key):
                break
            self._waiting.popleft()
            self._told.pop(key, None)
            if not leaves:
                self._prefilling[key] = 0
                admitted.append(key)
        return admitted

    def read(self, key: Key, left: int) -> None:
        """Record how many tokens of a prompt remain to be read; with none left, the run decodes."""
        if key not in self._prefilling and key not in self._decoding:
            return
        if left:
            self._decoding.discard(key)
            self._prefilling[key] = left
        else:
            self._prefilling.pop(key, None)
            self._decoding.add(key)

    def remove(self, key: Key) -> None:
        """Forget a run that has ended, wherever it is."""
        if key in self._waiting:
            self._waiting.remove(key)
        self._told.pop(key, None)
        self.park(key)

    def moved(self) -> list[tuple[Key, int]]:
        """Return the runs whose place in the queue has changed, with the new place, from 1."""
        now = {key: place for place, key in enumerate(self._waiting, 1)}
        changed = [(key, place) for key, place in now.items() if self._told.get(key) != place]
        self._told.update(changed)
        return changed

    def plan(self, budget: int, *, together: bool = True) -> list[tuple[Key, int]]:
        """Return the next prefill chunk as pairs `(key, tokens)`, at most `budget` with padding.

        The chunk completes several prompts, or is a part of one. A prompt longer than the budget
        takes turns with shorter ones, so that neither waits for the other. `together` is False if
        a forward pass can read only one prompt.
        """
        short = self._short(budget, together=together)
        first = next(iter(self._prefilling), None)
        if first is None:
            return []
        left = self._prefilling[first]
        if short and (left <= budget or self._short_turn):
            self._short_turn = False
            return short
        self._short_turn = True
        return [(first, min(left, budget))]

    def _short(self, budget: int, *, together: bool) -> list[tuple[Key, int]]:
        """Return the prompts, oldest first, that one forward pass can read to their ends."""
        chosen: list[tuple[Key, int]] = []
        widest = real = 0
        for key, left in self._prefilling.items():
            padded = max(widest, left) * (len(chosen) + 1)
            if padded > budget or padded - real - left > MAX_PADDING * (len(chosen) + 1):
                continue
            chosen.append((key, left))
            widest, real = max(widest, left), real + left
            if not together:
                break
        return chosen
