"""One model layer's KV cache for several rows, each row in a slot of its own.

A model of mlx-lm is called with such a layer instead of its own cache. The table in
provider/caches/kinds.py names the layer for each cache class that has one.
Rule: layers must only be used on the MLX thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

from provider.caches.attention import attend
from provider.runtime.mlx import mx
from provider.runtime.mlx_lm import ArraysCache, KVCache

__all__ = [
    "GROWTH",
    "Places",
    "SlotArrays",
    "SlotKVCache",
    "SlotLayer",
]


GROWTH = 256  # number of positions by which slots grow


class Places:
    """Each row's position in its slot; all layers share one object, computed once per pass."""

    def __init__(self, lengths: list[int]):
        self.lengths = lengths  # number of tokens in each row's slot
        self.begin([0] * len(lengths), 0)

    def begin(self, counts: Sequence[int], width: int) -> None:
        """Compute the positions that a forward pass of `width` tokens per row writes to.

        Of row i only the first `counts[i]` tokens are real; the rest is padding.
        """
        self.before = mx.array(self.lengths, dtype=mx.int32)
        self.starts = list(self.lengths)
        self.lengths = [n + count for n, count in zip(self.lengths, counts, strict=True)]
        self.after = mx.array(self.lengths, dtype=mx.int32)
        self.extent = max(self.starts) + width
        self.level = min(self.starts) == max(self.starts)  # whether rows write to equal positions
        self._masks: dict[int | None, Any] = {}
        if width:
            positions = self.before[:, None] + mx.arange(width, dtype=mx.int32)[None]
            self.positions = positions[:, None, :, None]  # (rows, 1, width, 1)

    def mask(self, width: int, window: int | None, *, as_array: bool) -> Any:
        """Return the attention mask: None, "causal", or booleans `(rows, 1, width, extent)`.

        With None, every position is visible. With a `window`, a query sees only that many positions
        up to its own.
        """
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
    """The methods that `SlotCaches` needs of a layer, beside those that the model calls."""

    @classmethod
    def of(cls, caches: list[Any], places: Places) -> Self:
        """Return a layer with one row for each of these caches."""

    def begin(self, counts: Sequence[int], *, ragged: bool) -> None:
        """Prepare for a forward pass; `ragged` says that some tokens are padding."""

    def end(self) -> None:
        """Clean up after a ragged forward pass."""

    def keep(self, rows: Any) -> None:
        """Keep the rows in these slots (an array) only; `places` already has their lengths."""

    def put(self, slots: Sequence[int], other: Any) -> None:
        """Write the rows of `other`, a layer of this class, into these free slots."""

    def append(self, other: Any) -> None:
        """Append the rows of `other`, a layer of this class."""

    def extract(self, row: int) -> Any:
        """Return a copy of one row, of the model's own cache class."""


