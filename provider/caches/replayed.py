"""Does with KV caches what another process has done with its part of them, see `operations`.

Rule: only the MLX thread calls it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, assert_never, cast

from provider.caches.kinds import state_of, trim
from provider.caches.merged import MergedCaches
from provider.caches.operations import (
    Copy,
    Extract,
    Forget,
    Forward,
    Gather,
    Join,
    Keep,
    Make,
    Operation,
    Trim,
)
from provider.caches.single import SingleRowCaches
from provider.caches.slots import SlotCaches
from provider.runtime.mlx import mx

__all__ = ["ReplayedCaches"]

Caches = SingleRowCaches | SlotCaches | MergedCaches


class ReplayedCaches:
    """A process's part of all KV caches, by their numbers.

    `make` returns the empty caches of one sequence; `run` makes a forward pass with the caches of
    one or several rows, for so many rows and tokens each.
    """

    def __init__(self, make: Callable[[], list[Any]], run: Callable[[list[Any], int, int], None]):
        self._make = make
        self._run = run
        self._caches: dict[int, Caches] = {}

    def __len__(self) -> int:
        return len(self._caches)

    def layers(self, number: int) -> list[Any]:
        """Return caches, one a layer."""
        return self._caches[number].layers

    def apply(self, operation: Operation) -> None:
        """Do one operation. Raises KeyError for caches that are not known."""
        known = self._caches
        match operation:
            case Make(new):
                known[new] = SingleRowCaches(self._make())
            case Copy(number, new):
                self._add(new, copy.deepcopy(self.layers(number)))
            case Trim(number, tokens):
                trim(self.layers(number), tokens)
            case Gather(sequences, new, slots):
                rows = [self.layers(number) for number in sequences]
                known[new] = SlotCaches(rows) if slots else MergedCaches(rows)
            case Keep(number, rows):
                known[number].keep(rows)
            case Join(number, other, slots):
                self._join(known[number], known[other], slots)
            case Extract(number, row, new):
                self._add(new, known[number].extract(row))
            case Forget(number):
                del known[number]
            case Forward():
                self._forward(operation)
            case _:
                assert_never(operation)

    def _add(self, number: int, layers: list[Any]) -> None:
        # An unevaluated copy of one row would keep the memory of all rows.
        mx.async_eval([state_of(layer) for layer in layers])  # type: ignore[no-untyped-call]
        self._caches[number] = SingleRowCaches(layers)

    def _join(self, mine: Caches, other: Caches, slots: Sequence[int]) -> None:
        if isinstance(mine, SlotCaches):
            mine.join(cast(SlotCaches, other), slots)
        else:
            cast(MergedCaches, mine).join(cast(MergedCaches, other))

    def _forward(self, operation: Forward) -> None:
        caches = self._caches[operation.caches]
        if isinstance(caches, SlotCaches):
            for slot, start in enumerate(operation.starts):
                if not start:
                    caches.free(slot)
            if caches.lengths != operation.starts:
                raise RuntimeError("the KV caches of this process are not those of the first")
        caches.begin(operation.counts, operation.width)
        self._run(caches.layers, operation.rows, operation.width)
        caches.end()
