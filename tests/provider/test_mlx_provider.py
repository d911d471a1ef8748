"""The real engine on the embedded model or a lighter one, through AbstractLLMInterface alone."""

import asyncio
import collections.abc
import json
import re
import sys
import threading
import time
from collections import Counter
from contextlib import aclosing, contextmanager
from statistics import median

import pytest

from provider import MLXProvider
from provider.interface import (
    AnswerTokens,
    ContextWindowExceededError,
    FileData,
    FileProcessingError,
    GenerationError,
    GenerationStarted,
    GenerationTiming,
    Health,
    InvalidParameterError,
    InvalidRequestError,
    ModelCapability,
    ModelNotFoundError,
    PrefillProgress,
    QueuePosition,
    ToolCallDelta,
    UnsupportedFeatureError,
    UnsupportedModelError,
)
from provider.models.loading import tokenizer_of
from provider.models.source import EMBEDDED
from tests.support import programs
from tests.support.timeouts import TIMEOUT
from tests.support.tiny_models import LLAMA, write_model

STORY = "Tell me a story about a fox named Zorvan."
COUNT = "Count from 3 to 40"


async def stream(provider, prompt=STORY, **options):
    return await provider.generate_async(prompt, stream=True, **options)


async def deltas(provider, prompt=STORY, **options):
    return [delta async for delta in await stream(provider, prompt, **options)]


def text_of(responses):
    return "".join(response.content or "" for response in responses)


async def drained(provider):
    """Wait until the engine has nothing left to do."""
    while provider.engine.busy:
        await asyncio.sleep(0.002)


# What a call gives. -----------------------------------------------------------------------------


async def test_a_stream_is_an_async_generator_of_deltas_with_one_last(provider):
    generator = await stream(provider)
    assert isinstance(generator, collections.abc.AsyncGenerator)
    responses = [response async for response in generator]
    *texts, last = responses
    assert all(r.finish_reason is None and r.usage is None for r in texts)
    assert len(texts) > 20
    assert last.finish_reason == "length"
    assert last.usage["completion_tokens"] == 64
    assert last.usage["total_tokens"] == last.usage["prompt_tokens"] + 64
    assert isinstance(last.raw_response, GenerationTiming)
    assert last.model == EMBEDDED


async def test_whole_and_streamed_async_and_sync_give_the_same(quick):
    few = {"max_tokens": 24}
    streamed = text_of(await deltas(quick, **few))
    whole = await quick.generate_async(STORY, **few)
    sync = await asyncio.to_thread(quick.generate, STORY, **few)
    sync_streamed = await asyncio.to_thread(lambda: list(quick.generate(STORY, stream=True, **few)))
    assert streamed == whole.content == sync.content == text_of(sync_streamed)
    assert whole.usage == sync.usage
    assert whole.finish_reason == sync.finish_reason == "length"


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 1.0, "seed": 11}])
async def test_alone_and_in_a_batch_of_eight_give_the_same(quick, options):
    prompts = [COUNT, STORY] * 4
    options = {"max_tokens": 32, **options}
    alone = [text_of(await deltas(quick, prompt, **options)) for prompt in prompts[:2]]
    together = await asyncio.gather(*(deltas(quick, p, **options) for p in prompts))
    assert [text_of(responses) for responses in together] == alone * 4


async def test_a_seeded_run_is_the_same_among_unseeded_ones(quick):
    hot = {"temperature": 1.2, "top_p": 0.95, "top_k": 50, "min_p": 0.01, "max_tokens": 32}
    alone = text_of(await deltas(quick, seed=3, **hot))
    mixed = await asyncio.gather(
        deltas(quick, seed=3, **hot), *(deltas(quick, **hot) for _ in range(3))
    )
    assert text_of(mixed[0]) == alone
    assert len({text_of(responses) for responses in mixed}) > 1
    assert text_of(await deltas(quick, seed=4, **hot)) != alone


