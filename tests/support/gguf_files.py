"""Writes GGUF files for tests: of any content, and of models in the layout that mlx-lm loads."""

import json
import re
import struct
from pathlib import Path

import numpy as np

from provider.runtime.mlx import mx

NUMBERS = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10,
    "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "BF16": 30,
}  # fmt: skip
# Values in a block, its bytes, and where in it 16-bit floats are.
LAYOUTS = {
    "F32": (1, 4, ()), "F16": (1, 2, ()), "BF16": (1, 2, ()),
    "Q4_0": (32, 18, (0,)), "Q4_1": (32, 20, (0, 2)), "Q5_0": (32, 22, (0,)),
    "Q5_1": (32, 24, (0, 2)), "Q8_0": (32, 34, (0,)), "Q4_K": (256, 144, (0, 2)),
    "Q5_K": (256, 176, (0, 2)), "Q6_K": (256, 210, (208,)),
}  # fmt: skip
ALIGNMENT = 32

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
}
NAMES_AROUND = {
    **NAMES,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def write_gguf(path, metadata, tensors):
    """Write a file; `tensors` are by name a type, a shape as mlx has it, and bytes."""
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    header += b"".join(_text(key) + _value(value) for key, value in metadata.items())
    data = b""
    for name, (kind, shape, raw) in tensors.items():
        header += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        header += struct.pack("<IQ", NUMBERS.get(kind, kind), len(data))
        data += raw + bytes(-len(raw) % ALIGNMENT)
    path.write_bytes(header + bytes(-len(header) % ALIGNMENT) + data)
    return path


def _text(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value):
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _text(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
        case [float(), *_]:
            return struct.pack(f"<IIQ{len(value)}f", 9, 6, len(value), *value)
        case list():
            return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
    raise AssertionError(value)


def encoded(kind, values):
    """Return a tensor with these values, of a type without blocks."""
    values = np.asarray(values, np.float32)
    raw = {
        "F32": lambda: values.astype("<f4"),
        "F16": lambda: values.astype("<f2"),
        "BF16": lambda: (values.view("<u4") >> 16).astype("<u2"),
    }[kind]()
    return kind, values.shape, raw.tobytes()


def random_tensor(kind, shape, generator):
    """Return a tensor of a type with random numbers and small scales."""
    if kind in {"F32", "F16", "BF16"}:
        return encoded(kind, generator.normal(0, 0.1, shape))
    values, nbytes, scales = LAYOUTS[kind]
    raw = generator.integers(0, 256, (int(np.prod(shape)) // values, nbytes), dtype=np.uint8)
    for at in scales:
        chosen = generator.uniform(0.5, 1, (len(raw), 1)) * 2e-3 / (1 if values == 32 else 8)
        raw[:, at : at + 2] = chosen.astype("<f2").view(np.uint8)
    return kind, shape, raw.tobytes()


def metadata_of(folder, architecture, **more):
    """Return the metadata of a model in a folder; `more` are values of the architecture's own."""
    config = json.loads((folder / "config.json").read_text())
    own = {
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config["rope_theta"],
        "context_length": config["max_position_embeddings"],
        **({"attention.key_length": config["head_dim"]} if "head_dim" in config else {}),
        **more,
    }
    return {
        "general.architecture": architecture,
        **{f"{architecture}.{key}": value for key, value in own.items()},
        **tokenizer_of(folder),
    }


def tokenizer_of(folder):
    """Return the metadata of a folder's byte-level tokenizer, which splits text as GPT-2 does."""
    made = json.loads((folder / "tokenizer.json").read_text())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    vocabulary = made["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {token["content"] for token in made["added_tokens"]}
    template = folder / "chat_template.jinja"
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in made["model"]["merges"]],
        "tokenizer.ggml.eos_token_id": vocabulary[config["eos_token"]],
        **({"tokenizer.chat_template": template.read_text()} if template.exists() else {}),
    }


def split_as_gpt2(folder):
    """Let a folder's tokenizer split text as GPT-2 does, which a GGUF file can say."""
    path = folder / "tokenizer.json"
    made = json.loads(path.read_text())
    made["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    path.write_text(json.dumps(made))
    return folder


def tensor_name(name, names=NAMES):
    """Return what a GGUF file calls a weight of mlx-lm."""
    place, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", place)
    return f"blk.{layer[1]}.{names[layer[2]]}.{kind}" if layer else f"{names[place]}.{kind}"


def as_llama_cpp_pairs(weight, heads):
    """Return a query or key projection with the two halves of each head interleaved."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def gguf_of(folder: Path, path: Path, architecture: str, *, kind: str = "F32", **more) -> Path:
    """Write a folder's model as the converter of llama.cpp would; `more` is as for metadata."""
    config = json.loads((folder / "config.json").read_text())
    around = architecture in {"gemma2", "gemma3"}
    tensors = {}
    for name, array in mx.load(str(folder / "model.safetensors")).items():
        values = np.array(array.astype(mx.float32))
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = "num_attention_heads" if "q_proj" in name else "num_key_value_heads"
            values = as_llama_cpp_pairs(values, config[heads])
        if architecture.startswith("gemma") and "norm" in name:
            values = values + 1
        called = tensor_name(name, NAMES_AROUND if around else NAMES)
        tensors[called] = encoded(kind if values.ndim > 1 else "F32", values)
    return write_gguf(path, metadata_of(folder, architecture, **more), tensors)
