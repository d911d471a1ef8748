"""openai-agents, unmodified: `openai_agents.py BASE_URL`. It prints JSON, a line a value."""

import asyncio
import json
import sys

from agents import Agent, ModelSettings, OpenAIProvider, RunConfig, Runner, function_tool
from agents.tracing import set_tracing_disabled
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel

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


async def leave(stream):
    """Cancel a run until it has ended.

    Before Python 3.12 `asyncio.wait_for`, by which this client waits for a frame, loses a cancel
    that comes together with one.
    """
    while not stream.run_loop_task.done():
        stream.cancel()
        await asyncio.sleep(0)


async def main():
    set_tracing_disabled(True)
    provider = OpenAIProvider(api_key="sesame", base_url=sys.argv[1], use_responses_websocket=True)
    settings = ModelSettings(temperature=0.5, max_tokens=100, truncation="auto")
    config = RunConfig(model_provider=provider)
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
    try:
        hot = Agent("c", model="scripted", model_settings=ModelSettings(temperature=9))
        await Runner.run(hot, "hi", run_config=config)
    except Exception as error:  # noqa: BLE001 - its type is the client's own
        say(str(error))
    plain = Agent("d", model="scripted")
    for word in ("large", "full", "bad", "drop"):
        try:
            say(str((await Runner.run(plain, word, run_config=config)).final_output))
        except Exception as error:  # noqa: BLE001
            say(type(error).__name__)
    say((await Runner.run(plain, "echo again", run_config=config)).final_output)
    await provider.aclose()


asyncio.run(main())
