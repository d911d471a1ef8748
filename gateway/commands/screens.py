"""Where an answer is shown while it streams: a terminal with Markdown, or plain text.

On a terminal the last block and a line of status are drawn anew as they change, below what is
printed for good. Keys are not echoed meanwhile, since they would break the drawing.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import time
from contextlib import suppress
from types import FrameType
from typing import Protocol, TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.segment import Segment
from rich.text import Text

from gateway.client.tool_loop import ToolResult
from gateway.commands.failure import ExitStatus
from gateway.commands.markdown import Rendered, closed_length, without_controls
from gateway.protocol.frames import ToolCall

__all__ = ["MarkdownScreen", "PlainScreen", "Screen", "restore_at_sigterm"]

DRAWN_EVERY_S = 0.06
SHOW_CURSOR = b"\r\n\x1b[?25h"
KEPT_FREE = 3  # rows of the terminal that the open block doesn't take


class Screen(Protocol):
    """What shows an answer."""

    def text(self, piece: str) -> None:
        """Show more of the answer."""

    def thinking(self, piece: str) -> None:
        """Show more of what the model thinks before it answers."""

    def call(self, part: ToolCall) -> None:
        """Show a part of a tool call."""

    def result(self, result: ToolResult) -> None:
        """Show what a tool has returned."""

    def status(self, said: str) -> None:
        """Show what is being done for the answer, if there is a place for it."""

    def end(self) -> None:
        """Show all that is left."""


class PlainScreen:
    """Writes the answer to standard output, and all else to `notes`."""

    def __init__(self, notes: Console):
        self._notes = notes
        self._line_open = False  # whether the last line on standard output is unfinished
        self._thinking = False  # whether the last line of `notes` is unfinished thinking

    def text(self, piece: str) -> None:
        """Write more of the answer."""
        self._end_thinking()
        sys.stdout.write(without_controls(piece) if sys.stdout.isatty() else piece)
        sys.stdout.flush()
        self._line_open = True

    def thinking(self, piece: str) -> None:
        """Write more of the thinking."""
        self._notes.print(without_controls(piece), style="dim italic", end="", markup=False)
        self._thinking = True

    def call(self, part: ToolCall) -> None:
        """Write a part of a tool call."""
        self._end_thinking()
        self._end_line()
        print_call(self._notes, part)

    def result(self, result: ToolResult) -> None:
        """Write what a tool has returned."""
        print_result(self._notes, result)

    def status(self, said: str) -> None:
        """Write nothing: lines can't be taken back."""

    def end(self) -> None:
        """End the last line."""
        self._end_thinking()
        self._line_open = True
        self._end_line()

    def _end_thinking(self) -> None:
        if self._thinking:
            self._notes.print()
        self._thinking = False

    def _end_line(self) -> None:
        if self._line_open:
            sys.stdout.write("\n")
            sys.stdout.flush()
        self._line_open = False


