"""Reads calls whose arguments are between tags, and shows them as JSON while they are written.

The model's parser determines each value; it is called with one argument at a time. Only a string is
shown before it has ended, without the characters that may be the beginning of its end tag.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from provider.formats.readers import Piece, as_json

__all__ = ["TaggedCalls", "Tags"]


class Tags(NamedTuple):
    """The tags of a format; the first group of the patterns is a name or a key."""

    header: re.Pattern[str]  # begins a call
    key: re.Pattern[str]  # precedes a value
    end: str  # ends a value
    close: re.Pattern[str] | None = None  # ends a call; None if the end of the text does
    closing: str = ""  # text that makes a whole call of a header and an argument
    several: bool = False  # whether another call may follow
    strips: bool = True  # whether the parser strips all white space around a value, or one newline


class TaggedCalls:
    """Reads one text of tagged calls; a Reader of provider.formats.readers."""

    whole = 0

    def __init__(self, tags: Tags, parser: Callable[..., Any], tools: Sequence[Mapping[str, Any]]):
        self._tags = tags
        self._parser = parser
        self._tools = list(tools)
        self._text = ""
        self._at = 0  # position up to which the text is parsed and strings are shown
        self._next: Literal["call", "argument", "value", "nothing"] = "call"
        self._header = ""
        self._strings: set[str] = set()  # keys of this call whose values are certainly strings
        self._shown: list[str] = []  # keys of this call that were shown
        self._key: re.Match[str] | None = None  # key of the current or the last value
        self._begun = False  # whether the current value has begun
        self._said = ""  # part of the current string that was shown

    def add(self, text: str) -> list[Piece]:
        """Take more text; return the pieces of calls that can now be shown."""
        self._text += text
        pieces: list[Piece] = []
        steps = {"call": self._call, "argument": self._argument, "value": self._value}
        while self._next in steps and steps[self._next](pieces):
            pass
        return [piece for piece in pieces if piece.name or piece.arguments]

    def rest(self, arguments: Mapping[str, Any]) -> str:
        """Return the JSON that is left to show of the open call, given its whole arguments."""
        if self._next != "argument" or not self._shown:
            return ""
        missing = {key: value for key, value in arguments.items() if key not in self._shown}
        return (
            "".join(f", {as_json(key)}: {as_json(value)}" for key, value in missing.items()) + "}"
        )

    def _call(self, pieces: list[Piece]) -> bool:
        found = self._tags.header.match(self._text, self._at)
        if found is None:
            return False
        self._header, self._at, self._shown = found[0], found.end(), []
        self._strings = _strings_of(found[1], self._tools)
        self._next = "argument"
        pieces.append(Piece(found[1], ""))
        return True

    def _argument(self, pieces: list[Piece]) -> bool:
        key = self._tags.key.match(self._text, self._at)
        if key is not None:
            self._key, self._at, self._next = key, key.end(), "value"
            self._begun, self._said = False, ""
            return True
        closed = self._tags.close and self._tags.close.match(self._text, self._at)
        if not closed:
            return False
        self._at = closed.end()
        self._next = "call" if self._tags.several else "nothing"
        pieces.append(Piece(None, "}" if self._shown else ""))
        return True

    def _value(self, pieces: list[Piece]) -> bool:
        assert self._key is not None
        key, end = self._key[1], self._text.find(self._tags.end, self._at)
        if end < 0:
            pieces.append(Piece(None, self._more(key) if key in self._strings else ""))
            return False
        self._at = end + len(self._tags.end)
        value = self._read(key, self._text[self._key.start() : self._at])
        self._next = "argument" if _goes_on(value, self._said) else "nothing"
        pieces.append(Piece(None, self._end(key, value) if self._next == "argument" else ""))
        return True

    def _more(self, key: str) -> str:
        """Return the part of an unfinished string that can be shown."""
        if not self._said:
            self._skip()
        text, end = self._text[self._at :], self._tags.end
        partial = next((n for n in range(len(end) - 1, 0, -1) if text.endswith(end[:n])), 0)
        sure = text[: len(text) - partial].rstrip()
        # Some parsers read the text null as None.
        if not sure or (not self._said and "null".startswith(sure.lower())):
            return ""
        opening = "" if self._said else f'{self._open(key)}"'
        self._at += len(sure)
        self._said += sure
        return f"{opening}{as_json(sure)[1:-1]}"

    def _skip(self) -> None:
        """Skip the white space that the parser strips before a string."""
        text = self._text[self._at :]
        if self._tags.strips:
            self._at += len(text) - len(text.lstrip())
        elif not self._begun:
            self._at += text.startswith("\n")
        self._begun = self._begun or bool(text)

    def _end(self, key: str, value: Any) -> str:
        """Return the part of an argument that was not shown yet."""
        if self._said:
            return as_json(value[len(self._said) :])[1:]
        return f"{self._open(key)}{as_json(value)}"

    def _open(self, key: str) -> str:
        before = ", " if self._shown else "{"
        self._shown.append(key)
        return f"{before}{as_json(key)}: "

    def _read(self, key: str, argument: str) -> Any:
        """Return the parser's value of one argument, NOTHING if it can't be read."""
        try:
            call = self._parser(f"{self._header}{argument}{self._tags.closing}", self._tools)
            return call["arguments"].get(key, NOTHING)
        except Exception:  # noqa: BLE001 - a parser may raise any exception for bad text
            return NOTHING


NOTHING = object()


def _goes_on(value: Any, said: str) -> bool:
    """Return whether the parser's value agrees with the part of it that was shown."""
    return value.startswith(said) if isinstance(value, str) else value is not NOTHING and not said


def _strings_of(name: str, tools: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the keys of a tool's arguments that every parser reads as strings."""
    functions = (tool.get("function", {}) for tool in tools)
    schemas = [f["parameters"].get("properties", {}) for f in functions if f.get("name") == name]
    return {key for fields in schemas for key, one in fields.items() if _is_string(one)}


def _is_string(schema: Any) -> bool:
    if not isinstance(schema, Mapping) or schema.get("type") != "string":
        return False
    return all(isinstance(word, str) for word in schema.get("enum", ()))
