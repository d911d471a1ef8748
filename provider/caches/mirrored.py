"""A KV cache without contents, which notes what is done with the caches beside it.

Where a model is shared by several processes, each has its part of every KV cache. The engine runs
in one of them: there the caches of each sequence have one of these as a further layer. Whatever the
engine does with a sequence or a batch, it does with every layer, and so this one can note it in a
`Journal` for the other processes.
Rule: only the MLX thread uses them, but any thread may free them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from provider.caches.operations import (
    Copy,
    Extract,
    Forget,
    Forward,
    Gather,
    Join,
    Journal,
    Keep,
    Make,
    Trim,
)
from provider.caches.slot_layers import Places

__all__ = ["MirroredCache", "MirroredRows", "MirroredSlots"]


class _Mirrored:
    """Caches that have a number elsewhere, and are freed there when they are freed here."""

    nbytes = 0

    def __init__(self, journal: Journal, number: int):
        self.journal = journal
        self.number = number

    def __del__(self) -> None:
        self.journal.add(Forget(self.number))

    def _extracted(self, row: int) -> MirroredCache:
        new = self.journal.number()
        self.journal.add(Extract(self.number, row, new))
        return MirroredCache(self.journal, new)


class MirroredCache(_Mirrored):
    """The further layer of one sequence's caches."""

    @classmethod
    def empty(cls, journal: Journal) -> Self:
        """Return the layer of new caches."""
        number = journal.number()
        journal.add(Make(number))
        return cls(journal, number)

    @property
    def state(self) -> list[Any]:
        """No arrays."""
        return []

    def size(self) -> int:
        """Return 0; other layers count the tokens."""
        return 0

    def trim(self, tokens: int) -> None:
        """Note that the last tokens are removed."""
        if tokens:
            self.journal.add(Trim(self.number, tokens))

    def __deepcopy__(self, _memo: dict[int, Any]) -> MirroredCache:
        new = self.journal.number()
        self.journal.add(Copy(self.number, new))
        return MirroredCache(self.journal, new)

    @classmethod
    def merge(cls, caches: Sequence[MirroredCache]) -> MirroredRows:
        """Note that sequences become the rows of mlx-lm's batched caches."""
        journal = caches[0].journal
        return MirroredRows(journal, _gathered(caches, slots=False), len(caches))

    def forward(self, rows: int, width: int) -> Forward:
        """Return the forward pass that follows."""
        return Forward(self.number, rows, width, [], [])


class MirroredRows(_Mirrored):
    """The further layer of several rows, in mlx-lm's batched classes."""

    def __init__(self, journal: Journal, number: int, rows: int):
        super().__init__(journal, number)
        self._rows = rows
        self._counts: list[int] = []  # of the next forward pass, if some tokens are padding

    @property
    def state(self) -> list[Any]:
        """No arrays."""
        return []

    def prepare(self, *, lengths: Sequence[int], right_padding: Sequence[int]) -> None:
        """Note how many tokens of the next forward pass are real."""
        self._counts = list(lengths)

    def finalize(self) -> None:
        """Forget the padding."""
        self._counts = []

    def filter(self, rows: Sequence[int]) -> None:
        """Note which rows are kept."""
        self._rows = len(rows)
        self.journal.add(Keep(self.number, list(rows)))

    def extend(self, other: MirroredRows) -> None:
        """Note that rows are appended."""
        self._rows += other._rows
        self.journal.add(Join(self.number, other.number, []))

    def extract(self, row: int) -> MirroredCache:
        """Note that a row is copied."""
        return self._extracted(row)

    def forward(self, rows: int, width: int) -> Forward:
        """Return the forward pass that follows."""
        return Forward(self.number, rows, width, [], self._counts or [width] * rows)


class MirroredSlots(_Mirrored):
    """The further layer of several rows in slots; a SlotLayer."""

    def __init__(self, journal: Journal, number: int, places: Places):
        super().__init__(journal, number)
        self._places = places
        self._counts: list[int] = []  # of the next forward pass

    @classmethod
    def of(cls, caches: list[Any], places: Places) -> Self:
        """Note that sequences become rows."""
        return cls(caches[0].journal, _gathered(caches, slots=True), places)

    @property
    def state(self) -> list[Any]:
        """No arrays."""
        return []

    def trim(self, tokens: int) -> None:
        """Never called: only a single sequence is trimmed."""
        raise AssertionError("rows in slots are not trimmed")

    def begin(self, counts: Sequence[int], *, ragged: bool) -> None:
        """Note how many tokens of the next forward pass are real."""
        self._counts = list(counts)

    def end(self) -> None:
        """Do nothing."""

    def keep(self, rows: Any) -> None:
        """Note which rows, an array, are kept."""
        self.journal.add(Keep(self.number, rows.tolist()))

    def put(self, slots: Sequence[int], other: MirroredSlots) -> None:
        """Note which slots the rows of `other` are written into."""
        self.journal.add(Join(self.number, other.number, list(slots)))

    def append(self, other: MirroredSlots) -> None:
        """Note that rows are appended."""
        self.journal.add(Join(self.number, other.number, []))

    def extract(self, row: int) -> MirroredCache:
        """Note that a row is copied."""
        return self._extracted(row)

    def forward(self, rows: int, width: int) -> Forward:
        """Return the forward pass that follows."""
        return Forward(self.number, rows, width, list(self._places.starts), self._counts)


def _gathered(caches: Sequence[MirroredCache], *, slots: bool) -> int:
    journal = caches[0].journal
    new = journal.number()
    journal.add(Gather([cache.number for cache in caches], new, slots))
    return new