async def test_events_come_only_when_asked_for(quick):
    plain = await deltas(quick)
    assert all(isinstance(r.content, str) for r in plain)
    events = [r.raw_response for r in await deltas(quick, events=True) if r.content is None]
    assert isinstance(events[0], GenerationStarted)
    assert events[0].prompt_tokens == plain[-1].usage["prompt_tokens"]
    progress = [event for event in events if isinstance(event, PrefillProgress)]
    assert progress[-1].done == progress[-1].total == events[0].prompt_tokens


async def test_the_queue_is_reported_and_first_come_is_first_served():
    provider = MLXProvider({"temperature": 0.0, "max_tokens": 12, "max_batch": 2})
    order = []

    async def run(n):
        async for response in await stream(provider, COUNT, events=True):
            if isinstance(response.raw_response, QueuePosition):
                order.append((n, response.raw_response.position))
            elif response.finish_reason:
                order.append((n, "done"))

    try:
        await provider.load()
        await asyncio.gather(*(run(n) for n in range(4)))
    finally:
        provider.close()
    positions = [entry for entry in order if entry[1] != "done"]
    assert positions[:2] == [(2, 1), (3, 2)]
    assert {n for n, end in order[-2:] if end == "done"} == {2, 3}


async def test_a_stop_string_ends_the_answer_and_is_not_shown(provider):
    whole = await provider.generate_async(COUNT, stop=[", 7"])
    assert whole.content == "3, 4, 5, 6"
    assert whole.finish_reason == "stop"
    await drained(provider)


async def test_messages_carry_the_turns_before(provider):
    messages = [
        {"role": "user", "content": "Count from 3 to 6"},
        {"role": "assistant", "content": "3, 4, 5, 6."},
        {"role": "user", "content": "And from 7 to 9?"},
    ]
    whole = await provider.generate_async("", messages=messages)
    assert whole.usage["prompt_tokens"] > 25
    same = await provider.generate_async("And from 7 to 9?", messages=messages[:2])
    assert same.content == whole.content


