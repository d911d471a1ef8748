"""Chooses how large a prefill chunk may be while streams are running.

Pure policy: no thread, no clock, no tensor.
"""

from __future__ import annotations

__all__ = [
    "FIRST_CHUNK",
    "MARGIN",
    "MAX_CHUNK",
    "MIN_CHUNK",
    "Pace",
]


MAX_CHUNK = 2048  # tokens; prefill is fastest in chunks of about this size

MIN_CHUNK = 16  # tokens; smaller chunks cost a whole forward pass and read little

MARGIN = 0.6  # share of the allowed token gap that a turn aims at, because chunk times vary

FIRST_CHUNK = 64  # tokens; chunk size beside running streams before any chunk was timed


class Pace:
    """Chooses the size of prefill chunks from the measured times of chunks and decode steps.

    Prefill is slower the longer the context, so speeds are kept for each magnitude of context.
    """

    def __init__(self, max_token_gap_s: float):
        self._gap_s = max_token_gap_s
        self._step_s = 0.0  # moving average of a decode step, in seconds
        self._last = FIRST_CHUNK
        self._speeds: dict[int, float] = {}  # tokens a second, by the context's bit length

    def decoded(self, seconds: float) -> None:
        """Record the time of a decode step in a turn without a chunk."""
        self._step_s += 0.2 * (seconds - self._step_s) if self._step_s else seconds

    def prefilled(self, tokens: int, context: int, seconds: float) -> None:
        """Record the time of a chunk of `tokens` tokens read after `context` tokens."""
        self._last = max(tokens, MIN_CHUNK)
        if seconds > 0:
            self._speeds[context.bit_length()] = tokens / seconds

    def budget(self, context: int, active_models: int = 1, *, streaming: bool = True) -> int:
        """Return how many tokens a chunk after `context` tokens may have.

        It is the largest size if no run streams and this is the only active model. Otherwise the
        chunk must fit into the allowed token gap, which `active_models` models share.
        """
        if not streaming and active_models == 1:
            return MAX_CHUNK
        size = context.bit_length()
        known = [bits for bits in self._speeds if bits <= size]
        if not known:
            return FIRST_CHUNK
        nearest = max(known)
        speed = self._speeds[nearest] * (1.0 if nearest == size else 0.5)
        room = int(speed * (MARGIN * self._gap_s / active_models - self._step_s))
        return max(MIN_CHUNK, min(room, 2 * self._last, MAX_CHUNK))
