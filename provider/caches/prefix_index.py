"""An index of token sequences by their prefixes.

The sequences are kept sorted, so the one with the longest prefix in common with a query is next to
the query's insertion point. The number of comparisons grows with the logarithm of the index's size.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

__all__ = ["WIDTH", "PrefixIndex", "PrefixIndexes", "pack", "shared"]

WIDTH = array("I").itemsize  # bytes of a token

Item = TypeVar("Item")


def pack(tokens: Sequence[int]) -> bytes:
    """Return token ids as the bytes of 32-bit numbers."""
    return array("I", tokens).tobytes()


def shared(one: bytes, other: bytes) -> int:
    """Return the number of tokens in the common prefix of two packed sequences."""
    low, high = 0, min(len(one), len(other)) // WIDTH
    while low < high:  # bisecting with whole slices is faster than comparing token by token
        middle = (low + high + 1) // 2
        if one[low * WIDTH : middle * WIDTH] == other[low * WIDTH : middle * WIDTH]:
            low = middle
        else:
            high = middle - 1
    return low


class _Sorted(Generic[Item]):
    """A sorted map from packed sequences to items."""

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
        """Return the length in tokens of the longest common prefix, and the key that has it."""
        at = bisect_left(self.keys, tokens)
        beside = self.keys[max(0, at - 1) : at + 1]
        return max(((shared(key, tokens), key) for key in beside), default=(0, b""))

    def prefixes(self, tokens: bytes) -> Iterator[bytes]:
        """Yield the keys that are prefixes of `tokens`, the longest first."""
        end = len(tokens)
        while at := bisect_right(self.keys, tokens[:end]):
            key = self.keys[at - 1]  # every remaining prefix of `tokens` is a prefix of this key
            alike = shared(key, tokens[:end]) * WIDTH
            if alike == len(key):
                yield key
            if not alike:
                return
            end = alike if alike < len(key) else alike - WIDTH


class PrefixIndex(Generic[Item]):
    """Items by packed token sequences.

    A `trimmable` item also serves every prefix of its sequence; any other item serves only the
    whole sequence.
    """

    def __init__(self) -> None:
        self._trimmable: _Sorted[Item] = _Sorted()
        self._whole: _Sorted[Item] = _Sorted()

    def __len__(self) -> int:
        return len(self._trimmable.keys) + len(self._whole.keys)

    def add(self, tokens: bytes, item: Item, *, trimmable: bool) -> None:
        """Add an item, replacing one with the same tokens and the same `trimmable`."""
        (self._trimmable if trimmable else self._whole).add(tokens, item)

    def remove(self, tokens: bytes, *, trimmable: bool) -> None:
        """Remove the item with these tokens, if there is one."""
        (self._trimmable if trimmable else self._whole).remove(tokens)

    def longest(self, tokens: bytes) -> tuple[int, Item] | None:
        """Return the length of the longest prefix that an item serves, in tokens, and the item."""
        length, key = self._trimmable.nearest(tokens)
        found = (length, self._trimmable.items[key]) if length else None
        whole = next(self._whole.prefixes(tokens), b"")
        if len(whole) > length * WIDTH:
            found = (len(whole) // WIDTH, self._whole.items[whole])
        return found

    def covering(self, tokens: bytes) -> Item | None:
        """Return an item that serves all of these tokens, None if there is none."""
        length, key = self._trimmable.nearest(tokens)
        if length and length * WIDTH == len(tokens):
            return self._trimmable.items[key]
        return self._whole.items.get(tokens)

    def covered_by(self, tokens: bytes) -> list[Item]:
        """Return the items whose sequences are prefixes of these tokens, or equal to them."""
        both = (self._trimmable, self._whole)
        return [half.items[key] for half in both for key in list(half.prefixes(tokens))]


class PrefixIndexes(Generic[Item]):
    """An index for each key, such as the digest of a prompt's images; an empty one is not kept."""

    def __init__(self) -> None:
        self._indexes: dict[str, PrefixIndex[Item]] = {}

    def __len__(self) -> int:
        return len(self._indexes)

    def of(self, key: str) -> PrefixIndex[Item]:
        """Return the index of a key, to look things up in it."""
        return self._indexes.get(key) or PrefixIndex()

    def add(self, key: str, tokens: bytes, item: Item, *, trimmable: bool) -> None:
        """Add an item to the index of a key."""
        self._indexes.setdefault(key, PrefixIndex()).add(tokens, item, trimmable=trimmable)

    def remove(self, key: str, tokens: bytes, *, trimmable: bool) -> None:
        """Remove the item with these tokens from the index of a key, if there is one."""
        if (index := self._indexes.get(key)) is not None:
            index.remove(tokens, trimmable=trimmable)
            if not index:
                del self._indexes[key]