async def test_files_are_read_into_the_prompt(quick, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("one two three")
    without = await quick.generate_async("Hello")
    with_file = await quick.generate_async("Hello", files=[path])
    as_data = await quick.generate_async(
        "Hello", files=[FileData("notes.txt", None, b"one two three")]
    )
    assert with_file.usage["prompt_tokens"] > without.usage["prompt_tokens"]
    assert with_file.usage["prompt_tokens"] == as_data.usage["prompt_tokens"]
    assert with_file.content == as_data.content
    assert as_data.usage["cached_tokens"] == as_data.usage["prompt_tokens"] - 1


async def test_thinking_is_a_channel_of_its_own(provider):
    whole = await provider.generate_async(COUNT, enable_thinking=True)
    assert whole.reasoning_trace
    assert whole.usage["reasoning_tokens"] > 0
    assert "think>" not in whole.content + whole.reasoning_trace


async def test_a_tool_that_fits_is_called(provider):
    def get_weather(city: str) -> str:
        """Tell the weather in a city."""

    whole = await provider.generate_async("What is the weather in Paris?", tools=[get_weather])
    assert whole.finish_reason == "tool_calls"
    (call,) = whole.tool_calls
    assert (call["name"], call["arguments"]) == ("get_weather", {"city": "Paris"})
    assert "tool_call" not in whole.content


# Several answers to one prompt. ------------------------------------------------------------------


async def test_several_answers_share_one_prefill_of_the_prompt(quick):
    prompt = "Tell me a story about a fox named " + "Zorvan " * 60
    begin = quick.statistics()
    whole = await quick.generate_async(prompt, n=4, temperature=1.0, seed=3, max_tokens=16)
    after = quick.statistics()
    length = whole.usage["prompt_tokens"]
    assert length > 100
    assert after.prefill_tokens - begin.prefill_tokens < length + 8
    texts = [one.content for one in whole.choices]
    assert len(set(texts)) == 4
    assert whole.content == texts[0]
    alone = [
        await quick.generate_async(prompt, temperature=1.0, seed=3 + i, max_tokens=16)
        for i in range(4)
    ]
    assert [one.content for one in alone] == texts


@pytest.mark.parametrize("prompt", ["Hi", "Count from 3 to 9"])
async def test_every_choice_of_a_stream_has_its_index_and_a_last_response(provider, prompt):
    given = [
        delta
        async for delta in await stream(
            provider, prompt, n=3, temperature=0.0, max_tokens=20, events=True
        )
    ]
    ends = [delta for delta in given if delta.finish_reason]
    assert sorted(delta.choice for delta in ends) == [0, 1, 2]
    texts = [text_of([d for d in given if d.choice == choice]) for choice in range(3)]
    assert len(set(texts)) == 1
    started = [d for d in given if isinstance(d.raw_response, GenerationStarted)]
    assert [delta.choice for delta in started] == [0]
    assert list(provider.generate(prompt, n=3, temperature=0.0, max_tokens=20).choices[2].content)


async def test_closing_a_stream_of_several_choices_stops_all_runs(provider):
    async with aclosing(await stream(provider, STORY, n=3, max_tokens=500)) as deltas_of_all:
        await anext(deltas_of_all)
    while provider.engine.busy:
        await asyncio.sleep(0.002)
    assert provider.engine.runs == []


def test_every_choice_has_the_form(provider):
    constraint = {"type": "regex", "regex": "[a-z]{3,9}"}
    whole = provider.generate("Hi", n=3, response_format=constraint, temperature=1.5, max_tokens=20)
    for one in whole.choices:
        assert re.fullmatch("[a-z]{3,9}", one.content)


# Calls. -----------------------------------------------------------------------------------------


def send_message(to: str, text: str) -> str:
    """Send somebody a message."""


async def test_a_call_is_shown_in_parts_with_events(provider):
    stream = await provider.generate_async(
        "Send Bralume the message trokey.", tools=[send_message], stream=True, events=True
    )
    events = [delta.raw_response async for delta in stream]
    parts = [event for event in events if isinstance(event, ToolCallDelta)]
    assert parts[0].name == "send_message"
    assert len(parts) > 4
    arguments = json.loads("".join(part.arguments or "" for part in parts))
    assert arguments == {"to": "Bralume", "text": "trokey"}
    assert [part.complete for part in parts] == [False] * (len(parts) - 1) + [True]


async def test_a_call_that_is_cut_off_is_reported_as_broken(provider):
    whole = await provider.generate_async(
        "Send Bralume the message trokey.", tools=[send_message], max_tokens=8
    )
    assert whole.finish_reason == "length"
    assert whole.tool_calls is None
    (broken,) = whole.raw_response.broken_calls
    assert (broken.error, broken.complete) == ("cut_off", True)
    assert broken.text.startswith("<tool_call>")


# Bad arguments are errors at the await, before anything runs. -----------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"prompt": "x", "temprature": 1}, InvalidParameterError),
        ({"prompt": "x", "temperature": 3}, InvalidParameterError),
        ({"prompt": "x", "tools": [3]}, InvalidParameterError),
        ({"prompt": 3}, InvalidParameterError),
        ({"prompt": ""}, InvalidRequestError),
        ({"prompt": "x", "model": "another"}, UnsupportedModelError),
        ({"prompt": "x", "files": ["missing.txt"]}, FileProcessingError),
        ({"prompt": "x", "files": [FileData("a.png", None, b"")]}, UnsupportedFeatureError),
        ({"prompt": "word " * 9000}, ContextWindowExceededError),
    ],
)
async def test_a_bad_argument_is_an_error_at_the_await(provider, arguments, error):
    steps = provider.engine.steps
    with pytest.raises(error):
        await provider.generate_async(stream=True, **arguments)
    with pytest.raises(error):
        await asyncio.to_thread(provider.generate, stream=True, **arguments)
    assert provider.engine.steps == steps


