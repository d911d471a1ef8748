"""OpenAI's SDK, unmodified: `openai_responses.py TASK BASE_URL…`. It prints JSON lines."""

import asyncio
import json
import sys

from openai import APIStatusError, AsyncOpenAI, OpenAI
from openai.lib.responses_websocket import (
    AsyncResponsesWebSocketSession,
    ResponsesWebSocketAccumulator,
    ResponsesWebSocketError,
    ResponsesWebSocketLimits,
)
from openai.types.responses import Response
from openai.types.responses.responses_server_event import ResponsesServerEvent
from openai_checks import WEATHER, say, strictly
from pydantic import TypeAdapter

TASK, URL, *OTHERS = sys.argv[1:]
EVENTS = TypeAdapter(ResponsesServerEvent)
ENDS = ("response.completed", "response.incomplete", "response.failed", "error")
# What Open Responses' types require, and OpenAI's don't have.
OF_OTHERS = {"presence_penalty", "frequency_penalty", "store", "bytes"}
STRICT = {**WEATHER, "strict": True}
LIMITS = ResponsesWebSocketLimits(
    max_lanes=8,
    max_events_per_lane=4096,
    max_events=8192,
    max_bytes_per_lane=1 << 24,
    max_bytes=1 << 25,
)


async def answer(conn, **fields):
    """Return the events of a response, each checked, and what the accumulator makes of them."""
    await conn.response.create(**fields)
    accumulator, events = ResponsesWebSocketAccumulator(), []
    while not events or events[-1].type not in ENDS:
        raw = await conn.recv_bytes()
        events.append(strictly(EVENTS, raw, OF_OTHERS))
        try:
            accumulator.add_event(conn.parse_event(raw))
        except ResponsesWebSocketError:
            return events, None
    end = accumulator.get_final_response()
    shown = accumulator.snapshot()
    assert shown.response_id == end.id
    assert shown.output_text == end.output_text
    items = [(item.output_index, item.item_id, item.type) for item in shown.output]
    assert items == [(at, item.id, item.type) for at, item in enumerate(end.output)]
    return events, end


async def text(client):
    async with client.responses.connect() as conn:
        events, end = await answer(conn, model="embedded", input="What is two plus two?")
        say([event.type for event in events])
        say([event.sequence_number for event in events])
        say({"text": end.output_text, "status": end.status, "output": end.usage.output_tokens})


async def told(client):
    """Say the types of a response's events, and its items."""
    async with client.responses.connect() as conn:
        events, end = await answer(conn, input="hi")
        say([event.type for event in events])
        say([item.to_dict() for item in end.output])


async def tools(client):
    async with client.responses.connect() as conn:
        asked = {"tools": [STRICT, {"type": "web_search"}], "tool_choice": "required"}
        _, end = await answer(conn, input="What is the weather in Paris?", **asked)
        (call,) = end.output
        arguments = json.loads(call.arguments)
        say([call.type, call.name, sorted(arguments)])
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny, 20"}
        _, end = await answer(
            conn,
            input=[result],
            previous_response_id=end.id,
            tools=[STRICT],
            tool_choice="none",
            max_output_tokens=100,
        )
        say({"types": [item.type for item in end.output], "previous": end.previous_response_id})
        _, end = await answer(conn, input=[{**result, "call_id": "nobody"}])
        say(end)


async def structured(client):
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "warm": {"type": "boolean"}},
        "required": ["city", "warm"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "name": "weather", "schema": schema, "strict": True}
    included = ["message.output_text.logprobs"]
    async with client.responses.connect() as conn:
        _, end = await answer(
            conn, input="Where?", text={"format": form}, include=included, top_logprobs=2
        )
        say(json.loads(end.output_text))
        say([len(one.top_logprobs) for one in end.output[0].content[0].logprobs])


async def cancel(client):
    async with client.responses.connect() as conn:
        await conn.response.create(input="long")
        async for event in conn:
            if event.type == "response.output_text.delta":
                await conn.send({"type": "response.cancel"})
            elif event.type in ENDS:
                say([event.type, event.response.status])
                break


async def lanes(client):
    connection = client.responses.connect()
    async with connection as conn, AsyncResponsesWebSocketSession(conn, limits=LIMITS) as session:
        opened = [*(session.lane(name) for name in "abc"), session.default]
        for turn in range(2):
            asked = {"input": f"Count to {40 + turn}", "max_output_tokens": 8}
            for lane in opened:
                await lane.send({"type": "response.create", **asked})
            ends = [await lane.get_final_response() for lane in opened]
            assert all(isinstance(end, Response) for end in ends)
            say([end.status for end in ends])
            say(len({end.id for end in ends}))


