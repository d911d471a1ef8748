"""Log-probabilities of the tokens that a run draws, and of those that it might have drawn.

They are of the distribution that is sampled from: after penalties, biases and forms, before the
temperature and its filters, as mlx-lm gives them. All of it belongs to the MLX thread.
"""

from __future__ import annotations

import math
from typing import Any

from provider.events import TokenLogprob
from provider.runtime.mlx import mx

__all__ = [
    "LogprobRecorder",
]


class LogprobRecorder:
    """Notes what one run draws, until that is read; what is drawn again takes its place."""

    def __init__(self, top: int):
        self._top = top
        self._noted: dict[int, tuple[Any, Any, Any]] = {}  # arrays by place in the answer

    def note(self, place: int, logits: mx.array, chosen: mx.array) -> None:
        """Note a draw from logits `(vocabulary,)`; nothing waits for it to be computed."""
        logprobs = logits.astype(mx.float32) - mx.logsumexp(logits.astype(mx.float32))
        ids: Any = mx.zeros((0,), mx.uint32)
        if self._top:
            ids = mx.argpartition(-logprobs, kth=self._top - 1)[: self._top]
        noted = (logprobs[chosen], ids, logprobs[ids])
        mx.async_eval(*noted)  # type: ignore[no-untyped-call]
        self._noted[place] = noted

    def read(self, place: int) -> TokenLogprob:
        """Return what was drawn at a place of the answer, and forget it and all before it."""
        logprob, ids, values = self._noted[place]
        self._noted = {at: noted for at, noted in self._noted.items() if at > place}
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        # Tokens that a form forbids are left out.
        might = [pair for pair in pairs if pair[1] > -math.inf]
        top = sorted(might, key=lambda pair: -pair[1])
        return TokenLogprob(float(logprob.item()), tuple(top))