async def test_a_prompt_that_is_too_long_says_both_lengths(provider):
    with pytest.raises(ContextWindowExceededError) as caught:
        await provider.generate_async("word " * 9000)
    assert caught.value.context_window == 8192
    assert caught.value.content_length > 9000


async def test_a_calls_options_do_not_leak_into_the_next(provider):
    before = provider.get_config()
    await provider.generate_async(STORY, max_tokens=3, temperature=1.0)
    assert provider.get_config() == before
    assert (await provider.generate_async(STORY)).usage["completion_tokens"] == 64


async def test_max_tokens_never_goes_beyond_the_context(tmp_path):
    model = write_model(tmp_path / "short", {**LLAMA, "max_position_embeddings": 128})
    provider = MLXProvider({"model": str(model)})
    ends = {str(token): -100 for token in tokenizer_of(model).eos_token_ids}
    whole = await provider.generate_async("word " * 60, max_tokens=5000, logit_bias=ends)
    assert (whole.finish_reason, whole.usage["total_tokens"]) == ("length", 128)
    await provider.aclose()


# It never blocks. ---------------------------------------------------------------------------------


async def once(measure, holds):
    """Measure up to ten times, until what is measured holds, and return that.

    Other programs may take the processor; a fault of the engine shows each time.
    """
    for _ in range(10):
        measured = await measure()
        if holds(measured):
            break
    return measured


async def test_chunks_arrive_while_the_model_still_works(provider):
    async def steps_seen():
        steps = [provider.engine.steps async for _ in await stream(provider)]
        assert steps == sorted(steps)
        return len(set(steps))

    assert await once(steps_seen, lambda seen: seen > 20) > 20, "the chunks came in a heap"


async def test_eight_streams_cost_far_less_than_eight_times_one(provider):
    async def steps_of(count):
        begin = provider.engine.steps
        await asyncio.gather(*(deltas(provider, max_tokens=32) for _ in range(count)))
        return provider.engine.steps - begin

    await deltas(provider)
    enough = 2 * await steps_of(1)
    steps = await once(lambda: steps_of(8), lambda steps: steps < enough)
    assert steps < enough, "the streams did not share their steps"
    assert await once(lambda: eight_beside_one(provider), lambda times: times < 5) < 5


async def eight_beside_one(provider):
    """Return how many times the processor time of one stream eight take together."""
    times = []
    for count in (1, 8):
        begin_s = time.process_time()
        await asyncio.gather(*(deltas(provider, max_tokens=32) for _ in range(count)))
        times.append(time.process_time() - begin_s)
    return times[1] / times[0]


async def test_the_event_loop_turns_while_a_step_runs(tmp_path):
    """Eight streams on a model whose step is slow: the loop turns in a fraction of one step."""
    provider = slow_provider(tmp_path)
    try:
        await provider.load()
        await deltas(provider, **SHORT)
        assert await once(lambda: turns_in_a_step(provider), lambda turns: turns > 4) > 4
    finally:
        await provider.aclose()


SHORT = {"prompt": "Once", "raw": True, "max_tokens": 8}


async def turns_in_a_step(provider):
    """Return how often the event loop turns in a step of eight streams, in the median."""
    turns, begin = Counter(), provider.engine.steps
    streams = asyncio.gather(*(deltas(provider, **SHORT) for _ in range(8)))
    while not streams.done():
        turns[provider.engine.steps] += 1
        await asyncio.sleep(0)
    return median(turns[step] for step in range(begin, provider.engine.steps))


def slow_provider(folder):
    """The embedded model's shape, much larger, with random weights: a step takes long."""
    large = {"hidden_size": 1536, "intermediate_size": 4096, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 16}
    brief = {"max_position_embeddings": 128}  # loading times no longer prompts
    return MLXProvider({"model": str(write_model(folder, {**LLAMA, **large, **heads, **brief}))})


# It stops at once. ------------------------------------------------------------------------------


