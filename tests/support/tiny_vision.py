"""Small models that see, with random weights, in the layout that mlx-vlm loads."""

import io
import json

from mlx.utils import tree_flatten
from PIL import Image

from provider.embedded import MODEL_PATH
from provider.runtime.mlx import mx

TEXT = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
}
NORMAL = {
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48, 0.45, 0.4],
    "image_std": [0.27, 0.26, 0.27],
    "do_convert_rgb": True,
}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}"
    "{{ m['content'] }}{% else %}{% for p in m['content'] %}{% if p['type'] == 'image' %}PLACE"
    "{% else %}{{ p['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _llava(vocabulary, tokens):
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
        "projection_dim": 32,
        "num_channels": 3,
        "layer_norm_eps": 1e-5,
    }
    config = {
        "model_type": "llava",
        "image_token_index": tokens["<image>"],
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "text_config": {**TEXT, "model_type": "llama", "vocab_size": vocabulary},
        "vision_config": vision,
    }
    images = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 28},
        "do_center_crop": True,
        "crop_size": {"height": 28, "width": 28},
        **NORMAL,
    }
    processor = {
        "processor_class": "LlavaProcessor",
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
    }
    return config, images, processor, "<image>"


def _qwen(vocabulary, tokens):
    vision = {
        "model_type": "qwen2_5_vl",
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": TEXT["hidden_size"],
        "num_heads": 2,
        "patch_size": 14,
        "spatial_patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 56,
        "in_channels": 3,
        "fullatt_block_indexes": [1],
    }
    config = {
        **TEXT,
        "model_type": "qwen2_5_vl",
        "vocab_size": vocabulary,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "tie_word_embeddings": True,
        "image_token_id": tokens["<|image_pad|>"],
        "video_token_id": tokens["<|video_pad|>"],
        "vision_start_token_id": tokens["<|vision_start|>"],
        "vision_end_token_id": tokens["<|vision_end|>"],
        "vision_token_id": tokens["<|vision_pad|>"],
        "vision_config": vision,
    }
    images = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": 56 * 56,
        "max_pixels": 112 * 112,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        **NORMAL,
    }
    processor = {"processor_class": "Qwen2_5_VLProcessor"}
    return config, images, processor, "<|vision_start|><|image_pad|><|vision_end|>"


ARCHITECTURES = {
    "llava": (_llava, ["<image>"]),
    "qwen2_5_vl": (
        _qwen,
        [
            "<|image_pad|>",
            "<|video_pad|>",
            "<|vision_start|>",
            "<|vision_end|>",
            "<|vision_pad|>",
        ],
    ),
}


def write_vision_model(folder, name, seed=0):
    """Make a model that sees; it speaks the embedded model's vocabulary and knows image tokens."""
    from mlx_vlm.utils import get_model_and_args, load_config, update_module_configs

    describe, words = ARCHITECTURES[name]
    folder.mkdir(parents=True)
    embedded = json.loads((MODEL_PATH / "config.json").read_text())
    tokenizer = json.loads((MODEL_PATH / "tokenizer.json").read_text())
    tokens = {word: embedded["vocab_size"] + number for number, word in enumerate(words)}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer["added_tokens"] += [
        {"id": number, "content": word, "special": True, **plain} for word, number in tokens.items()
    ]
    config, images, processor, place = describe(embedded["vocab_size"] + len(words), tokens)
    config |= {"eos_token_id": embedded["eos_token_id"]}
    settings = json.loads((MODEL_PATH / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    for file, value in {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": settings,
        "config.json": config,
        "preprocessor_config.json": images,
        "processor_config.json": processor,
    }.items():
        (folder / file).write_text(json.dumps(value))
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("PLACE", place))

    config = {"text_config": {}, "audio_config": {}, **load_config(folder)}
    module, _ = get_model_and_args(config)
    made = module.ModelConfig.from_dict(config)
    parts = ["text", "vision", "perceiver", "projector", "audio"]
    made = update_module_configs(made, module, config, parts)
    mx.random.seed(seed)
    model = module.Model(made)
    weights = {name: 3.0 * array for name, array in tree_flatten(model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return folder


def picture(color, size=(60, 44), file_format="PNG"):
    """Return an image file of one colour with a bar in it."""
    image = Image.new("RGB", size, color)
    image.paste((255, 255, 255), (10, 5, 20, 30))
    data = io.BytesIO()
    image.save(data, file_format)
    return data.getvalue()
