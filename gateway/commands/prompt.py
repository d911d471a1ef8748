"""Reads what the user says next: one line, or several that were pasted together.

Ctrl-C clears the line. On an empty one it says how to end the chat, and the second one ends it.
"""

from __future__ import annotations

import fcntl
import select
import sys
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TextIO

from rich.console import Console

__all__ = ["Prompt", "bindings", "whole"]

PROMPT = "you >"
ENDING = "[dim]Ctrl-C again ends the chat; `/save FILE` keeps it[/]"
PASTED_S = 0.03  # within which the next line of a paste is there
CONTINUED = "⏎"  # ends a line that goes on: libedit, as Python calls it, has no line ends in a line
OF_READLINE = (
    "set enable-bracketed-paste on",
    r'"\e\C-m": "\C-v\C-j"',  # Alt-Enter
    "tab: complete",
)
OF_LIBEDIT = (
    f"bind -s ^[^J {CONTINUED}^J",  # Alt-Enter, on terminals that make one character of it
    f"bind -s ^[^M {CONTINUED}^J",
    "bind ^I rl_complete",
)


class Prompt:
    """The user's lines: edited and with a history where `typed` is the terminal of the program."""

    def __init__(self, typed: TextIO, notes: Console, words: Sequence[str] = ()):
        self._typed = typed
        self._notes = notes
        self._words = words  # completed by Tab at the start of a line
        self._interactive = typed.isatty()
        self._editor = _editor() if self._interactive and self._is_own() else None
        self._left = ""  # what the editor holds of a line before
        if self._editor is not None:
            self._set_up(self._editor)

    def read(self) -> str | None:
        """Return what the user says next, None at the end of the input."""
        if not self._interactive:
            return _line_of(self._typed.readline())
        asked_to_end = False
        while True:
            try:
                self._left = left_by(self._editor)
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
        line = _line_of(self._notes.input(f"[bold cyan]{PROMPT}[/] ", stream=self._typed))
        if line is None:
            raise EOFError
        return line

    def _is_own(self) -> bool:
        return self._typed is sys.stdin and sys.stdout.isatty()

    def _line(self) -> str:
        """Return what was on the line that Ctrl-C has ended."""
        line: str = self._editor.get_line_buffer() if self._editor is not None else ""
        return line if line != self._left else ""

    def _set_up(self, editor: Any) -> None:
        editor.set_completer(self._completed)
        editor.set_completer_delims(" ")
        for binding in bindings(editor):
            editor.parse_and_bind(binding)

    def _completed(self, begun: str, number: int) -> str | None:
        found = [word for word in self._words if begun and word.startswith(begun)]
        return f"{found[number]} " if number < len(found) else None

    def _edited(self) -> str:
        """Read a line with editing, which needs the prompt's width; a paste is one line."""
        if _has_ended():
            raise EOFError
        colour = self._notes.color_system is not None and not self._notes.no_color
        # The blank is last, because libedit leaves out the codes at the end of a prompt.
        line = input(f"\x01\x1b[1;36m\x02{PROMPT}\x01\x1b[0m\x02 " if colour else f"{PROMPT} ")
        if self._editor is None or _is_libedit(self._editor):  # it knows no pastes
            return whole(line, input, _is_pasted)
        return line


def bindings(editor: Any) -> Sequence[str]:
    """Return how the keys are bound in the language of an editor, the module `readline`."""
    return OF_LIBEDIT if _is_libedit(editor) else OF_READLINE


def left_by(editor: Any) -> str:
    """Return what libedit still holds of a line before, until a key is pressed; others nothing."""
    return str(editor.get_line_buffer()) if _is_libedit(editor) else ""


def whole(line: str, read: Callable[[], str], more: Callable[[], bool]) -> str:
    """Return a line and those that belong to it: it is continued, or `more` says that one comes."""
    lines = [line]
    while (continued := lines[-1].endswith(CONTINUED)) or more():
        if continued:
            lines[-1] = lines[-1].removesuffix(CONTINUED)
        lines.append(read())
    return "\n".join(lines)


def _is_pasted() -> bool:
    """Return whether another line is there so soon that it was pasted."""
    return bool(select.select([sys.stdin], [], [], PASTED_S)[0]) and not _has_ended()


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
