"""One generation on its way between a caller and the engine.

The caller's side submits a `RunRequest` and reads events from its inbox; the engine's side posts
them. Only these typed messages cross between the threads.
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from provider.grammar import Held
from provider.interface import (
    GenerationStarted,
    GenerationTiming,
    PrefillProgress,
    QueuePosition,
    ToolCallDelta,
)
from provider.options import GenerationOptions

__all__ = [
    "AsyncInbox",
    "Branch",
    "CallDelta",
    "Delta",
    "Fork",
    "Inbox",
    "RunEvent",
    "RunFailed",
    "RunFinished",
    "RunRequest",
    "SyncInbox",
    "TextDelta",
]


@dataclass(eq=False)
class Fork:
    """What the runs of one prompt share: the first reads it, the others begin where it has ended.

    The MLX thread's own, once it was submitted.
    """

    caches: list[Any] | None = None  # of the prompt without its last tokens, for the others
    length: int = 0  # tokens in them
    leader: int | None = None  # the key of the run that reads
    ready: bool = False  # the others may begin
    others: int = 0  # that have not begun


@dataclass(frozen=True)
class RunRequest:
    """What the engine needs to know of one generation.

    `boundaries` are lengths of beginnings of the prompt that other prompts are likely to share;
    only models whose caches can't be cut back need them.
    """

    prompt: Sequence[int]
    options: GenerationOptions
    tools: Sequence[dict[str, Any]] = ()
    boundaries: Sequence[int] = ()
    form: Held | None = None  # what the answer is held to
    state: str | None = None  # that its text begins in, if that is not the answer
    fork: Fork | None = None  # shared with other answers to the same prompt
    look: Any = None  # a Look, where the prompt has images
    kind: str = ""  # of these images; prompts of another kind share nothing

    @property
    def most_tokens(self) -> int:
        """How long the prompt and the answer together may become."""
        return len(self.prompt) + self.options.max_tokens


class TextDelta(NamedTuple):  # made faster than a dataclass, and there is one a token
    """Text that one step made known, of one channel."""

    text: str
    reasoning: bool = False
    tokens: int = 1  # that it took since the delta before; 0 for the second of one step
    logprobs: tuple[dict[str, Any], ...] = ()  # of those tokens, if they were asked for


class CallDelta(NamedTuple):
    """Part of a tool call that one step made known."""

    call: ToolCallDelta
    tokens: int = 1  # as a TextDelta's


@dataclass(frozen=True)
class RunFinished:
    """The end of a run that was neither cancelled nor failed."""

    finish_reason: str  # "stop", "length" or "tool_calls"
    usage: dict[str, int]
    timing: GenerationTiming
    tool_calls: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class RunFailed:
    """The end of a run by an error, which its reader raises."""

    error: Exception


Delta = TextDelta | CallDelta
RunEvent = QueuePosition | GenerationStarted | PrefillProgress | Delta | RunFinished | RunFailed


class Inbox(Protocol):
    """Where the engine leaves a run's events; `loop` is None for a reader that is a thread.

    `taken` counts the tokens whose text the reader has got; the engine sets `parked` while the run
    waits for the reader to catch up.
    """

    loop: asyncio.AbstractEventLoop | None
    taken: int
    parked: bool

    def put(self, events: Sequence[RunEvent]) -> None:
        """Append events, in order; on the loop's thread if there is a loop."""


class AsyncInbox:
    """Events for a reader on an event loop."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        self.taken = 0
        self.parked = False
        self._events: deque[RunEvent] = deque()
        self._waiting: asyncio.Future[None] | None = None  # of the one reader

    def put(self, events: Sequence[RunEvent]) -> None:
        """Append events and wake the reader."""
        self._events.extend(events)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def get(self) -> RunEvent:
        """Wait for the next event; cancelling loses none. For one reader."""
        while not self._events:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        event = self._events.popleft()
        if isinstance(event, TextDelta | CallDelta):
            self.taken += event.tokens
        return event


class SyncInbox:
    """Events for a reader that blocks its thread."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.taken = 0
        self.parked = False
        self._events: queue.SimpleQueue[RunEvent] = queue.SimpleQueue()

    def put(self, events: Sequence[RunEvent]) -> None:
        """Append events and wake the reader."""
        for event in events:
            self._events.put(event)

    def get(self) -> RunEvent:
        """Wait for the next event."""
        event = self._events.get()
        if isinstance(event, TextDelta | CallDelta):
            self.taken += event.tokens
        return event


class Branch:
    """The inbox of one of several runs that one reader reads, by their common inbox `all_of_them`.

    Its events come there as pairs of the branch and the event; the reader counts what it takes.
    """

    def __init__(self, index: int, all_of_them: AsyncInbox | SyncInbox):
        self.index = index
        self.loop = all_of_them.loop
        self.taken = 0
        self.parked = False
        self._put: Callable[[Any], None] = all_of_them.put

    def put(self, events: Sequence[RunEvent]) -> None:
        """Append events to those of all."""
        self._put([(self, event) for event in events])

    def take(self, event: RunEvent) -> None:
        """Note that the reader has got an event."""
        if isinstance(event, TextDelta | CallDelta):
            self.taken += event.tokens
