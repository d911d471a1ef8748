"""Log-probabilities of a run's sampled tokens and of the likeliest alternatives.

They are those of the logits after penalties, biases and constraints, before temperature and
filters, as in mlx-lm. Only the MLX thread uses this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from provider.events import TokenLogprob
from provider.runtime.mlx import mx

__all__ = ["LogprobRecorder", "note_all"]


class _Drawn:
    """The log-probabilities of what some rows have drawn, read from the device once for all."""

    __slots__ = ("_arrays", "_lists")

    def __init__(self, arrays: Sequence[mx.array]):
        self._arrays = arrays
        self._lists: list[Any] = []

    def row(self, index: int) -> tuple[float, list[int], list[float]]:
        """Return a row's own log-probability, and the likeliest tokens with theirs."""
        if not self._lists:
            self._lists, self._arrays = [array.tolist() for array in self._arrays], ()
        own, ids, values = self._lists
        return own[index], ids[index], values[index]


class LogprobRecorder:
    """Records one run's log-probabilities until they are read.

    A token that is drawn again for an index replaces the earlier record.
    """

    def __init__(self, top: int):
        self.top = top
        self._noted: dict[int, tuple[_Drawn, int]] = {}  # by index in the answer

    def note(self, place: int, drawn: _Drawn, row: int) -> None:
        """Record the token for an index of the answer, which a row of `drawn` has."""
        self._noted[place] = drawn, row

    def read(self, place: int) -> TokenLogprob:
        """Return the record of the token at an index of the answer; forget it and earlier ones."""
        drawn, row = self._noted[place]
        self._noted = {at: noted for at, noted in self._noted.items() if at > place}
        logprob, ids, values = drawn.row(row)
        # Tokens that a constraint forbids are left out.
        might = [pair for pair in zip(ids, values, strict=True) if pair[1] > -math.inf]
        top = sorted(might, key=lambda pair: -pair[1])[: self.top]
        return TokenLogprob(logprob, tuple(top))


def note_all(
    logits: mx.array, chosen: mx.array, noting: Sequence[tuple[LogprobRecorder, int, int]]
) -> None:
    """Record tokens `(rows,)` drawn from logits `(rows, vocabulary)`, not waiting for the device.

    `noting` has each recorder with its index in the answer and its row.
    """
    rows = [row for _, _, row in noting]
    if len(rows) < logits.shape[0]:
        order = mx.array(rows)
        logits, chosen = logits[order], chosen[order]
    logits = logits.astype(mx.float32)
    total = mx.logsumexp(logits, axis=-1, keepdims=True)
    own = mx.take_along_axis(logits, chosen[:, None], axis=-1) - total
    top = max(recorder.top for recorder, _, _ in noting)
    ids = mx.zeros((len(rows), 0), mx.uint32)
    if top:
        ids = mx.argpartition(-logits, kth=top - 1, axis=-1)[:, :top]
    arrays = own[:, 0], ids, mx.take_along_axis(logits, ids, axis=-1) - total
    mx.async_eval(*arrays)  # type: ignore[no-untyped-call]
    drawn = _Drawn(arrays)
    for number, (recorder, place, _) in enumerate(noting):
        recorder.note(place, drawn, number)