class MarkdownScreen:
    """Draws the answer as Markdown on a terminal, whose keys come from `typed`."""

    def __init__(self, console: Console, typed: TextIO):
        self._console = console
        self._keys = _Keys(typed)
        self._live: Live | None = None
        self._text = ""  # of the last block of the answer
        self._thoughts = ""  # of the last line of thinking
        self._status = ""
        self._printed = False  # whether a block is above this one
        self._drawn = 0.0
        self._paused = False  # while somebody else writes to the terminal

    def text(self, piece: str) -> None:
        """Add to the answer."""
        self._paused = False
        self._end_thinking()
        self._text += without_controls(piece)
        if "\n" in piece and (length := closed_length(self._text)):
            closed, self._text = self._text[:length], self._text[length:]
            self._print_block(closed)
        self._draw()

    def thinking(self, piece: str) -> None:
        """Add to the thinking."""
        self._paused = False
        self._thoughts += without_controls(piece)
        lines, newline, rest = self._thoughts.rpartition("\n")
        if newline:
            self._thoughts = rest
            self._print(Text(lines, style="dim italic"))
        self._draw()

    def call(self, part: ToolCall) -> None:
        """Print a part of a tool call; while a tool works, the terminal is the tool's."""
        self._end_thinking()
        self._end_text()
        self._stop()
        print_call(self._console, part)
        self._paused, self._printed = True, True

    def result(self, result: ToolResult) -> None:
        """Print what a tool has returned."""
        print_result(self._console, result)
        self._paused = False

    def status(self, said: str) -> None:
        """Draw what is being done for the answer."""
        self._status = said
        if not self._paused:
            self._draw(at_once=True)

    def end(self) -> None:
        """Print what is left, and give the terminal back."""
        self._paused = True
        self._end_thinking()
        self._end_text()
        self._stop()

    def _end_thinking(self) -> None:
        if self._thoughts:
            thoughts, self._thoughts = self._thoughts, ""
            self._print(Text(thoughts, style="dim italic"))
            self._printed = True

    def _end_text(self) -> None:
        text, self._text = self._text, ""
        self._print_block(text)

    def _print_block(self, text: str) -> None:
        if text.strip():
            if self._printed:
                self._print("")
            self._print(Rendered(text))
            self._printed = True

    def _print(self, what: RenderableType) -> None:
        if self._live is not None:
            self._live.update(self._shown(), refresh=True)  # or the block would be there twice
        self._console.print(what)

    def _draw(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._drawn < DRAWN_EVERY_S:
            return
        self._drawn = now
        if self._live is None:
            self._keys.mute()
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        blocks: list[RenderableType] = []
        if self._thoughts:
            blocks.append(Text(self._thoughts, style="dim italic"))
        if self._text.strip():
            blocks += [""] * self._printed
            blocks.append(Rendered(self._text))
        self._live.update(self._shown(*blocks), refresh=True)

    def _shown(self, *blocks: RenderableType) -> RenderableType:
        status = Text(self._status, style="dim", no_wrap=True, overflow="ellipsis")
        return Group(_Tail(Group(*blocks)), status)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.update(Text(""))
            self._live.stop()
            self._live = None
            self._keys.unmute()


class _Tail:
    """The last rows of what may be taller than the terminal."""

    def __init__(self, whole: RenderableType):
        self._whole = whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._whole, options.update(height=None), pad=False)
        for line in lines[-max(1, console.height - KEPT_FREE) :]:
            yield from line
            yield Segment.line()


class _Keys:
    """The keys of a terminal, which are echoed or not."""

    def __init__(self, typed: TextIO):
        self._typed = typed
        self._before: list[int | list[bytes | int]] | None = None

    def mute(self) -> None:
        """Echo no keys, if the input is a terminal."""
        with suppress(termios.error, OSError, ValueError):
            self._before = termios.tcgetattr(self._typed)
            silent = [*self._before]
            assert isinstance(silent[3], int), "the flags of a terminal"
            silent[3] &= ~termios.ECHO
            termios.tcsetattr(self._typed, termios.TCSANOW, silent)

    def unmute(self) -> None:
        """Echo keys as before."""
        if self._before is not None:
            with suppress(termios.error, OSError, ValueError):
                termios.tcsetattr(self._typed, termios.TCSANOW, self._before)
            self._before = None


def restore_at_sigterm(typed: TextIO) -> None:
    """Have SIGTERM end the program with its terminal as it is now: echo, and a cursor."""
    try:
        before = termios.tcgetattr(typed)
    except (termios.error, OSError, ValueError):
        before = None

    def end(number: int, frame: FrameType | None) -> None:
        if before is not None:
            termios.tcsetattr(typed, termios.TCSANOW, before)
            os.write(2, SHOW_CURSOR)
        os._exit(ExitStatus.TERMINATED)

    with suppress(ValueError):  # only the main thread may
        signal.signal(signal.SIGTERM, end)


def print_call(console: Console, part: ToolCall) -> None:
    """Print a part of a tool call, or why it can't be read."""
    if part.name:
        console.print(f"[bold cyan]{escape(without_controls(part.name))}[/] ", end="")
    console.print(without_controls(part.arguments or ""), end="", markup=False, soft_wrap=True)
    if part.complete:
        console.print()
    if part.error:
        said = "cut off" if part.error == "cut_off" else "malformed tool call"
        text = without_controls(part.text or "")
        console.print(f"  {said}: {text}", style="red", markup=False)


def print_result(console: Console, result: ToolResult) -> None:
    """Print what a tool has returned."""
    console.print(f"  → {without_controls(result.content)}", style="dim", markup=False)
