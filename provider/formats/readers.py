"""Incremental readers of tool calls, which show parts of a call while a model writes it.

Only formats with the arguments as JSON can be shown in parts here; others are shown when complete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

__all__ = ["HeadedCalls", "JsonCall", "Piece", "Reader", "WholeText", "as_json", "is_name"]

JSON = json.JSONDecoder()
NOT_NUMBERS = ("NaN", "Infinity")  # as Python writes and reads them, and JSON does not


def is_name(value: Any) -> bool:
    """Return whether a value can be the name of a tool."""
    return isinstance(value, str) and bool(value)


def as_json(value: Any) -> str:
    """Return a parser's value as JSON; what JSON does not support becomes a string.

    That is any other object, and a number that is infinite or none.
    """
    text = json.dumps(value, ensure_ascii=False, default=str)
    if any(name in text for name in NOT_NUMBERS):  # perhaps only in a string
        text = json.dumps(json.loads(text, parse_constant=str), ensure_ascii=False)
    return text.encode(errors="replace").decode()  # UTF-8 can't encode a lone surrogate


class Piece(NamedTuple):
    """A part of a call; a piece with a `name` begins the next call."""

    name: str | None
    arguments: str  # part of the arguments' JSON
    id: str | None = None  # the model's own id


class Reader(Protocol):
    """Reads a text of tool calls; its first `whole` characters consist of complete calls."""

    whole: int

    def add(self, text: str) -> list[Piece]:
        """Take more text; return the pieces of calls that can now be shown."""

    def rest(self, arguments: Mapping[str, Any]) -> str:
        """Return the JSON that is left to show of the newest call, given its whole arguments."""


class WholeText:
    """A reader that shows no part of a call before the text is complete."""

    whole = 0

    def add(self, text: str) -> list[Piece]:
        """Return nothing."""
        return []

    def rest(self, arguments: Mapping[str, Any]) -> str:
        """Return nothing, because no part of the arguments was shown."""
        return ""


class _Arguments:
    """Finds the end of a JSON object in a growing text."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escaped = False

    def end_in(self, text: str, start: int) -> int | None:
        """Scan `text` from `start`; return the index after the object, None if it is incomplete."""
        for at in range(start, len(text)):
            char = text[at]
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == '"':
                    self._in_string = False
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return at + 1
        return None


class JsonCall(WholeText):
    """A reader of one call `{"name": …, "arguments": {…}}`, with its fields in any order."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0  # position up to which the text is parsed
        self._name: str | None = None
        self._began: int | None = None  # start of the arguments
        self._ended: int | None = None
        self._arguments = _Arguments()
        self._shown = 0  # position up to which the arguments are shown
        self._told = False  # whether the name was shown

    def add(self, text: str) -> list[Piece]:
        """Take more text; return the pieces of calls that can now be shown."""
        self._text += text
        while self._step():
            pass
        return self._pieces()

    def _step(self) -> bool:
        """Parse the next field; return whether it was complete."""
        if self._began is not None and self._ended is None:
            self._ended = self._arguments.end_in(self._text, self._at)
            self._at = len(self._text) if self._ended is None else self._ended
            return self._ended is not None
        key = (KEY if self._at else OPENING).match(self._text, self._at)
        if key is None:
            return False
        if key[1] == '"arguments"' and self._text[key.end()] == "{" and self._began is None:
            self._began = self._shown = self._at = key.end()
            return True
        return self._skip(key)

    def _skip(self, key: re.Match[str]) -> bool:
        """Skip a value, and keep it if it is the name; return whether it was complete."""
        try:
            value, end = JSON.raw_decode(self._text, key.end())
        except ValueError:
            return False
        if end == len(self._text) and self._text[-1] not in '"}]':  # a number may continue
            return False
        if key[1] == '"name"' and is_name(value) and self._name is None:
            self._name = value
        self._at = end
        return True

    def _pieces(self) -> list[Piece]:
        if self._name is None:
            return []
        named, self._told = None if self._told else self._name, True
        fragment = ""
        if self._began is not None:
            end = self._at if self._ended is None else self._ended
            fragment, self._shown = self._text[self._shown : end], end
        return [Piece(named, fragment)] if named or fragment else []


class HeadedCalls(WholeText):
    """A reader of one or more calls, each a header with a name and then a JSON object.

    The pattern of the header has a group `name`, and a group `id` if the model writes ids.
    """

    def __init__(self, header: re.Pattern[str]) -> None:
        self._header = header
        self._text = ""
        self._at = 0
        self._call: re.Match[str] | None = None  # call whose arguments have begun
        self._arguments = _Arguments()

    def add(self, text: str) -> list[Piece]:
        """Take more text; return the pieces of calls that can now be shown."""
        self._text += text
        pieces: list[Piece] = []
        while True:
            named: dict[str, Any] = {}
            if self._call is None:
                self._call = self._header.match(self._text, self._at)
                if self._call is None:
                    return pieces
                named = self._call.groupdict()
                self._at, self._arguments = self._call.end(), _Arguments()
            end = self._arguments.end_in(self._text, self._at)
            fragment = self._text[self._at : end]
            self._at += len(fragment)
            if fragment:
                pieces.append(Piece(named.get("name"), fragment, named.get("id")))
            if end is None:
                return pieces
            self._call, self.whole = None, end


STRING = r'"(?:[^"\\]|\\.)*"'
OPENING = re.compile(rf"\s*\{{\s*({STRING})\s*:\s*(?=\S)")
KEY = re.compile(rf"\s*,\s*({STRING})\s*:\s*(?=\S)")
