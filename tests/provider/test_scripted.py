import asyncio

import pytest

from provider.interface import (
    GenerationError,
    GenerationStarted,
    GenerationTiming,
    InvalidParameterError,
    PrefillProgress,
    QueuePosition,
)
from provider.scripted import (
    Call,
    Fail,
    Gate,
    Pause,
    Prefill,
    Queue,
    Reason,
    Say,
    ScriptedProvider,
    default_script,
)


def scripted(*script, **options):
    return ScriptedProvider(script=script, tokens_per_second=None, **options)


async def collect(provider, prompt="hi", **options):
    return [r async for r in await provider.generate_async(prompt, stream=True, **options)]


async def test_words_join_to_the_text_and_the_last_response_ends_it():
    responses = await collect(scripted(Say("one  two\nthree")))
    assert [r.content for r in responses[:-1]] == ["one  ", "two\n", "three"]
    assert responses[-1].finish_reason == "stop"
    assert responses[-1].usage["completion_tokens"] == 3
    assert isinstance(responses[-1].raw_response, GenerationTiming)


async def test_events_come_only_when_asked_for():
    script = (Queue(2), Prefill(1, 2), Say("a"))
    plain = await collect(scripted(*script))
    assert [r.content for r in plain[:-1]] == ["a"]
    events = [r.raw_response for r in await collect(scripted(*script), events=True)]
    assert events[:3] == [
        QueuePosition(2),
        GenerationStarted("scripted", 1, 0),
        PrefillProgress(1, 2),
    ]


async def test_a_wait_in_the_queue_comes_before_the_start():
    gate = asyncio.Event()
    script = (Queue(2), Gate(gate), Queue(1), Say("a"))
    stream = await scripted(*script).generate_async("hi", stream=True, events=True)
    assert (await anext(stream)).raw_response == QueuePosition(2)
    gate.set()
    events = [response.raw_response async for response in stream]
    assert events[:2] == [QueuePosition(1), GenerationStarted("scripted", 1, 0)]


async def test_each_word_has_the_log_probabilities_that_are_asked_for():
    async def logprobs(**options):
        provider = ScriptedProvider(tokens_per_second=None)
        responses = await collect(provider, max_tokens=2, **options)
        return [response.raw_response for response in responses[:2]]

    assert await logprobs() == [None, None]
    (first,), (second,) = [raw.tokens for raw in await logprobs(logprobs=True, top_logprobs=3)]
    assert (first["token"], second["token"]) == ("You ", "said: ")
    likely = [entry["logprob"] for entry in first["top_logprobs"]]
    assert len(likely) == 3
    assert first["logprob"] == likely[0] == max(likely)
    assert bytes(first["bytes"]).decode() == "You "


async def test_reasoning_and_calls_have_their_own_fields():
    responses = await collect(scripted(Reason("hm"), Say("ok"), Call("add", {"a": 1})))
    assert responses[0].reasoning_trace == "hm"
    assert responses[-1].finish_reason == "tool_calls"
    (call,) = responses[-1].tool_calls
    assert (call["name"], call["arguments"]) == ("add", {"a": 1})


async def test_max_tokens_cuts_the_script():
    responses = await collect(scripted(Say("a b c d")), max_tokens=2)
    assert "".join(r.content or "" for r in responses) == "a b "
    assert responses[-1].finish_reason == "length"


async def test_a_gate_holds_until_it_is_opened():
    gate = asyncio.Event()
    provider = scripted(Say("a"), Gate(gate), Say("b"))
    stream = await provider.generate_async("hi", stream=True)
    assert (await anext(stream)).content == "a"
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert not waiting.done()
    gate.set()
    assert (await waiting).content == "b"
    await stream.aclose()


async def test_a_failure_is_raised_where_the_script_says():
    stream = await scripted(Say("a"), Fail(GenerationError("broken"))).generate_async(
        "hi", stream=True
    )
    assert (await anext(stream)).content == "a"
    with pytest.raises(GenerationError, match="broken"):
        await anext(stream)


@pytest.mark.parametrize(("name", "value"), [("colour", "red"), ("temperature", 3)])
async def test_a_bad_option_fails_at_the_await(name, value):
    with pytest.raises(InvalidParameterError, match=f"`{name}`"):
        await scripted().generate_async("hi", stream=True, **{name: value})


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"temperature": 3}, "temperature"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"tools": [{"name": "f", "parameters": {"required": 3}}]}, "tools[0].parameters.required"),
    ],
)
async def test_invalid_arguments_are_refused(given, path):
    with pytest.raises(InvalidParameterError) as caught:
        await ScriptedProvider().generate_async("hi", stream=True, **given)
    assert caught.value.parameter == path


async def test_live_shows_open_streams_and_closing_ends_them():
    provider = scripted(Say("a b"), Pause(3600))
    stream = await provider.generate_async("hi", stream=True)
    assert provider.live == []
    await anext(stream)
    assert provider.live == provider.requests
    await stream.aclose()
    assert provider.live == []
    assert provider.requests[0].ended.is_set()


async def test_whole_and_streamed_give_the_same_text():
    whole = await scripted(Say("a b c")).generate_async("hi")
    assert whole.content == "a b c"
    assert whole.finish_reason == "stop"


def test_the_synchronous_call_gives_the_same_text():
    assert scripted(Say("a b c")).generate("hi").content == "a b c"
    assert [r.content for r in scripted(Say("a b")).generate("hi", stream=True)][:2] == ["a ", "b"]


async def test_the_default_script_answers_what_was_asked():
    provider = ScriptedProvider(tokens_per_second=None)
    messages = [{"role": "user", "content": "Foxes?"}]
    whole = await provider.generate_async("", messages=messages)
    assert "You said: Foxes?" in whole.content
    assert len(default_script(provider.requests[0])) > 2
    assert provider.models()[0].id == "scripted"
