"""One answer, from its run to the screen, with what it is at and what it took."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Protocol

from rich.console import Console

from gateway.client.run import Run
from gateway.client.tool_loop import ToolResult, ToolRun
from gateway.commands.conversation import Completion
from gateway.commands.screens import Screen
from gateway.commands.speed import rate
from gateway.protocol.frames import Chunk, Done, ToolCall
from provider.wording import counted

__all__ = ["Answer", "Tellable", "footer", "stage"]

TOLD_EVERY_S = 0.1
QUEUED_MS = 50  # a shorter wait is not worth a word


class Tellable(Protocol):
    """What a run tells of its progress."""

    run: Run | None
    stopped: bool


class Answer:
    """Shows one answer; with `notes`, a line below says what it took."""

    def __init__(self, run: ToolRun | Completion, screen: Screen, notes: Console | None = None):
        self.run = run
        self._screen = screen
        self._notes = notes
        self._stopping: asyncio.Task[None] | None = None
        self._pieces = 0  # of the newest run, each a token or a little more
        self._first_at = 0.0

    async def show(self) -> None:
        """Show the answer while it streams, up to where `stop` ended it. Raises GatewayError."""
        telling = asyncio.ensure_future(self._tell())
        try:
            async for frame in self.run:
                self._show(frame)
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling
            self._screen.end()
        last = self.run.run
        if last is not None and last.done is not None and self._notes is not None:
            said = footer(last.done, stopped=self.run.stopped)
            self._notes.print(f"[dim]{said}[/]\n", soft_wrap=False)

    def stop(self) -> None:
        """Cancel the answer; to be called on the loop's thread."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self.run.cancel())

    def _show(self, frame: Chunk | ToolCall | ToolResult) -> None:
        match frame:
            case Chunk():
                self._pieces += 1
                self._first_at = self._first_at or time.monotonic()
                if frame.channel == "reasoning":
                    self._screen.thinking(frame.text)
                else:
                    self._screen.text(frame.text)
            case ToolCall():
                self._screen.call(frame)
            case ToolResult():
                self._pieces, self._first_at = 0, 0.0
                self._screen.result(frame)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TOLD_EVERY_S)
            seconds = time.monotonic() - self._first_at if self._first_at else 0.0
            self._screen.status(stage(self.run, self._pieces, seconds))


def stage(told: Tellable, pieces: int, seconds: float) -> str:
    """Return what an answer is at, in a line: `pieces` have come, the first `seconds` ago."""
    if told.stopped:
        return "stopping"
    if pieces:
        later = pieces - 1  # than the first, at which the time begins
        lasted = later and seconds > 2 * TOLD_EVERY_S
        speed = f" · about {rate(later / seconds)}" if lasted else ""
        return f"{counted(pieces, 'token')}{speed} · Ctrl-C stops"
    return f"{_before_the_first(told.run)} · Ctrl-C stops"


def _before_the_first(run: Run | None) -> str:
    if run is None or run.over:
        return "waiting"
    if run.started is not None:
        total, cached = run.started.prompt_tokens, run.started.cached_tokens
        done = run.progress.done if run.progress is not None else cached
        return f"reading the prompt: {done:,} of {counted(total, 'token')}{_of_which(cached)}"
    if run.loading is not None:
        one = run.loading
        part = f", {100 * one.done // one.total} %" if one.total else ""
        return f"{'warming up' if one.warming_up else 'loading'} {one.model}{part}"
    if run.queued is not None:
        return f"in the queue: {run.queued.position - 1} before this one"
    return "waiting"


def footer(done: Done, *, stopped: bool) -> str:
    """Return what an answer took, and who stopped it."""
    usage, timing = done.usage, done.timing
    parts = [counted(usage.completion_tokens, "token")]
    if timing.tokens_per_second:
        parts.append(rate(timing.tokens_per_second))
    if timing.first_token:
        parts.append(f"first token after {timing.first_token:.0f} ms")
    if timing.queue >= QUEUED_MS:
        parts.append(f"{timing.queue / 1000:.1f} s in the queue")
    if usage.prompt_tokens:
        parts.append(f"prompt {usage.prompt_tokens:,}{_of_which(usage.cached_tokens)}")
    if stopped and done.finish_reason in {"cancelled", "tool_calls"}:
        parts.append("stopped by you")
    elif done.finish_reason == "cancelled":
        parts.append("stopped by the gateway")
    elif done.finish_reason == "length":
        parts.append("cut off at its length limit")
    return " · ".join(parts)


def _of_which(cached: int) -> str:
    return f" ({cached:,} cached)" if cached else ""
