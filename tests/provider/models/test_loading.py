"""Loading of tiny models with random weights, and of folders that are no model."""

import asyncio
import json

import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model, quantize_model, save_model

from provider import MLXProvider
from provider.embedded import MODEL_PATH
from provider.engine.model import LoadProgress
from provider.interface import ModelLoadingError, ModelNotFoundError
from provider.models.dense_weights import is_packed
from provider.models.loading import load, loading
from provider.models.source import EMBEDDED, model_name, resolve
from provider.runtime.mlx import mx, on_cpu
from tests.support.gguf_files import gguf_of, metadata_of, split_as_gpt2, write_gguf
from tests.support.tiny_models import ARCHITECTURES, LLAMA, QWEN3, write_model


async def story(model, **options):
    provider = MLXProvider({"model": str(model), "temperature": 0.0, "max_tokens": 24})
    try:
        return await provider.generate_async("Tell me a story", **options)
    finally:
        await provider.aclose()


@pytest.mark.parametrize("name", ARCHITECTURES)
async def test_models_of_other_architectures_generate(tmp_path, name):
    folder = write_model(tmp_path / name, ARCHITECTURES[name])
    answer = await story(folder)
    assert answer.model == name
    assert answer.usage["completion_tokens"] > 0
    assert (await story(folder)).content == answer.content


@pytest.mark.parametrize("name", ARCHITECTURES)
async def test_their_runs_are_the_same_alone_and_together(tmp_path, name):
    folder = write_model(tmp_path / name, ARCHITECTURES[name])
    provider = MLXProvider({"model": str(folder), "temperature": 0.0, "max_tokens": 24})
    prompts = ["Hello", "Tell me a story about a fox", "Count", "Who was it, and where, and why?"]
    alone = [(await provider.generate_async(prompt)).content for prompt in prompts]
    together = await asyncio.gather(*(provider.generate_async(prompt) for prompt in prompts))
    assert [answer.content for answer in together] == alone
    await provider.aclose()


