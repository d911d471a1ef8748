"""Functions that the model calls over a real gateway."""

import asyncio
import json
import sys
import threading

import pytest

from gateway.client import connect
from gateway.client.tool_loop import Toolbox, ToolResult
from gateway.protocol.frames import Chunk
from provider.interface import InvalidParameterError
from provider.scripted import Call, Pause, Reason, Say, ScriptedProvider
from tests.support.servers import running, stream_url
from tests.support.timeouts import TIMEOUT

HI = [{"role": "user", "content": "hi"}]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def later(text: str) -> dict:
    """Say it later."""
    await asyncio.sleep(0)
    return {"said": text}


def fails() -> str:
    """Fail."""
    raise LookupError("no such city")


def leaves() -> str:
    """Leave the program."""
    sys.exit(3)


def asking(*calls, rounds=1):
    """Return a provider that asks for tools for some rounds, then says what they returned."""

    def script(request):
        told = [m["content"] for m in request.options["messages"] if m["role"] == "tool"]
        more = len(told) < rounds * len(calls)
        return [Say("Let me see. "), *calls] if more else [Say(" ".join(told))]

    return ScriptedProvider(script=script, tokens_per_second=None)


async def answered(provider, toolbox, **fields):
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        run = toolbox.run(client, HI, **fields)
        return run, [frame async for frame in run]


async def test_functions_are_called_and_the_model_goes_on():
    provider = asking(Call("add", {"a": 1, "b": 2}), Call("later", {"text": "x"}))
    run, frames = await answered(provider, Toolbox([add, later]), seed=7)
    text = "".join(frame.text for frame in frames if isinstance(frame, Chunk))
    assert text == 'Let me see. 3 {"said": "x"}'
    assert [type(frame) for frame in frames].index(ToolResult) > 1
    results = [frame.content for frame in frames if isinstance(frame, ToolResult)]
    assert results == ["3", '{"said": "x"}']
    assert [turn["role"] for turn in run.messages] == ["assistant", "tool", "tool", "assistant"]
    first, second = provider.requests
    assert [tool["function"]["name"] for tool in first.tools] == ["add", "later"]
    assert second.options["messages"] == [*HI, *run.messages[:3]]
    assert second.options["seed"] == 7
    assert run.messages[1]["tool_call_id"] == run.messages[0]["tool_calls"][0]["id"]


async def test_a_model_is_told_what_it_thought_before_its_call():
    def script(request):
        if request.options["messages"][-1]["role"] == "tool":
            return [Reason("So it is."), Say("3")]
        return [Reason("I add. "), Call("add", {"a": 1, "b": 2})]

    provider = ScriptedProvider(script=script, tokens_per_second=None)
    run, _ = await answered(provider, Toolbox([add]))
    assert provider.requests[1].options["messages"][1]["reasoning_content"] == "I add. "
    assert "reasoning_content" not in run.messages[-1]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (Call("fails", {}), "LookupError: no such city"),
        (Call("add", {"a": 1}), "TypeError: "),
        (Call("add", {"a": 1, "b": 2, "c": 3}), "TypeError: "),
        (Call("leaves", {}), "SystemExit: 3"),
        (Call("subtract", {}), "there is no tool `subtract`, only add, fails, leaves"),
    ],
)
async def test_what_a_function_raises_is_told_to_the_model(call, said):
    run, _ = await answered(asking(call), Toolbox([add, fails, leaves]))
    assert said in json.loads(run.messages[1]["content"])["error"]


async def test_a_function_without_async_does_not_hold_up_the_loop():
    seen = []

    def where() -> str:
        """Tell where it runs."""
        seen.append(threading.current_thread())
        return "there"

    await answered(asking(Call("where", {})), Toolbox([where]))
    assert seen[0] is not threading.main_thread()


async def test_a_tool_without_a_function_is_left_to_the_caller_or_asked_for():
    definition = {"name": "get_weather", "parameters": {"type": "object"}}
    provider = asking(Call("get_weather", {"city": "Ulm"}))
    run, _ = await answered(provider, Toolbox([definition]))
    assert [call.name for call in run.run.tool_calls] == ["get_weather"]
    assert len(provider.requests) == 1

    async def ask(call):
        return f"rain in {json.loads(call.arguments)['city']}"

    run, _ = await answered(provider, Toolbox([definition], ask))
    assert run.messages[-1]["content"] == "rain in Ulm"


