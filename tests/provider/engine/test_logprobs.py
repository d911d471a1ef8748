"""Log-probabilities of what was drawn, beside mlx-lm's own."""

import asyncio
import math

import pytest
from mlx_lm import stream_generate
from mlx_lm.utils import load

from gateway.protocol.frames import JSON_PROTOCOL, MSGPACK_PROTOCOL, Generate
from provider import MLXProvider
from provider.embedded import MODEL_PATH
from provider.engine.logprobs import LogprobRecorder, note_all
from provider.interface import TokenLogprobs
from provider.models.loading import tokenizer_of
from provider.runtime.mlx import mx
from tests.support.servers import eventually, running, wired

ASK = "Tell me a story about a fox"
OPTIONS = {"logprobs": True, "top_logprobs": 3, "max_tokens": 30}


@pytest.fixture(scope="module")
def provider():
    made = MLXProvider({"temperature": 0.0})
    yield made
    made.close()


@pytest.fixture(scope="module")
def reference():
    """mlx-lm's own greedy tokens and their log-probabilities."""
    model, tokenizer = load(str(MODEL_PATH))
    model.set_dtype(mx.float32)  # as the engine does on a CPU; else they are rounded to 8 bits
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": ASK}], add_generation_prompt=True, enable_thinking=False
    )
    return [
        (tokenizer.decode([one.token]), float(one.logprobs[one.token]))
        for one in stream_generate(model, tokenizer, prompt, max_tokens=30)
    ]


async def drawn(provider, **options):
    """Return the text and the log-probabilities of an answer, streamed."""
    text, tokens = "", []
    async for delta in await provider.generate_async(ASK, stream=True, **{**OPTIONS, **options}):
        text += delta.content or ""
        if isinstance(delta.raw_response, TokenLogprobs):
            tokens += delta.raw_response.tokens
    return text, tokens


def close(tokens, reference):
    assert [one["token"] for one in tokens] == [token for token, _ in reference]
    for one, (_, logprob) in zip(tokens, reference, strict=True):
        assert one["logprob"] == pytest.approx(logprob, abs=2e-3)


async def test_they_are_those_of_mlx_lm(provider, reference):
    text, tokens = await drawn(provider)
    close(tokens, reference)
    assert "".join(one["token"] for one in tokens).strip() == text.strip()
    for one in tokens:
        assert bytes(one["bytes"]).decode() == one["token"]
        top = one["top_logprobs"]
        assert len(top) == 3
        assert top[0]["token"] == one["token"]  # greedy
        assert [t["logprob"] for t in top] == sorted((t["logprob"] for t in top), reverse=True)


async def test_they_are_the_same_beside_others(provider, reference):
    others = [provider.generate_async(f"Count from {n} to 40", max_tokens=60) for n in range(5)]
    (_, tokens), *_ = await asyncio.gather(drawn(provider), *others)
    close(tokens, reference)


def test_each_row_of_a_step_has_its_own_beside_rows_that_ask_for_more_or_for_none():
    logits = mx.random.normal((5, 30), key=mx.random.key(3))
    chosen = [4, 7, 9, 1, 2]
    recorders = {0: LogprobRecorder(2), 2: LogprobRecorder(5), 4: LogprobRecorder(0)}
    noting = [(recorder, 6, row) for row, recorder in recorders.items()]
    note_all(logits, mx.array(chosen, mx.uint32), noting)
    for row, recorder in recorders.items():
        noted, right = recorder.read(6), (logits[row] - mx.logsumexp(logits[row])).tolist()
        best = sorted(range(30), key=lambda token: -right[token])[: recorder.top]
        assert noted.logprob == pytest.approx(right[chosen[row]], abs=1e-5)
        assert [token for token, _ in noted.top] == best
        assert [logprob for _, logprob in noted.top] == pytest.approx(
            [right[token] for token in best], abs=1e-5
        )


async def test_a_whole_answer_has_them_too(provider, reference):
    response = await provider.generate_async(ASK, **{**OPTIONS, "top_logprobs": 0})
    close(response.raw_response.logprobs.tokens, reference)
    assert all(one["top_logprobs"] == [] for one in response.raw_response.logprobs.tokens)


async def test_who_does_not_ask_gets_none(provider):
    _, tokens = await drawn(provider, logprobs=False, top_logprobs=None)
    assert tokens == []


async def test_a_parked_run_loses_none(reference):
    provider = MLXProvider({"temperature": 0.0, "max_unread": 4})
    try:
        tokens = []
        async for delta in await provider.generate_async(ASK, stream=True, **OPTIONS):
            if isinstance(delta.raw_response, TokenLogprobs):
                tokens += delta.raw_response.tokens
            await eventually(lambda: provider.statistics().parkings)
        close(tokens, reference)
    finally:
        await provider.aclose()


async def test_a_drafted_run_has_them(reference):
    provider = MLXProvider({"temperature": 0.0, "draft_model": "embedded"})
    try:
        close((await drawn(provider))[1], reference)
    finally:
        await provider.aclose()


async def test_a_constraint_shows_in_them(provider):
    _, tokens = await drawn(provider, response_format={"type": "choice", "choices": ["yes"]})
    assert "".join(one["token"] for one in tokens) == "yes"
    shown = [other for one in tokens for other in one["top_logprobs"]]
    assert all(math.isfinite(other["logprob"]) for other in shown)
    assert tokenizer_of(MODEL_PATH).eos_token not in {one["token"] for one in tokens}
    assert any(other["logprob"] == pytest.approx(0.0, abs=1e-3) for other in shown)


@pytest.mark.parametrize("protocol", [JSON_PROTOCOL, MSGPACK_PROTOCOL])
async def test_they_go_over_the_wire_streamed_and_whole(provider, reference, protocol):
    async with running(provider) as gateway, wired(gateway, protocol) as wire:
        for stream in (True, False):
            await wire.send(Generate(id="a", prompt=ASK, stream=stream, **OPTIONS))
            frames = await wire.until("done")
            holders = [f for f in frames if f["type"] == "chunk"] if stream else frames[-1:]
            close([one for f in holders for one in f.get("logprobs") or ()], reference)
