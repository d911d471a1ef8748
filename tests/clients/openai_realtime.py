"""OpenAI's SDK, unmodified: `openai_realtime.py TASK BASE_URL…`. It prints JSON, a line a value."""

import asyncio
import json
import sys

from openai import AsyncOpenAI, OpenAI
from openai.types.realtime.realtime_server_event import RealtimeServerEvent
from openai_checks import WEATHER, say, strictly
from pydantic import TypeAdapter

TASK, URL, *OTHERS = sys.argv[1:]
EVENTS = TypeAdapter(RealtimeServerEvent)
OF_SESSION = {"id", "object"}  # which OpenAI sends too, though the types of events don't have them
TEXT = {"type": "realtime", "output_modalities": ["text"]}


async def event_of(conn):
    """Return the next event, each field of which must be as the SDK's types say."""
    raw = await conn.recv_bytes()
    of_session = json.loads(raw)["type"].startswith("session.")
    return strictly(EVENTS, raw, OF_SESSION if of_session else set())


async def until(conn, *kinds):
    """Return the events up to and with the first of these types."""
    events = [await event_of(conn)]
    while events[-1].type not in kinds:
        events.append(await event_of(conn))
    return events


def question(text):
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content}


async def text(client):
    async with client.realtime.connect(model="embedded") as conn:
        say([(await event_of(conn)).session.model])
        await conn.session.update(session={**TEXT, "instructions": "Be brief."})
        say([(await event_of(conn)).session.instructions])
        await conn.conversation.item.create(item=question("What is two plus two?"))
        await conn.response.create()
        events = await until(conn, "response.done")
        end = events[-1].response
        deltas = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        assert end.output[0].content[0].text == deltas
        say(list(dict.fromkeys(event.type for event in events)))
        say([end.status, bool(deltas), end.usage.output_tokens > 1])


async def tools(client):
    async with client.realtime.connect(model="embedded") as conn:
        session = {**TEXT, "tools": [WEATHER], "tool_choice": "required"}
        await conn.session.update(session=session)
        await conn.conversation.item.create(item=question("What is the weather in Paris?"))
        await conn.response.create()
        events = await until(conn, "response.done")
        (call,) = events[-1].response.output
        done = next(e for e in events if e.type == "response.function_call_arguments.done")
        assert (done.call_id, done.arguments) == (call.call_id, call.arguments)
        say([call.type, call.name, sorted(json.loads(call.arguments))])
        item = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny, 20"}
        await conn.conversation.item.create(item=item)
        await conn.response.create(response={"tool_choice": "none", "max_output_tokens": 9})
        end = (await until(conn, "response.done"))[-1].response
        say([item.type for item in end.output])


async def told(client):
    """Say the items of a response, and that of one that is broken off."""
    async with client.realtime.connect(model="scripted") as conn:
        await conn.conversation.item.create(item=question("hi"))
        await conn.response.create()
        end = (await until(conn, "response.done"))[-1].response
        say([item.type for item in end.output])
        say([end.status, end.status_details.error.type])


async def cancel(client):
    async with client.realtime.connect(model="scripted") as conn:
        await conn.conversation.item.create(item=question("long"))
        await conn.response.create()
        await until(conn, "response.output_text.delta")
        await conn.response.cancel()
        end = (await until(conn, "response.done"))[-1].response
        say([end.status, end.status_details.reason])
        await conn.response.cancel(event_id="late")
        error = (await event_of(conn)).error
        say([error.code, error.event_id])


async def items(client):
    async with client.realtime.connect(model="scripted") as conn:
        await event_of(conn)
        await conn.conversation.item.create(item={**question("a"), "id": "a"})
        await conn.conversation.item.create(
            item={**question("b"), "id": "b"}, previous_item_id="root"
        )
        await conn.conversation.item.retrieve(item_id="a")
        await conn.conversation.item.delete(item_id="a")
        say([event.type for event in await until(conn, "conversation.item.deleted")])


async def refused(client):
    async with client.realtime.connect(model="embedded") as conn:
        await event_of(conn)
        audio = {**TEXT, "output_modalities": ["audio"]}
        await conn.session.update(session=audio, event_id="1")
        say_error(await event_of(conn))
        await conn.response.create(response={"max_output_tokens": 0, "input": [question("x")]})
        say_error(await event_of(conn))
        await conn.input_audio_buffer.append(audio="AA")
        say_error(await event_of(conn))
    async with client.realtime.connect(model="gpt") as conn:
        await event_of(conn)
        asked = {"conversation": "none", "input": [question("x")]}
        await conn.response.create(response=asked, event_id="m")
        say_error(await event_of(conn))


