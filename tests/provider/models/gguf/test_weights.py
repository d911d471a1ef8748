"""Models that are made of GGUF files, held against the same models in mlx-lm's own layout."""

import json

import numpy as np
import pytest
from mlx_lm.utils import load_model, quantize_model, save_model

from provider.models.gguf import weights
from provider.models.gguf.header import GGUFError, read_header
from provider.models.gguf.weights import UnreadModel, dense_bytes
from provider.runtime.mlx import mx, tree_flatten
from tests.support.gguf_files import (
    encoded,
    gguf_of,
    metadata_of,
    random_tensor,
    split_as_gpt2,
    tensor_name,
    write_gguf,
)
from tests.support.tiny_models import GEMMA, LLAMA, QWEN3, write_model

GEMMA2 = {**LLAMA, "model_type": "gemma2", "head_dim": 16, "query_pre_attn_scalar": 16}
# By the architecture that a GGUF file states: the model, and values of its own in the metadata.
MODELS = {
    "llama": (LLAMA, {"rope.dimension_count": 16}),
    "qwen2": ({**LLAMA, "model_type": "qwen2"}, {}),
    "qwen3": (QWEN3, {}),
    "gemma": ({**LLAMA, "model_type": "gemma", "head_dim": 16}, {}),
    "gemma2": (GEMMA2, {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}),
    "gemma3": (
        GEMMA,
        {"attention.sliding_window": 32, "attention.sliding_window_pattern": 2},
    ),
}


def read(path, *, dense=True):
    unread = UnreadModel(read_header(path), dense=dense)
    for _ in unread.reading():
        pass
    return unread.model


def logits(model, length=40):
    tokens = mx.array([[(7 * place) % 1500 for place in range(length)]])
    return np.array(model(tokens).astype(mx.float32))


def write_folder(folder, config):
    """Write a tiny model whose norms do something, and whose output is as its kind has it."""
    folder = write_model(folder, config)
    arrays = dict(mx.load(str(folder / "model.safetensors")))
    if config is GEMMA:
        del arrays["lm_head.weight"]
    for name, array in arrays.items():
        if "norm" in name or name.endswith(".bias"):
            arrays[name] = array + mx.random.normal(array.shape) * 0.2
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    return folder


