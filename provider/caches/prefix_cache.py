"""KV caches of sequences that were read, for prompts that begin alike.

Rule 1: what is kept has been evaluated, belongs to one model (and adapter), and is never changed:
a hit gives a copy, which shares its memory until it is written to.
Rule 2: at most `max_bytes`; the least recently used goes first, and a hit is a use.
Rule 3: with a store, what is kept is written when there is nothing else to do, and found again
after a restart.
Rule 4: at least one token of a prompt is left to be read, so that there is something to sample
from: an exact hit replays the last token.
"""

from __future__ import annotations

import copy
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from provider.caches.kinds import can_be_trimmed, size_of
from provider.caches.prefix_store import PrefixStore, Stored

__all__ = ["LEAST_TOKENS", "Hit", "PrefixCache"]

LEAST_TOKENS = 16  # shorter beginnings are read as fast as they are copied


@dataclass(frozen=True)
class Hit:
    """A copy of caches that hold the first `length` tokens of what was asked for."""

    caches: list[Any]
    length: int


@dataclass(frozen=True, eq=False)
class _Entry:
    key: str
    tokens: bytes  # as 32-bit numbers
    caches: list[Any]
    nbytes: int
    trimmable: bool

    @property
    def length(self) -> int:
        return len(self.tokens) // WIDTH


WIDTH = array("I").itemsize


class PrefixCache:
    """Sequences of tokens with their caches. For one thread."""

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.store: PrefixStore | None = None  # on disk
        self.nbytes = 0
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[int, _Entry] = OrderedDict()  # least recently used first
        self._next = 0
        self._unsaved: list[int] = []  # numbers of entries that are not in the store, oldest first

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: str, tokens: Sequence[int], caches: list[Any]) -> None:
        """Keep caches that hold exactly `tokens`; the caller gives them up."""
        if len(tokens) < LEAST_TOKENS:
            return
        size = size_of(caches)
        packed = array("I", tokens).tobytes()
        trimmable = can_be_trimmed(caches)
        if size > self.max_bytes or self._covered(key, packed):
            return
        self._drop_covered_by(key, packed, trimmable=trimmable)
        self._next += 1
        self._entries[self._next] = _Entry(key, packed, caches, size, trimmable)
        self.nbytes += size
        if self.store is not None:
            self._unsaved.append(self._next)
        self.shrink(self.max_bytes)

    def save_one(self) -> bool:
        """Write one entry that the store does not have; return whether there may be more."""
        if self.store is None or not self._unsaved:
            return False
        entry = self._entries.get(self._unsaved.pop())
        if entry is not None:
            self.store.save(entry.tokens, entry.caches)
        return True

    def find(self, key: str, tokens: Sequence[int]) -> Hit | None:
        """Return the longest beginning of `tokens` that is kept, at most all but the last one."""
        packed = array("I", tokens).tobytes()
        most = len(tokens) - 1
        self._take_from_store(key, packed, most)
        best, length = None, LEAST_TOKENS - 1
        for number, entry in self._entries.items():
            if entry.key != key:
                continue
            shared = min(_shared(entry.tokens, packed), most)
            if shared > length and (entry.trimmable or shared == entry.length):
                best, length = number, shared
        if best is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(best)
        entry = self._entries[best]
        caches = copy.deepcopy(entry.caches)
        for cache in caches if length < entry.length else []:
            cache.trim(entry.length - length)
        return Hit(caches, length)

    def _take_from_store(self, key: str, packed: bytes, most: int) -> None:
        """Read the file that helps most into memory, if it helps more than what is there."""
        if self.store is None:
            return

        def helps(entry: _Entry | Stored) -> int:
            shared = min(_shared(entry.tokens, packed), most)
            return shared if entry.trimmable or shared == entry.length else 0

        have = max((helps(e) for e in self._entries.values() if e.key == key), default=0)
        best = max(self.store, key=helps, default=None)
        if best is None or helps(best) < max(have + 1, LEAST_TOKENS):
            return
        caches = self.store.load(best)
        if caches is not None:
            before = self._next
            self.put(key, array("I", best.tokens), caches)
            del self._unsaved[len(self._unsaved) - (self._next - before) :]  # it is on disk

    def shrink(self, nbytes: int) -> None:
        """Forget the least recently used until at most `nbytes` are held."""
        while self.nbytes > nbytes:
            _, entry = self._entries.popitem(last=False)
            self.nbytes -= entry.nbytes

    def clear(self) -> None:
        """Forget everything."""
        self.shrink(0)

    def _covered(self, key: str, tokens: bytes) -> bool:
        """Whether another entry gives all of this one; if so, that is a use of it."""
        for number, entry in self._entries.items():
            if entry.key == key and (
                entry.tokens == tokens or (entry.trimmable and entry.tokens.startswith(tokens))
            ):
                self._entries.move_to_end(number)
                return True
        return False

    def _drop_covered_by(self, key: str, tokens: bytes, *, trimmable: bool) -> None:
        if not trimmable:
            return
        for number, entry in list(self._entries.items()):
            if entry.key == key and tokens.startswith(entry.tokens):
                self.nbytes -= entry.nbytes
                del self._entries[number]


def _shared(one: bytes, other: bytes) -> int:
    """Return how many tokens two sequences begin with in common."""
    low, high = 0, min(len(one), len(other)) // WIDTH
    while low < high:  # comparing bytes is so fast that halving beats going token by token
        middle = (low + high + 1) // 2
        if one[: middle * WIDTH] == other[: middle * WIDTH]:
            low = middle
        else:
            high = middle - 1
    return low
