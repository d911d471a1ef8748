"""The same text as mlx-lm's own `stream_generate`, however a run shares the engine.

Greedy with mlx-lm's sampler, seeded with ours in both.
In float32, on models of random weights, whose next tokens are far from certain: a wrong mask, a
wrong position or another's keys would show within a few tokens.
"""

import asyncio
import functools

import pytest
from mlx_lm.generate import stream_generate
from mlx_lm.sample_utils import make_sampler

from provider import MLXProvider
from provider.engine.sampling import SeededSampler
from provider.formats.chat_template import ChatTemplate
from provider.inputs.messages import conversation
from provider.models.loading import load
from tests.support.tiny_models import ARCHITECTURES, write_model

PROMPTS = [
    "Hello",
    "Tell me a story about a fox named Zorvan, who lives by the sea and counts the ships.",
    "Count from 3 to 40",
    "word " * 90,  # longer than the window of the sliding caches
    "Who was it, and where, and why?",
]
TOKENS = 16
SAMPLED = {"temperature": 0.9, "top_p": 0.9, "seed": 7}
OPTIONS = {"greedy": {"temperature": 0.0}, "sampled": SAMPLED, "padded": {"temperature": 0.0}}
FEW_SHAPES = {"greedy": "off", "sampled": "off", "padded": "on"}
TWICE = {"qwen3": "llama has such caches too"}
SAMPLED_TWICE = dict.fromkeys(
    ["gemma3", "mamba2", "qwen3_moe"], "its tokens are drawn as those of others, greedy or not"
)


SAMPLED_HIT = dict.fromkeys(ARCHITECTURES, "a hit leaves what greedy runs read from it too")


def combined(name, kind, sampled_twice):
    reason = TWICE.get(name) or (sampled_twice.get(name) if kind == "sampled" else None)
    return pytest.param(name, kind, marks=[pytest.mark.slow(reason)] if reason else [])


def each_but(sampled_twice):
    """Return the mark of a test of every model and kind; these sampled ones are slow tests."""
    combinations = [combined(n, kind, sampled_twice) for n in ARCHITECTURES for kind in OPTIONS]
    return pytest.mark.parametrize(
        ("folder", "kind"), combinations, indirect=["folder"], scope="module"
    )


each = each_but(SAMPLED_TWICE)


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    return write_model(folder, ARCHITECTURES[request.param], markers=False)


@pytest.fixture(scope="module")
def expected(folder):
    """What mlx-lm makes of each prompt, by the kind of run."""
    loaded = load(folder)
    template = ChatTemplate(loaded.tokenizer)

    def text(prompt, sampler):
        turns = conversation(prompt, None, None)
        tokens = template.tokens(turns, [], variables={"enable_thinking": False})
        answers = stream_generate(
            loaded.model, loaded.tokenizer, tokens, max_tokens=TOKENS, sampler=sampler
        )
        return "".join(answer.text for answer in answers)

    @functools.cache
    def texts(sampled):
        return [text(prompt, sampler_of(sampled)) for prompt in PROMPTS]

    return lambda kind: texts(kind == "sampled")


def sampler_of(sampled):
    if not sampled:
        return make_sampler(0.0)
    return SeededSampler(SAMPLED["seed"], SAMPLED["temperature"], SAMPLED["top_p"], 0.0, 0)


@pytest.fixture(scope="module")
def providers(folder):
    """Providers of the model by their setting `few_shapes`."""
    config = {"model": str(folder), "max_tokens": TOKENS, "max_unread": 4}
    providers = {few: MLXProvider({**config, "few_shapes": few}) for few in ("off", "on")}
    yield providers
    for provider in providers.values():
        provider.close()


@pytest.fixture
async def provider(providers, kind):
    """A provider that has kept nothing of earlier prompts."""
    provider = providers[FEW_SHAPES[kind]]
    await forget_prefixes(provider)
    return provider


async def forget_prefixes(provider):
    while provider.engine.busy:
        await asyncio.sleep(0.001)
    provider.engine._worker.prefixes.take_all()