async def run_of(provider):
    """Return the engine's run of a stream that has given its first text, and the stream."""
    generator = await stream(provider, max_tokens=2000)
    await anext(generator)
    (run,) = provider.engine.runs
    return run, generator


@pytest.mark.parametrize("after", [1, 5, 20])
async def test_a_closed_run_takes_part_in_at_most_one_more_step(provider, after):
    await drained(provider)
    run, generator = await run_of(provider)
    for _ in range(after):
        await anext(generator)
    steps = provider.engine.steps
    await generator.aclose()
    await drained(provider)
    assert run.last_step - steps <= 1
    assert not provider.engine.runs


async def test_breaking_out_of_the_loop_stops_the_model(provider):
    async with aclosing(await stream(provider, max_tokens=2000)) as generator:
        async for _ in generator:
            break
    await drained(provider)
    assert not provider.engine.runs


async def test_cancelling_the_task_stops_the_model_streamed_and_whole(provider):
    for work in (
        deltas(provider, max_tokens=2000),
        provider.generate_async(STORY, max_tokens=2000),
    ):
        task = asyncio.ensure_future(work)
        steps = provider.engine.steps
        while provider.engine.steps < steps + 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await drained(provider)
        assert not provider.engine.runs


async def test_a_generator_that_is_never_started_costs_nothing(provider):
    await drained(provider)
    steps = provider.engine.steps
    generator = await stream(provider)
    await generator.aclose()
    await drained(provider)
    assert provider.engine.steps == steps


async def test_a_cancel_in_a_batch_leaves_the_others_alone(quick):
    expected = text_of(await deltas(quick, max_tokens=32))
    cancelled = await stream(quick, COUNT, max_tokens=2000)
    others = asyncio.gather(*(deltas(quick, max_tokens=32) for _ in range(3)))
    for _ in range(5):
        await anext(cancelled)
    await cancelled.aclose()
    assert [text_of(responses) for responses in await others] == [expected] * 3


def test_closing_a_synchronous_generator_stops_the_model(provider):
    generator = provider.generate(STORY, stream=True, max_tokens=2000)
    next(generator)
    generator.close()
    while provider.engine.busy:
        time.sleep(0.002)
    assert not provider.engine.runs


# It ends without a trace. -----------------------------------------------------------------------


async def test_close_ends_runs_with_an_error_and_leaves_no_thread():
    before = set(threading.enumerate())
    provider = MLXProvider({"max_tokens": 2000})
    assert provider.health() == Health(ready=False, reason="loading the model")
    generator = await stream(provider)
    await anext(generator)
    assert provider.health() == Health(ready=True)
    closing = asyncio.create_task(provider.aclose(grace_s=0))
    with pytest.raises(GenerationError, match="closed"):
        async for _ in generator:
            pass
    await closing
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name.startswith("mlx-")]
    assert provider.health() == Health(ready=False, reason="closed")
    provider.close()
    with pytest.raises(GenerationError, match="closed"):
        await provider.generate_async("hi")


async def test_a_model_that_is_not_there_is_an_error_of_every_call_and_of_load():
    provider = MLXProvider({"model": "no/such/model/at/all"})
    for call in (provider.load(), provider.generate_async("hi")):
        with pytest.raises(ModelNotFoundError):
            await call
    assert provider.health() == Health(ready=False, reason="no model")
    provider.close()


def test_capabilities(provider):
    able = provider.get_capabilities()
    for name in ("STREAMING", "ASYNC", "SYSTEM_PROMPT", "TOOL_USE"):
        assert able[ModelCapability[name]] is True
    assert able[ModelCapability.VISION] is False
    assert able[ModelCapability.MAX_TOKENS] == 64


