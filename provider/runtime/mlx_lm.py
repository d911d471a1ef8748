"""Everything that is imported of mlx-lm, after the BLAS and mlx, and all that is private in it.

What is private in mlx-lm and in transformers is named in this file alone, each with a probe that
says what is missing where a new version has changed it. `missing` is a test, and is said at start.
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
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_config, load_model, load_tokenizer
from transformers import PreTrainedTokenizerBase, dynamic_module_utils

import provider.runtime.mlx  # noqa: F401 - the BLAS first, then mlx, then mlx-lm

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
    "say_what_is_unknown",
    "unknown_version",
    "version",
    "wrap_attention",
]

KNOWN = {"mlx-lm": "0.32.2", "transformers": "5.23.0"}  # versions that the tests have run with
ATTENTION = "scaled_dot_product_attention"  # in mlx_lm.models.base, and in modules that import it
USUAL_RENDERER = "transformers.tokenization_utils_base"  # where a tokenizer has its template from

log = logging.getLogger(__name__)


# Of a tokenizer as mlx-lm wraps it.


def inner_tokenizer(wrapped: Any) -> Any:
    """Return transformers' tokenizer; mlx-lm's wrapper has no other way to it."""
    return wrapped._tokenizer  # noqa: SLF001


def detokenizer_class(wrapped: Any) -> type[Any]:
    """Return the class that makes text of its tokens as they come."""
    return type(wrapped._detokenizer)  # noqa: SLF001


def own_renderer(wrapped: Any) -> Callable[..., Any] | None:
    """Return the function that mlx-lm has in place of a chat template, for some models."""
    return wrapped._chat_template  # type: ignore[no-any-return] # noqa: SLF001


def renders_text(wrapped: Any) -> bool:
    """Return whether the tokens of a prompt are those of its text, as the template writes it."""
    rendering = type(inner_tokenizer(wrapped)).apply_chat_template
    return bool(rendering.__module__ == USUAL_RENDERER)


# Of models.


def wrap_attention(model: Any, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put what `wrap` returns in place of the attention that a model's modules call."""
    for name in {type(module).__module__ for module in model.modules()}:
        module = sys.modules.get(name)
        original = getattr(module, ATTENTION, None)
        if original is not None:
            setattr(module, ATTENTION, wrap(original))


def guard_model_code(guard: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Let what `guard` returns stand where transformers runs code that came with a model.

    All such code passes there, in whichever way it was trusted.
    """
    run_module = dynamic_module_utils.get_class_in_module
    dynamic_module_utils.get_class_in_module = guard(run_module)


# The check.


@dataclass(frozen=True)
class Probe:
    """One thing that is built on and nobody has promised; `holds` says whether it is there."""

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
        "mlx-lm's TokenizerWrapper is told how tool calls and answers are read",
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
        "transformers' tokenizers render templates where they are known to",
        lambda: PreTrainedTokenizerBase.apply_chat_template.__module__ == USUAL_RENDERER,
    ),
    Probe(
        "transformers runs the code of models by `get_class_in_module`",
        lambda: _calls(dynamic_module_utils.get_class_from_dynamic_module, "get_class_in_module"),
    ),
)


def missing(probes: tuple[Probe, ...] = PROBES) -> list[str]:
    """Return what does not hold of what is built on, the reason with what can't be looked at."""
    return [said for probe in probes if (said := _missing(probe))]


def _missing(probe: Probe) -> str:
    try:
        return "" if probe.holds() else probe.what
    except Exception as error:  # noqa: BLE001 - the very names may be gone
        return f"{probe.what} ({error})"


def unknown_version(name: str, installed: str, known: str) -> str:
    """Return a line about a version that no test has run with, nothing if it is the known one."""
    if installed == known:
        return ""
    return f"known is {name} {known}; this is {installed}"


@functools.cache
def say_what_is_unknown() -> None:
    """Log, once, a line for each version that is not known, and for what is missing in it."""
    for name, known in KNOWN.items():
        if line := unknown_version(name, version_of(name), known):
            log.warning("%s", line)
    for line in missing():
        log.warning("missing: %s", line)
