"""Reads what the user says next: one line, or several that were pasted together.

Ctrl-C clears the line. On an empty one it says how to end the chat, and the second one ends it.
"""

from __future__ import annotations

import fcntl
import select
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TextIO

from rich.console import Console

__all__ = ["Prompt"]

PROMPT = "you > "
ENDING = "[dim]Ctrl-C again ends the chat; `/save FILE` keeps it[/]"
PASTED_S = 0.03  # within which the next line of a paste is there
BINDINGS = (
    "set enable-bracketed-paste on",
    r'"\e\C-m": "\C-v\C-j"',  # Alt-Enter
    "tab: complete",
)


class Prompt:
    """The user's lines: edited and with a history where `typed` is the terminal of the program."""

    def __init__(self, typed: TextIO, notes: Console, words: Sequence[str] = ()):
        self._typed = typed
        self._notes = notes
        self._words = words  # completed by Tab at the start of a line
        self._interactive = typed.isatty()
        self._editor = _editor() if self._interactive and self._is_own() else None
        if self._editor is not None:
            self._set_up(self._editor)

    def read(self) -> str | None:
        """Return what the user says next, None at the end of the input."""
        if not self._interactive:
            return _line_of(self._typed.readline())
        asked_to_end = False
        while True:
            try:
                return self._read()
            except EOFError:
                self._notes.print()
                return None
            except KeyboardInterrupt:
                self._notes.print()
                if self._line():
                    asked_to_end = False
                    continue
                if asked_to_end:
                    return None
                self._notes.print(ENDING)
                asked_to_end = True

    def _read(self) -> str:
        if self._is_own():
            return self._edited()
        line = _line_of(self._notes.input(f"[bold cyan]{PROMPT}[/]", stream=self._typed))
        if line is None:
            raise EOFError
        return line

    def _is_own(self) -> bool:
        return self._typed is sys.stdin and sys.stdout.isatty()

    def _line(self) -> str:
        """Return what was on the line that Ctrl-C has ended."""
        return self._editor.get_line_buffer() if self._editor is not None else ""

    def _set_up(self, editor: Any) -> None:
        editor.set_completer(self._completed)
        editor.set_completer_delims(" ")
        for binding in BINDINGS:
            editor.parse_and_bind(binding)

    def _completed(self, begun: str, number: int) -> str | None:
        found = [word for word in self._words if begun and word.startswith(begun)]
        return f"{found[number]} " if number < len(found) else None

    def _edited(self) -> str:
        """Read a line with editing, which needs the prompt's width; a paste is one line."""
        if _has_ended():
            raise EOFError
        colour = self._notes.color_system is not None and not self._notes.no_color
        line = input(f"\x01\x1b[1;36m\x02{PROMPT}\x01\x1b[0m\x02" if colour else PROMPT)
        if self._editor is None or _is_libedit(self._editor):  # it knows no pastes
            while select.select([sys.stdin], [], [], PASTED_S)[0] and not _has_ended():
                line += f"\n{input()}"
        return line


def _line_of(read: str) -> str | None:
    """Return what `readline` gave without its line end, None at the end of the input."""
    return read.rstrip("\n") if read else None


def _editor() -> Any:
    """Return the module that edits lines in `input`, None if there is none."""
    with suppress(ImportError):
        import readline  # noqa: PLC0415 - changes `input` for the whole process

        return readline
    return None


def _is_libedit(editor: Any) -> bool:
    return "libedit" in (editor.__doc__ or "")


def _has_ended() -> bool:
    """Return whether Ctrl-D was typed before the prompt; readline would miss it."""
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(ready) and not any(fcntl.ioctl(sys.stdin, termios.FIONREAD, bytes(4)))