APPLICATION = """
import asyncio, threading
from provider import MLXProvider

async def main():
    provider = MLXProvider({"max_tokens": 500})
    stream = await provider.generate_async("Tell me a story about a bear", stream=True)
    async for delta in stream:
        print(delta.content, end="", flush=True)
        break
    %s

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "end",
    ["", "await stream.aclose()", "raise SystemExit", "globals().update(keep=(provider, stream))"],
)
def test_an_application_ends_with_streams_left_open(end):
    done = programs.run("-c", APPLICATION % end, timeout=TIMEOUT * 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "Traceback" not in done.stderr


def test_a_synchronous_generator_left_open_does_not_keep_the_interpreter():
    code = (
        "from provider import MLXProvider\n"
        "p = MLXProvider({'max_tokens': 5000})\n"
        "g = p.generate('Tell me a story about a bear', stream=True)\n"
        "print(next(g).content)\n"
    )
    done = programs.run("-c", code, timeout=TIMEOUT * 2)
    assert done.returncode == 0, done.stderr


# Answers that another provider has begun. -------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 1.0, "seed": 5},
        {"temperature": 1.0, "seed": 5, "repetition_penalty": 1.1, "frequency_penalty": 0.1},
        {"seed": 5, "response_format": {"type": "regex", "regex": "[a-f ]{300,}"}},
    ],
)
async def test_an_answer_goes_on_after_tokens_that_were_made_elsewhere(quick, options):
    asked = {"max_tokens": 70, **options}
    whole = await deltas(quick, COUNT, events=True, tell_tokens=True, **asked)
    told = [one.raw_response for one in whole if isinstance(one.raw_response, AnswerTokens)]
    tokens = [token for one in told for token in one.tokens]
    assert [one.first for one in told] == [0, 32]
    for begun in (tokens[:1], tokens[:33], tokens):
        again = await deltas(quick, COUNT, begun_answer=begun, **asked)
        assert text_of(again) == text_of(whole)
        assert again[-1].finish_reason == whole[-1].finish_reason
        same = ("prompt_tokens", "completion_tokens")
        assert [again[-1].usage[name] for name in same] == [whole[-1].usage[name] for name in same]


@pytest.mark.parametrize("more", [{"begun_answer": [10**6]}, {"max_tokens": 1}, {"n": 2}])
async def test_an_answer_begins_with_fewer_tokens_than_it_may_have(provider, more):
    with pytest.raises(InvalidParameterError, match="`begun_answer`"):
        await deltas(provider, COUNT, **{"begun_answer": [5], **more})


# The event loop. --------------------------------------------------------------------------------


class Audit:
    """What the interpreter tells of a thread, while it is watched: files and imports."""

    def __init__(self):
        self.watched = None  # a thread's identity
        self.seen = []
        sys.addaudithook(self._note)

    def _note(self, event, arguments):
        if event not in {"open", "import"} or threading.get_ident() != self.watched:
            return
        name = str(arguments[0])
        source = event == "open" and name.endswith(".py")  # asyncio's debug mode quotes lines of it
        if not source and name not in sys.modules:
            self.seen.append((event, name))

    @contextmanager
    def of_this_thread(self):
        self.watched, self.seen = threading.get_ident(), []
        try:
            yield self.seen
        finally:
            self.watched = None


AUDIT = Audit()  # the interpreter keeps it for ever


def double(number: int) -> int:
    """Double a number.

    Args:
        number: to be doubled
    """
    return 2 * number


async def test_no_file_is_read_and_nothing_imported_on_the_event_loop(tmp_path):
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear Zorvan")
    other = write_model(tmp_path / "other", LLAMA)
    provider = MLXProvider({"model": ["embedded", f"other={other}"], "max_tokens": 4})
    options = {"files": [letter], "tools": [double], "events": True}
    try:
        with AUDIT.of_this_thread() as seen:
            for model in ("embedded", "other"):
                await deltas(provider, model=model, **options)
            await provider.generate_async(STORY, response_format={"type": "json_object"})
            provider.models()
            provider.health()
            provider.statistics()
        assert seen == []
        with AUDIT.of_this_thread() as seen:
            letter.read_text()
        assert seen == [("open", str(letter))]
    finally:
        await provider.aclose()
