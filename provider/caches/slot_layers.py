"""One layer's cache for rows that each have a slot of their own, as `SlotCaches` asks for it.

mlx-lm's models get such a layer in place of their own cache. A class of caches whose rows run in
slots has its layer here, and names it in its row of the table in provider/caches/kinds.py.
Rule: only the MLX thread calls them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

from provider.caches.attention import attend
from provider.runtime.mlx import mx
from provider.runtime.mlx_lm import ArraysCache, KVCache

__all__ = [
    "Places",
    "SlotArrays",
    "SlotKVCache",
    "SlotLayer",
]


GROWTH = 256  # positions that a slot grows by


class Places:
    """Where each row is in its slot; one for all layers, so that it is worked out once a pass."""

    def __init__(self, lengths: list[int]):
        self.lengths = lengths  # tokens in each row's slot
        self.begin([0] * len(lengths), 0)

    def begin(self, counts: Sequence[int], width: int) -> None:
        """Work out where a forward pass of `width` tokens a row writes, `counts` of them real."""
        self.before = mx.array(self.lengths, dtype=mx.int32)
        self.starts = list(self.lengths)
        self.lengths = [n + count for n, count in zip(self.lengths, counts, strict=True)]
        self.after = mx.array(self.lengths, dtype=mx.int32)
        self.extent = max(start + width for start in self.starts)
        self._masks: dict[int | None, Any] = {}
        if width:
            positions = self.before[:, None] + mx.arange(width, dtype=mx.int32)[None]
            self.positions = positions[:, None, :, None]  # (rows, 1, width, 1)

    @property
    def level(self) -> bool:
        """Whether all rows write at the same positions."""
        return min(self.starts) == max(self.starts)

    def mask(self, width: int, window: int | None, *, as_array: bool) -> Any:
        """Return what each query may see: None for all, "causal", or `(rows, 1, width, extent)`."""
        if self.level and window is None and not as_array:
            if width == 1:
                return None
            if self.extent == width:
                return "causal"
        if window not in self._masks:
            keys = mx.arange(self.extent, dtype=mx.int32)
            mask = keys <= self.positions
            if window is not None:
                mask = mask & (keys > self.positions - window)
            self._masks[window] = mask
        return self._masks[window]


class SlotLayer(Protocol):
    """What `SlotCaches` asks of one layer, beyond what the model asks of a cache."""

    @classmethod
    def of(cls, caches: list[Any], places: Places) -> Self:
        """Return a layer that holds one row of each of these caches."""

    def begin(self, counts: Sequence[int], *, ragged: bool) -> None:
        """Announce a forward pass; `ragged` if some of the rows' tokens are padding."""

    def end(self) -> None:
        """Settle the rows after a ragged pass."""

    def take(self, rows: Any) -> None:
        """Keep these rows, an array of slots; `places` has their lengths already."""

    def put(self, slots: Sequence[int], other: Any) -> None:
        """Write the rows of another layer of the class into these slots, which are free."""

    def append(self, other: Any) -> None:
        """Put the rows of another layer of the class behind this one's."""

    def extract(self, row: int) -> Any:
        """Return a copy of one row, as the model makes caches for a single sequence."""


