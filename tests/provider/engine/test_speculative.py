"""Runs that go one by one: a draft changes nothing but the time; quantised caches are mlx-lm's."""

import asyncio
import random

import pytest
from mlx_lm.generate import stream_generate
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import greedy_sampler, make_sampler
from mlx_lm.utils import load_model

from provider import MLXProvider
from provider.constraints.mask_maker import MaskMaker
from provider.constraints.matcher import PROVEN
from provider.engine.batch import Batch
from provider.engine.model import as_model
from provider.engine.rows import Row, StepResult
from provider.engine.sampling import SeededSampler
from provider.engine.speculative import (
    ModelWithDraft,
    SingleRowSettings,
    SpeculativeCaches,
    SpeculativeGroup,
)
from provider.formats.chat_template import ChatTemplate
from provider.inputs.messages import conversation
from provider.interface import InvalidParameterError, ModelLoadingError
from provider.models.loading import load
from provider.runtime.mlx import mx
from tests.support.held_constraint import HeldConstraint
from tests.support.timeouts import TIMEOUT
from tests.support.tiny_models import ARCHITECTURES, LLAMA, write_model

PROMPTS = ["Count from 3 to 40", "Tell me a long story about a fox", "What can you do?"]
OPTIONS = {
    "greedy": {"temperature": 0.0},
    "seeded": {"temperature": 0.9, "seed": 5},
    "filtered": {"temperature": 1.1, "top_p": 0.9, "min_p": 0.02, "top_k": 40, "seed": 6},
    "penalised": {"temperature": 0.0, "repetition_penalty": 1.3},
    "stopped": {"temperature": 0.0, "stop": ["ing", "qu"], "max_tokens": 40},
    "short": {"temperature": 0.0, "max_tokens": 2},
}


@pytest.fixture(scope="module")
def random_draft(tmp_path_factory):
    """A draft that is nearly always wrong."""
    return write_model(tmp_path_factory.mktemp("draft") / "draft", {**LLAMA, "vocab_size": 1536})


@pytest.fixture(scope="module", params=["itself", "random"])
def drafted(request, light, random_draft):
    draft = str(light if request.param == "itself" else random_draft)
    config = {"model": str(light), "draft_model": draft, "max_tokens": 32, "max_unread": 8}
    provider = MLXProvider(config)
    yield provider
    provider.close()


async def whole(provider, prompt, **options):
    answer = await provider.generate_async(prompt, **options)
    return answer.content, answer.finish_reason, answer.usage["completion_tokens"]


@pytest.fixture(scope="module")
def undrafted():
    """Answers without a draft, by the kind of options, for the drafts that follow."""
    return {}


FILTERED = pytest.mark.slow("a seeded run draws from the same sampler, without its filters")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[FILTERED] * (kind == "filtered")) for kind in OPTIONS]
)
async def test_a_draft_changes_nothing(drafted, quick, undrafted, kind):
    options = {"max_tokens": 16, **OPTIONS[kind]}
    texts = await asyncio.gather(*(whole(drafted, prompt, **options) for prompt in PROMPTS))
    if kind not in undrafted:
        undrafted[kind] = [await whole(quick, prompt, **options) for prompt in PROMPTS]
    assert texts == undrafted[kind]
    assert kind != "stopped" or any(reason == "stop" for _, reason, _ in texts)


async def test_a_drafted_run_is_parked_and_goes_on(drafted, quick):
    stream = await drafted.generate_async(PROMPTS[1], stream=True, temperature=0.0)
    first = await anext(stream)
    async with asyncio.timeout(TIMEOUT * 2):
        while not drafted.statistics().parked:
            await asyncio.sleep(0.005)
    text = first.content + "".join([delta.content async for delta in stream])
    assert text == (await whole(quick, PROMPTS[1], max_tokens=32))[0]


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
def test_a_perfect_draft_saves_three_of_four_passes(light, seed):
    model = load(light).model
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


def test_caches_hold_the_sequence_but_for_its_last_token(light, random_draft):
    """Whatever was proposed: what is kept is what reading the sequence anew would give."""
    model, kept = load(light).model, []
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
async def test_quantised_caches_give_the_text_of_mlx_lm(light, bits):
    loaded = load(light)
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
            max_tokens=24,
            sampler=make_sampler(0.0),
            quantized_kv_start=0,
            **settings,
        )
        expected.append("".join(answer.text for answer in answers))
    config = {"model": str(light), "temperature": 0.0, "max_tokens": 24}
    provider = MLXProvider({**config, **settings})
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


def sequence_of(model, prompt, settings):
    batch, row = Batch(model, (), single_row=settings), Row(1, prompt, 20, 17, greedy_sampler)
    batch.prefill([(1, batch.add(row))])
    while len(batch):
        assert batch.decode().faults == {}
    return row.sequence


def test_rejected_tokens_leave_nothing_in_quantised_caches(light, tmp_path):
    wide = {**LLAMA, "num_attention_heads": 2, "num_key_value_heads": 1}  # 32 values a head
    draft, _ = load_model(write_model(tmp_path / "draft", wide))
    model, prompt = (
        load(light).model,
        [random.Random(2).randrange(20, 1500) for _ in range(20)],
    )
    quantised = {"kv_bits": 8, "kv_group_size": 32}
    drafted = sequence_of(model, list(prompt), SingleRowSettings(draft=draft, **quantised))
    assert drafted == sequence_of(model, list(prompt), SingleRowSettings(**quantised))


