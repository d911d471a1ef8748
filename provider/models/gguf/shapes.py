"""Tells what mlx-lm calls the architectures of GGUF files: configuration, and names of weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from provider.models.gguf.header import GGUFError, Header

__all__ = ["ROPE_FACTORS", "SHAPES", "Shape", "shape_of"]

ROPE_FACTORS = "rope_freqs.weight"  # a tensor that is no weight: it tells how Llama 3 rotates
# Llama 3.1, 3.2 and 3.3 share these, and differ in the factor.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

# What mlx-lm calls the modules outside and inside of a layer.
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
INSIDE = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
# Gemma 2 and 3 have two more norms a layer.
AROUND = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
HEADS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}

NAME = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)")

Configure = Callable[[Header], dict[str, Any]]


@dataclass(frozen=True)
class Shape:
    """One architecture: mlx-lm's `model_type` of it, and what differs from the others.

    `norm_offset` is what the file adds to the weights of norms. `wide` says that activations
    exceed what 16-bit floats with 5 bits of exponent can hold.
    """

    model_type: str
    configure: Configure
    inside: Mapping[str, str] = field(default_factory=dict)
    norm_offset: float = 0.0
    wide: bool = False

    def config(self, header: Header) -> dict[str, Any]:
        """Return the configuration for mlx-lm. Raises GGUFError."""
        return {"model_type": self.model_type, **_common(header), **self.configure(header)}

    def name(self, tensor: str) -> str:
        """Return what mlx-lm calls a tensor. Raises GGUFError if the architecture has none such."""
        found = NAME.fullmatch(tensor)
        layer, inner, kind = found.groups() if found else (None, tensor, "")
        known = OUTSIDE if layer is None else {**INSIDE, **self.inside}
        if inner not in known:
            raise GGUFError(f"its tensor `{tensor}` is unknown in a {self.model_type} model")
        place = "" if layer is None else f"model.layers.{layer}."
        return f"{place}{known[inner]}.{kind}"


def shape_of(header: Header) -> Shape:
    """Return the shape of a file's model. Raises GGUFError if it can't be loaded."""
    shape = SHAPES.get(header.architecture)
    if shape is None:
        known = ", ".join(SHAPES)
        raise GGUFError(f"its architecture is `{header.architecture}`; known are {known}")
    if (parts := header.metadata.get("split.count", 0)) > 1:
        raise GGUFError(f"it is one of {parts} files; merge them with `llama-gguf-split --merge`")
    if header.get("expert_count"):
        raise GGUFError(f"it is a {header.architecture} model with experts")
    return shape


def _common(header: Header) -> dict[str, Any]:
    heads = header.need("attention.head_count")
    shared = header.get("attention.head_count_kv", heads)
    width = header.need("embedding_length")
    if not all(isinstance(one, int) and one > 0 for one in (heads, shared, width)):
        raise GGUFError("its layers differ in their heads")
    head_dim = header.get("attention.key_length", width // heads)
    rotated = header.get("rope.dimension_count", head_dim)
    if rotated != head_dim:
        raise GGUFError(f"it rotates {rotated} of {head_dim} values of a head")
    if "token_embd.weight" not in header.tensors:
        raise GGUFError("its tensor `token_embd.weight` is missing")
    return {
        "hidden_size": width,
        "num_hidden_layers": _layers(header),
        "intermediate_size": header.need("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "head_dim": head_dim,
        "rms_norm_eps": header.need("attention.layer_norm_rms_epsilon"),
        "rope_theta": header.get("rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(header),
        "max_position_embeddings": header.need("context_length"),
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }


def _layers(header: Header) -> int:
    """Return the number of layers, of which each must have tensors."""
    found = {match[1] for name in header.tensors if (match := NAME.fullmatch(name)) and match[1]}
    if (layers := header.need("block_count")) != len(found):
        raise GGUFError(f"it says that it has {layers} layers, and has {len(found)}")
    return len(found)


def _rope_scaling(header: Header) -> dict[str, Any] | None:
    kind = header.get("rope.scaling.type", "none")
    factor = header.get("rope.scaling.factor", header.get("rope.scale_linear", 1.0))
    if kind == "none" or factor == 1.0:
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        original = header.need("rope.scaling.original_context_length")
        return {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
        }
    raise GGUFError(f"its positions are scaled in a way that is unknown: {kind}")


def _llama(header: Header) -> dict[str, Any]:
    """Return what is llama's own: its queries and keys are stored with neighbours in pairs."""
    config: dict[str, Any] = {
        "rope_traditional": True,
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in header.tensors,
    }
    if ROPE_FACTORS in header.tensors:
        config["rope_scaling"] = dict(LLAMA3_ROPE)
    return config


def _nothing_else(_header: Header) -> dict[str, Any]:
    return {}


def _gemma2(header: Header) -> dict[str, Any]:
    return {
        "attn_logit_softcapping": header.get("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": header.get("final_logit_softcapping", 30.0),
        "query_pre_attn_scalar": _query_scale(header, largest=46),
    }


def _gemma3(header: Header) -> dict[str, Any]:
    return {
        "sliding_window": header.get("attention.sliding_window", 1024),
        "sliding_window_pattern": _every(header.get("attention.sliding_window_pattern", 6)),
        "rope_theta": header.get("rope.freq_base", 1000000.0),
        "rope_local_base_freq": header.get("rope.freq_base_swa", 10000.0),
        "query_pre_attn_scalar": _query_scale(header, largest=62),
    }


def _every(pattern: int | list[bool]) -> int:
    """Return which layers see the whole context: every n-th; a list says which of them don't."""
    return pattern if isinstance(pattern, int) else [*pattern, False].index(False) + 1


def _query_scale(header: Header, *, largest: int) -> float:
    """Return what queries are scaled by; the model with the most layers, 27B, has its own."""
    width, heads = header.need("embedding_length"), header.need("attention.head_count")
    if header.need("block_count") == largest:
        return float(width / heads)
    return float(header.get("attention.key_length", width // heads))


# By the architecture that a file states.
SHAPES = {
    "llama": Shape("llama", _llama),
    "qwen2": Shape("qwen2", _nothing_else),
    "qwen3": Shape("qwen3", _nothing_else, HEADS),
    "gemma": Shape("gemma", _nothing_else, norm_offset=1.0, wide=True),
    "gemma2": Shape("gemma2", _gemma2, AROUND, norm_offset=1.0, wide=True),
    "gemma3": Shape("gemma3_text", _gemma3, {**AROUND, **HEADS}, norm_offset=1.0, wide=True),
}
