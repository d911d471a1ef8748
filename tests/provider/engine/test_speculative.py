"""Runs that go one by one: a draft changes nothing but the time; quantised caches are mlx-lm's."""

import asyncio
import random

import pytest
from mlx_lm.generate import stream_generate
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import greedy_sampler, make_sampler
from mlx_lm.utils import load_model

from provider import MLXProvider
from provider.embedded import MODEL_PATH
from provider.engine.batch import Batch
from provider.engine.rows import Row
from provider.engine.sampling import SeededSampler
from provider.engine.speculative import SingleRowSettings
from provider.formats.chat_template import ChatTemplate
from provider.inputs.messages import conversation
from provider.interface import InvalidParameterError, ModelLoadingError
from provider.models.loading import load
from provider.runtime.mlx import mx
from tests.support.timeouts import TIMEOUT
from tests.support.tiny_models import ARCHITECTURES, LLAMA, write_model

PROMPTS = ["Count from 3 to 40", "Tell me a long story about a fox", "What can you do?"]
OPTIONS = {
    "greedy": {"temperature": 0.0},
    "seeded": {"temperature": 0.9, "seed": 5},
    "filtered": {"temperature": 1.1, "top_p": 0.9, "min_p": 0.02, "top_k": 40, "seed": 6},
    "penalised": {"temperature": 0.0, "repetition_penalty": 1.3},
    "stopped": {"temperature": 0.0, "stop": ["12", "fox"]},
    "short": {"temperature": 0.0, "max_tokens": 2},
}


@pytest.fixture(scope="module")
def random_draft(tmp_path_factory):
    """A draft that is nearly always wrong."""
    return write_model(tmp_path_factory.mktemp("draft") / "draft", {**LLAMA, "vocab_size": 1536})


@pytest.fixture(scope="module", params=["itself", "random"])
def drafted(request, random_draft):
    draft = str(MODEL_PATH) if request.param == "itself" else str(random_draft)
    provider = MLXProvider({"draft_model": draft, "max_tokens": 60, "max_unread": 8})
    yield provider
    provider.close()


async def whole(provider, prompt, **options):
    answer = await provider.generate_async(prompt, **options)
    return answer.content, answer.finish_reason, answer.usage["completion_tokens"]


@pytest.fixture(scope="module")
def undrafted():
    """Answers without a draft, by the kind of options, for the drafts that follow."""
    return {}


@pytest.mark.parametrize("kind", OPTIONS)
async def test_a_draft_changes_nothing(drafted, provider, undrafted, kind):
    options = {"max_tokens": 40, **OPTIONS[kind]}
    texts = await asyncio.gather(*(whole(drafted, prompt, **options) for prompt in PROMPTS))
    if kind not in undrafted:
        undrafted[kind] = [await whole(provider, prompt, **options) for prompt in PROMPTS]
    assert texts == undrafted[kind]


async def test_a_drafted_run_is_parked_and_goes_on(drafted, provider):
    stream = await drafted.generate_async(PROMPTS[1], stream=True, temperature=0.0)
    first = await anext(stream)
    async with asyncio.timeout(TIMEOUT * 2):
        while not drafted.statistics().parked:
            await asyncio.sleep(0.005)
    text = first.content + "".join([delta.content async for delta in stream])
    assert text == (await whole(provider, PROMPTS[1], max_tokens=60))[0]


async def test_a_drafted_conversation_is_read_from_the_prefix_cache(drafted):
    again = [await drafted.generate_async(PROMPTS[1], temperature=0.0) for _ in range(2)]
    assert again[0].content == again[1].content
    assert again[1].usage["cached_tokens"] > 0


class CountedModel:
    """A model whose forward passes are counted."""

    def __init__(self, model):
        self._model = model
        self.passes = 0

    def __call__(self, *arguments, **options):
        self.passes += 1
        return self._model(*arguments, **options)

    def __getattr__(self, name):
        return getattr(self._model, name)


