"""Choosing the next token: shared samplers, seeded ones, and penalties.

Runs with the same parameters and no seed share one sampler object, so that a batch of them
samples in one call. A seeded run owns its random key, so that it draws the same tokens alone and
in any batch. All of it belongs to the MLX thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from mlx_lm.sample_utils import (
    apply_min_p,
    apply_top_k,
    apply_top_p,
    greedy_sampler,
    make_logits_processors,
    make_sampler,
)

from provider.backend import mx
from provider.options import GenerationOptions

__all__ = ["Processor", "Sampler", "processors_for", "sampler_for"]

Sampler = Callable[[mx.array], mx.array]  # log-probabilities (batch, vocabulary) -> (batch,)
Processor = Callable[[mx.array, mx.array], mx.array]  # context (n,), logits (1, vocabulary)


def sampler_for(options: GenerationOptions, vocabulary: int) -> Sampler:
    """Return the sampler of one run; temperature 0 is greedy, whatever else is set."""
    top_k = options.top_k if options.top_k < vocabulary else 0  # all of them: no filter
    if options.temperature == 0:
        return greedy_sampler  # type: ignore[no-any-return]
    if options.seed is None:
        return _shared(options.temperature, options.top_p, options.min_p, top_k)
    return SeededSampler(options.seed, options.temperature, options.top_p, options.min_p, top_k)


@lru_cache(maxsize=256)
def _shared(temperature: float, top_p: float, min_p: float, top_k: int) -> Sampler:
    return make_sampler(temperature, top_p, min_p, top_k=top_k)  # type: ignore[no-any-return]


class SeededSampler:
    """Draws for one run from a random key of its own, in mlx-lm's order of filters."""

    def __init__(self, seed: int, temperature: float, top_p: float, min_p: float, top_k: int):
        self._key = mx.random.key(seed)
        self._temperature = temperature
        self._top_p = top_p
        self._min_p = min_p
        self._top_k = top_k

    def __call__(self, logprobs: mx.array) -> mx.array:
        """Map log-probabilities `(1, vocabulary)` to a token `(1,)`."""
        if self._top_p < 1:
            logprobs = apply_top_p(logprobs, self._top_p)
        if self._min_p > 0:
            logprobs = apply_min_p(logprobs, self._min_p, 1)
        if self._top_k > 0:
            logprobs = apply_top_k(logprobs, self._top_k)
        self._key, draw = mx.random.split(self._key)
        return mx.random.categorical(logprobs / self._temperature, key=draw)


def processors_for(options: GenerationOptions) -> list[Processor]:
    """Return the logits processors of one run; an empty list costs its batch nothing."""
    return make_logits_processors(repetition_penalty=options.repetition_penalty)  # type: ignore[no-any-return]
