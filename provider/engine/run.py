"""A run, which is one generation inside the engine, and the collection of live runs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from provider.caches.prefix_cache import Hit
from provider.engine.inbox import Inbox
from provider.engine.messages import RunRequest
from provider.engine.rows import Parked, Row, Token
from provider.engine.run_states import RunState, Transition, next_state
from provider.events import Delta, TextDelta
from provider.formats.text_stream import TextStream
from provider.interface import GenerationTiming

__all__ = ["Run", "Runs"]


@dataclass(eq=False)
class Run:
    """One generation inside the engine. Once submitted, only the MLX thread writes to it."""

    key: int
    name: str  # name of the model
    request: RunRequest
    inbox: Inbox
    text: TextStream | None = None
    state: RunState = RunState.POSTED  # written by `move` alone
    row: Row | None = None  # from admission to end
    parked: Parked | None = None  # only while parked
    tokens: int = 0  # tokens decoded so far, the end token included
    sought_on_disk: bool = False  # whether a prefix was sought on disk since it last left the batch
    # The number of the entry of the prefix cache that was read from disk for it.
    read_prefix: int | None = None
    taken_prefix: Hit | None = None  # taken from the prefix cache by its admission, until it begins
    cached: int = 0  # prompt tokens taken from the prefix cache
    # Log-probabilities whose text is not delivered yet.
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    told: int | None = None  # tokens whose ids were told, None if they are not asked for
    sent: int = 0  # tokens whose text was delivered
    last_step: int = 0  # the worker's step in which the run last took part
    submitted: float = field(default_factory=time.perf_counter)
    admitted: float = 0.0
    first_token: float = 0.0

    def move(self, transition: Transition) -> None:
        """Change the state; raises AssertionError if the current state does not allow that."""
        self.state = next_state(self.state, transition)

    @property
    def ended(self) -> bool:
        """Whether it has ended; from any thread."""
        return self.state is RunState.ENDED

    @property
    def client(self) -> str:
        """The name of the client that it is made for, "" if none was given."""
        return self.request.options.client or ""

    @property
    def shared(self) -> int:
        """How many tokens of its prompt are prefilled once for all answers to it."""
        return max(0, len(self.request.prompt) - 2)

    @property
    def unread(self) -> int:
        """How many tokens' text the reader has not taken."""
        return self.tokens - self.inbox.taken

    @property
    def caught_up(self) -> bool:
        """Whether the reader has taken all text that was delivered."""
        return self.sent <= self.inbox.taken

    def add_token(self, token: Token, step: int) -> list[Delta]:
        """Add the token of a step; return the deltas that it produces, if any.

        Raises what the detokenizer or the tool parser raises.
        """
        assert self.text is not None
        self.last_step = step
        self.tokens += 1
        if not self.first_token:
            self.first_token = time.perf_counter()
        if token.logprob is not None and token.finish != "stop":
            self.logprobs.append(self.text.described(token.token, token.logprob))
        # The end token itself has no text.
        deltas = [] if token.finish == "stop" else self.text.add(token.token)
        if token.finish and not self.text.stopped:
            deltas += self.text.finish(cut=token.finish == "length")
        if deltas:
            self._count_into(deltas)
        return deltas

    def _count_into(self, deltas: list[Delta]) -> None:
        """Distribute the tokens and log-probabilities that are not delivered yet over deltas."""
        if self.tokens - self.sent > 1:
            deltas[0] = deltas[0]._replace(tokens=self.tokens - self.sent)
        if len(deltas) > 1:
            deltas[1:] = [delta._replace(tokens=0) for delta in deltas[1:]]
        if self.logprobs:
            # They go with the first text; the deltas of tool calls carry no log-probabilities.
            texts = ((i, delta) for i, delta in enumerate(deltas) if isinstance(delta, TextDelta))
            for i, delta in islice(texts, 1):
                deltas[i] = delta._replace(logprobs=tuple(self.logprobs))
            self.logprobs = []
        self.sent = self.tokens

    def usage(self) -> dict[str, int]:
        """Return the token counts of the prompt and the answer, as `usage` reports them."""
        assert self.text is not None
        prompt_tokens = len(self.request.prompt)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": prompt_tokens + self.tokens,
            "cached_tokens": self.cached,
            "reasoning_tokens": self.text.reasoning_tokens,
        }

    def timing(self, now: float) -> GenerationTiming:
        """Return where the time went until `now`, by time.perf_counter."""
        decode_s = now - self.first_token
        return GenerationTiming(
            queue_ms=(self.admitted - self.submitted) * 1000,
            prefill_ms=(self.first_token - self.admitted) * 1000,
            first_token_ms=(self.first_token - self.submitted) * 1000,
            total_ms=(now - self.submitted) * 1000,
            tokens_per_second=(self.tokens - 1) / decode_s if decode_s > 0 else 0.0,
            broken_calls=() if self.text is None else tuple(self.text.broken),
        )


class Runs:
    """The runs that have not ended, by key, and their number for each client.

    Any thread adds and reads; only the MLX thread removes. Iteration uses a copy.
    """

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self._of_client: Counter[str] = Counter()
        self._lock = threading.Lock()  # guards the changes of both
        self.get = self._runs.get  # returns a run by its key, None if it has ended

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, key: int) -> bool:
        return key in self._runs

    def __getitem__(self, key: int) -> Run:
        return self._runs[key]

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs.values()))

    def add(self, run: Run) -> None:
        """Add a new run."""
        with self._lock:
            self._runs[run.key] = run
            self._of_client[run.client] += 1

    def remove(self, run: Run) -> None:
        """Remove a run that has ended."""
        with self._lock:
            if self._runs.pop(run.key, None) is None:
                return
            self._of_client[run.client] -= 1
            if not self._of_client[run.client]:
                del self._of_client[run.client]

    def of_client(self, client: str) -> int:
        """Return how many runs of a client there are."""
        return self._of_client[client]

    def count(self, *states: RunState) -> int:
        """Return how many runs are in one of these states."""
        return sum(run.state in states for run in self)