async def refused(client):
    async with client.responses.connect() as conn:
        for fields in ({"temperature": 9}, {"previous_response_id": "resp_no"}, {"model": "gpt"}):
            [error], _ = await answer(conn, **{"input": "x", **fields})
            say([error.type, error.status, error.error.code, error.error.param])


async def faults(client):
    """Say how what the gateway or its model can't do is told."""
    async with client.responses.connect() as conn:
        for word in ("hot", "large", "full", "bad"):
            events, _ = await answer(conn, input=word)
            end = events[-1]
            error = end.error if end.type == "error" else end.response.error
            say([end.type, error.code, getattr(error, "headers", None)])


async def reconnect(client):
    """Ask for more on the connection that takes the place of one that is lost."""
    codes, later = [], []

    def on_reconnecting(event):
        codes.append(event.close_code)
        more = {"input": "echo back", "previous_response_id": first.id}
        later.append(asyncio.create_task(conn.response.create(**more)))

    async with client.responses.connect(**policy(on_reconnecting)) as conn:
        _, first = await answer(conn, input="echo one")
        await conn.response.create(input="drop")
        end = await anext(event async for event in conn if event.type in ENDS)
        await asyncio.gather(*later)
        say([codes, end.response.output_text])


def reconnect_sync(client):
    """Ask for more on the connection that takes the place of one that is lost."""
    codes = []

    def on_reconnecting(event):
        codes.append(event.close_code)
        conn.response.create(input="echo back", previous_response_id=first.id)

    with client.responses.connect(**policy(on_reconnecting)) as conn:
        conn.response.create(input="echo one")
        first = next(event for event in conn if event.type in ENDS).response
        conn.response.create(input="drop")
        end = next(event for event in conn if event.type in ENDS)
        say([codes, end.response.output_text])


async def unauthorized(client):
    """Say why a connection is refused."""
    try:
        async with client.responses.connect():
            pass
    except Exception as error:  # noqa: BLE001 - its type is websockets' own
        say(str(error))


async def stranger(client):
    """Say why it is not let in at each address."""
    for url in (URL, *OTHERS):
        await unauthorized(client.with_options(base_url=url))


async def posted(client):
    """Say what the client that has no WebSocket is told."""
    try:
        await client.responses.create(model="embedded", input="hi")
    except APIStatusError as error:
        say([error.status_code, error.response.text])


async def stop(client):
    """Say what is refused over a limit and by a gateway that stops; go on with the next one."""
    codes, later = [], []

    def on_reconnecting(event):
        codes.append(event.close_code)
        later.append(asyncio.create_task(conn.response.create(input="echo back")))

    async def end(lane=None):
        """Return the next end of a response in a lane."""
        ends = (event async for event in conn if event.type in ENDS)
        return await anext(event async for event in ends if lane_of(event) == lane)

    async def refusal():
        await conn.response.create(input="echo x")
        refused = await end()
        return [refused.status, refused.error.code, refused.error.headers]

    async with client.responses.connect(**policy(on_reconnecting)) as conn:
        await conn.response.create(input="stay", stream_id="stays")
        say(await refusal())
        await unauthorized(client)
        while (said := await refusal())[1] == "rate_limit_exceeded":
            pass
        say(said)
        await unauthorized(client)
        cut = (await end("stays")).response
        say([cut.status, cut.output_text])
        back = (await end()).response
        await asyncio.gather(*later)
        say([codes, back.output_text])


def lane_of(event):
    return getattr(event, "stream_id", None)


def policy(on_reconnecting):
    return {"on_reconnecting": on_reconnecting, "initial_delay": 0.01}


def sync(client):
    with client.responses.connect() as conn:
        conn.response.create(input="echo one two three", max_output_tokens=2)
        end = next(event for event in conn if event.type in ENDS)
        say([end.type, end.response.usage.output_tokens])
        conn.response.create(input="x", temperature=9)
        say(next(event for event in conn if event.type in ENDS).error.param)
        conn.response.create(input="long", previous_response_id=end.response.id)
        for event in conn:
            if event.type == "response.output_text.delta":
                conn.send({"type": "response.cancel"})
            elif event.type in ENDS:
                break
        say(event.response.status)


async def main():
    key = "wrong" if TASK == "unauthorized" else "sesame"
    async with AsyncOpenAI(api_key=key, base_url=URL) as client:
        await globals()[TASK](client)


if TASK in ("sync", "reconnect_sync"):
    with OpenAI(api_key="sesame", base_url=URL) as client:
        globals()[TASK](client)
else:
    asyncio.run(main())