@pytest.mark.parametrize("architecture", MODELS)
def test_a_model_computes_what_it_does_in_its_other_layout(tmp_path, architecture):
    config, own = MODELS[architecture]
    folder = write_folder(tmp_path / "folder", config)
    path = gguf_of(folder, tmp_path / "a.gguf", architecture, **own)
    wanted = logits(load_model(folder)[0])
    assert np.ptp(wanted[0, -1]) > 0.1
    np.testing.assert_allclose(logits(read(path)), wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_halves_are_read_as_what_they_are(tmp_path, kind):
    folder = write_folder(tmp_path / "folder", QWEN3)
    path = gguf_of(folder, tmp_path / "a.gguf", "qwen3", kind=kind)
    np.testing.assert_allclose(logits(read(path)), logits(load_model(folder)[0]), atol=0.05)


def test_an_output_of_its_own_is_read(tmp_path):
    folder = write_folder(tmp_path / "folder", {**LLAMA, "tie_word_embeddings": False})
    path = gguf_of(folder, tmp_path / "a.gguf", "llama")
    np.testing.assert_allclose(logits(read(path)), logits(load_model(folder)[0]), atol=1e-4)


def as_packed(folder, kind, tmp_path):
    """Write a model with random blocks of a type twice: as GGUF, and as mlx-lm packs it.

    The packed weights of the second are those that mlx reads of the first.
    """
    generator, tensors = np.random.default_rng(0), {}
    arrays = dict(mx.load(str(folder / "model.safetensors")))
    for name, array in arrays.items():
        called = tensor_name(name)
        if array.ndim == 1:
            tensors[called] = encoded("F32", array)
        else:
            tensors[called] = random_tensor(kind, array.shape, generator)
    path = write_gguf(tmp_path / "a.gguf", metadata_of(folder, "qwen3"), tensors)
    blocks = mx.load(str(path))
    model, config = load_model(folder)
    model, config = quantize_model(model, config, group_size=32, bits=8 if "8" in kind else 4)
    packed = {}
    for name in dict(tree_flatten(model.parameters())):
        place, _, part = name.rpartition(".")
        called = f"{tensor_name(f'{place}.weight').removesuffix('.weight')}.{part}"
        packed[name] = blocks[called]
    model.load_weights(list(packed.items()))
    model.apply(lambda array: array.astype(mx.float32) if array.dtype == mx.float16 else array)
    save_model(tmp_path / "packed", model)
    (tmp_path / "packed" / "config.json").write_text(json.dumps(config))
    return path, tmp_path / "packed"


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_packed_weights_stay_packed_and_compute_the_same(tmp_path, kind):
    folder = write_folder(tmp_path / "folder", QWEN3)
    path, other = as_packed(folder, kind, tmp_path)
    model, wanted = read(path, dense=False), load_model(other)[0]
    assert "scales" in model.model.layers[0].mlp.gate_proj
    assert model.model.embed_tokens.bits == (8 if kind == "Q8_0" else 4)
    assert np.array_equal(logits(model), logits(wanted))
    np.testing.assert_allclose(logits(read(path)), logits(wanted), atol=1e-3)


def test_types_may_differ_within_a_model(tmp_path):
    folder = write_folder(tmp_path / "folder", {**QWEN3, "hidden_size": 256})
    arrays = dict(mx.load(str(folder / "model.safetensors")))
    kinds = {"ffn_down": "Q5_0", "ffn_up": "Q6_K", "attn_q": "Q4_K", "attn_k": "Q8_0"}
    generator, tensors = np.random.default_rng(0), {}
    for name, array in arrays.items():
        called = tensor_name(name)
        kind = kinds.get(called.split(".")[-2], "F16")
        one = encoded("F32", array) if array.ndim == 1 else None
        tensors[called] = one or random_tensor(kind, array.shape, generator)
    path = write_gguf(tmp_path / "a.gguf", metadata_of(folder, "qwen3"), tensors)
    model = read(path, dense=False)
    attention, mlp = model.model.layers[0].self_attn, model.model.layers[0].mlp
    assert (attention.q_proj.bits, attention.k_proj.bits) == (4, 8)
    assert not any("scales" in module for module in (mlp.down_proj, mlp.up_proj, attention.v_proj))
    np.testing.assert_allclose(logits(model), logits(read(path)), atol=1e-3)


def test_large_tensors_are_read_in_steps_and_the_steps_tell_all_bytes(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "folder", LLAMA)
    path = gguf_of(folder, tmp_path / "a.gguf", "llama", kind="F16")
    monkeypatch.setattr(weights, "SLICE", 1000)  # values; a constant, so that files stay small
    unread = UnreadModel(read_header(path), dense=True)
    total = sum(array.nbytes for _, array in tree_flatten(unread.model.parameters()))
    steps = list(unread.reading())
    assert len(steps) > 50
    assert sum(steps) == total
    np.testing.assert_allclose(logits(unread.model), logits(load_model(folder)[0]), atol=0.05)


def llama3_factors(factor, base=10000.0, dims=16, context=8192):
    """Return what the converter of llama.cpp writes, wavelength by wavelength."""
    for place in range(0, dims, 2):
        wave = 2 * np.pi * base ** (place / dims)
        if wave < context / 4:
            yield 1.0
        elif wave > context:
            yield factor
        else:
            smooth = (context / wave - 1) / 3
            yield 1 / ((1 - smooth) / factor + smooth)


def with_factors(path, factors):
    header = read_header(path)
    data = path.read_bytes()
    tensors = {
        name: (tensor.type, tensor.shape, data[tensor.begin : tensor.begin + tensor.nbytes])
        for name, tensor in header.tensors.items()
    }
    tensors["rope_freqs.weight"] = encoded("F32", factors)
    return write_gguf(path, header.metadata, tensors)


def test_llama_3_rotates_by_factors(tmp_path):
    scaling = {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    folder = write_folder(tmp_path / "folder", {**LLAMA, "rope_scaling": scaling})
    path = with_factors(gguf_of(folder, tmp_path / "a.gguf", "llama"), list(llama3_factors(32.0)))
    np.testing.assert_allclose(logits(read(path)), logits(load_model(folder)[0]), atol=1e-4)


def test_other_factors_are_refused(tmp_path):
    folder = write_folder(tmp_path / "folder", LLAMA)
    path = with_factors(gguf_of(folder, tmp_path / "a.gguf", "llama"), [1.0, 2.0, 3.0, 4.0])
    with pytest.raises(GGUFError, match=r"`rope_freqs\.weight` scales positions"):
        UnreadModel(read_header(path), dense=True)


def changed(tmp_path, change):
    folder = write_folder(tmp_path / "folder", LLAMA)
    tensors = {
        tensor_name(name): encoded("F32", array)
        for name, array in mx.load(str(folder / "model.safetensors")).items()
    }
    change(tensors)
    return read_header(write_gguf(tmp_path / "a.gguf", metadata_of(folder, "llama"), tensors))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda tensors: tensors.pop("blk.1.ffn_up.weight"),
            r"no tensor for `model\.layers\.1\.mlp\.up_proj\.weight`",
        ),
        (
            lambda tensors: tensors.update({"blk.1.ffn_up.weight": encoded("F32", [[1.0]])}),
            r"`blk\.1\.ffn_up\.weight` has the shape \(1, 1\) instead of \(128, 64\)",
        ),
        (
            lambda tensors: tensors.update({"blk.1.attn_q.bias": encoded("F32", [1.0])}),
            r"`blk\.1\.attn_q\.bias` is unknown in a llama model",
        ),
    ],
    ids=["missing", "of another shape", "too many"],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, change, said):
    with pytest.raises(GGUFError, match=said):
        UnreadModel(changed(tmp_path, change), dense=True)


def test_the_bytes_as_floats_are_known_where_weights_could_stay_packed(tmp_path):
    folder = write_folder(tmp_path / "folder", QWEN3)
    path, _ = as_packed(folder, "Q8_0", tmp_path)
    floats = sum(array.nbytes for _, array in tree_flatten(read(path).parameters()))
    assert dense_bytes(read_header(path)) == floats
    plain = gguf_of(split_as_gpt2(folder), tmp_path / "b.gguf", "qwen3", kind="F16")
    assert dense_bytes(read_header(plain)) is None