class SlotKVCache:
    """One layer's keys and values, `(rows, heads, positions, dimension)`, each row from position 0.

    mlx-lm's models use `offset`, `make_mask` and `update_and_fetch`; for `attend` see
    provider/caches/attention.py.
    """

    attend = staticmethod(attend)

    def __init__(self, places: Places):
        self.places = places
        self.offset = places.before
        self.keys: Any = None
        self.values: Any = None

    @classmethod
    def of(cls, caches: list[Any], places: Places) -> Self:
        """Return a layer with one row for each of these KVCaches."""
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

    # The model calls the following methods.

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """Return the attention mask of `n` queries per row, see `Places.mask`."""
        return self.places.mask(n, window_size, as_array=return_array)

    def update_and_fetch(self, keys: Any, values: Any) -> tuple[Any, Any]:
        """Write new keys and values, `(rows, heads, width, dimension)`; return all of them."""
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

    # `SlotCaches` calls the following methods.

    def begin(self, _counts: Sequence[int], *, ragged: bool) -> None:
        """Let each row continue at its end; later tokens overwrite the padding."""
        self.offset = self.places.before

    def end(self) -> None:
        """Do nothing."""

    def keep(self, rows: Any) -> None:
        """Keep these rows, with only as many positions as they need."""
        if self.keys is not None:
            # The positions that only a dropped longer row needed are dropped too.
            extent = -(-max(self.places.lengths) // GROWTH) * GROWTH
            self.keys = self.keys[rows, :, :extent]
            self.values = self.values[rows, :, :extent]

    def put(self, slots: Sequence[int], other: SlotKVCache) -> None:
        """Write the rows of `other` into free slots."""
        lengths = other.places.lengths
        if other.keys is None:
            return  # the new rows are empty; their length of 0 hides the slots' old contents
        self._make_room(other, max(lengths))
        for row, (slot, n) in enumerate(zip(slots, lengths, strict=True)):
            self.keys[slot : slot + 1, :, :n] = other.keys[row : row + 1, :, :n]
            self.values[slot : slot + 1, :, :n] = other.values[row : row + 1, :, :n]

    def append(self, other: SlotKVCache) -> None:
        """Append the rows of `other`."""
        if self.keys is None and other.keys is None:
            return
        extent = max(0 if c.keys is None else c.keys.shape[2] for c in (self, other))
        self._make_room(other, extent)
        other._make_room(self, extent)
        self.keys = mx.concatenate([self.keys, other.keys])
        self.values = mx.concatenate([self.values, other.values])

    def extract(self, row: int) -> KVCache:
        """Return a copy of one row as a KVCache."""
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
        """Allocate at least `extent` positions, shaped as in `like` if there are none yet."""
        some = like if self.keys is None else self
        rows = len(self.places.lengths)
        heads, keys, values = some.keys.shape[1], some.keys.shape[3], some.values.shape[3]
        self._reserve(
            mx.zeros((rows, heads, 0, keys), some.keys.dtype),
            mx.zeros((rows, heads, 0, values), some.values.dtype),
            extent,
        )


class SlotArrays(ArraysCache):  # type: ignore[misc]
    """One layer's recurrent states, each `(rows, …)`, in slots: an ArraysCache as a SlotLayer."""

    rows: int

    @classmethod
    def of(cls, caches: list[Any], _places: Places) -> Self:
        """Return a layer with one row for each of these ArraysCaches."""
        merged: Self = cls.merge(caches)
        merged.left_padding = None  # `merge` sets zeros for empty caches; slots have none
        merged.rows = len(caches)
        return merged

    def begin(self, counts: Sequence[int], *, ragged: bool) -> None:
        """Tell mlx-lm's cache which tokens are padding, if any are."""
        if ragged:
            self.prepare(lengths=list(counts))

    def end(self) -> None:
        """Forget the padding."""
        self.finalize()

    def keep(self, rows: Any) -> None:
        """Keep these rows and drop all others."""
        self.filter(rows)
        self.rows = len(rows)

    def put(self, slots: Sequence[int], other: SlotArrays) -> None:
        """Write the rows of `other` into free slots."""
        where = mx.array(list(slots))
        for index, theirs in enumerate(other.cache):
            if self[index] is None and theirs is not None:
                self[index] = mx.zeros((self.rows, *theirs.shape[1:]), theirs.dtype)
            if self[index] is not None:
                self[index][where] = 0 if theirs is None else theirs

    def append(self, other: SlotArrays) -> None:
        """Append the rows of `other`."""
        for index, (a, b) in enumerate(zip(self.cache, other.cache, strict=True)):
            if a is None and b is None:
                continue
            shape, dtype = (b if a is None else a).shape[1:], (b if a is None else a).dtype
            before = mx.zeros((self.rows, *shape), dtype) if a is None else a
            after = mx.zeros((other.rows, *shape), dtype) if b is None else b
            self[index] = mx.concatenate([before, after])
        self.rows += other.rows
