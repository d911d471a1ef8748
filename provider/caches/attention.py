"""Grouped-query attention for one new token per row, arranged to be fast on a CPU.

On a CPU, mlx multiplies every query head separately: rows x heads matrix products with one row
each, which are thousands per step. Here the query heads that share a key head are the rows of one
matrix product. The sums are the same; their last bit may differ, because a BLAS may add in another
order when a product has several rows.

mlx-lm's models call the `scaled_dot_product_attention` of their own module, which already chooses
by an attribute of the cache (`bits`). `let_caches_attend` makes it call a cache's `attend` method
where there is one. Caches without that method are computed as before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from provider.runtime.mlx import mx
from provider.runtime.mlx_lm import wrap_attention

__all__ = ["attend", "let_caches_attend"]


def attend(queries: Any, keys: Any, values: Any, scale: float, mask: Any) -> Any:
    """Return the attention output, in the shape of `queries`: `(rows, heads, tokens, dimension)`.

    `keys` and `values` are `(rows, key heads, positions, dimension)`; `mask` is None, "causal", or
    an array that broadcasts to `(rows, heads, tokens, positions)`.
    """
    rows, heads, tokens, width = queries.shape
    key_heads = keys.shape[1]
    per_head = isinstance(mask, mx.array) and (mask.ndim != 4 or mask.shape[1] != 1)
    if tokens != 1 or heads == key_heads or per_head:
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)
    grouped = (queries * scale).reshape(rows, key_heads, heads // key_heads, width)
    scores = grouped @ keys.swapaxes(-1, -2)
    if isinstance(mask, mx.array):  # "causal" hides nothing from a single new token
        hidden = mx.array(mx.finfo(scores.dtype).min, scores.dtype)
        scores = mx.where(mask, scores, hidden) if mask.dtype == mx.bool_ else scores + mask
    weights = mx.softmax(scores, axis=-1, precise=True)
    return (weights @ values).reshape(rows, heads, 1, values.shape[3])


def let_caches_attend(model: Any) -> None:
    """Replace a model's attention function by one that calls the cache's `attend` if it has one."""
    wrap_attention(model, _dispatching_to_caches)


def _dispatching_to_caches(original: Callable[..., Any]) -> Callable[..., Any]:
    if hasattr(original, "dispatches_to_caches"):
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

    dispatch.dispatches_to_caches = True  # type: ignore[attr-defined]
    return dispatch
