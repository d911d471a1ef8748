"""The rows of one model that run together: prompts in chunks, then one token each a step.

Rule 1: only the MLX thread calls it.
Rule 2: a removed row takes part in no later forward pass.
Rule 3: a step launches the next forward pass before it reads the tokens of the one before, so that
the device works while Python does. What was launched for a row that turns out to have ended is
dropped.
Rule 4: an error ends the row that caused it and no other. Where it can't be told whose it is, the
rows of that forward pass are read again from their tokens, each alone at first: the one at fault
fails alone, the others go on with the same text.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlx_lm.models.cache import TokenBuffer, make_prompt_cache

from provider.backend import mx
from provider.caches import Batching, LoneCaches, MergedCaches, RowCaches, SlotCaches, batching_of
from provider.sampling import Processor, Sampler, choose

__all__ = ["Batch", "Chunk", "Parked", "Row", "StepResult", "Token"]

log = logging.getLogger(__name__)

MOST_DEAD = 0.25  # share of a group's rows that may be dead before it is made smaller
Keep = Callable[["Row", list[Any], int], None]
Together = Callable[[Sequence[list[Any]]], SlotCaches | MergedCaches]

CLEAR_EVERY = 512  # steps after which mlx gives back the buffers that it has kept for reuse
MOST_KEPT = 1 << 30  # bytes of such buffers after a chunk; the next steps can use that many


@dataclass(eq=False)
class Row:
    """One run's part in the batch."""

    key: int
    sequence: list[int]  # the prompt, then every token that was generated and read
    prompt_tokens: int
    max_tokens: int
    sampler: Sampler
    processors: Sequence[Processor] = ()
    caches: list[Any] | None = None  # while its sequence is read: of this row alone
    done: int = 0  # tokens of the sequence in these caches
    fed: int = 0  # tokens of the sequence in the batch's caches, while it decodes
    drawn: int = 0  # tokens sampled, of which the last may not be read yet
    suspect: bool = False  # was in a forward pass that failed
    gone: bool = False
    context: Any = None  # a TokenBuffer, for the processors

    @property
    def generated(self) -> int:
        """How many tokens were generated and read."""
        return len(self.sequence) - self.prompt_tokens

    @property
    def left(self) -> int:
        """How many tokens remain to be prefilled; the last one is fed by a decode step."""
        return len(self.sequence) - 1 - self.done


@dataclass(frozen=True)
class Token:
    """One row's token of one step; `finish` is None, "stop" or "length"."""

    key: int
    token: int
    finish: str | None


@dataclass(frozen=True)
class Chunk:
    """How far a prefill has come: `left` tokens of the row's sequence are still to be read."""

    key: int
    left: int


@dataclass
class Parked:
    """A row that has left the batch, and what it needs to go on as if it had not."""

    row: Row
    pending: int | None  # a token that was sampled and not read


@dataclass
class StepResult:
    """What a decode step or a prefill gave."""

    tokens: list[Token] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)  # rows that were read, or must be again
    faults: list[tuple[int, Exception]] = field(default_factory=list)  # rows that are at fault


