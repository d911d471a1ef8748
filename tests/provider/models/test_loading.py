"""Loading of tiny models with random weights, and of folders that are no model."""

import asyncio
import json

import pytest
from mlx_lm.utils import load_model, quantize_model, save_model

from provider import MLXProvider
from provider.embedded import MODEL_PATH
from provider.interface import ModelLoadingError, ModelNotFoundError
from provider.models.loading import load
from provider.models.source import EMBEDDED, model_name, resolve
from provider.runtime.mlx import mx
from tests.support.tiny_models import ARCHITECTURES, LLAMA, write_model


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


async def test_a_quantised_model_generates(tmp_path):
    folder = write_model(tmp_path / "quantised", LLAMA)
    model, config = load_model(folder)
    model, config = quantize_model(model, config, group_size=32, bits=8)
    (folder / "model.safetensors").unlink()
    save_model(folder, model)
    (folder / "config.json").write_text(json.dumps(config))
    assert (await story(folder)).usage["completion_tokens"] > 0


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
    with pytest.raises(ModelNotFoundError, match="not a hub id of the form"):
        resolve("./nowhere/at/all")


def test_a_folder_without_configuration_or_weights_is_no_model(tmp_path):
    with pytest.raises(ModelLoadingError, match=r"no config\.json"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelLoadingError, match="no weights"):
        resolve(str(tmp_path))


def test_a_file_is_no_model(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ModelLoadingError, match="is not a model"):
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
