"""How large a prefill chunk may be beside running streams.

Pure policy: no thread, no clock, no tensor.
"""

from __future__ import annotations

__all__ = [
    "FIRST_CHUNK",
    "LEAST_CHUNK",
    "MARGIN",
    "MOST_CHUNK",
    "Pace",
]


MOST_CHUNK = 2048  # tokens; chunk of a prompt that is read alone, as fast as the machine can

LEAST_CHUNK = 16  # tokens; smaller chunks cost a pass and read little

MARGIN = 0.6  # share of the gap that chunks aim at, because their times vary

FIRST_CHUNK = 64  # tokens; chunk beside running streams before anything was measured


class Pace:
    """How large a chunk of a prompt may be, from how long chunks and steps have taken.

    Reading costs more the longer the context is, so speeds are kept by the context's magnitude.
    """

    def __init__(self, max_token_gap_s: float):
        self._gap_s = max_token_gap_s
        self._step_s = 0.0  # time of a decode step, in seconds
        self._last = FIRST_CHUNK
        self._speeds: dict[int, float] = {}  # tokens a second, by the context's bit length

    def decoded(self, seconds: float) -> None:
        """Take the time of a decode step without a chunk beside it."""
        self._step_s += 0.2 * (seconds - self._step_s) if self._step_s else seconds

    def prefilled(self, tokens: int, context: int, seconds: float) -> None:
        """Take the time that a chunk of `tokens` took after `context` tokens."""
        self._last = max(tokens, LEAST_CHUNK)
        if seconds > 0:
            self._speeds[context.bit_length()] = tokens / seconds

    def budget(self, context: int, active_models: int = 1, *, streaming: bool = True) -> int:
        """Return how many tokens a chunk after `context` tokens may have.

        Where no reader waits for a token, of this model or of another that is active, a prompt is
        read as fast as the machine can; `active_models` that take turns share the gap.
        """
        if not streaming and active_models == 1:
            return MOST_CHUNK
        size = context.bit_length()
        known = [bits for bits in self._speeds if bits <= size]
        if not known:
            return FIRST_CHUNK
        nearest = max(known)
        speed = self._speeds[nearest] * (1.0 if nearest == size else 0.5)
        room = int(speed * (MARGIN * self._gap_s / active_models - self._step_s))
        return max(LEAST_CHUNK, min(room, 2 * self._last, MOST_CHUNK))
