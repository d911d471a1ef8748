"""Rows that decode in one forward pass, which is launched before the last tokens are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from provider.caches.kinds import state_of
from provider.caches.merged import MergedCaches
from provider.caches.rows import RowCaches
from provider.caches.single import SingleRowCaches
from provider.caches.slots import SlotCaches
from provider.constraints.mask_maker import MaskMaker
from provider.engine.model import Model
from provider.engine.rows import Keep, Row, StepResult, finish_of
from provider.engine.sampling import Failures, Late, choose, choose_late
from provider.interface import GenerationError
from provider.runtime.mlx import mx
from provider.runtime.mlx_lm import TokenBuffer

__all__ = ["Group", "Together"]

MAX_DEAD = 0.25  # share of a group's slots that may be without a row before it is made smaller
Together = Callable[[Sequence[list[Any]]], SlotCaches | MergedCaches]


class Group:
    """Rows that decode in one forward pass."""

    def __init__(
        self,
        model: Model,
        ends: frozenset[int],
        rows: Sequence[Row],
        caches: RowCaches,
        keep: Keep | None,
        masks: MaskMaker,
    ):
        self._model = model
        self._ends = ends
        self._caches = caches
        self._keep = keep
        self._masks = masks
        self._late: Late | None = None  # what the only row waits with for its mask
        self._parting: dict[int, Late] = {}  # slots of rows whose mask is late
        self._rows: list[Row | None] = list(rows)  # by slot; None for a dead slot
        # Last sampled token of each slot, to be fed next.
        self._next: Any = mx.zeros((len(rows),), mx.uint32)
        # The tokens of the launched forward pass, not read yet, and its rows by slot.
        self._launched: tuple[Any, list[Row | None]] | None = None
        # By slot, the token to feed to a row that has just joined.
        self._fresh = {slot: row.sequence[-1] for slot, row in enumerate(rows)}
        for row in rows:
            row.context = TokenBuffer(row.sequence[:-1]) if row.processors else None

    @property
    def members(self) -> list[Row]:
        """The rows that have not ended, whether their next token has been launched or not."""
        launched = self._launched[1] if self._launched else []
        found = [row for row in (*self._rows, *launched) if row is not None and not row.gone]
        return list(dict.fromkeys(found))

    @property
    def alive(self) -> bool:
        """Whether it has members; costs less than asking for them."""
        launched = self._launched[1] if self._launched else ()
        return any(row is not None and not row.gone for row in chain(self._rows, launched))

    @property
    def suspect(self) -> bool:
        """Whether it has a row that must run alone first, after a failed forward pass."""
        return any(row is not None and row.suspect for row in self._rows)

    @property
    def apart(self) -> bool:
        """Whether it must not be joined with others, because it has a row with slow masks."""
        return self._late is not None or any(
            row is not None and row.constraint is not None and row.constraint.slow
            for row in (self._rows if len(self._rows) == 1 else ())
        )

    @property
    def waits(self) -> bool:
        """Whether it can't make a step before a late mask is done."""
        return self._late is not None and not self._late.job.done

    def parted(self) -> list[Group]:
        """Take the rows out whose masks are late; return each as a group that waits."""
        parting, self._parting = self._parting, {}
        found = []
        for slot, late in parting.items():
            row = self._rows[slot]
            if row is None or row.gone:
                late.job.dropped = True
            elif isinstance(self._caches, SingleRowCaches):
                self._late = late
            else:
                context = row.context
                group = Group(
                    self._model,
                    self._ends,
                    [row],
                    SingleRowCaches(self._copied(slot)),
                    self._keep,
                    self._masks,
                )
                row.context, group._fresh, group._late = context, {}, late
                found.append(group)
                self.leave(row, keep=False)
        return found

    def join(self, other: Group, together: Together) -> None:
        """Take the rows of another group, and its launched forward pass."""
        if other._launched is not None:
            mine = self._launched or (mx.zeros((0,), mx.uint32), [])
            sampled = mx.concatenate([mine[0], other._launched[0]])
            self._launched = (sampled, [*mine[1], *other._launched[1]])
        other._compact(0.0)
        if not any(other._rows):
            return
        if not any(self._rows):
            self._caches, self._rows = other._caches, other._rows
            self._next, self._fresh = other._next, other._fresh
            return
        slots = self._make_room(other, together)
        more = max(slots) + 1 - len(self._rows)
        if more > 0:
            self._rows += [None] * more
            self._next = mx.concatenate([self._next, mx.zeros((more,), mx.uint32)])
        # A new array, because the old one holds the launched tokens, which are not read yet.
        self._next = mx.put_along_axis(self._next, mx.array(slots), other._next, axis=0)
        for place, slot in enumerate(slots):
            self._rows[slot] = other._rows[place]
            if place in other._fresh:
                self._fresh[slot] = other._fresh[place]

    def _make_room(self, other: Group, together: Together) -> list[int]:
        mine, theirs = (
            together([caches.layers]) if isinstance(caches, SingleRowCaches) else caches
            for caches in (self._caches, other._caches)
        )
        self._caches = mine
        if isinstance(mine, SlotCaches) and isinstance(theirs, SlotCaches):
            free = [slot for slot, row in enumerate(self._rows) if row is None]
            return mine.join(theirs, free)
        assert isinstance(mine, MergedCaches)
        assert isinstance(theirs, MergedCaches)
        self._compact(0.0)
        return mine.join(theirs)

    def leave(self, row: Row, *, keep: bool = True) -> None:
        """Free the slot of a row, if it has one here; with `keep`, offer its caches for reuse."""
        if row in self._rows:
            slot = self._rows.index(row)
            if self._late is not None:
                self._late.job.dropped, self._late = True, None
            if keep and self._keep is not None:
                self._keep(row, lambda: self._copied(slot), row.fed)
            self._rows[slot] = None
            self._fresh.pop(slot, None)
            if isinstance(self._caches, SlotCaches):
                self._caches.free(slot)

    def _copied(self, slot: int) -> list[Any]:
        caches = self._caches.extract(slot)
        # An unevaluated copy of one row would keep the memory of all rows.
        mx.async_eval([state_of(layer) for layer in caches])  # type: ignore[no-untyped-call]
        return caches

    def extract(self, row: Row) -> tuple[list[Any] | None, int | None]:
        """Return copies of a row's caches, and its token that was launched and not read yet.

        The caches are None for a row without a slot, the token is None if there is none.
        """
        pending = None
        if self._launched is not None and row in self._launched[1]:
            pending = int(self._launched[0][self._launched[1].index(row)].item())
        # The caches of a row that waits for its mask hold a token more than others'.
        if row not in self._rows or self._late is not None:
            return None, pending
        return self._caches.extract(self._rows.index(row)), pending

    @property
    def first_token_pending(self) -> bool:
        """Whether the first token of a row has been launched and not yet read."""
        for row in self._launched[1] if self._launched else ():
            if row is not None and len(row.sequence) == row.prompt_tokens:
                return True
        return False

    def collect(self, result: StepResult) -> None:
        """Read the tokens of the launched forward pass, without launching another."""
        if self._launched is not None:
            self._append(*self._launched, result)
            self._launched = None

    def step(self, result: StepResult) -> None:
        """Launch the next forward pass, then read the tokens of the previous one."""
        launched, failure = None, None
        try:
            launched = self._launch(result)
        except Exception as error:  # noqa: BLE001 - raised after the previous tokens are read
            failure = error
        # A row whose last token was launched has left its slot: it is a member by that pass alone.
        if self._launched is not None:
            self._append(*self._launched, result)
        self._launched = launched
        if failure is not None:
            raise failure

    def _launch(self, result: StepResult) -> tuple[Any, list[Row | None]] | None:
        for row in self._rows:
            if row is not None and row.drawn >= row.max_tokens:
                self.leave(row)  # its last token is launched
        if not any(self._rows):
            return None
        if self._late is not None:
            return self._launch_late(self._late, result)
        self._compact(MAX_DEAD)
        rows = list(self._rows)
        if self._fresh:
            fed = mx.array([self._fresh.get(slot, 0) for slot in range(len(rows))], mx.uint32)
            fresh = mx.array([slot in self._fresh for slot in range(len(rows))])
            self._next = mx.where(fresh, fed, self._next)
            self._fresh = {}
        self._caches.begin([int(row is not None) for row in rows], 1)
        extras = self._model.step_extras(rows)
        logits = self._model(self._next[:, None], cache=self._caches.layers, **extras)[:, -1, :]
        self._caches.end()
        self._next, failed, late = choose(logits, rows, self._next, self._masks)
        mx.async_eval(self._next)  # type: ignore[no-untyped-call]
        for row in rows:
            if row is not None:
                row.drawn += 1
                row.fed += 1
        if late:
            rows = self._part(late, rows, failed)
        return self._launched_with(rows, failed, result)

    def _part(
        self, late: dict[int, Late], rows: list[Row | None], failed: Failures
    ) -> list[Row | None]:
        """Note the rows whose masks are late, which draw no token now; return the others."""
        mx.async_eval([one.logits for one in late.values()])  # type: ignore[no-untyped-call]
        for slot in late:
            row = rows[slot]
            assert row is not None
            row.drawn -= 1
        self._parting = {slot: one for slot, one in late.items() if slot not in failed}
        return [row if slot not in self._parting else None for slot, row in enumerate(rows)]

    def _launch_late(self, late: Late, result: StepResult) -> tuple[Any, list[Row | None]] | None:
        """Draw the token of the only row, if its mask is done by now."""
        if not late.job.done:
            return None
        self._late = None
        (row,) = self._rows
        assert row is not None
        self._next, failed = choose_late(late, row)
        mx.async_eval(self._next)  # type: ignore[no-untyped-call]
        row.drawn += 1
        return self._launched_with([row], failed, result)

    def _launched_with(
        self, rows: list[Row | None], failed: Failures, result: StepResult
    ) -> tuple[Any, list[Row | None]]:
        for slot, error in failed.items():
            row = rows[slot]
            assert row is not None
            result.blame(row.key, error)
        return self._next, rows

    def _append(self, sampled: Any, rows: Sequence[Row | None], result: StepResult) -> None:
        for row, token in zip(rows, sampled.tolist(), strict=True):
            if row is None or row.gone:
                continue
            row.suspect = False
            row.sequence.append(token)
            try:
                finish = finish_of(row, token, self._ends)
            except GenerationError as error:
                result.blame(row.key, error)
                continue
            result.tokens.append(row.given(token, finish))
            if finish:
                row.gone = True
                self.leave(row)

    def _compact(self, max_dead: float) -> None:
        living = [slot for slot, row in enumerate(self._rows) if row is not None]
        dead = len(self._rows) - len(living)
        if not living or not dead or dead < max_dead * len(self._rows):
            return
        self._caches.keep(living)
        self._fresh = {
            place: self._fresh[slot] for place, slot in enumerate(living) if slot in self._fresh
        }
        self._next = self._next[mx.array(living)]
        self._rows = [self._rows[slot] for slot in living]
