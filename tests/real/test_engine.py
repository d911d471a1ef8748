"""The engine on a real chat model: the same tokens as mlx-lm's own loop, whatever runs beside."""

import asyncio
import json
import math
from contextlib import aclosing

import numpy as np
import pytest

from provider.events import TokenLogprobs
from provider.runtime.mlx import mx

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

SKY = "Why is the sky blue?"
FRANCE = "What is the capital of France?"
PROMPTS = [
    SKY,
    FRANCE,
    "Write one sentence about the sea.",
    "Name three fruits.",
    "Explain what a loop is in Python, for somebody who has never programmed.",
    "Translate 'good morning' into Spanish.",
    "Who wrote Hamlet?",
    "Give me a tip for sleeping better. " * 12,
]
ROME = {"role": "user", "content": "My name is Bo and I live in Rome. Answer in one sentence."}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


async def answered(provider, prompt="", **options):
    return await provider.generate_async(prompt, **options)


async def test_it_knows_why_the_sky_is_blue(provider):
    assert "Rayleigh" in (await answered(provider, SKY, max_tokens=40)).content


async def test_a_single_run_says_what_mlx_lm_says(provider, reference):
    for prompt in PROMPTS[:2]:
        assert (await answered(provider, prompt)).content == reference.text(prompt)


async def test_sixteen_runs_that_join_and_leave_say_what_mlx_lm_says(provider, reference):
    tasks = []
    for number, prompt in enumerate(PROMPTS * 2):
        short = {"max_tokens": 3 + number} if number >= len(PROMPTS) else {}
        tasks.append(asyncio.create_task(answered(provider, prompt, **short)))
        steps = provider.engine.steps
        while provider.engine.steps < steps + number % 3:
            await asyncio.sleep(0.001)
    answers = await asyncio.gather(*tasks)
    for prompt, answer, again in zip(PROMPTS, answers, answers[len(PROMPTS) :], strict=False):
        assert answer.content == reference.text(prompt)
        assert answer.content.startswith(again.content)
    assert provider.statistics().decoding == 0


async def test_a_later_turn_reads_only_what_is_new(provider, reference):
    messages = [ROME]
    for question in ("Where do I live?", "And what is my name?"):
        answer = await answered(provider, messages=messages)
        messages = [
            *messages,
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": question},
        ]
        following = await answered(provider, messages=messages)
        seen = len(reference.tokens(messages=messages[:-2]))
        assert following.usage["cached_tokens"] >= seen - 1
        assert following.content == reference.text(messages=messages)


async def test_an_answer_ends_before_a_stop_string(provider):
    answer = await answered(provider, FRANCE, stop=["Paris"])
    assert answer.content == "The capital of France is "
    assert answer.finish_reason == "stop"


async def logprobs_of(provider, prompt):
    found = []
    stream = await provider.generate_async(prompt, stream=True, logprobs=True, top_logprobs=3)
    async with aclosing(stream) as deltas:
        async for delta in deltas:
            if isinstance(delta.raw_response, TokenLogprobs):
                found += delta.raw_response.tokens
    return found


async def test_log_probabilities_are_those_of_the_model(provider, reference):
    found = await logprobs_of(provider, FRANCE)
    tokens = reference.tokens(FRANCE)
    logits = reference.loaded.model(mx.array([tokens]))[0, -1]
    wanted = np.sort(np.array(logits - mx.logsumexp(logits)))[::-1][:3]
    assert found[0]["token"] == "The"
    top = [entry["logprob"] for entry in found[0]["top_logprobs"]]
    np.testing.assert_allclose(top, wanted, atol=1e-3)
    assert math.isclose(found[0]["logprob"], wanted[0], abs_tol=1e-3)


async def test_an_answer_keeps_to_a_schema(provider):
    held = {"type": "json_schema", "schema": PERSON}
    answers = await asyncio.gather(
        *(
            answered(
                provider, "Give me a person as JSON.", response_format=held, max_tokens=60, **one
            )
            for one in ({}, {"temperature": 1.5, "seed": 1}, {"temperature": 1.5, "seed": 2})
        )
    )
    for answer in answers:
        person = json.loads(answer.content)
        assert set(person) == {"name", "age"}
        assert 0 <= person["age"] <= 120


@pytest.mark.parametrize(
    ("held", "among"),
    [
        ({"type": "choice", "choices": ["Paris", "Rome"]}, {"Paris"}),
        ({"type": "regex", "regex": "(Lyon|Paris|Nice)!"}, {"Lyon!", "Paris!", "Nice!"}),
    ],
)
async def test_an_answer_keeps_to_a_form(provider, held, among):
    assert (await answered(provider, FRANCE, response_format=held)).content in among


async def test_a_cancelled_run_leaves_the_batch_and_the_others_go_on(provider, reference):
    other = asyncio.create_task(answered(provider, SKY))
    stream = await provider.generate_async(FRANCE * 3, stream=True, max_tokens=500)
    async with aclosing(stream) as deltas:
        await anext(deltas)
        run = next(run for run in provider.engine.runs if run.request.options.max_tokens == 500)
        steps = provider.engine.steps
    while not run.ended:
        await asyncio.sleep(0.001)
    assert run.last_step <= steps + 1
    assert (await other).content == reference.text(SKY)
