"""The rows of one model that run together: prefill in chunks, then one token per row and step.

Rule 1: only the MLX thread calls it.
Rule 2: a removed row takes part in no later forward pass.
Rule 3: a step launches its forward pass before it reads the tokens of the previous one, so that the
device and Python work at the same time. A token launched for a row that has ended is dropped.
Rule 4: an error ends only the row that caused it. If a forward pass of several rows fails, each row
is prefilled again from its tokens, alone: the row at fault then fails alone, and the others go on
with the same text.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from provider.caches.attention import let_caches_attend
from provider.caches.kinds import Batching, batching_of, is_always_trimmable, state_of
from provider.caches.merged import MergedCaches
from provider.caches.prefix_cache import Hit
from provider.caches.rows import RowCaches
from provider.caches.single import SingleRowCaches
from provider.caches.slots import SlotCaches
from provider.constraints.mask_maker import MaskMaker
from provider.engine.group import Group
from provider.engine.model import as_model
from provider.engine.padding import padding
from provider.engine.rows import (
    Chunk,
    Keep,
    Parked,
    Row,
    StepResult,
    Token,
    finish_of,
    without_frames,
)
from provider.engine.shapes import ANY_SHAPE, Shapes
from provider.engine.speculative import (
    ModelWithDraft,
    SingleRowSettings,
    SpeculativeCaches,
    SpeculativeGroup,
)
from provider.runtime.mlx import mx, on_cpu

__all__ = ["Batch"]

log = logging.getLogger(__name__)

CLEAR_EVERY = 512  # steps after which the buffers that mlx keeps for reuse are freed
MAX_KEPT = 1 << 30  # bytes of such buffers that may remain after a prefill chunk
LOOK_EVERY = 64  # steps after which groups that were left apart, for their memory, may be merged
# Part of the positions that are promised to rows, and not used yet, which padding may take. Rows
# grow into the others.
BORROWED = 1 / 4


Decoding = Group | SpeculativeGroup


class Batch:
    """All rows of one model."""

    def __init__(
        self,
        model: Any,
        ends: Iterable[int],
        keep: Keep | None = None,
        single_row: SingleRowSettings | None = None,
        masks: MaskMaker | None = None,
        shapes: Shapes = ANY_SHAPE,
        free: Callable[[], float] = lambda: math.inf,
    ):
        self._shapes = shapes
        self._free = free  # returns how many positions memory has room for
        self._single_row = single_row or SingleRowSettings()
        target, draft = as_model(model), self._single_row.draft
        self._model = target if draft is None else ModelWithDraft(target, draft)
        self._ends = frozenset(ends)
        self._masks = masks or MaskMaker()
        # Called for each row that leaves, so that its caches can be reused.
        self._keep = None if keep is None else _if_possible(keep)
        self._batching = Batching.ALONE if self._single_row.needed else batching_of(model)
        if on_cpu():
            let_caches_attend(model)
        self._rows: dict[int, Row] = {}
        self._groups: list[Decoding] = []
        self._steps = 0
        self._apart: list[int] = []  # ids of groups that were not merged, for their memory

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def together(self) -> bool:
        """Whether several prompts can be read in one forward pass."""
        return self._batching is not Batching.ALONE and not any(
            row.suspect for row in self._rows.values()
        )

    def add(self, row: Row, hit: Hit | None = None) -> int:
        """Add a row; return how many tokens must be prefilled before it decodes.

        A row without caches starts with those of `hit`, if there is one.
        """
        self._rows[row.key] = row
        if row.caches is None and hit is not None:
            row.caches, row.done = hit.caches, hit.length
        if row.caches is None:
            row.caches, row.done = self._model.make_cache(), 0
        row.drawn = row.generated
        if hasattr(row.sampler, "seek"):
            row.sampler.seek(row.drawn)
        if row.left == 0:
            self._start([row], self._caches_of([row]))
        return row.left

    def remove(self, keys: Iterable[int], *, faulty: bool = False) -> None:
        """Take rows out before the next forward pass; unknown keys are ignored.

        Their caches are offered for reuse, unless the rows are `faulty`. Those that can't be kept,
        as for lack of memory, are dropped; the rows leave all the same.
        """
        for key in keys:
            row = self._rows.pop(key, None)
            if row is None:
                continue
            row.gone = True
            for group in self._groups:
                group.leave(row, keep=not faulty)
            caches = row.caches
            if caches is not None and row.done and self._keep is not None and not faulty:
                self._keep(row, partial(list, caches), row.done)
        self._drop_empty()

    def park(self, key: int) -> Parked:
        """Take a row out; return it with its evaluated caches and its launched, unread token.

        A row whose forward pass has just failed has neither, and is prefilled again later.
        """
        row = self._rows.pop(key)
        group = next((group for group in self._groups if row in group.members), None)
        if group is None:
            row.gone = True
            caches, done = (row.caches, row.done) if row.done else (None, 0)
            return Parked(replace(row, caches=caches, done=done, gone=False), None)
        caches, pending = group.extract(row)
        mx.eval([state_of(layer) for layer in caches or []])
        row.gone = True
        group.leave(row, keep=False)
        self._drop_empty()
        done = len(row.sequence) - (pending is None)
        return Parked(replace(row, caches=caches, done=done, gone=False), pending)

    def deliver(self, parked: Parked) -> Token:
        """Append the token that was pending when a row was parked, and return it."""
        assert parked.pending is not None
        row, token = parked.row, parked.pending
        row.sequence.append(token)
        return row.given(token, finish_of(row, token, self._ends))

    @property
    def first_token_pending(self) -> bool:
        """Whether the first token of a row has been launched and not yet read."""
        return any(group.first_token_pending for group in self._groups)

    def collect(self) -> StepResult:
        """Wait for the launched forward passes and return their tokens, without launching more."""
        return self._each(lambda group, result: group.collect(result))

    def decode(self) -> StepResult:
        """Launch a forward pass for all decoding rows; return the tokens of the previous one."""
        self._merge()
        result = self._each(lambda group, result: group.step(result))
        for group in list(self._groups):
            if isinstance(group, Group):
                self._groups += group.parted()
        self._drop_empty()
        self._steps += 1
        if self._steps % CLEAR_EVERY == 0:
            mx.clear_cache()
        return result

    def _each(self, do: Callable[[Decoding, StepResult], None]) -> StepResult:
        result = StepResult()
        for group in list(self._groups):
            try:
                do(group, result)
            except Exception as error:  # noqa: BLE001 - a model may raise anything
                self._groups.remove(group)
                self._suspect(group.members, error, result)
        for token in result.tokens:
            if token.finish:
                self._rows.pop(token.key, None)
                # The row has ended, so a fault in its next forward pass does not matter.
                result.faults.pop(token.key, None)
        self.remove(result.faults, faulty=True)
        self._drop_empty()
        return result

    def prefill(self, plan: Sequence[tuple[int, int]]) -> StepResult:
        """Prefill the given number of tokens for each `(key, tokens)`; wait for the forward pass.

        If there are several rows, each must be read to its end. The pass may be wider than what is
        read, see `Shapes`; no padding stays in the caches.
        """
        result = StepResult()
        rows, counts = [self._rows[key] for key, _ in plan], [n for _, n in plan]
        if not rows:
            return result
        try:
            caches, result.computed = self._read(rows, counts)
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            self._suspect(rows, error, result)
            return result
        for row, n in zip(rows, counts, strict=True):
            row.done += n
        if rows[0].left == 0:
            self._start(rows, caches)
        elif not isinstance(caches, SingleRowCaches):
            (row,) = rows
            row.caches = caches.extract(0)
            mx.eval([state_of(layer) for layer in row.caches])
        result.chunks = [Chunk(row.key, row.left) for row in rows]
        return result

    @property
    def padding(self) -> int:
        """How many positions the rows that decode have beyond their own, see `padding`."""
        return sum(padding(_lengths(group.members)) for group in self._groups)

    def affordable(self, plan: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the part of a plan for `prefill` whose rows memory has room for in one pass."""
        chosen: list[tuple[int, int]] = []
        lengths: list[int] = []
        for key, tokens in plan:
            with_it = [*lengths, len(self._rows[key].sequence)]
            if not chosen or self._affords(padding(with_it)):
                chosen.append((key, tokens))
                lengths = with_it
        return chosen

    def _affords(self, more: int) -> bool:
        """Return whether memory has room for so many more positions of padding."""
        if not more or more <= self._free():
            return True
        rows = self._rows.values()
        unused = sum(row.prompt_tokens + row.max_tokens - len(row.sequence) for row in rows)
        return self.padding + more <= BORROWED * unused

    @property
    def waits(self) -> bool:
        """Whether no decode step is possible before a late mask is done."""
        return bool(self._groups) and all(group.waits for group in self._groups)

    def settle(self) -> None:
        """Wait until mlx has finished all launched work, that of removed rows included.

        If the process ended before, mlx's own threads would abort it.
        """
        mx.synchronize()

    def close(self) -> None:
        """Free every row."""
        self.settle()
        self._rows.clear()
        self._groups.clear()

    def _suspect(self, rows: Sequence[Row], error: Exception, result: StepResult) -> None:
        """Handle a failed forward pass: blame its only row, or prefill each row again, alone."""
        result.failed = True
        self._model.failed(error)
        rows = [row for row in rows if not row.gone]
        if len(rows) == 1:
            result.blame(rows[0].key, error)
            self.remove([rows[0].key], faulty=True)
            return
        log.warning(
            "a forward pass of %d runs failed; each goes on alone", len(rows), exc_info=error
        )
        without_frames(error)
        for row in rows:
            if row.key not in result.faults:
                row.suspect, row.caches = True, None
                result.chunks.append(Chunk(row.key, self.add(row)))

    def _caches_of(self, rows: Sequence[Row]) -> RowCaches:
        alone = [row.caches or [] for row in rows]
        if self._single_row.needed:
            return SpeculativeCaches(alone[0], self._single_row)
        return SingleRowCaches(alone[0]) if len(rows) == 1 else self._together(alone)

    def _together(self, rows: Sequence[list[Any]]) -> SlotCaches | MergedCaches:
        slots = self._batching is Batching.SLOTS
        return SlotCaches(rows) if slots else MergedCaches(rows)

    def _read(self, rows: Sequence[Row], counts: Sequence[int]) -> tuple[RowCaches, int]:
        """Read tokens in one forward pass; return their caches, and how many were computed."""
        caches, width, trimmed = self._caches_to_read(rows, counts)
        chunks = [
            [*row.sequence[row.done : row.done + n], *[0] * (width - n)]
            for row, n in zip(rows, counts, strict=True)
        ]
        caches.begin(counts, width)
        extras = self._model.chunk_extras(rows, counts, chunks)
        self._model(mx.array(chunks), cache=caches.layers, **extras)  # no logits are computed
        for layer in caches.layers if trimmed else ():
            layer.trim(trimmed)
        caches.end()
        mx.eval([state_of(layer) for layer in caches.layers])
        if mx.get_cache_memory() > MAX_KEPT:
            mx.clear_cache()
        return caches, width * len(rows)

    def _caches_to_read(
        self, rows: Sequence[Row], counts: Sequence[int]
    ) -> tuple[RowCaches, int, int]:
        """Return caches, how wide the pass is, and how many tokens of padding to trim from them.

        In batched caches padding does no harm. A single row gets such caches if it needs padding
        and can't be trimmed; if it can't be batched either, it gets no padding.
        """
        widths = [self._shapes.width(row.done, n) for row, n in zip(rows, counts, strict=True)]
        width, count = max(*counts, *widths), counts[0]
        if len(rows) > 1 or width == count:
            return self._caches_of(rows), width, 0
        (row,) = rows
        given = row.prompt_embeddings
        if given is None or row.done >= given.length:  # embeddings have no padding
            if is_always_trimmable(row.caches or []):
                return self._caches_of(rows), width, width - count
            if self._batching is not Batching.ALONE:
                return self._together([row.caches or []]), width, 0
        return self._caches_of(rows), count, 0

    def _start(self, rows: Sequence[Row], caches: RowCaches) -> None:
        """Let rows decode, whose sequences have been read up to the last token."""
        for row in rows:
            row.caches, row.fed = None, row.done
        if isinstance(self._model, ModelWithDraft):
            assert isinstance(caches, SpeculativeCaches)
            (row,) = rows
            self._groups.append(
                SpeculativeGroup(
                    self._model,
                    self._single_row,
                    self._ends,
                    row,
                    caches,
                    self._keep,
                    self._masks,
                )
            )
        else:
            self._groups.append(
                Group(self._model, self._ends, rows, caches, self._keep, self._masks)
            )

    def _merge(self) -> None:
        """Merge the groups of rows that can share a forward pass into one group."""
        if self._batching is Batching.ALONE or len(self._groups) == 1:
            return
        sound = [
            group
            for group in self._groups
            if isinstance(group, Group) and not group.suspect and not group.apart
        ]
        if self._apart and self._apart == [*map(id, sound)] and self._steps % LOOK_EVERY:
            return
        apart = sound[:1]
        for group in sound[1:]:
            more, beside = min(
                ((self._padding_together(one, group), one) for one in apart), key=lambda it: it[0]
            )
            if self._affords(more):
                beside.join(group, self._together)
                self._groups.remove(group)
            else:
                apart.append(group)
        self._apart = [*map(id, apart)]

    def _padding_together(self, one: Group, other: Group) -> int:
        """Return how many more positions of padding two groups have as one."""
        mine, theirs = _lengths(one.members), _lengths(other.members)
        return padding([*mine, *theirs]) - padding(mine) - padding(theirs)

    def _drop_empty(self) -> None:
        if not all(group.alive for group in self._groups):
            self._groups = [group for group in self._groups if group.alive]


def _lengths(rows: Iterable[Row]) -> list[int]:
    return [len(row.sequence) for row in rows]


def _if_possible(keep: Keep) -> Keep:
    """Return `keep` as a function that logs errors: caches that can't be kept are read again."""

    def kept(row: Row, make: Callable[[], list[Any]], tokens: int) -> None:
        try:
            keep(row, make, tokens)
        except Exception as error:  # mostly a copy that memory has no room for
            log.warning("the KV caches of a run that leaves can't be kept", exc_info=error)
            without_frames(error)

    return kept