@pytest.mark.parametrize("seed", [None, 3])
def test_a_perfect_draft_saves_three_of_four_passes(seed):
    model = load(MODEL_PATH).model
    sampler = greedy_sampler if seed is None else SeededSampler(seed, 0.8, 1.0, 0.0, 0)
    counted = CountedModel(model)
    batch = Batch(counted, (), single_row=SingleRowSettings(draft=model, draft_tokens=3))
    prompt = [random.Random(1).randrange(20, 1500) for _ in range(20)]
    batch.prefill([(1, batch.add(Row(1, prompt, 20, 40, sampler)))])
    counted.passes = 0
    tokens = []
    while len(batch):
        tokens += batch.decode().tokens
    assert len(tokens) == 40
    assert counted.passes == 10


def test_caches_hold_the_sequence_but_for_its_last_token(random_draft):
    """Whatever was proposed: what is kept is what reading the sequence anew would give."""
    model, kept = load(MODEL_PATH).model, []
    draft, _ = load_model(random_draft)
    single_row = SingleRowSettings(draft=draft, draft_tokens=5)
    batch = Batch(
        model, (), lambda row, copy, tokens: kept.append((row, copy(), tokens)), single_row
    )
    prompt = [random.Random(2).randrange(20, 1500) for _ in range(20)]
    batch.prefill([(1, batch.add(Row(1, prompt, 20, 17, greedy_sampler)))])
    while len(batch):
        batch.decode()
    ((row, caches, tokens),) = kept
    assert tokens == len(row.sequence) - 1 == 36
    anew = [make_prompt_cache(model), make_prompt_cache(draft)]
    for one, cache in zip((model, draft), anew, strict=True):
        one(mx.array([row.sequence[:-1]]), cache=cache)
    for mine, theirs in zip(caches, [*anew[0], *anew[1]], strict=True):
        assert mine.offset == theirs.offset == 36
        assert mx.allclose(mine.keys[..., :36, :], theirs.keys[..., :36, :], atol=1e-4)


@pytest.mark.parametrize("bits", [4, 8])
async def test_quantised_caches_give_the_text_of_mlx_lm(bits):
    loaded = load(MODEL_PATH)
    template = ChatTemplate(loaded.tokenizer)
    settings = {"kv_bits": bits, "kv_group_size": 32}
    expected = []
    for prompt in PROMPTS:
        tokens = template.tokens(
            conversation(prompt, None, None), [], variables={"enable_thinking": False}
        )
        answers = stream_generate(
            loaded.model,
            loaded.tokenizer,
            tokens,
            max_tokens=40,
            sampler=make_sampler(0.0),
            quantized_kv_start=0,
            **settings,
        )
        expected.append("".join(answer.text for answer in answers))
    provider = MLXProvider({"temperature": 0.0, "max_tokens": 40, **settings})
    try:
        texts = await asyncio.gather(*(whole(provider, prompt) for prompt in PROMPTS))
        memory = provider.statistics().prefix_bytes
    finally:
        await provider.aclose()
    assert [text for text, *_ in texts] == expected
    assert memory > 0


async def test_what_cannot_be_is_said_at_loading(tmp_path):
    sliding = write_model(tmp_path / "gemma3", ARCHITECTURES["gemma3"])
    provider = MLXProvider({"model": str(sliding), "kv_bits": 8})
    with pytest.raises(ModelLoadingError, match="cannot be quantised"):
        await provider.load()
    await provider.aclose()
    provider = MLXProvider({"model": str(sliding), "draft_model": str(sliding)})
    with pytest.raises(ModelLoadingError, match="cut back"):
        await provider.load()
    await provider.aclose()
    other = write_model(tmp_path / "other", {**LLAMA, "vocab_size": 2000})
    provider = MLXProvider({"draft_model": str(other)})
    with pytest.raises(ModelLoadingError, match="2000 tokens instead of 1536"):
        await provider.load()
    await provider.aclose()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kv_bits": 3}, "one of 2, 4, 8"),
        ({"draft_tokens": 16}, "at most 15"),
        ({"draft_tokens": 0}, "at least 1"),
        ({"max_batch": 1.5}, "a whole number"),
        ({"max_token_gap": "fast"}, "a number"),
        ({"max_queue": True}, "a whole number"),
    ],
)
def test_a_setting_out_of_bounds_is_named(config, message):
    with pytest.raises(InvalidParameterError, match=message) as caught:
        MLXProvider(config)
    assert caught.value.parameter == next(iter(config))
