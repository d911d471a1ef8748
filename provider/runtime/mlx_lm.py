"""Everything that is imported of mlx-lm, after the BLAS and mlx.

When a new version of it comes out, this is the place to look at.
"""

from __future__ import annotations

from mlx_lm import __version__ as version
from mlx_lm.generate import (
    TextStateMachine,
    make_text_state_machine,
    maybe_quantize_kv_cache,
)
from mlx_lm.models.cache import (
    ArraysCache,
    CacheList,
    ChunkedKVCache,
    ConcatenateKVCache,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
    TokenBuffer,
    load_prompt_cache,
    make_prompt_cache,
    save_prompt_cache,
)
from mlx_lm.sample_utils import (
    apply_min_p,
    apply_top_k,
    apply_top_p,
    greedy_sampler,
    make_logits_processors,
    make_sampler,
)
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_config, load_model, load_tokenizer

import provider.runtime.mlx  # noqa: F401 - the BLAS first, then mlx, then mlx-lm

__all__ = [
    "ArraysCache",
    "CacheList",
    "ChunkedKVCache",
    "ConcatenateKVCache",
    "KVCache",
    "QuantizedKVCache",
    "RotatingKVCache",
    "TextStateMachine",
    "TokenBuffer",
    "apply_min_p",
    "apply_top_k",
    "apply_top_p",
    "greedy_sampler",
    "load_adapters",
    "load_config",
    "load_model",
    "load_prompt_cache",
    "load_tokenizer",
    "make_logits_processors",
    "make_prompt_cache",
    "make_sampler",
    "make_text_state_machine",
    "maybe_quantize_kv_cache",
    "save_prompt_cache",
    "version",
]
