"""All imports of mlx-lm, and all uses of private parts of mlx-lm and transformers.

Only this file names such private parts. Each has a probe that fails if a new version has changed
it. The tests run the probes, and the provider logs the failing ones when it loads a model.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import Any

from provider.runtime.open_files import limit_kept

with limit_kept():
    import mlx_lm.utils  # noqa: F401

from mlx_lm import __version__ as version
from mlx_lm.generate import (
    TextStateMachine,
    make_text_state_machine,
    maybe_quantize_kv_cache,
)
from mlx_lm.models import base
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
from mlx_lm.tokenizer_utils import (
    BPEStreamingDetokenizer,
    SPMStreamingDetokenizer,
    TokenizerWrapper,
)
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import (
    dequantize_model,
    load_config,
    load_model,
    load_tokenizer,
    sharded_load,
)
from transformers import PreTrainedTokenizerBase, dynamic_module_utils

__all__ = [
    "PROBES",
    "ArraysCache",
    "CacheList",
    "ChunkedKVCache",
    "ConcatenateKVCache",
    "KVCache",
    "Probe",
    "QuantizedKVCache",
    "RotatingKVCache",
    "TextStateMachine",
    "TokenBuffer",
    "apply_min_p",
    "apply_top_k",
    "apply_top_p",
    "decodes_tokens_apart",
    "dequantize_model",
    "detokenizer_class",
    "greedy_sampler",
    "guard_model_code",
    "inner_tokenizer",
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
    "missing",
    "own_renderer",
    "renders_text",
    "save_prompt_cache",
    "sharded_load",
    "unknown_version",
    "version",
    "warn_of_untested_versions",
    "wrap_attention",
]

KNOWN = {"mlx-lm": "0.32.2", "transformers": "5.23.0"}  # versions that the tests have run with
ATTENTION = "scaled_dot_product_attention"  # in mlx_lm.models.base, and in modules that import it
USUAL_RENDERER = "transformers.tokenization_utils_base"  # module that renders most templates

log = logging.getLogger(__name__)


# Private parts of mlx-lm's wrapper of a tokenizer.


def inner_tokenizer(wrapped: Any) -> Any:
    """Return the transformers tokenizer inside mlx-lm's wrapper."""
    return wrapped._tokenizer  # noqa: SLF001


def detokenizer_class(wrapped: Any) -> type[Any]:
    """Return the tokenizer's class of streaming detokenizers."""
    return type(wrapped._detokenizer)  # noqa: SLF001


def decodes_tokens_apart(wrapped: Any) -> bool:
    """Return whether a token's text is the same after any text that its detokenizer has given.

    That holds for the detokenizers that join bytes; others decode a line of tokens at a time.
    """
    return detokenizer_class(wrapped) in {BPEStreamingDetokenizer, SPMStreamingDetokenizer}


def own_renderer(wrapped: Any) -> Callable[..., Any] | None:
    """Return the function with which mlx-lm replaces some models' chat templates, None if none."""
    return wrapped._chat_template  # type: ignore[no-any-return] # noqa: SLF001


def renders_text(wrapped: Any) -> bool:
    """Return whether a prompt's tokens are simply those of the text that the template renders."""
    rendering = type(inner_tokenizer(wrapped)).apply_chat_template
    return bool(rendering.__module__ == USUAL_RENDERER)


# Replaced functions.


def wrap_attention(model: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace the attention function in a model's modules by the result of `wrap`."""
    for name in {type(module).__module__ for module in model.modules()}:
        module = sys.modules.get(name)
        original = getattr(module, ATTENTION, None)
        if original is not None:
            setattr(module, ATTENTION, wrap(original))


def guard_model_code(guard: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace the function with which transformers runs a model's code by the result of `guard`.

    All such code goes through that function, however it came to be trusted.
    """
    run_module = dynamic_module_utils.get_class_in_module
    dynamic_module_utils.get_class_in_module = guard(run_module)


# The probes.


@dataclass(frozen=True)
class Probe:
    """One undocumented fact that this package relies on; `holds` tests it."""

    what: str
    holds: Callable[[], bool]


def _takes(function: Callable[..., Any], *names: str) -> bool:
    return set(names) <= set(inspect.signature(function).parameters)


def _sets(names: set[str]) -> bool:
    return names <= set(TokenizerWrapper.__init__.__code__.co_names)


def _calls(function: Any, name: str) -> bool:
    return name in function.__code__.co_names


PROBES = (
    Probe(
        "mlx-lm's TokenizerWrapper has `_tokenizer`, `_detokenizer` and `_chat_template`",
        lambda: _sets({"_tokenizer", "_detokenizer", "_chat_template"}),
    ),
    Probe(
        "mlx-lm's TokenizerWrapper takes the format of tool calls and answers",
        lambda: _takes(
            TokenizerWrapper,
            "eos_token_ids",
            "tool_call_start",
            "tool_call_end",
            "tool_parser",
            "response_format",
        ),
    ),
    Probe(
        f"mlx-lm's models call `{ATTENTION}` with the cache",
        lambda: _takes(
            getattr(base, ATTENTION), "queries", "keys", "values", "cache", "scale", "mask", "sinks"
        ),
    ),
    Probe(
        "the state of mlx-lm's KVCache is keys, values and offset",
        lambda: KVCache().state == (None, None, 0),
    ),
    Probe(
        "the state of mlx-lm's ArraysCache is its arrays, `left_padding` and `lengths`",
        lambda: ArraysCache(1).state == ([None], None, None),
    ),
    Probe(
        f"transformers' tokenizers render templates in `{USUAL_RENDERER}`",
        lambda: PreTrainedTokenizerBase.apply_chat_template.__module__ == USUAL_RENDERER,
    ),
    Probe(
        "transformers runs the code of models with `get_class_in_module`",
        lambda: _calls(dynamic_module_utils.get_class_from_dynamic_module, "get_class_in_module"),
    ),
)


def missing(probes: tuple[Probe, ...] = PROBES) -> list[str]:
    """Return the facts whose probes fail, with the error of a probe that raises one."""
    return [said for probe in probes if (said := _missing(probe))]


def _missing(probe: Probe) -> str:
    try:
        return "" if probe.holds() else probe.what
    except Exception as error:  # noqa: BLE001 - a missing name may raise any error
        return f"{probe.what} ({error})"


def unknown_version(name: str, installed: str, known: str) -> str:
    """Return a log line about a version other than the tested one, "" if it is that one."""
    if installed == known:
        return ""
    return f"tested with {name} {known}; this is {installed}"


@functools.cache
def warn_of_untested_versions() -> None:
    """Log once each untested version, and each fact whose probe fails."""
    for name, known in KNOWN.items():
        if line := unknown_version(name, version_of(name), known):
            log.warning("%s", line)
    for line in missing():
        log.warning("missing: %s", line)