async def test_the_rounds_are_bounded():
    provider = asking(Call("add", {"a": 1, "b": 2}), rounds=99)
    run, _ = await answered(provider, Toolbox([add]), max_rounds=3)
    assert len(provider.requests) == 3
    assert run.messages[-1]["tool_calls"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
async def test_a_call_that_is_asked_for_is_asked_for_once(choice):
    provider = asking(Call("add", {"a": 1, "b": 2}))
    await answered(provider, Toolbox([add]), tool_choice=choice)
    asked = [request.options.get("tool_choice") for request in provider.requests]
    assert asked == [choice, None]


async def test_cancelling_waits_for_no_function():
    begun = asyncio.Event()

    async def forever() -> str:
        """Never end."""
        begun.set()
        await asyncio.sleep(3600)

    provider = asking(Call("forever", {}))
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        run = Toolbox([forever]).run(client, HI)

        async def stop():
            await begun.wait()
            await run.cancel()

        stopping = asyncio.create_task(stop())
        frames = [frame async for frame in run]
        await stopping
    assert frames[-1].content == '{"error": "stopped"}'
    assert len(provider.requests) == 1


async def test_a_loop_that_is_stopped_before_it_begins_ends_at_once():
    provider = ScriptedProvider(script=[Say("a "), Pause(3600)], tokens_per_second=None)
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        run = Toolbox([add]).run(client, HI)
        await run.cancel()
        async with asyncio.timeout(TIMEOUT):
            _ = [frame async for frame in run]
        assert run.run.done.finish_reason == "cancelled"
        assert [turn["role"] for turn in run.messages] == ["assistant"]


class Lingering:
    """A function that ends only some time after it was cancelled, in either of two ways."""

    def __init__(self, ends):
        self.called, self.cancelled, self.may_end = (asyncio.Event() for _ in range(3))
        self._ends = ends

    async def wait(self) -> str:
        """Wait."""
        self.called.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            await self.may_end.wait()
            if self._ends == "cancelled":
                raise
        return "never mind"


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("ends", ["cancelled", "with a value"])
async def test_a_cancelled_reader_is_cancelled_whatever_the_function_does(ends, stopped):
    tool = Lingering(ends)
    async with running(asking(Call("wait", {}))) as gateway, connect(stream_url(gateway)) as client:
        run = Toolbox([tool.wait]).run(client, HI)

        async def read():
            return [frame async for frame in run]

        reading = asyncio.create_task(read())
        async with asyncio.timeout(TIMEOUT):
            await tool.called.wait()
            if stopped:
                await run.cancel()
            reading.cancel()
            await tool.cancelled.wait()
            tool.may_end.set()
            with pytest.raises(asyncio.CancelledError):
                await reading


async def test_leaving_the_loop_stops_the_model():
    provider = ScriptedProvider(script=[Say("a "), Pause(3600)], tokens_per_second=None)
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        async for _ in Toolbox([add]).run(client, HI):
            break
        await asyncio.wait_for(provider.requests[0].ended.wait(), TIMEOUT)


def test_the_functions_of_a_file_are_its_public_ones(tmp_path):
    file = tmp_path / "tools.py"
    file.write_text(
        "from math import floor\nimport json\n"
        'def double(x: int):\n    "Double it."\n    return _twice(x)\n'
        "def _twice(x):\n    return 2 * x\n"
    )
    toolbox = Toolbox.from_file(file)
    assert [tool["function"]["name"] for tool in toolbox.definitions] == ["double"]


def test_a_file_may_have_dataclasses_whose_annotations_are_texts(tmp_path):
    file = tmp_path / "tools.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass City:\n    name: str\n"
        'def find(name: str) -> str:\n    "Find it."\n    return City(name).name\n'
    )
    assert len(Toolbox.from_file(file).definitions) == 1


def test_what_is_no_tool_is_said():
    with pytest.raises(InvalidParameterError) as caught:
        Toolbox([3])
    assert caught.value.parameter == "tools[0]"
