"""openai-agents, unmodified: `openai_agents.py TASK BASE_URL…`. It prints JSON lines."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager

from agents import Agent, ModelSettings, OpenAIProvider, RunConfig, Runner, function_tool
from agents.tracing import set_tracing_disabled
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel
from readiness import is_ready

TASK, URL, *OTHERS = sys.argv[1:]
PLAIN = Agent("plain", model="scripted")
calls = []


class Answer(BaseModel):
    number: int


@function_tool
def double(number: int) -> int:
    """Double a number."""
    calls.append(number)
    return 2 * number


def say(value):
    print(json.dumps(value), flush=True)


@asynccontextmanager
async def client(key="sesame", url=URL):
    """Yield what runs an agent, or streams it, over a connection of its own."""
    one = OpenAIProvider(api_key=key, base_url=url, use_responses_websocket=True)
    try:
        yield RunConfig(model_provider=one)
    finally:
        await one.aclose()


async def answer(agent, said, config):
    return str((await Runner.run(agent, said, run_config=config)).final_output)


async def failure(agent, said, config):
    """Return the type and the text of the error that a run ends with."""
    try:
        return ["none", await answer(agent, said, config)]
    except Exception as error:  # noqa: BLE001 - its type is the client's own
        return [type(error).__name__, str(error)]


async def begin(said, config):
    """Return a run once it has said something."""
    stream = Runner.run_streamed(PLAIN, said, run_config=config)
    events = stream.stream_events()
    while not isinstance(getattr(await anext(events), "data", None), ResponseTextDeltaEvent):
        pass
    return stream, events


async def leave(stream):
    """Cancel a run until it has ended.

    Before Python 3.12 `asyncio.wait_for`, by which this client waits for a frame, loses a cancel
    that comes together with one.
    """
    while not stream.run_loop_task.done():
        stream.cancel()
        await asyncio.sleep(0)


async def work():
    async with client() as config:
        settings = ModelSettings(temperature=0.5, max_tokens=100, truncation="auto")
        agent = Agent(
            "a", instructions="Be brief.", model="scripted", model_settings=settings, tools=[double]
        )
        result = await Runner.run(agent, "double 21", run_config=config)
        say([result.final_output, calls])
        result = await Runner.run(
            agent, "again", previous_response_id=result.last_response_id, run_config=config
        )
        say(result.final_output)

        stream = Runner.run_streamed(agent, "double 4", run_config=config)
        texts = []
        async for event in stream.stream_events():
            data = getattr(event, "data", None)
            if isinstance(data, ResponseTextDeltaEvent):
                texts.append(data.delta)
        say(["".join(texts), stream.final_output, calls])

        typed = Agent("b", model="scripted", output_type=Answer)
        say((await Runner.run(typed, "form", run_config=config)).final_output.number)

        stream = Runner.run_streamed(agent, "long", run_config=config)
        async for event in stream.stream_events():
            if isinstance(getattr(event, "data", None), ResponseTextDeltaEvent):
                await leave(stream)
        say("left")
        say((await failure(PLAIN, "drop", config))[0])
        say(await answer(PLAIN, "echo again", config))


async def refused():
    async with client() as config:
        hot = Agent("hot", model="scripted", model_settings=ModelSettings(temperature=9))
        say(await failure(hot, "hi", config))
        say(await failure(Agent("unknown", model="nobody"), "hi", config))
        for word in ("large", "full", "bad"):
            say(await failure(PLAIN, word, config))
        say(await answer(PLAIN, "echo again", config))
    async with client(key="wrong") as config:
        say(await failure(PLAIN, "hi", config))


async def stranger():
    """Say why it is not let in at each address."""
    for url in (URL, *OTHERS):
        async with client(url=url) as config:
            say(await failure(PLAIN, "hi", config))


async def limited():
    """Ask for more than a token may have at once."""
    async with client() as one, client() as another:
        stream, events = await begin("stay", one)
        say(await failure(PLAIN, "echo x", another))
        await leave(stream)
        await events.aclose()


async def stop():
    """Say what is refused by a gateway that stops; go on with the next one."""
    async with client() as one, client() as another:
        say(await answer(PLAIN, "echo first", another))
        stream, events = await begin("stay", one)
        async with client() as third:
            say(await failure(PLAIN, "echo x", third))
        while await asyncio.to_thread(is_ready, URL):
            await asyncio.sleep(0.005)
        say(await failure(PLAIN, "echo x", another))
        say(await failure(PLAIN, "echo x", another))
        try:
            async for _ in events:
                pass
            say(["none", stream.final_output])
        except Exception as error:  # noqa: BLE001
            say([type(error).__name__, str(error)])
        while (await failure(PLAIN, "echo back", another))[1] != "back":
            pass
        say(await answer(PLAIN, "echo back", one))


set_tracing_disabled(True)
asyncio.run(globals()[TASK]())
