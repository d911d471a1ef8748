"""Counts the keys and values in a message before it is decoded, in pieces, and how deep they are.

Building and checking a value takes a few hundred nanoseconds, however few bytes it has: an empty
map is one byte of msgpack. Long texts and images, which make most large messages, are passed over
at the speed of memory.

Rule 1: what a decoder would build before it meets an error is counted, so a count that is small
bounds the work of decoding, for malformed messages as well.
Rule 2: a piece takes a few milliseconds at most; the caller may do other work between two pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

__all__ = ["in_data", "in_json", "in_msgpack", "too_deep"]

PIECE = 64 * 1024  # characters
ESCAPES = 50  # escapes in a JSON text take as long to decode as one value
# Digits of a number beyond the usual ones, a float's, of which so many take as long as one value.
USUAL, LONG = 20, 16
STEPS = 1024  # the most in a piece of msgpack; each takes a microsecond or two

# Values of one byte: small integers, heads of small maps and arrays, nil, booleans.
ONE_BYTE = re.compile(rb"[\x00-\x9f\xc0\xc2\xc3\xe0-\xff]+")
UNUSED = 0xC1
# By the first byte: the bytes of what follows it up to its content, and how many of these are the
# content's length.
HEADS: dict[int, tuple[int, int]] = {
    0xC4: (1, 1),  # binary
    0xC5: (2, 2),
    0xC6: (4, 4),
    0xC7: (2, 1),  # extension, with a byte for its type
    0xC8: (3, 2),
    0xC9: (5, 4),
    0xD9: (1, 1),  # text
    0xDA: (2, 2),
    0xDB: (4, 4),
    **dict.fromkeys((0xCA, 0xCE, 0xD2, 0xDD, 0xDF), (4, 0)),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), (8, 0)),
    **dict.fromkeys((0xCC, 0xD0), (1, 0)),
    **dict.fromkeys((0xCD, 0xD1, 0xDC, 0xDE), (2, 0)),
    **{0xD4 + power: (1 + 2**power, 0) for power in range(5)},  # extension of 1 to 16 bytes
    **{0xA0 + length: (length, 0) for length in range(32)},  # short text
}


def in_json(text: str, size: int = PIECE) -> Iterator[int]:
    """Yield how many keys and values a JSON text has up to the end of each piece of `size`.

    So many as ESCAPES escapes count as one value, and LONG digits where numbers are long.
    """
    count, escapes, digits, at, in_string = 1, 0, 0, 0, False
    while at < len(text):
        piece = text[at : at + size]
        if (len(piece) - len(piece.rstrip("\\"))) % 2:  # an escape is not cut in two
            piece = text[at : at + size + 1]
        at += len(piece)
        parts = piece.replace("\\\\", "").replace('\\"', "").split('"')
        outside = "".join(parts[in_string::2])
        in_string ^= len(parts) % 2 == 0
        count += sum(map(outside.count, ",:[{"))
        escapes += piece.count("\\")
        raw = outside.encode("ascii", "replace")
        digits += len(raw) - len(raw.translate(None, b"0123456789"))
        yield count + escapes // ESCAPES + max(0, digits - USUAL * count) // LONG


def in_msgpack(data: bytes) -> Iterator[int]:
    """Yield how many keys and values a msgpack message has up to the end of each piece."""
    count = at = 0
    while at < len(data) and data[at] != UNUSED:
        end = at + PIECE
        for _ in range(STEPS):
            run = ONE_BYTE.match(data, at, end)
            if run is not None:
                count += run.end() - at
                at = run.end()
            if at >= min(end, len(data)) or data[at] == UNUSED:
                break
            count += 1
            at = _end(data, at)
        yield count


def _end(data: bytes, at: int) -> int:
    """Return the index after the value that begins at `at`.

    Of a map or an array, that is the index after its head, before its content.
    """
    before, length_bytes = HEADS[data[at]]
    end = at + 1 + before
    return end + int.from_bytes(data[at + 1 : at + 1 + length_bytes], "big")


def in_data(value: Any) -> int:
    """Return how many keys and values decoded data has."""
    count, level = 0, [value]
    while level:
        count += len(level)
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                count += len(one)
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        level = inner
    return count


def too_deep(fields: dict[str, Any], most: int) -> str | None:
    """Return the first field of decoded data that is nested deeper than `most`."""
    for name, value in fields.items():
        level = [value] if isinstance(value, dict | list) else []
        depth = 1
        while level:
            if depth > most:
                return name
            inner = (one.values() if isinstance(one, dict) else one for one in level)
            level = [x for items in inner for x in items if isinstance(x, dict | list)]
            depth += 1
    return None