class Batch:
    """All rows of one model."""

    def __init__(self, model: Any, ends: Iterable[int], keep: Keep | None = None):
        self._model = model
        self._ends = frozenset(ends)
        self._keep = keep  # gets the caches of a row that leaves, and how many tokens they hold
        self._batching = batching_of(model)
        self._rows: dict[int, Row] = {}
        self._groups: list[_Group] = []
        self._steps = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def together(self) -> bool:
        """Whether several prompts can be read in one forward pass."""
        return self._batching is not Batching.ALONE and not any(
            row.suspect for row in self._rows.values()
        )

    def add(self, row: Row) -> int:
        """Take a row; return how many tokens are to be prefilled before it decodes."""
        self._rows[row.key] = row
        if row.caches is None:
            row.caches, row.done = make_prompt_cache(self._model), 0
        row.drawn = row.generated
        if hasattr(row.sampler, "seek"):
            row.sampler.seek(row.drawn)
        if row.left == 0:
            self._start([row], self._caches_of([row]))
        return row.left

    def remove(self, keys: Iterable[int], *, faulty: bool = False) -> None:
        """Take rows out before the next forward pass; unknown keys are ignored.

        What they have read is kept for others, unless they are `faulty`.
        """
        for key in keys:
            row = self._rows.pop(key, None)
            if row is None:
                continue
            row.gone = True
            for group in self._groups:
                group.leave(row, keep=not faulty)
            if row.caches is not None and row.done and self._keep is not None and not faulty:
                self._keep(row, row.caches, row.done)
        self._drop_empty()

    def park(self, key: int) -> Parked:
        """Take a decoding row out with its caches, evaluated, and the token that is on its way."""
        row = self._rows.pop(key)
        (group,) = (group for group in self._groups if row in group.members)
        caches, pending = group.extract(row)
        mx.eval([_state(layer) for layer in caches or []])
        row.gone = True
        group.leave(row, keep=False)
        self._drop_empty()
        done = len(row.sequence) - (pending is None)
        return Parked(replace(row, caches=caches, done=done, gone=False), pending)

    def deliver(self, parked: Parked) -> Token:
        """Read the token that a parked row had on its way."""
        assert parked.pending is not None
        row, token = parked.row, parked.pending
        row.sequence.append(token)
        return Token(row.key, token, _finish(row, token, self._ends))

    @property
    def first_token_flies(self) -> bool:
        """Whether a row's first token is on its way, which is better not kept waiting."""
        return any(group.first_token_flies for group in self._groups)

    def collect(self) -> StepResult:
        """Wait for the forward passes on their way, launch none, and return their tokens."""
        return self._each(_Group.collect)

    def decode(self) -> StepResult:
        """Launch a forward pass for every decoding row, and return the tokens of the last one."""
        self._merge()
        result = self._each(_Group.step)
        self._steps += 1
        if self._steps % CLEAR_EVERY == 0:
            mx.clear_cache()
        return result

    def _each(self, do: Callable[[_Group, StepResult], None]) -> StepResult:
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
        self.remove([key for key, _ in result.faults], faulty=True)
        self._drop_empty()
        return result

    def prefill(self, plan: Sequence[tuple[int, int]]) -> StepResult:
        """Read a chunk of each sequence, `(key, tokens)`, in one forward pass; wait for its end.

        Sequences that are read together must be read to their ends.
        """
        result = StepResult()
        rows, counts = [self._rows[key] for key, _ in plan], [n for _, n in plan]
        if not rows:
            return result
        try:
            caches = self._caches_of(rows)
            self._read(rows, counts, caches)
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            self._suspect(rows, error, result)
            return result
        for row, n in zip(rows, counts, strict=True):
            row.done += n
        if rows[0].left == 0:
            self._start(rows, caches)
        result.chunks = [Chunk(row.key, row.left) for row in rows]
        return result

    def settle(self) -> None:
        """Wait for what removed rows' last step still computes.

        A program that ends meanwhile would be aborted by mlx's own threads.
        """
        mx.synchronize()

    def close(self) -> None:
        """Free every row."""
        self.settle()
        self._rows.clear()
        self._groups.clear()

    def _suspect(self, rows: Sequence[Row], error: Exception, result: StepResult) -> None:
        """One of these rows made a forward pass fail: the only one, or it will show alone."""
        rows = [row for row in rows if not row.gone]
        if len(rows) == 1:
            result.faults.append((rows[0].key, error))
            self.remove([rows[0].key], faulty=True)
            return
        log.warning(
            "a forward pass of %d runs failed; each goes on alone", len(rows), exc_info=error
        )
        for row in rows:
            row.suspect, row.caches = True, None
            result.chunks.append(Chunk(row.key, self.add(row)))

    def _caches_of(self, rows: Sequence[Row]) -> RowCaches:
        alone = [row.caches or [] for row in rows]
        return LoneCaches(alone[0]) if len(rows) == 1 else self._together(alone)

    def _together(self, rows: Sequence[list[Any]]) -> SlotCaches | MergedCaches:
        slots = self._batching is Batching.SLOTS
        return SlotCaches(rows) if slots else MergedCaches(rows)

    def _read(self, rows: Sequence[Row], counts: Sequence[int], caches: RowCaches) -> None:
        width = max(counts)
        chunks = [
            [*row.sequence[row.done : row.done + n], *[0] * (width - n)]
            for row, n in zip(rows, counts, strict=True)
        ]
        caches.begin(counts, width)
        self._model(mx.array(chunks), cache=caches.layers)  # the logits are never computed
        caches.end()
        mx.eval([_state(layer) for layer in caches.layers])
        if mx.get_cache_memory() > MOST_KEPT:
            mx.clear_cache()

    def _start(self, rows: Sequence[Row], caches: RowCaches) -> None:
        """Let rows decode whose sequences are read but for the last token."""
        for row in rows:
            row.caches, row.fed = None, row.done
        self._groups.append(_Group(self._model, self._ends, rows, caches, self._keep))

    def _merge(self) -> None:
        """Make one group of all those that may run together."""
        if self._batching is Batching.ALONE or len(self._groups) == 1:
            return
        sound = [group for group in self._groups if not group.suspect]
        for group in sound[1:]:
            sound[0].join(group, self._together)
            self._groups.remove(group)

    def _drop_empty(self) -> None:
        self._groups = [group for group in self._groups if group.members]


