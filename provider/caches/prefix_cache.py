"""KV caches of earlier prompts, reused by later prompts that begin with the same tokens.

Rule 1: all entries belong to one model (and adapter); they are evaluated and never changed. A hit
is a copy, which shares memory with its entry until it is written to; then it has the positions of
its own tokens, not those of the whole entry.
Rule 2: entries take at most `max_bytes`. The least recently used is evicted first; a hit counts as
a use.
Rule 3: with a store on disk, entries are saved while the engine is idle, and found again after a
restart. `find` never waits for the disk: `on_disk` names the file to be read first.
Rule 4: a hit leaves at least one token of the prompt to be prefilled, because the first sample
needs its logits.
"""

from __future__ import annotations

import copy
import logging
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from provider.caches.kinds import can_be_trimmed, size_of, trim
from provider.caches.prefix_index import WIDTH, PrefixIndexes, pack, shared
from provider.caches.prefix_store import PrefixStore, Stored

__all__ = ["MIN_TOKENS", "Hit", "PrefixCache"]

log = logging.getLogger(__name__)

MIN_TOKENS = 16  # a shorter prefix is prefilled as fast as its caches are copied


@dataclass(frozen=True)
class Hit:
    """A copy of caches that hold the first `length` tokens of the prompt."""

    caches: list[Any]
    length: int


@dataclass(frozen=True, eq=False)
class _Entry:
    key: str
    tokens: bytes  # token ids as 32-bit numbers
    caches: list[Any]
    nbytes: int
    trimmable: bool
    number: int

    @property
    def length(self) -> int:
        return len(self.tokens) // WIDTH


class PrefixCache:
    """Token sequences with their KV caches. All methods must be called on one thread."""

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.store: PrefixStore | None = None  # the store on disk, None without one
        self.nbytes = 0
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[int, _Entry] = OrderedDict()  # least recently used first
        self._indexes: PrefixIndexes[_Entry] = PrefixIndexes()
        self._next = 0
        self._unsaved: list[int] = []  # numbers of entries not yet in the store, oldest first

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: str, tokens: Sequence[int], caches: list[Any]) -> None:
        """Keep caches that hold exactly `tokens`; the caller must not use them any more."""
        self.offer(key, tokens, lambda: caches)

    def offer(
        self, key: str, tokens: Sequence[int], make: Callable[[], list[Any]], *, saved: bool = False
    ) -> None:
        """Keep the caches that `make` returns, which hold exactly `tokens`.

        `make` is called only for a new entry. If an existing entry covers all the tokens, it is
        marked as used instead. `saved` says that the store already has these caches.
        """
        if len(tokens) < MIN_TOKENS or self.max_bytes <= 0:
            return
        packed = pack(tokens)
        covering = self._indexes.of(key).covering(packed)
        if covering is not None:
            self._entries.move_to_end(covering.number)
            return
        caches = make()
        size = size_of(caches)
        if size > self.max_bytes:
            return
        self._next += 1
        entry = _Entry(key, packed, caches, size, can_be_trimmed(caches), self._next)
        for other in self._indexes.of(key).covered_by(packed) if entry.trimmable else []:
            self._drop(other)
        self._entries[entry.number] = entry
        self._indexes.add(key, packed, entry, trimmable=entry.trimmable)
        self.nbytes += size
        if self.store is not None and not saved:
            self._unsaved.append(entry.number)
        self.shrink(self.max_bytes)

    @property
    def unsaved(self) -> int:
        """How many entries the store has not been handed yet; 0 without a store."""
        return sum(number in self._entries for number in self._unsaved)

    def save_one(self) -> bool:
        """Hand one entry to the store; return whether another call may hand over the next one.

        Never waits for the disk; see `PrefixStore.save`. An entry that can't be saved is kept in
        memory alone, with one warning.
        """
        if self.store is None or not self._unsaved:
            return False
        entry = self._entries.get(self._unsaved[-1])
        try:
            if entry is not None and not self.store.save(entry.tokens, entry.caches, entry.key):
                return False
        except Exception:  # mostly a snapshot that memory has no room for
            log.warning("KV caches of a prompt can't be saved to disk", exc_info=True)
        self._unsaved.pop()
        return True

    def find(self, key: str, tokens: Sequence[int]) -> Hit | None:
        """Return a copy of the longest kept prefix of `tokens`; the last token is never part of it.

        Entries of another `key` are not considered. Return None if no prefix is kept.
        """
        length, entry = self._longest(key, pack(tokens[:-1]))
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(entry.number)
        caches = copy.deepcopy(entry.caches)
        if length < entry.length:
            trim(caches, entry.length - length)
        return Hit(caches, length)

    def _longest(self, key: str, packed: bytes) -> tuple[int, _Entry | None]:
        found = self._indexes.of(key).longest(packed)
        return (0, None) if found is None or found[0] < MIN_TOKENS else found

    def on_disk(self, key: str, tokens: Sequence[int]) -> Stored | None:
        """Return the file with a longer prefix of `tokens` than any entry has, None without one.

        A file of more than `max_bytes` is not considered.
        """
        if self.store is None:
            return None
        packed = pack(tokens[:-1])
        length, stored = self.store.longest(key, packed) or (0, None)
        if stored is None or length < MIN_TOKENS or stored.nbytes > self.max_bytes:
            return None
        return stored if length > self._longest(key, packed)[0] else None

    def add_stored(self, stored: Stored, data: bytes) -> int | None:
        """Keep the caches in the bytes of a file of the store; return the number of their entry.

        Return None if the file is damaged, or too large to be kept.
        """
        assert self.store is not None
        caches = self.store.load(stored, data)
        if caches is None:
            return None
        self.offer(stored.kind, array("I", stored.tokens), lambda: caches, saved=True)
        entry = self._indexes.of(stored.kind).covering(stored.tokens)
        return None if entry is None else entry.number

    def entry_bytes(self, number: int | None) -> int:
        """Return the size of an entry, 0 if it has been evicted."""
        entry = None if number is None else self._entries.get(number)
        return 0 if entry is None else entry.nbytes

    def take(self, number: int, tokens: Sequence[int]) -> Hit:
        """Evict an entry; return its caches, cut to what they have in common with `tokens`.

        As with `find`, the last token is never part of it.
        """
        entry = self._entries[number]
        self._drop(entry)
        self.hits += 1
        length = entry.length
        if entry.trimmable:
            length = shared(entry.tokens, pack(tokens[:-1]))
            if length < entry.length:
                trim(entry.caches, entry.length - length)
        return Hit(entry.caches, length)

    def shrink(self, nbytes: int, spared: int | None = None) -> None:
        """Evict the least recently used entries, but for `spared`, until `nbytes` are held."""
        if self.nbytes <= nbytes:
            return
        for entry in list(self._entries.values()):
            if self.nbytes <= nbytes:
                return
            if entry.number != spared:
                self._drop(entry)

    def take_all(self) -> list[Any]:
        """Evict every entry; return all caches, so that the caller can free them."""
        caches = [cache for entry in self._entries.values() for cache in entry.caches]
        self.shrink(0)
        self._unsaved.clear()
        return caches

    def _drop(self, entry: _Entry) -> None:
        del self._entries[entry.number]
        self._indexes.remove(entry.key, entry.tokens, trimmable=entry.trimmable)
        self.nbytes -= entry.nbytes
