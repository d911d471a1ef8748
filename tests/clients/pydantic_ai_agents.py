"""pydantic-ai, unmodified: `pydantic_ai_agents.py TASK BASE_URL…`. It prints JSON lines."""

import asyncio
import json
import sys

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider
from readiness import is_ready

TASK, URL, *OTHERS = sys.argv[1:]
calls = []


class Answer(BaseModel):
    number: int


def say(value):
    print(json.dumps(value), flush=True)


def model(name="scripted", *, lanes=False, key="sesame", url=URL):
    """Return a model with a connection of its own."""
    client = AsyncOpenAI(api_key=key, base_url=url, max_retries=0)
    return OpenAIResponsesModel(
        name,
        provider=OpenAIProvider(openai_client=client),
        profile=OpenAIModelProfile(openai_responses_supports_websocket_stream_id=lanes),
        settings=OpenAIResponsesModelSettings(openai_transport="websocket"),
    )


def double(number: int) -> int:
    """Double a number."""
    calls.append(number)
    return 2 * number


async def failure(agent, said, **settings):
    """Return what the error is with which a run ends."""
    try:
        return ["none", (await agent.run(said, model_settings=settings)).output]
    except Exception as error:  # noqa: BLE001 - its type is the client's own
        return [type(error).__name__, getattr(error, "status_code", None), body_of(error)]


def body_of(error):
    """Return the code and the field that an error's body has, or its text."""
    body = getattr(error, "body", None)
    return [body.get("code"), body.get("param")] if isinstance(body, dict) else body


async def work():
    async with Agent(model(), instructions="Be brief.", tools=[double]) as agent:
        result = await agent.run("double 21")
        say([result.output, calls])
        again = await agent.run("again", message_history=result.all_messages())
        say(again.output)
        async with agent.run_stream("double 4") as stream:
            texts = [text async for text in stream.stream_text(delta=True)]
        say(["".join(texts), calls])
        async with agent.run_stream("long") as stream:
            async for text in stream.stream_text(delta=True):
                say(text)
                break

    async with Agent(model(lanes=True)) as agent:
        results = await asyncio.gather(*(agent.run(f"echo {n}") for n in range(4)))
        say([result.output for result in results])

    async with Agent(model(), output_type=Answer) as agent:
        say((await agent.run("form")).output.number)

    async with Agent(model()) as agent:
        say(await failure(agent, "drop"))
        say((await agent.run("echo again")).output)
        thoughts = (await agent.run("think")).all_messages()[-1].parts
        say([part.content or part.provider_details["raw_content"] for part in thoughts])


async def refused():
    async with Agent(model()) as agent:
        say(await failure(agent, "hi", temperature=9))
        for word in ("large", "full", "bad"):
            say(await failure(agent, word))
        say((await agent.run("echo again")).output)
    async with Agent(model("nobody")) as agent:
        say(await failure(agent, "hi"))
    async with Agent(model(key="wrong")) as agent:
        say(await failure(agent, "hi"))
    say(await failure(Agent(model()), "hi", openai_transport="http"))  # by a POST


async def stranger():
    """Say why it is not let in at each address."""
    for url in (URL, *OTHERS):
        async with Agent(model(url=url)) as agent:
            say(await failure(agent, "hi"))


async def stop():
    """Say what is refused over a limit and by a gateway that stops; go on with the next one."""
    async with Agent(model()) as other, Agent(model()) as agent:
        say((await other.run("echo first")).output)
        async with agent.run_stream("stay") as stream:
            texts = stream.stream_text()
            await anext(texts)
            say(await failure(other, "echo x"))
            async with Agent(model()) as third:
                say(await failure(third, "echo x"))
            while await asyncio.to_thread(is_ready, URL):
                await asyncio.sleep(0.005)
            say(await failure(other, "echo x"))
            async with Agent(model()) as fourth:
                say(await failure(fourth, "echo x"))
            async for _ in texts:
                pass
            say([stream.response.text, stream.response.finish_reason])
        while (await failure(other, "echo back"))[1] != "back":
            pass
        say((await agent.run("echo back")).output)


asyncio.run(globals()[TASK]())
