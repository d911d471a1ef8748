"""A generation on the client's side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Protocol, Self

import msgspec

from gateway.client.errors import GatewayError, error_of
from gateway.protocol.frames import (
    Chunk,
    Done,
    Error,
    Generate,
    Loading,
    Progress,
    Queued,
    Resume,
    ServerFrame,
    Started,
    ToolCall,
)

__all__ = ["Run", "Sender"]


class Sender(Protocol):
    """The methods that a run calls on the client whose connection it uses."""

    async def start(self, run: Run) -> None:
        """Send the generation's frame, once."""

    async def acknowledge(self, run: Run, frame: ServerFrame) -> None:
        """Note that the run's frames up to this one were read."""

    async def cancel(self, run: Run) -> None:
        """Cancel the generation."""

    async def leave(self, run: Run) -> None:
        """Cancel the generation if it still runs, and wait for its end."""


class Run:
    """One generation: an async iterator of its chunks, and a context manager. Made by `generate`.

    `text`, `reasoning` and `calls` (by index, with parts joined) are what was received so far;
    `loading`, `queued` and `progress` are the newest frames of their kinds; `done` is the last
    frame. `frames` iterates over parts of tool calls too. If several answers were requested (`n`),
    all of this is about the first one; `others` has the texts of the others, by `choice`, and
    `done.choices` says how each has ended.
    """

    def __init__(self, client: Sender, frame: Generate | Resume):
        after, ticket = (frame.after, frame.ticket) if isinstance(frame, Resume) else (-1, None)
        self.id = frame.id
        self.frame = frame
        self.text = ""
        self.reasoning = ""
        self.others: dict[int, str] = {}
        self.loading: Loading | None = None
        self.queued: Queued | None = None
        self.started: Started | None = None
        self.progress: Progress | None = None
        self.calls: dict[int, ToolCall] = {}
        self.done: Done | None = None
        self.last = after  # the highest `seq` received
        self.read = after  # the highest `seq` taken by the reader
        self.over = False
        self._client = client
        self.ticket: str | None = ticket  # set by `started` too
        self.window = frame.window
        self.acknowledged = after  # the highest `seq` acknowledged
        self.rewound = False  # whether received frames were asked for again, and none has come yet
        self.started_here = False  # whether its `generate` was sent, or is being sent
        self._frames: asyncio.Queue[ServerFrame | GatewayError] = asyncio.Queue()

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The complete tool calls, which the caller has to answer."""
        return [call for call in self.calls.values() if call.complete and call.error is None]

    @property
    def broken_calls(self) -> list[ToolCall]:
        """The tool calls that were cut off, or that the gateway could not read."""
        return [call for call in self.calls.values() if call.error is not None]

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Iterate over the chunks; leaving the loop cancels. Raises GatewayError."""
        async with aclosing(self.frames()) as frames:
            async for frame in frames:
                if isinstance(frame, Chunk):
                    yield frame

    async def __aenter__(self) -> Self:
        """Start. Raises ConnectionLostError."""
        await self._client.start(self)
        return self

    async def __aexit__(self, *details: object) -> None:
        """Cancel it if it still runs, and wait for its end while there is a connection."""
        await self._client.leave(self)

    async def result(self) -> Done:
        """Wait for the end. Raises GatewayError."""
        async for _ in self:
            pass
        assert self.done is not None
        return self.done

    async def cancel(self) -> None:
        """Ask the gateway to stop; the iteration ends with its `done`."""
        await self._client.cancel(self)

    async def frames(self) -> AsyncGenerator[Chunk | ToolCall, None]:
        """Iterate over chunks and parts of tool calls; leaving cancels.

        Raises GatewayError, again each time that a generation which has failed is read.
        """
        await self._client.start(self)
        try:
            while self.done is None:
                frame = await self._frames.get()
                if isinstance(frame, Done | GatewayError):
                    self._frames.put_nowait(frame)  # for whoever else reads, now or later
                if isinstance(frame, GatewayError):
                    raise frame
                if self.done is not None:  # another reader has taken the end meanwhile
                    break
                if isinstance(frame, Chunk | ToolCall):
                    yield frame
                self._use(frame)
                await self._client.acknowledge(self, frame)
        finally:
            if not self.over:
                await self._client.cancel(self)

    def _use(self, frame: ServerFrame) -> None:
        match frame:
            case Started():
                self.started = frame
            case Done():
                self.done = frame
                self._add_whole_calls(frame)
                for choice, one in enumerate(frame.choices or ()):
                    if choice and "text" in one:
                        self.others[choice] = one["text"]
                self.text, self.reasoning = (
                    frame.text or self.text,
                    frame.reasoning or self.reasoning,
                )

    def _add_whole_calls(self, done: Done) -> None:
        """Add the tool calls of an answer that was not streamed."""
        for call in [*(done.tool_calls or ()), *(done.broken_calls or ())]:
            index, arguments = len(self.calls), call.get("arguments")
            self.calls[index] = ToolCall(
                id=self.id,
                seq=done.seq,
                index=index,
                call_id=str(call.get("id")),
                name=call.get("name"),
                arguments=None if arguments is None else msgspec.json.encode(arguments).decode(),
                complete=True,
                error=call.get("error"),
                text=call.get("text"),
            )

    def receive(self, frame: ServerFrame) -> None:
        """Process a received frame of this generation; ignore one that was received before."""
        seq = getattr(frame, "seq", None)
        if self.over or (seq is not None and seq <= self.last):
            return
        if seq is None and self._note(frame):
            return
        self.last = self.last if seq is None else seq
        self.over = isinstance(frame, Done | Error)
        if isinstance(frame, Started):
            self.ticket = self.ticket or frame.ticket
        if isinstance(frame, Chunk):
            if frame.channel is None and frame.choice == 0:
                self.text += frame.text
            elif frame.channel is None:
                self.others[frame.choice] = self.others.get(frame.choice, "") + frame.text
            elif frame.choice == 0:
                self.reasoning += frame.text
        if isinstance(frame, ToolCall) and frame.choice == 0:
            self.calls[frame.index] = _joined(self.calls.get(frame.index), frame)
        if isinstance(frame, Error):
            self._frames.put_nowait(error_of(frame))
        else:
            self._frames.put_nowait(frame)

    def _note(self, frame: ServerFrame) -> bool:
        """Keep the newest of a kind of frame that no window bounds; return whether it is one."""
        match frame:
            case Queued():
                self.queued = frame
            case Loading():
                self.loading = frame
            case Progress():
                self.progress = frame
            case _:
                return False
        return True

    def fail(self, error: GatewayError) -> None:
        """End the generation with an error that the client raises, not the gateway."""
        if not self.over:
            self.over = True
            self._frames.put_nowait(error)


def _joined(before: ToolCall | None, part: ToolCall) -> ToolCall:
    """Return a tool call with one more part joined to it."""
    if before is None:
        return part
    arguments = f"{before.arguments or ''}{part.arguments or ''}" or None
    return msgspec.structs.replace(part, name=before.name or part.name, arguments=arguments)
