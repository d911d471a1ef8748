"""pydantic-ai, unmodified: `pydantic_ai_agents.py BASE_URL`. It prints JSON, a line a value."""

import asyncio
import json
import sys

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError
from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider

calls = []


class Answer(BaseModel):
    number: int


def say(value):
    print(json.dumps(value), flush=True)


def model(name, *, lanes=False):
    client = AsyncOpenAI(api_key="sesame", base_url=sys.argv[1], max_retries=0)
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


async def main():
    async with Agent(model("scripted"), instructions="Be brief.", tools=[double]) as agent:
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

    async with Agent(model("scripted", lanes=True)) as agent:
        results = await asyncio.gather(*(agent.run(f"echo {n}") for n in range(4)))
        say([result.output for result in results])

    async with Agent(model("scripted"), output_type=Answer) as agent:
        say((await agent.run("form")).output.number)

    async with Agent(model("scripted")) as agent:
        try:
            await agent.run("hi", model_settings={"temperature": 9})
        except ModelHTTPError as error:
            say([error.status_code, error.body["code"], error.body["param"]])
        for word in ("large", "full", "bad", "drop"):
            try:
                say((await agent.run(word)).output)
            except Exception as error:  # noqa: BLE001 - its type is the client's own
                say([type(error).__name__, getattr(error, "status_code", None)])
        say((await agent.run("echo again")).output)
        thoughts = (await agent.run("think")).all_messages()[-1].parts
        say([part.content or part.provider_details["raw_content"] for part in thoughts])


asyncio.run(main())
