"""mlx-lm's BatchGenerator behind add, step and remove.

Rule 1: only the MLX thread calls it.
Rule 2: a removed row takes part in no later step.
Rule 3: after an exception from `step` the batch is unusable; close it and make another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_lm.generate import BatchGenerator, StopSequences

from provider.backend import mx

__all__ = ["Batch", "Row", "StepResult", "Token"]

PREFILL_STEP = 2048  # tokens a chunk while nothing decodes: the fastest way through a prompt
PREFILL_ROWS = 8  # prompts read together


@dataclass(frozen=True)
class Row:
    """What one run brings into the batch."""

    key: int
    prompt: Sequence[int]
    max_tokens: int
    sampler: Any
    processors: Sequence[Any]


@dataclass(frozen=True)
class Token:
    """One row's token of one step; `finish` is None, "stop" or "length"."""

    key: int
    token: int
    finish: str | None


@dataclass(frozen=True)
class StepResult:
    """What one step gave: a token for each decoding row, progress (done, total) of prefills."""

    tokens: Sequence[Token]
    progress: Sequence[tuple[int, int, int]]


class Batch:
    """The rows that decode and prefill together."""

    def __init__(self, model: Any, eos_token_ids: Iterable[int], max_rows: int):
        self._stops = StopSequences([(token,) for token in eos_token_ids])
        self._generator = BatchGenerator(
            model,
            completion_batch_size=max_rows,
            prefill_batch_size=min(PREFILL_ROWS, max_rows),
            prefill_step_size=PREFILL_STEP,
        )
        self._keys: dict[int, int] = {}  # uid -> key
        self._uids: dict[int, int] = {}  # key -> uid

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, rows: Sequence[Row]) -> None:
        """Insert rows; their prefill begins with the next step."""
        if not rows:
            return
        uids = self._generator.insert(
            [list(row.prompt) for row in rows],
            max_tokens=[row.max_tokens for row in rows],
            samplers=[row.sampler for row in rows],
            logits_processors=[list(row.processors) for row in rows],
            stop_sequences=[self._stops] * len(rows),
        )
        for uid, row in zip(uids, rows, strict=True):
            self._keys[uid], self._uids[row.key] = row.key, uid

    def remove(self, keys: Iterable[int]) -> None:
        """Take rows out before the next forward pass; unknown keys are ignored."""
        uids = [self._uids[key] for key in keys if key in self._uids]
        if uids:
            self._generator.remove(uids)
            self._forget(uids)

    def step(self, prefill_step: int = PREFILL_STEP) -> StepResult:
        """Decode one token for every row, then read one chunk of at most `prefill_step` tokens."""
        self._generator.prefill_step_size = prefill_step
        prompts, answers = self._generator.next()
        tokens = [Token(self._keys[a.uid], a.token, a.finish_reason) for a in answers]
        progress = [(self._keys[p.uid], *p.progress) for p in prompts]
        self._forget([a.uid for a in answers if a.finish_reason])
        return StepResult(tokens, progress)

    def settle(self) -> None:
        """Wait for what a removed row's last step still computes.

        A program that ends meanwhile would be aborted by mlx's own threads.
        """
        mx.synchronize(self._generator.stream)

    def close(self) -> None:
        """Free what the generator holds."""
        self.settle()
        self._generator.close()
        self._keys.clear()
        self._uids.clear()

    def _forget(self, uids: Iterable[int]) -> None:
        for uid in uids:
            self._uids.pop(self._keys.pop(uid))
