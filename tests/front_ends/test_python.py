"""The Python examples, in an environment of their own, in front of a real gateway."""

import asyncio
import json
import os
import re
import socket
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from provider.interface import GenerationError
from provider.scripted import Call, Fail, Gate, Pause, Say, ScriptedProvider
from tests.support.servers import eventually, running
from tests.support.timeouts import STARTING, TIMEOUT

HERE = Path(__file__).parent
FRAMEWORKS = HERE.parent.parent / ".build/python-front-ends"
PYTHON = FRAMEWORKS / "bin/python"
ELSEWHERE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

pytestmark = [
    pytest.mark.front_ends,
    pytest.mark.timeout(2 * STARTING + TIMEOUT),
]


@pytest.fixture(autouse=True)
def environment():
    if not (FRAMEWORKS / "ready").exists():
        if os.environ.get("CI"):
            raise FileNotFoundError(FRAMEWORKS)
        pytest.skip("no environment with the frameworks: `make test-front-ends` makes it")


def question_of(request):
    return request.options["messages"][-1]["content"]


def provider_of(**answers):
    return ScriptedProvider(script=lambda r: answers[question_of(r)], tokens_per_second=None)


@asynccontextmanager
async def program(*arguments, **options):
    process = await asyncio.create_subprocess_exec(PYTHON, *arguments, **options)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def proxy_of(gateway):
    """Run the FastAPI app; yield what asks it, yields a reader, and leaves without a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        number = str(listening.fileno())

        @asynccontextmanager
        async def asked(question):
            reader, writer = await asyncio.open_connection(*address)
            body = json.dumps({"messages": [{"role": "user", "content": question}]}).encode()
            head = f"POST /chat HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
            head += "Connection: close\r\nContent-Type: application/json\r\n\r\n"
            writer.write(head.encode() + body)
            try:
                yield reader
            finally:
                writer.transport.abort()

        command = ["-m", "uvicorn", "--app-dir", HERE, "--fd", number, "fastapi_proxy:app"]
        env = {**ELSEWHERE, "GATEWAY": gateway.url}
        async with program(*command, pass_fds=[listening.fileno()], env=env, stderr=PIPE):
            yield asked


async def events(reader):
    """Yield the events of an answer as they come."""
    while line := await reader.readline():
        if name := re.match(rb"event: (\w+)", line):
            data = (await reader.readline()).removeprefix(b"data: ")
            yield name[1].decode(), json.loads(data)


async def test_fastapi_passes_on_what_comes_when_it_comes_and_stops_what_nobody_wants():
    gate = asyncio.Event()
    provider = provider_of(
        story=[Say("a b"), Gate(gate), Say("c")],
        fault=[Say("a "), Fail(GenerationError("broken"))],
        long=[Say("a"), Pause(3600)],
        late=[Pause(3600)],
    )
    async with running(provider) as gateway, proxy_of(gateway) as asked:
        async with asyncio.timeout(STARTING), asked("story") as reader:
            story = events(reader)
            said = ""
            while said != "a b":  # in one chunk or in two
                said += (await anext(story))[1]
            gate.set()
            assert [one async for one in story] == [("text", "c"), ("done", "stop")]
        async with asked("fault") as reader:
            assert [one async for one in events(reader)][-1] == ("error", "broken")
        for question in ("long", "late"):
            async with asked(question) as reader:
                await eventually(lambda q=question: [question_of(r) for r in provider.live] == [q])
                if question == "long":
                    assert await anext(events(reader)) == ("text", "a")
            await eventually(lambda: not provider.live)


LANGCHAIN = """
import asyncio, json, sys
from langchain_chat_model import GatewayChatModel

def double(number: int) -> int:
    "Double a number."

def say(*what):
    print(json.dumps(what), flush=True)

async def leave():
    async for chunk in model.astream("long"):
        say("left", chunk.content)
        break
    await asyncio.to_thread(sys.stdin.readline)

model = GatewayChatModel(url=sys.argv[1], fields={"temperature": 0.0})
say(model.invoke("hi").content, "".join(one.content for one in model.stream("hi")))
call = model.bind_tools([double]).invoke("call").tool_calls[0]
say(call["name"], call["args"])
asyncio.run(leave())
stream = model.stream("long")
say("left", next(stream).content)
stream.close()
sys.stdin.readline()
"""


async def test_langchain_has_answers_calls_and_streams_that_stop_when_they_are_left():
    provider = provider_of(
        hi=[Say("a b")], call=[Call("double", {"number": 4})], long=[Say("a"), Pause(3600)]
    )
    env = {**ELSEWHERE, "PYTHONPATH": str(HERE)}
    async with running(provider) as gateway:
        command = ["-c", LANGCHAIN, gateway.url]
        async with program(*command, env=env, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:

            async def said():
                line = await asyncio.wait_for(process.stdout.readline(), STARTING)
                return json.loads(line or (await process.stderr.read()).decode())

            assert await said() == ["a b", "a b"]
            assert await said() == ["double", {"number": 4}]
            for _ in range(2):
                assert await said() == ["left", "a"]
                await eventually(lambda: not provider.live)
                process.stdin.write(b"\n")
            assert [question_of(one) for one in provider.requests][-2:] == ["long", "long"]