class SlotKVCache:
    """One layer's keys and values, `(rows, heads, positions, dimension)`, each row from position 0.

    Has what mlx-lm's models ask of a cache: `offset`, `make_mask`, `update_and_fetch`. It has
    `attend` besides, see provider/caches/attention.py.
    """

    attend = staticmethod(attend)

    def __init__(self, places: Places):
        self.places = places
        self.offset = places.before
        self.keys: Any = None
        self.values: Any = None

    @classmethod
    def of(cls, caches: list[Any], places: Places) -> Self:
        """Return a layer that holds one row of each of these KVCaches."""
        layer = cls(places)
        sizes = [cache.size() for cache in caches]
        if max(sizes) == 0:
            return layer
        some = next(cache for cache in caches if cache.size())
        extent = -(-max(sizes) // GROWTH) * GROWTH
        shape = (len(caches), some.keys.shape[1], extent)
        layer.keys = mx.zeros((*shape, some.keys.shape[3]), some.keys.dtype)
        layer.values = mx.zeros((*shape, some.values.shape[3]), some.values.dtype)
        for row, (cache, n) in enumerate(zip(caches, sizes, strict=True)):
            if n:
                layer.keys[row : row + 1, :, :n] = cache.keys[..., :n, :]
                layer.values[row : row + 1, :, :n] = cache.values[..., :n, :]
        return layer

    # What the model asks.

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """Return what each of `n` queries a row may see."""
        return self.places.mask(n, window_size, as_array=return_array)

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        """Write new keys and values, `(rows, heads, width, dimension)`; return all there are."""
        places = self.places
        self._reserve(keys, values, places.extent)
        if places.level:
            start = places.starts[0]
            self.keys[..., start : places.extent, :] = keys
            self.values[..., start : places.extent, :] = values
        else:
            self.keys = mx.put_along_axis(self.keys, places.positions, keys, axis=2)
            self.values = mx.put_along_axis(self.values, places.positions, values, axis=2)
        self.offset = places.after
        return self.keys[..., : places.extent, :], self.values[..., : places.extent, :]

    # What `SlotCaches` asks.

    def begin(self, _counts: Sequence[int], *, ragged: bool) -> None:
        """Begin where the rows end; padding is written over by the next tokens."""
        self.offset = self.places.before

    def end(self) -> None:
        """Do nothing."""

    def take(self, rows: Any) -> None:
        """Keep these rows, and the positions that they need."""
        if self.keys is not None:
            # What the longest row left behind it goes with it.
            extent = -(-max(self.places.lengths) // GROWTH) * GROWTH
            self.keys = self.keys[rows, :, :extent]
            self.values = self.values[rows, :, :extent]

    def put(self, slots: Sequence[int], other: SlotKVCache) -> None:
        """Write the rows of another into free slots."""
        lengths = other.places.lengths
        if other.keys is None:
            return  # nothing has been read yet; a length of 0 hides what the slots held
        self._make_room(other, max(lengths))
        for row, (slot, n) in enumerate(zip(slots, lengths, strict=True)):
            self.keys[slot : slot + 1, :, :n] = other.keys[row : row + 1, :, :n]
            self.values[slot : slot + 1, :, :n] = other.values[row : row + 1, :, :n]

    def append(self, other: SlotKVCache) -> None:
        """Put the rows of another behind these."""
        if self.keys is None and other.keys is None:
            return
        extent = max(0 if c.keys is None else c.keys.shape[2] for c in (self, other))
        self._make_room(other, extent)
        other._make_room(self, extent)
        self.keys = mx.concatenate([self.keys, other.keys])
        self.values = mx.concatenate([self.values, other.values])

    def extract(self, row: int) -> KVCache:
        """Return a copy of one row."""
        cache, n = KVCache(), self.places.lengths[row]
        if n:
            cache.keys = mx.contiguous(self.keys[row : row + 1, :, :n])
            cache.values = mx.contiguous(self.values[row : row + 1, :, :n])
            cache.offset = n
        return cache

    def _reserve(self, keys: Any, values: Any, extent: int) -> None:
        have = 0 if self.keys is None else self.keys.shape[2]
        if extent <= have:
            return
        more = -(-(extent - have) // GROWTH) * GROWTH
        rows, heads, _, width = keys.shape
        new_keys = mx.zeros((rows, heads, more, width), keys.dtype)
        new_values = mx.zeros((rows, heads, more, values.shape[3]), values.dtype)
        if have:
            new_keys = mx.concatenate([self.keys, new_keys], axis=2)
            new_values = mx.concatenate([self.values, new_values], axis=2)
        self.keys, self.values = new_keys, new_values

    def _make_room(self, like: SlotKVCache, extent: int) -> None:
        """Have at least `extent` positions, shaped as in `like` if there are none yet."""
        some = like if self.keys is None else self
        rows = len(self.places.lengths)
        heads, keys, values = some.keys.shape[1], some.keys.shape[3], some.values.shape[3]
        self._reserve(
            mx.zeros((rows, heads, 0, keys), some.keys.dtype),
            mx.zeros((rows, heads, 0, values), some.values.dtype),
            extent,
        )


class SlotArrays(ArraysCache):  # type: ignore[misc]
    """One layer's states, each `(rows, …)`: mlx-lm's own batched cache, with slots."""

    rows: int

    @classmethod
    def of(cls, caches: list[Any], _places: Places) -> Self:
        """Return a layer that holds one row of each of these ArraysCaches."""
        merged: Self = cls.merge(caches)
        merged.left_padding = None  # zeros, where nothing has been read yet
        merged.rows = len(caches)
        return merged

    def begin(self, counts: Sequence[int], *, ragged: bool) -> None:
        """Tell the states which tokens are padding, if any are."""
        if ragged:
            self.prepare(lengths=list(counts))

    def end(self) -> None:
        """Forget the padding."""
        self.finalize()

    def take(self, rows: Any) -> None:
        """Keep these rows."""
        self.filter(rows)
        self.rows = len(rows)

    def put(self, slots: Sequence[int], other: SlotArrays) -> None:
        """Write the rows of another into free slots."""
        where = mx.array(list(slots))
        for index, theirs in enumerate(other.cache):
            if self[index] is None and theirs is not None:
                self[index] = mx.zeros((self.rows, *theirs.shape[1:]), theirs.dtype)
            if self[index] is not None:
                self[index][where] = 0 if theirs is None else theirs

    def append(self, other: SlotArrays) -> None:
        """Put the rows of another behind these."""
        for index, (a, b) in enumerate(zip(self.cache, other.cache, strict=True)):
            if a is None and b is None:
                continue
            shape, dtype = (b if a is None else a).shape[1:], (b if a is None else a).dtype
            before = mx.zeros((self.rows, *shape), dtype) if a is None else a
            after = mx.zeros((other.rows, *shape), dtype) if b is None else b
            self[index] = mx.concatenate([before, after])
        self.rows += other.rows
