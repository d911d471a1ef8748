"""Bounds the JSON inside of messages before it is parsed.

A parser of JSON builds a value without giving other threads a turn, and an empty list takes two
characters of text, but a hundred bytes of memory.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["JsonRoom"]

# Of one text:
MAX_VALUES = 65_536  # keys and values, which are built in some 5 ms
MAX_CHARACTERS = 2 * 1024 * 1024  # which are parsed in some 7 ms if all are escapes
# Of the texts of a conversation; some 30 MB when they are built.
MAX_VALUES_TOGETHER = 4 * MAX_VALUES
# Digits of a number beyond the usual ones, of which so many take as long as one value.
USUAL, LONG = 20, 16
PIECE = 64 * 1024  # characters that are counted without a turn of others, in a millisecond


@dataclass
class JsonRoom:
    """How many keys and values JSON may have from here on, in several texts together."""

    values: int = MAX_VALUES_TOGETHER

    def take(self, text: str) -> bool:
        """Count a text that is about to be parsed; return False if it is too much to be."""
        if len(text) > MAX_CHARACTERS:
            return False
        count = _values_in(text)
        self.values -= count
        return count <= MAX_VALUES and self.values >= 0


def _values_in(text: str) -> int:
    """Return how many keys and values a JSON text has; LONG digits of long numbers are one."""
    count, digits, at, inside = 1, 0, 0, False  # of a string
    while at < len(text):
        piece = text[at : at + PIECE]
        at += len(piece)
        if (len(piece) - len(piece.rstrip("\\"))) % 2:  # so that no escape is cut
            piece += text[at : at + 1]
            at += 1
        parts = piece.replace("\\\\", "").replace('\\"', "").split('"')
        outside = "".join(parts[inside::2]).encode("ascii", "replace")
        count += sum(map(outside.count, (b",", b":", b"[", b"{")))
        digits += len(outside) - len(outside.translate(None, b"0123456789"))
        inside ^= len(parts) % 2 == 0
    return count + max(0, digits - USUAL * count) // LONG