async def whole(provider, prompt, options):
    return (await provider.generate_async(prompt, **options)).content


@each
async def test_alone(provider, expected, kind):
    texts = [await whole(provider, prompt, OPTIONS[kind]) for prompt in PROMPTS]
    assert texts == expected(kind)


@each
async def test_all_at_once(provider, expected, kind):
    texts = await asyncio.gather(*(whole(provider, p, OPTIONS[kind]) for p in PROMPTS))
    assert texts == expected(kind)


@each
async def test_in_a_batch_that_others_join_and_leave(provider, expected, kind):
    """Each prompt comes while the ones before it decode; shorter runs come and go between."""
    options = OPTIONS[kind]
    tasks = []
    for index, prompt in enumerate(PROMPTS):
        tasks.append(asyncio.create_task(whole(provider, prompt, options)))
        steps = provider.engine.steps
        while provider.engine.steps < steps + 4:
            await asyncio.sleep(0)
        passing = {**options, "max_tokens": 3 + index}
        tasks.append(asyncio.create_task(whole(provider, PROMPTS[-1 - index], passing)))
    texts = await asyncio.gather(*tasks)
    assert texts[::2] == expected(kind)


@each
async def test_after_parking(provider, expected, kind):
    """Readers that take nothing until all the others are through."""
    streams = [await provider.generate_async(p, stream=True, **OPTIONS[kind]) for p in PROMPTS]
    texts = [(await anext(stream)).content for stream in streams]
    while provider.engine.busy:
        await asyncio.sleep(0.01)
    runs = provider.engine.runs
    assert any(run.parked for run in runs)
    assert all(run.unread <= 4 for run in runs)
    for index, stream in enumerate(streams):
        async for delta in stream:
            texts[index] += delta.content
    assert texts == expected(kind)


SYSTEM = "You are a patient assistant who answers in full sentences and never hurries. " * 2


@each_but(SAMPLED_HIT)
async def test_with_a_prefix_hit(provider, kind):
    """Another question under the same system prompt, the same one again, and a next turn."""
    long = SYSTEM * (10 if kind == "padded" else 1)  # a hit of a chunk's size at least
    options = {**OPTIONS[kind], "system_prompt": long}
    turns = [
        {"role": "user", "content": PROMPTS[1]},
        {"role": "assistant", "content": "Once upon a time."},
    ]
    calls = [
        (PROMPTS[1], options),
        (PROMPTS[2], options),
        (PROMPTS[1], options),
        (PROMPTS[4], {**options, "messages": turns}),
    ]
    answers = {"cold": [], "warm": []}
    for name, answered in answers.items():
        await forget_prefixes(provider)
        for prompt, given in calls:
            if name == "cold":
                await forget_prefixes(provider)
            answered.append(await provider.generate_async(prompt, **given))
    cached = {name: [a.usage["cached_tokens"] for a in answers[name]] for name in answers}
    assert cached["cold"] == [0, 0, 0, 0]
    assert cached["warm"][0] == 0
    assert all(n > 20 for n in cached["warm"][1:])
    assert [a.content for a in answers["warm"]] == [a.content for a in answers["cold"]]


@each_but(SAMPLED_HIT)
async def test_with_a_short_prefix_of_a_long_prompt(provider, kind):
    """Other questions under a system prompt of which a much longer one was read before."""
    short, long = {"system_prompt": SYSTEM}, {"system_prompt": SYSTEM * 20}

    async def answers(*asked):
        await forget_prefixes(provider)
        return [await provider.generate_async(p, **OPTIONS[kind], **more) for p, more in asked]

    (cold,) = await answers((PROMPTS[1], short))
    _, warm, again = await answers((PROMPTS[2], long), (PROMPTS[1], short), (PROMPTS[1], short))
    assert [warm.content, again.content] == [cold.content] * 2
    assert again.usage["cached_tokens"] >= warm.usage["cached_tokens"]
