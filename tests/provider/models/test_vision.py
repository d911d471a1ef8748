"""Tiny vision models with random weights in the whole engine, compared with mlx-vlm itself."""

import asyncio
import base64

import numpy as np
import pytest

from provider import MLXProvider
from provider.embedded import MODEL_PATH
from provider.formats.pieces import at_once
from provider.inputs.images import open_image
from provider.interface import (
    FileData,
    FileProcessingError,
    ImageProcessingError,
    InvalidParameterError,
    ModelLoadingError,
    UnsupportedFeatureError,
)
from provider.runtime.mlx import mx
from tests.support.tiny_models import LLAMA, write_model
from tests.support.tiny_vision import ARCHITECTURES, picture, write_vision_model

RED, BLUE = picture("red"), picture("blue", (90, 60))
QUESTION = "What is in this picture?"


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request, tmp_path_factory):
    return write_vision_model(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture
def provider(folder):
    made = MLXProvider({"model": str(folder), "temperature": 0.0, "max_tokens": 16})
    yield made
    made.close(0)


def asking(*parts):
    return {"messages": [{"role": "user", "content": list(parts)}]}


def image(data):
    return {"type": "image", "data": data}


def text(said=QUESTION):
    return {"type": "text", "text": said}


async def see(provider, data, **options):
    return await provider.generate_async("", **asking(image(data), text()), **options)


def by_mlx_vlm(folder, data, tokens):
    """Return the greedy tokens of mlx-vlm's own model and processor."""
    from mlx_vlm.utils import load_model, load_processor

    model, processor = load_model(folder), load_processor(folder, add_detokenizer=False)
    model.set_dtype(mx.float32)
    prompt = processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, text()]}],
        add_generation_prompt=True,
        tokenize=False,
    )
    made = processor(images=[open_image(data)], text=[prompt])
    inputs = {name: mx.array(value) for name, value in made.items()}
    ids, pixels = inputs.pop("input_ids"), inputs.pop("pixel_values")
    inputs.pop("attention_mask", None)
    said = []
    for _ in range(tokens):  # without a cache, from the beginning each time: slow and plain
        features = model.get_input_embeddings(ids, pixels, **inputs)
        more = {} if features.position_ids is None else {"position_ids": features.position_ids}
        out = model.language_model(ids, inputs_embeds=features.inputs_embeds, **more)
        said.append(int(mx.argmax(out.logits[0, -1]).item()))
        ids = mx.concatenate([ids, mx.array([[said[-1]]], ids.dtype)], axis=1)
    return said


async def test_the_answer_to_an_image_is_that_of_mlx_vlm(provider, folder):
    whole = await see(provider, RED, max_tokens=12, logprobs=True)
    tokenizer = provider._library.default.loaded().template.tokenizer
    expected = by_mlx_vlm(folder, RED, 12)
    ends = tokenizer.eos_token_ids
    until = next((i for i, token in enumerate(expected) if token in ends), len(expected))
    given = [one["token"] for one in whole.raw_response.logprobs.tokens]
    assert given[:until] == [tokenizer.decode([token]) for token in expected[:until]]
    assert until > 3


async def test_two_images_give_two_answers_and_the_same_image_the_same(provider):
    red, blue, again = [await see(provider, data) for data in (RED, BLUE, RED)]
    assert red.content != blue.content
    assert again.content == red.content
    assert again.usage["cached_tokens"] > red.usage["cached_tokens"] == 0
    assert blue.usage["cached_tokens"] == 0


async def test_runs_with_and_without_images_are_the_same_together_as_alone(provider):
    def asks():
        return [
            see(provider, RED),
            provider.generate_async("Tell me a story"),
            see(provider, BLUE),
            provider.generate_async("Count from 3 to 9, and go on and on"),
        ]

    alone = [(await one).content for one in asks()]
    together = await asyncio.gather(*asks(), *asks())
    assert [answer.content for answer in together] == alone * 2


async def test_an_image_may_come_as_a_file_as_a_data_url_or_in_base64(provider, tmp_path):
    expected = (await see(provider, RED)).content
    (tmp_path / "red.png").write_bytes(RED)
    encoded = base64.b64encode(RED).decode()
    url = f"data:image/png;base64,{encoded}"
    ways = [
        provider.generate_async(QUESTION, files=[tmp_path / "red.png"]),
        provider.generate_async(QUESTION, files=[FileData("x", "image/png", RED)]),
        provider.generate_async(
            "", **asking({"type": "image_url", "image_url": {"url": url}}, text())
        ),
        provider.generate_async("", **asking(image(encoded), text())),
    ]
    assert [(await way).content for way in ways] == [expected] * 4


