"""What mlx-lm calls the architectures and tensors of GGUF files."""

from pathlib import Path

import pytest

from provider.models.gguf.header import GGUFError, Header, Tensor
from provider.models.gguf.shapes import ROPE_FACTORS, SHAPES, shape_of

OWN = {
    "embedding_length": 64,
    "block_count": 2,
    "feed_forward_length": 128,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "context_length": 512,
}
EMBEDDING = Tensor("token_embd.weight", "F16", (100, 64), 0, 0)


def header(architecture="llama", tensors=(EMBEDDING,), metadata=(), layers=None, **own):
    values = {key.replace("__", "."): value for key, value in own.items()}
    layers = values.get("block_count", OWN["block_count"]) if layers is None else layers
    norms = [Tensor(f"blk.{one}.attn_norm.weight", "F32", (64,), 0, 0) for one in range(layers)]
    tensors = [*tensors, *norms]
    return Header(
        Path("a.gguf"),
        {
            "general.architecture": architecture,
            **{f"{architecture}.{key}": value for key, value in {**OWN, **values}.items()},
            **dict(metadata),
        },
        {tensor.name: tensor for tensor in tensors},
    )


def config(*arguments, **more):
    made = header(*arguments, **more)
    return shape_of(made).config(made)


def test_a_llama_is_told_in_the_words_of_mlx_lm():
    assert config() == {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "max_position_embeddings": 512,
        "vocab_size": 100,
        "tie_word_embeddings": True,
        "rope_traditional": True,
        "attention_bias": False,
        "mlp_bias": False,
    }


def test_an_output_of_its_own_and_biases_are_seen_in_the_tensors():
    names = ("output.weight", "blk.0.attn_q.bias")
    found = config(tensors=[EMBEDDING, *(Tensor(name, "F16", (1,), 0, 0) for name in names)])
    assert not found["tie_word_embeddings"]
    assert found["attention_bias"]


def test_a_missing_value_is_named():
    made = header()
    del made.metadata["llama.context_length"]
    with pytest.raises(GGUFError, match=r"no `llama\.context_length`"):
        shape_of(made).config(made)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"architecture": "mamba"}, "its architecture is `mamba`; known are llama, qwen2, qwen3"),
        ({"expert_count": 8}, "a llama model with experts"),
        ({"metadata": {"split.count": 3}}, "one of 3 files; merge them"),
        ({"attention__head_count": [4, 8]}, "its layers differ"),
        ({"attention__head_count_kv": [4, 8]}, "its layers differ"),
        ({"layers": 3}, "says that it has 2 layers, and has 3"),
        ({"block_count": 1 << 31, "layers": 2}, "says that it has 2147483648 layers, and has 2"),
        ({"rope__dimension_count": 8}, "rotates 8 of 16 values"),
        ({"rope__scaling__type": "longrope", "rope__scaling__factor": 2.0}, "unknown: longrope"),
        ({"tensors": []}, r"`token_embd\.weight` is missing"),
    ],
)
def test_what_cannot_be_loaded_says_why(changed, said):
    with pytest.raises(GGUFError, match=said):
        config(**changed)


def test_scaled_positions():
    linear = config(rope__scaling__type="linear", rope__scaling__factor=8.0)
    assert linear["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    yarn = {
        "rope__scaling__type": "yarn",
        "rope__scaling__factor": 4.0,
        "rope__scaling__original_context_length": 128,
    }
    assert config(**yarn)["rope_scaling"] == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 128,
    }
    factors = Tensor(ROPE_FACTORS, "F32", (8,), 0, 32)
    llama3 = config(tensors=[EMBEDDING, factors])["rope_scaling"]
    assert llama3["rope_type"] == "llama3"
    assert config()["rope_scaling"] is None


def test_gemmas_queries_have_a_scale_of_their_own_in_the_largest_model():
    assert config("gemma2", attention__key_length=32)["query_pre_attn_scalar"] == 32
    assert config("gemma2", attention__key_length=32, block_count=46)["query_pre_attn_scalar"] == 16
    assert config("gemma3", attention__key_length=32, block_count=62)["query_pre_attn_scalar"] == 16


@pytest.mark.parametrize("pattern", [3, [True, True, False, True, True, False]])
def test_gemma_3_tells_which_layers_see_everything(pattern):
    found = config("gemma3", attention__sliding_window_pattern=pattern)
    assert found["sliding_window_pattern"] == 3
    assert config("gemma3")["sliding_window_pattern"] == 6


def test_tensors_have_other_names_in_mlx_lm():
    llama, gemma = SHAPES["llama"], SHAPES["gemma3"]
    assert llama.name("token_embd.weight") == "model.embed_tokens.weight"
    assert llama.name("blk.12.attn_q.bias") == "model.layers.12.self_attn.q_proj.bias"
    assert llama.name("blk.0.ffn_norm.weight") == "model.layers.0.post_attention_layernorm.weight"
    assert gemma.name("blk.0.ffn_norm.weight") == "model.layers.0.pre_feedforward_layernorm.weight"


@pytest.mark.parametrize(
    "name", ["blk.0.attn_q_norm.weight", "blk.0.ffn_gate_exps.weight", "v.patch_embd", "a"]
)
def test_a_tensor_of_another_architecture_is_named(name):
    with pytest.raises(GGUFError, match=f"`{name}` is unknown in a llama model"):
        SHAPES["llama"].name(name)
