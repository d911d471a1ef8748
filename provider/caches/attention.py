"""Attention for one new token a row, as a CPU does it fastest.

Where query heads share the keys of one head (grouped-query attention), mlx's own fallback on a CPU
multiplies every query head by itself: rows x heads matrix products of one row each, thousands a
step. Here the query heads that share keys are the rows of one product: the same sums, whose last
bit may differ where the BLAS orders those of several rows otherwise than those of one.

mlx-lm's models call `scaled_dot_product_attention` of their own module, which already looks at the
cache (`bits`) for what to do. `let_caches_attend` lets it look for `attend` too; caches without
one, and so everybody else who runs the same model, get what they always got.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from provider.runtime.mlx import mx
from provider.runtime.mlx_lm import wrap_attention

__all__ = ["attend", "let_caches_attend"]


def attend(queries: Any, keys: Any, values: Any, scale: float, mask: Any) -> Any:
    """Return the attention, `(rows, heads, tokens, dimension)`, of queries of that shape.

    `keys` and `values` are `(rows, key heads, positions, dimension)`; `mask` is None, "causal", or
    what broadcasts to `(rows, heads, tokens, positions)`.
    """
    rows, heads, tokens, width = queries.shape
    key_heads = keys.shape[1]
    per_head = isinstance(mask, mx.array) and (mask.ndim != 4 or mask.shape[1] != 1)
    if tokens != 1 or heads == key_heads or per_head:
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)
    grouped = (queries * scale).reshape(rows, key_heads, heads // key_heads, width)
    scores = grouped @ keys.swapaxes(-1, -2)
    if isinstance(mask, mx.array):  # a single token sees everything anyway
        hidden = mx.array(mx.finfo(scores.dtype).min, scores.dtype)
        scores = mx.where(mask, scores, hidden) if mask.dtype == mx.bool_ else scores + mask
    weights = mx.softmax(scores, axis=-1, precise=True)
    return (weights @ values).reshape(rows, heads, 1, values.shape[3])


def let_caches_attend(model: Any) -> None:
    """Let the caches of a model that have a method `attend` compute the attention themselves."""
    wrap_attention(model, _asking_the_cache)


def _asking_the_cache(original: Callable[..., Any]) -> Callable[..., Any]:
    if hasattr(original, "asks_the_cache"):
        return original

    @functools.wraps(original)
    def dispatch(
        queries: Any,
        keys: Any,
        values: Any,
        cache: Any,
        scale: float,
        mask: Any,
        sinks: Any = None,
    ) -> Any:
        if sinks is None and hasattr(cache, "attend"):
            return cache.attend(queries, keys, values, scale, mask)
        return original(queries, keys, values, cache, scale, mask, sinks)

    dispatch.asks_the_cache = True  # type: ignore[attr-defined]
    return dispatch