async def test_weights_in_several_files_are_one_model(tmp_path):
    folder = write_model(tmp_path / "whole", LLAMA)
    split = write_model(tmp_path / "split", LLAMA)
    weights = dict(mx.load(str(folder / "model.safetensors")))
    (split / "model.safetensors").unlink()
    names, index = sorted(weights), {}
    for part, some in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{part:05}-of-00002.safetensors"
        mx.save_safetensors(str(split / file), {name: weights[name] for name in some})
        index |= dict.fromkeys(some, file)
    (split / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert (await story(split)).content == (await story(folder)).content


def quantised(folder):
    folder = write_model(folder, LLAMA)
    model, config = load_model(folder)
    model, config = quantize_model(model, config, group_size=32, bits=8)
    (folder / "model.safetensors").unlink()
    save_model(folder, model)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


async def test_a_quantised_model_generates(tmp_path):
    folder = quantised(tmp_path / "quantised")
    assert (await story(folder)).usage["completion_tokens"] > 0


@pytest.mark.skipif(not on_cpu(), reason="only a CPU is slow with packed weights")
def test_packed_weights_become_floats_where_there_is_room(tmp_path):
    folder = quantised(tmp_path / "quantised")
    dense = load(folder, dense_room=1 << 30)
    assert not is_packed(dense.model)
    assert is_packed(load(folder).model)
    assert not is_packed(load(folder, dense_room=dense.weights).model)
    assert is_packed(load(folder, dense_room=dense.weights - 1).model)
    assert next(loading(folder, dense_room=1 << 30)) == LoadProgress(0, dense.weights)


@pytest.mark.skipif(not on_cpu(), reason="only a CPU is slow with packed weights")
def test_a_draft_model_has_what_room_the_model_leaves(tmp_path):
    folder = quantised(tmp_path / "quantised")
    floats = load(folder, dense_room=1 << 30).weights
    both = load(folder, folder, dense_room=2 * floats)
    one = load(folder, folder, dense_room=2 * floats - 1)
    assert [is_packed(loaded.draft) for loaded in (both, one)] == [False, True]
    assert both.weights == 2 * floats
    assert not is_packed(one.model)


@pytest.fixture
def twice(tmp_path):
    """A model as a folder and as a GGUF file."""
    folder = split_as_gpt2(write_model(tmp_path / "twice", QWEN3))
    return folder, gguf_of(folder, tmp_path / "twice.gguf", "qwen3")


async def test_a_gguf_file_says_what_the_same_model_in_a_folder_says(twice):
    folder, path = twice
    of_folder, of_file = await story(folder), await story(path)
    assert of_file.content == of_folder.content
    assert of_file.usage == of_folder.usage
    assert of_file.model == "twice"


def test_the_steps_of_a_gguf_file_tell_how_much_is_loaded(twice):
    steps = list(loading(twice[1]))
    assert steps[0].done == 0
    assert steps[-1].done == steps[-1].total == load(twice[1]).weights
    assert [step.done for step in steps] == sorted(step.done for step in steps)


def adapter_of(folder, model_path):
    """Write a LoRA adapter of random weights for a model's last layer."""
    model, _ = load_model(model_path)
    parameters = {"rank": 4, "scale": 20.0, "dropout": 0.0}
    model.freeze()
    linear_to_lora_layers(model, 1, parameters)
    weights = {
        name: 0.3 * mx.random.normal(array.shape, key=mx.random.key(1))
        for name, array in tree_flatten(model.trainable_parameters())
    }
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    config = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def logits(loaded):
    return np.array(loaded.model(mx.array([[5, 6, 7, 8]])))


def test_an_adapter_fits_a_gguf_file_as_it_does_the_folder(twice, tmp_path):
    folder, path = twice
    adapter = adapter_of(tmp_path / "adapter", folder)
    wanted = logits(load(folder, adapter=adapter))
    base = load(path)
    assert np.abs(wanted - logits(base)).max() > 0.01
    shared = load(path, adapter=adapter, base=base)
    np.testing.assert_allclose(logits(shared), wanted, atol=1e-4)
    assert shared.weights < base.weights / 10
    np.testing.assert_allclose(logits(load(path, adapter=adapter)), wanted, atol=1e-4)


@pytest.mark.skipif(not on_cpu(), reason="only a CPU is slow with packed weights")
def test_the_weights_under_an_adapter_are_packed_if_those_of_its_base_are(tmp_path):
    folder = quantised(tmp_path / "quantised")
    adapter = adapter_of(tmp_path / "adapter", folder)
    for room in (0, 1 << 30):
        base = load(folder, dense_room=room)
        loaded = load(folder, adapter=adapter, base=base, dense_room=1 << 30 if not room else 0)
        assert is_packed(loaded.model) is is_packed(base.model) is not bool(room)
        assert loaded.weights < base.weights / 10


def test_the_same_gguf_file_has_the_same_identity_and_another_another(twice, tmp_path):
    folder, path = twice
    other = gguf_of(folder, tmp_path / "other.gguf", "qwen3", kind="F16")
    assert load(path).identity == load(path).identity != load(other).identity


async def test_a_gguf_file_without_a_template_is_served(twice, caplog):
    (twice[0] / "chat_template.jinja").unlink()
    path = gguf_of(twice[0], twice[1], "qwen3")
    with caplog.at_level("WARNING"):
        assert (await story(path)).usage["completion_tokens"] > 0
    assert "`twice` has no chat template; turns are marked User: and Assistant:" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data[: len(data) // 2], "it ends before its tensor `.+` does; is the down"),
        (lambda data: data[:500], "it ends within its header; is the download complete?"),
        (lambda data: data.replace(b"qwen3", b"qwen9"), "its architecture is `qwen9`; known are"),
        (lambda data: data.replace(b"gpt-2", b"gpt-9"), "splits text in the way `gpt-9`; known"),
    ],
    ids=["weights", "header", "architecture", "tokenizer"],
)
async def test_a_spoilt_gguf_file_cannot_be_loaded_and_says_why(twice, spoil, said):
    path = twice[1]
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(
        ModelLoadingError, match=rf"`twice\.gguf` cannot be loaded: .*{said}"
    ) as told:
        await story(path)
    assert "\n" not in str(told.value)


def test_a_gguf_file_of_a_vocabulary_alone_says_what_it_lacks(twice, tmp_path):
    path = write_gguf(tmp_path / "vocabulary.gguf", metadata_of(twice[0], "qwen3"), {})
    with pytest.raises(ModelLoadingError, match=r"its tensor `token_embd\.weight` is missing"):
        load(path)


def test_the_embedded_model_loads_with_what_its_configuration_says():
    loaded = load(MODEL_PATH)
    assert loaded.context_window == 8192
    assert loaded.vocabulary == len(loaded.tokenizer)


def test_names():
    assert model_name(None) == model_name(EMBEDDED) == EMBEDDED
    assert model_name("someone/some-model") == "someone/some-model"


def test_a_folder_is_named_by_its_last_part(tmp_path):
    assert model_name(str(tmp_path / ".")) == tmp_path.name


def test_a_missing_folder_is_not_found():
    with pytest.raises(ModelNotFoundError, match="there is no such folder"):
        resolve("./nowhere/at/all")


def test_a_folder_without_configuration_or_weights_is_no_model(tmp_path):
    with pytest.raises(ModelLoadingError, match=r"no config\.json"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelLoadingError, match="no weights"):
        resolve(str(tmp_path))


def test_a_file_of_another_format_is_no_model(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ModelLoadingError, match="is no GGUF file"):
        resolve(str(file))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"not weights"),
        lambda folder: (folder / "config.json").write_text('{"model_type": "no-such-type"}'),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "tokenizer.json").write_text("{"),
    ],
    ids=["weights", "architecture", "configuration", "tokenizer"],
)
async def test_a_spoilt_model_cannot_be_loaded_and_says_why(tmp_path, spoil):
    folder = write_model(tmp_path / "spoilt", LLAMA)
    spoil(folder)
    with pytest.raises(ModelLoadingError, match=r"`spoilt` cannot be loaded: ."):
        await story(folder)
