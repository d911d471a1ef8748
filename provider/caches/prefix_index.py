"""Sequences of tokens, found by what they begin with.

They are kept sorted: what shares most with a sequence is beside the place where that would be. So
finding it takes a number of comparisons that grows with the logarithm of how many there are.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

__all__ = ["WIDTH", "PrefixIndex", "pack", "shared"]

WIDTH = array("I").itemsize  # bytes of a token

Item = TypeVar("Item")


def pack(tokens: Sequence[int]) -> bytes:
    """Return tokens as 32-bit numbers."""
    return array("I", tokens).tobytes()


def shared(one: bytes, other: bytes) -> int:
    """Return how many tokens two packed sequences begin with in common."""
    low, high = 0, min(len(one), len(other)) // WIDTH
    while low < high:  # comparing bytes is so fast that halving beats going token by token
        middle = (low + high + 1) // 2
        if one[low * WIDTH : middle * WIDTH] == other[low * WIDTH : middle * WIDTH]:
            low = middle
        else:
            high = middle - 1
    return low


class _Sorted(Generic[Item]):
    """Packed sequences in their order as bytes, each once, with an item."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.items: dict[bytes, Item] = {}

    def add(self, tokens: bytes, item: Item) -> None:
        if tokens not in self.items:
            insort(self.keys, tokens)
        self.items[tokens] = item

    def remove(self, tokens: bytes) -> None:
        if self.items.pop(tokens, None) is not None:
            del self.keys[bisect_left(self.keys, tokens)]

    def nearest(self, tokens: bytes) -> tuple[int, bytes]:
        """Return the sequence that shares most with `tokens`, behind how many tokens that are."""
        at = bisect_left(self.keys, tokens)
        beside = self.keys[max(0, at - 1) : at + 1]
        return max(((shared(key, tokens), key) for key in beside), default=(0, b""))

    def beginnings(self, tokens: bytes) -> Iterator[bytes]:
        """Yield the sequences that `tokens` begins with, the longest first."""
        end = len(tokens)
        while at := bisect_right(self.keys, tokens[:end]):
            key = self.keys[at - 1]  # the beginnings left are its beginnings too
            alike = shared(key, tokens[:end]) * WIDTH
            if alike == len(key):
                yield key
            if not alike:
                return
            end = alike if alike < len(key) else alike - WIDTH


class PrefixIndex(Generic[Item]):
    """Items by packed sequences of tokens.

    One that is `trimmable` stands for each of its beginnings too; any other is used whole or not at
    all.
    """

    def __init__(self) -> None:
        self._trimmable: _Sorted[Item] = _Sorted()
        self._whole: _Sorted[Item] = _Sorted()

    def __len__(self) -> int:
        return len(self._trimmable.keys) + len(self._whole.keys)

    def add(self, tokens: bytes, item: Item, *, trimmable: bool) -> None:
        """Put an item in, in place of one of the same tokens and sort."""
        (self._trimmable if trimmable else self._whole).add(tokens, item)

    def remove(self, tokens: bytes, *, trimmable: bool) -> None:
        """Take an item out, if there is one."""
        (self._trimmable if trimmable else self._whole).remove(tokens)

    def longest(self, tokens: bytes) -> tuple[int, Item] | None:
        """Return how many tokens of the beginning an item gives at most, and that item."""
        length, key = self._trimmable.nearest(tokens)
        found = (length, self._trimmable.items[key]) if length else None
        whole = next(self._whole.beginnings(tokens), b"")
        if len(whole) > length * WIDTH:
            found = (len(whole) // WIDTH, self._whole.items[whole])
        return found

    def covering(self, tokens: bytes) -> Item | None:
        """Return an item that gives all of these tokens, None if there is none."""
        length, key = self._trimmable.nearest(tokens)
        if length and length * WIDTH == len(tokens):
            return self._trimmable.items[key]
        return self._whole.items.get(tokens)

    def covered_by(self, tokens: bytes) -> list[Item]:
        """Return the items that are beginnings of these tokens, or all of them."""
        both = (self._trimmable, self._whole)
        return [half.items[key] for half in both for key in list(half.beginnings(tokens))]
