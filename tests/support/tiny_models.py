"""Small models with random weights, in the layout that mlx-lm loads: real code, no download."""

import json
import shutil
from pathlib import Path

from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes

from provider.backend import mx
from provider.embedded import MODEL_PATH

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


def write_model(folder: Path, config: dict, seed: int = 0) -> Path:
    """Make a model of `config` with random weights; it speaks the embedded model's vocabulary."""
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
    model_class, args_class = _get_classes(config)
    mx.random.seed(seed)
    model = model_class(args_class.from_dict(config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    return folder