async def faults(client):
    """Say how what the gateway or its model can't do is told."""
    async with client.realtime.connect(model="scripted") as conn:
        await event_of(conn)
        for word in ("hot", "large", "full", "bad"):
            asked = {"conversation": "none", "input": [question(word)]}
            await conn.response.create(response=asked)
            end = (await until(conn, "response.done", "error"))[-1]
            error = end.error if end.type == "error" else end.response.status_details.error
            say([end.type, error.code])


async def reconnect(client):
    """Ask for more on the connection that takes the place of one that is lost."""
    codes, later = [], []

    async def ask(text):
        asked = {"conversation": "none", "input": [question(text)]}
        await conn.response.create(response=asked)

    def on_reconnecting(event):
        codes.append(event.close_code)
        later.append(asyncio.create_task(ask("echo back")))

    async with client.realtime.connect(model="scripted", **policy(on_reconnecting)) as conn:
        await ask("drop")
        end = await anext(event async for event in conn if event.type == "response.done")
        await asyncio.gather(*later)
        say([codes, end.response.output[0].content[0].text])


def reconnect_sync(client):
    """Ask for more on the connection that takes the place of one that is lost."""
    codes = []

    def ask(text):
        asked = {"conversation": "none", "input": [question(text)]}
        conn.response.create(response=asked)

    def on_reconnecting(event):
        codes.append(event.close_code)
        ask("echo back")

    with client.realtime.connect(model="scripted", **policy(on_reconnecting)) as conn:
        ask("drop")
        end = next(event for event in conn if event.type == "response.done")
        say([codes, end.response.output[0].content[0].text])


def say_error(event):
    say([event.error.param, event.error.event_id])


async def stop(client):
    """Say what is refused over a limit and by a gateway that stops; go on with the next one."""
    codes, later = [], []

    def on_reconnecting(event):
        codes.append(event.close_code)
        asked = {"conversation": "none", "input": [question("echo back")]}
        later.append(asyncio.create_task(conn.response.create(response=asked)))

    async def end(*kinds):
        return await anext(event async for event in conn if event.type in kinds)

    async def refusal():
        asked = {"conversation": "none", "input": [question("echo x")]}
        await conn.response.create(response=asked)
        return (await end("error")).error.code

    async with client.realtime.connect(model="scripted", **policy(on_reconnecting)) as conn:
        await conn.conversation.item.create(item=question("stay"))
        await conn.response.create()
        say(await refusal())
        await unauthorized(client)
        while (code := await refusal()) == "rate_limit_exceeded":
            pass
        say(code)
        await unauthorized(client)
        cut = (await end("response.done")).response
        say([cut.status, cut.output[0].content[0].text])
        back = (await end("response.done")).response
        await asyncio.gather(*later)
        say([codes, back.output[0].content[0].text])


def policy(on_reconnecting):
    return {"on_reconnecting": on_reconnecting, "initial_delay": 0.01}


async def unauthorized(client):
    """Say why a connection is refused."""
    try:
        async with client.realtime.connect(model="embedded"):
            pass
    except Exception as error:  # noqa: BLE001 - its type is websockets' own
        say(str(error))


async def stranger(client):
    """Say why it is not let in at each address."""
    for url in (URL, *OTHERS):
        await unauthorized(client.with_options(base_url=url))


def sync(client):
    with client.realtime.connect(model="embedded") as conn:
        conn.conversation.item.create(item=question("Tell me a story"))
        conn.response.create(response={"max_output_tokens": 9})
        end = next(event for event in conn if event.type == "response.done")
        say([end.response.status, end.response.usage.output_tokens])


async def main():
    key = "wrong" if TASK == "unauthorized" else "sesame"
    async with AsyncOpenAI(api_key=key, base_url=URL) as client:
        await globals()[TASK](client)


if TASK in ("sync", "reconnect_sync"):
    with OpenAI(api_key="sesame", base_url=URL) as client:
        globals()[TASK](client)
else:
    asyncio.run(main())
