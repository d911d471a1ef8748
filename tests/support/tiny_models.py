"""Small models with random weights, in the layout that mlx-lm loads: real code, no download."""

import json
import shutil
from pathlib import Path

from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes

from provider.embedded import MODEL_PATH
from provider.runtime.mlx import mx

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
MAMBA = {
    "model_type": "mamba2",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_heads": 4,
    "head_dim": 32,
    "intermediate_size": 128,
    "state_size": 16,
    "conv_kernel": 4,
    "n_groups": 1,
    "use_bias": False,
    "use_conv_bias": True,
    "layer_norm_epsilon": 1e-5,
    "residual_in_fp32": False,
    "rms_norm": True,
    "chunk_size": 64,
    "tie_word_embeddings": True,
    "time_step_limit": [0.0, 100.0],
    "time_step_rank": 4,
}
GEMMA = {
    "model_type": "gemma3_text",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "query_pre_attn_scalar": 16,
    "sliding_window": 32,
    "sliding_window_pattern": 2,
    "max_position_embeddings": 2048,
}
# In place of the embedded model, a pass of which takes ten times as long. With tied embeddings it
# would say one word again and again, and such a text would hide a token of another run.
LIGHT = {
    **LLAMA,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": False,
    "max_position_embeddings": 8192,
}
QWEN3 = {**LLAMA, "model_type": "qwen3", "head_dim": 16}
QWEN3_MOE = {
    **QWEN3,
    "model_type": "qwen3_moe",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
}
QWEN3_NEXT = {
    **QWEN3_MOE,
    "model_type": "qwen3_next",
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "shared_expert_intermediate_size": 64,
    "partial_rotary_factor": 0.5,
    "full_attention_interval": 2,
}
# By the caches they use: plain, sliding window, recurrent, a mixture of both, experts.
ARCHITECTURES = {
    "llama": LLAMA,
    "qwen3": QWEN3,
    "gemma3": GEMMA,
    "mamba2": MAMBA,
    "qwen3_next": QWEN3_NEXT,
    "qwen3_moe": QWEN3_MOE,
}


def write_model(folder: Path, config: dict, seed: int = 0, *, markers: bool = True) -> Path:
    """Make a model of `config` with random weights; it speaks the embedded model's vocabulary.

    Without `markers`, no token of it opens thinking or a tool call: all that it says is text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    embedded = json.loads((MODEL_PATH / "config.json").read_text())
    config = {
        "vocab_size": embedded["vocab_size"],
        "eos_token_id": embedded["eos_token_id"],
        **config,
    }
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (MODEL_PATH / name).exists():
            shutil.copy(MODEL_PATH / name, folder / name)
    if not markers:
        tokenizer = (folder / "tokenizer.json").read_text()
        for marker in ("<think>", "</think>", "<tool_call>", "</tool_call>"):
            tokenizer = tokenizer.replace(marker, marker.replace("<", "["))
        (folder / "tokenizer.json").write_text(tokenizer)
    model_class, args_class = _get_classes(config)
    mx.random.seed(seed)
    model = model_class(args_class.from_dict(config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    return folder