PROMPT, WANTED = [30, 31, 32, 33], [60, 61, 62, 63, 64, 65, 66, 67]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return load_model(write_model(tmp_path_factory.mktemp("m") / "llama", LLAMA))[0]


class Held:
    """A drafted row that is constrained to `WANTED`, and whose masks are late at first."""

    def __init__(self, model, error=None):
        self.row = Row(1, list(PROMPT), len(PROMPT), len(WANTED), greedy_sampler)
        self.row.constraint = self.constraint = HeldConstraint(WANTED, error)
        self.masks, self.kept = MaskMaker(), []
        models, settings = ModelWithDraft(as_model(model), model), SingleRowSettings(draft=model)
        caches = SpeculativeCaches(models.make_cache(), settings)
        models(mx.array([PROMPT[:-1]]), cache=caches.layers)
        self.row.done = self.row.fed = len(PROMPT) - 1
        self.group = SpeculativeGroup(
            models, settings, frozenset(), self.row, caches, self.keep, self.masks
        )

    def keep(self, _row, copy, tokens):
        self.kept.append(({cache.offset for cache in copy()}, tokens))

    def step(self):
        result = StepResult()
        self.group.step(result)
        return [token.token for token in result.tokens]

    def finish(self):
        tokens = []
        while self.group.alive:
            tokens += self.step()
        return tokens

    def ripen(self):
        self.constraint.let_go()
        for _ in range(3000):
            if not self.group.waits:
                return
            self.masks.wait(0.01)
        raise AssertionError("the mask stays late")

    def close(self):
        self.constraint.let_go()
        self.masks.close()


@pytest.fixture
def held(llama):
    made = Held(llama)
    yield made
    made.close()


def test_a_drafted_row_waits_for_its_mask_and_goes_on_with_the_token_it_allows(held):
    held.row.suspect = True
    assert [held.step() for _ in range(3)] == [[]] * 3
    assert held.group.waits
    assert held.group.suspect
    assert held.group.members == [held.row]
    assert held.group.extract(held.row) == (None, None)
    held.ripen()
    assert held.step() == WANTED[:1]
    assert not held.group.suspect
    assert held.finish() == WANTED[1:]
    assert not held.group.alive
    assert held.step() == held.group.members == []
    fed = len(PROMPT) + len(WANTED) - 1
    assert held.kept == [({fed}, fed)]


def test_a_drafted_answer_is_taken_up_to_the_mask_that_is_late(held):
    def hold_at_the_third(context, logits):
        if len(context) == len(PROMPT) + 2:
            held.constraint.hold()
        return logits

    held.row.processors = [hold_at_the_third]
    held.constraint.let_go()
    assert held.step() == WANTED[:2]
    assert held.step() == []
    assert held.group.waits
    held.ripen()
    assert held.step() == WANTED[2:3]
    assert held.finish() == WANTED[3:]
    fed = len(PROMPT) + len(WANTED) - 1
    assert held.kept == [({fed}, fed)]


def grammar(held):
    """Let its masks be made at once, as those of a grammar that is trusted; return all so far."""
    made, constraint = [], held.constraint
    constraint.let_go()
    constraint.simple, constraint.shared.masks = False, PROVEN
    write = constraint.write
    constraint.write = lambda mask: (made.append(constraint._followed.length), write(mask))
    return made


def test_each_token_of_a_draft_follows_the_grammar_and_its_mask_is_the_models_too(held):
    made = grammar(held)
    assert held.step() == WANTED[:4]
    assert made == [0, 1, 2, 3]
    assert held.finish() == WANTED[4:]
    fed = len(PROMPT) + len(WANTED) - 1
    assert held.kept == [({fed}, fed)]


def test_proposed_tokens_are_taken_as_far_as_there_are_masks(held):
    made = grammar(held)
    write = held.constraint.write

    def hold_after_the_third(mask):
        write(mask)
        if len(made) == 3:
            held.constraint.hold()

    held.constraint.write = hold_after_the_third
    assert held.step() == WANTED[:3]
    assert held.step() == []
    assert held.group.waits
    held.ripen()
    assert held.finish() == WANTED[3:]
    fed = len(PROMPT) + len(WANTED) - 1
    assert held.kept == [({fed}, fed)]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_no_step_waits_for_another_mask_once_one_was_costly(held, at):
    made = grammar(held)
    write = held.constraint.write

    def write_at_a_cost(mask):
        write(mask)
        held.constraint.shared.costly = len(made) >= at

    held.constraint.write = write_at_a_cost
    assert held.step() == WANTED[:at]
    assert made == list(range(at))
    later = []
    while held.group.alive:
        later.append(held.step())
    assert [token for tokens in later for token in tokens] == WANTED[at:]
    assert max(map(len, later)) == 1, "something was proposed"


def test_a_drafted_row_that_leaves_while_it_waits_drops_its_mask_and_keeps_no_caches(held):
    held.step()
    job = held.group._late.job
    held.group.leave(Row(2, list(PROMPT), 4, 1, greedy_sampler))
    assert held.group.waits, "it is another row that leaves"
    held.group.leave(held.row)
    assert job.dropped
    assert not held.group.waits
    assert held.kept == []


@pytest.mark.parametrize("late", [True, False])
def test_a_mask_of_a_drafted_row_that_fails_ends_its_step(llama, late):
    held = Held(llama, ValueError("the mask"))
    try:
        if late:
            assert held.step() == []
            held.ripen()
        held.constraint.let_go()
        with pytest.raises(ValueError, match="the mask"):
            held.step()
        assert held.row.sequence == PROMPT
    finally:
        held.close()
