"""Log-probabilities of a run's sampled tokens and of the likeliest alternatives.

They are those of the logits after penalties, biases and constraints, before temperature and
filters, as in mlx-lm. Only the MLX thread uses this module.
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
    """Records one run's log-probabilities until they are read.

    A token that is drawn again for an index replaces the earlier record.
    """

    def __init__(self, top: int):
        self._top = top
        self._noted: dict[int, tuple[Any, Any, Any]] = {}  # arrays by index in the answer

    def note(self, place: int, logits: mx.array, chosen: mx.array) -> None:
        """Record the token drawn from logits `(vocabulary,)`, without waiting for the device."""
        logprobs = logits.astype(mx.float32) - mx.logsumexp(logits.astype(mx.float32))
        ids: Any = mx.zeros((0,), mx.uint32)
        if self._top:
            ids = mx.argpartition(-logprobs, kth=self._top - 1)[: self._top]
        noted = (logprobs[chosen], ids, logprobs[ids])
        mx.async_eval(*noted)  # type: ignore[no-untyped-call]
        self._noted[place] = noted

    def read(self, place: int) -> TokenLogprob:
        """Return the record of the token at an index of the answer; forget it and earlier ones."""
        logprob, ids, values = self._noted[place]
        self._noted = {at: noted for at, noted in self._noted.items() if at > place}
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        # Tokens that a constraint forbids are left out.
        might = [pair for pair in pairs if pair[1] > -math.inf]
        top = sorted(might, key=lambda pair: -pair[1])
        return TokenLogprob(float(logprob.item()), tuple(top))