async def test_a_conversation_goes_on_after_an_image(provider):
    first = await see(provider, RED)
    turns = [
        {"role": "user", "content": [image(RED), text()]},
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": "And what else?"},
    ]
    second = await provider.generate_async("", messages=turns)
    assert second.usage["cached_tokens"] > first.usage["prompt_tokens"] - 16
    alone = MLXProvider({**provider.get_config(), "prefix_cache_bytes": 0})
    assert (await alone.generate_async("", messages=turns)).content == second.content
    await alone.aclose()


async def test_several_answers_to_one_image_and_a_parked_stream(provider):
    whole = await see(provider, RED, n=3)
    assert len({one.content for one in whole.choices}) == 1
    stream = await see(provider, RED, stream=True, max_tokens=40)
    said = []
    async for delta in stream:
        said.append(delta.content or "")
        await asyncio.sleep(0.001)
    assert "".join(said).startswith(whole.content[:5])


async def test_a_draft_model_does_not_change_the_answer_to_an_image(provider, folder, tmp_path):
    other = write_vision_model(tmp_path / "draft", folder.name, seed=5)
    for draft in (folder, other):  # one that is always right, but for images; one that never is
        drafted = MLXProvider({**provider.get_config(), "draft_model": str(draft)})
        for one in (provider, drafted):
            assert (await see(one, BLUE)).content != (await see(one, RED)).content
        assert (await see(drafted, RED)).content == (await see(provider, RED)).content
        hello = [(await one.generate_async("Hello")).content for one in (provider, drafted)]
        assert hello[0] == hello[1]
        await drafted.aclose()


@pytest.mark.parametrize("data", [b"", b"no image", RED[:60]])
async def test_an_invalid_image_is_refused(provider, data):
    with pytest.raises((ImageProcessingError, InvalidParameterError)):
        await see(provider, data)
    assert (await provider.generate_async("Hi")).usage["completion_tokens"] > 0


async def test_a_text_model_refuses_images():
    provider = MLXProvider({"max_tokens": 3})
    for asked in (
        provider.generate_async("", **asking(image(RED))),
        provider.generate_async(QUESTION, files=[FileData("red.png", None, RED)]),
    ):
        with pytest.raises(UnsupportedFeatureError, match="this model reads text, not images"):
            await asked
    await provider.aclose()


async def test_images_with_the_same_concatenated_data_are_distinguished(provider):
    # What stands behind an image in its file is not seen.
    white = picture("white", (80, 30))
    first = asking(image(RED + BLUE), image(white), text())
    second = asking(image(RED), image(BLUE + white), text())
    whole = [await provider.generate_async("", **asked) for asked in (first, second)]
    assert whole[1].usage["cached_tokens"] == 0
    assert whole[0].content != whole[1].content


async def test_a_large_file_is_refused(provider, monkeypatch):
    monkeypatch.setattr("provider.inputs.files.MAX_IMAGE_BYTES", 100)
    with pytest.raises(FileProcessingError, match="is larger than 100 bytes"):
        await provider.generate_async(QUESTION, files=[FileData("red.png", None, RED)])


def test_the_embedded_model_is_no_vision_model():
    from provider.models.vision import supports_images, why_text_only

    assert not supports_images(MODEL_PATH)
    assert why_text_only(MODEL_PATH) == ""


async def test_a_vision_model_that_mlx_vlm_does_not_support_refuses_images(tmp_path):
    folder = write_model(
        tmp_path / "eyes", {**LLAMA, "model_type": "nanbeige", "vision_config": {"depth": 1}}
    )
    provider = MLXProvider({"model": str(folder), "max_tokens": 3})
    assert (await provider.generate_async("Hi")).usage["completion_tokens"] > 0
    with pytest.raises(UnsupportedFeatureError, match="mlx-vlm does not support"):
        await provider.generate_async("Hi", files=[FileData("red.png", None, RED)])
    await provider.aclose()


def test_a_model_with_a_broken_processor_keeps_no_memory_and_can_be_repaired(tmp_path):
    folder = write_vision_model(tmp_path / "seeing", "llava")
    settings = (folder / "preprocessor_config.json").read_text()
    (folder / "preprocessor_config.json").write_text("{")
    provider = MLXProvider({"model": str(folder), "max_tokens": 3})
    for _ in range(2):
        with pytest.raises(ModelLoadingError, match="`seeing` cannot be loaded: "):
            provider.generate("Hi")
        assert provider.statistics().weights_bytes == 0
    (folder / "preprocessor_config.json").write_text(settings)
    assert provider.generate("Hi").usage["completion_tokens"] > 0
    provider.close(0)


def test_pixels_cross_the_threads_as_numpy(folder):
    from provider.models.vision import ImageProcessor

    made = at_once(ImageProcessor(folder).processing("x " + _place(folder), [RED]))
    assert all(isinstance(value, np.ndarray) for value in made.inputs.values())
    assert isinstance(made.tokens, list)


def _place(folder):
    return "<image>" if "llava" in folder.name else "<|vision_start|><|image_pad|><|vision_end|>"