class _Group:
    """Rows that decode in one forward pass."""

    def __init__(
        self,
        model: Any,
        ends: frozenset[int],
        rows: Sequence[Row],
        caches: RowCaches,
        keep: Keep | None,
    ):
        self._model = model
        self._ends = ends
        self._caches = caches
        self._keep = keep
        self._rows: list[Row | None] = list(rows)  # by slot; None is dead
        self._next: Any = mx.zeros((len(rows),), mx.uint32)  # by slot: sampled last, to be fed next
        self._flying: tuple[Any, list[Row | None]] | None = None  # launched, not read
        # By slot: what to feed to a row that has just come.
        self._fresh = {slot: row.sequence[-1] for slot, row in enumerate(rows)}
        for row in rows:
            row.context = TokenBuffer(row.sequence[:-1]) if row.processors else None

    @property
    def members(self) -> list[Row]:
        """The rows that still want a token, launched or not."""
        flying = self._flying[1] if self._flying else []
        found = [row for row in (*self._rows, *flying) if row is not None and not row.gone]
        return list(dict.fromkeys(found))

    @property
    def suspect(self) -> bool:
        """Whether its row still has to show that it can run alone."""
        return any(row is not None and row.suspect for row in self._rows)

    def join(self, other: _Group, together: Together) -> None:
        """Take the rows of another group, and what it has launched."""
        if other._flying is not None:
            mine = self._flying or (mx.zeros((0,), mx.uint32), [])
            sampled = mx.concatenate([mine[0], other._flying[0]])
            self._flying = (sampled, [*mine[1], *other._flying[1]])
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
        # Not in place: what was launched and is not read yet is this very array.
        self._next = mx.put_along_axis(self._next, mx.array(slots), other._next, axis=0)
        for place, slot in enumerate(slots):
            self._rows[slot] = other._rows[place]
            if place in other._fresh:
                self._fresh[slot] = other._fresh[place]

    def _make_room(self, other: _Group, together: Together) -> list[int]:
        mine, theirs = (
            together([caches.layers]) if isinstance(caches, LoneCaches) else caches
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
        """Free a row's slot, if it is one of this group's."""
        if row in self._rows:
            slot = self._rows.index(row)
            if keep and self._keep is not None:
                caches = self._caches.extract(slot)
                # At once: unevaluated, a copy of one row holds on to the memory of all.
                mx.async_eval([_state(layer) for layer in caches])  # type: ignore[no-untyped-call]
                self._keep(row, caches, row.fed)
            self._rows[slot] = None
            self._fresh.pop(slot, None)
            if isinstance(self._caches, SlotCaches):
                self._caches.free(slot)

    def extract(self, row: Row) -> tuple[list[Any] | None, int | None]:
        """Return copies of a row's caches, if it still has a slot, and its unread token, if any."""
        pending = None
        if self._flying is not None and row in self._flying[1]:
            pending = int(self._flying[0][self._flying[1].index(row)].item())
        if row not in self._rows:
            return None, pending
        return self._caches.extract(self._rows.index(row)), pending

    @property
    def first_token_flies(self) -> bool:
        """Whether a row's first token was launched and not read."""
        return self._flying is not None and any(
            row is not None and not row.generated for row in self._flying[1]
        )

    def collect(self, result: StepResult) -> None:
        """Read what was launched last."""
        flying, self._flying = self._flying, None
        if flying is not None:
            result.tokens += self._take(*flying)

    def step(self, result: StepResult) -> None:
        """Launch the next forward pass, then read what the one before has sampled."""
        before, self._flying = self._flying, None
        failure: Exception | None = None
        try:
            self._flying = self._launch(result.faults)
        except Exception as error:  # noqa: BLE001 - raised again when what is good is safe
            failure = error
        if before is not None:
            result.tokens += self._take(*before)
        if failure is not None:
            raise failure

    def _launch(self, faults: list[tuple[int, Exception]]) -> tuple[Any, list[Row | None]] | None:
        for row in self._rows:
            if row is not None and row.drawn >= row.max_tokens:
                self.leave(row)  # all it wants is on its way
        if not any(self._rows):
            return None
        self._compact(MOST_DEAD)
        rows = list(self._rows)
        if self._fresh:
            fed = mx.array([self._fresh.get(slot, 0) for slot in range(len(rows))], mx.uint32)
            fresh = mx.array([slot in self._fresh for slot in range(len(rows))])
            self._next = mx.where(fresh, fed, self._next)
            self._fresh = {}
        self._caches.begin([int(row is not None) for row in rows], 1)
        logits = self._model(self._next[:, None], cache=self._caches.layers)[:, -1, :]
        self._caches.end()
        self._next, failed = choose(logits, rows, self._next)
        mx.async_eval(self._next)  # type: ignore[no-untyped-call]
        for row in rows:
            if row is not None:
                row.drawn += 1
                row.fed += 1
        faults += [(rows[slot].key, error) for slot, error in failed]  # type: ignore[union-attr]
        return self._next, rows

    def _take(self, sampled: Any, rows: Sequence[Row | None]) -> list[Token]:
        tokens: list[Token] = []
        for row, token in zip(rows, sampled.tolist(), strict=True):
            if row is None or row.gone:
                continue
            row.suspect = False
            row.sequence.append(token)
            finish = _finish(row, token, self._ends)
            if finish:
                row.gone = True
                self.leave(row)
            tokens.append(Token(row.key, token, finish))
        return tokens

    def _compact(self, most_dead: float) -> None:
        living = [slot for slot, row in enumerate(self._rows) if row is not None]
        dead = len(self._rows) - len(living)
        if not living or not dead or dead < most_dead * len(self._rows):
            return
        self._caches.take(living)
        self._fresh = {
            place: self._fresh[slot] for place, slot in enumerate(living) if slot in self._fresh
        }
        self._next = self._next[mx.array(living)]
        self._rows = [self._rows[slot] for slot in living]


def _finish(row: Row, token: int, ends: frozenset[int]) -> str | None:
    if token in ends:
        return "stop"
    return "length" if row.generated >= row.max_tokens else None


def _state(layer: Any) -> Any:
    """Return the arrays of a cache that a forward pass has changed."""
    keys = getattr(layer, "keys", None)
    return [keys, layer.values] if keys is not None else layer.state
