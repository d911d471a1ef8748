"""AG-UI over real sockets, on the model in the package where a model matters."""

import asyncio
import base64
import json

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.dialects.agui.dialect import ROUTE
from gateway.dialects.base import FrameLimits, Opening, RouteLimits
from gateway.protocol.codes import CloseCode
from gateway.protocol.frames import Cancel, Generate, Pong
from gateway.server.byte_budget import ByteBudget
from provider import MLXProvider
from provider.scripted import Gate, Pause, Queue, Reason, Say
from tests.gateway.dialects.agui.clients import kinds, running_agui, text_of, user
from tests.support.servers import TOKENS, close_code, eventually, get, running, scripted, wired

SHOWN = base64.urlsafe_b64encode(b"sesame").decode().rstrip("=")
PAGE = {"subprotocols": ["ag-ui.v1", f"mlx-gateway.bearer.{SHOWN}"]}
STORY = "Tell me a story about a fox"
TEXT = ["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"]
THOUGHTS = [
    "REASONING_START",
    "REASONING_MESSAGE_START",
    "REASONING_MESSAGE_CONTENT",
    "REASONING_MESSAGE_END",
    "REASONING_END",
]
WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


@pytest.fixture(scope="module")
def provider():
    provider = MLXProvider({"temperature": 0.0, "max_tokens": 32})
    yield provider
    provider.close()


# Runs. -------------------------------------------------------------------------------------------


async def test_a_text_is_streamed_as_the_whole_sequence_of_events(provider):
    async with running(provider) as gateway, running_agui(gateway) as client:
        events = await client.answer(STORY, {"maxOutputTokens": 20, "userId": 7})
        async with wired(gateway) as wire:
            messages = [{"role": "user", "content": STORY}]
            await wire.send(Generate(id="a", messages=messages, max_tokens=20, stream=False))
            expected = (await wire.until("done"))[-1]
    assert kinds(events) == ["RUN_STARTED", *TEXT, "RUN_FINISHED"]
    assert text_of(events) == expected["text"]
    ids = {event["messageId"] for event in events if "messageId" in event}
    assert len(ids) == 1
    first, end = events[0], events[-1]
    assert (first["threadId"], first["runId"]) == (end["threadId"], end["runId"]) == ("t", "r0")
    assert end["usage"][0]["outputTokens"] == 20
    assert end["metadata"]["tanstack"]["finishReason"] == "length"
    assert "outcome" not in end


async def test_reasoning_comes_in_events_of_its_own():
    script = (Queue(2), Reason("hm so"), Say("So."), Reason("hm"), Say("Yes."))
    async with running(scripted(*script)) as gateway, running_agui(gateway) as client:
        events = await client.answer("hi")
    assert kinds(events) == [
        *("RUN_STARTED", *THOUGHTS, *TEXT),
        *(*THOUGHTS, *TEXT, "RUN_FINISHED"),
    ]
    begun = [one["messageId"] for one in events if one["type"] == "REASONING_START"]
    assert len(set(begun)) == 2


async def test_runs_of_one_connection_never_interleave():
    first = asyncio.Event()
    provider = scripted(Say("a"), Gate(first), Say("b"))
    async with running(provider) as gateway, running_agui(gateway) as client:
        runs = [await client.ask("hi") for _ in range(3)]
        await client.until_text()
        assert len(provider.requests) == 1
        first.set()
        ended = [(await client.until_end())[-1]["runId"] for _ in range(3)]
    assert ended == runs


async def test_no_more_than_some_runs_wait():
    async with running(scripted(Pause(3600))) as gateway, running_agui(gateway) as client:
        for _ in range(9):
            await client.ask("hi")
        assert (await client.answer("hi"))[-1]["code"] == "rate_limited"
        for run in range(9):
            await client.abort(f"r{run}")
        await eventually(lambda: not gateway._generations.unbuilt.held)
        await client.ask("hi", context=[{"value": 1}])
        assert (await client.receive())["message"].startswith("`context`")


async def test_a_tool_of_the_client_is_called_by_an_interrupt(provider):
    more = {"tools": [WEATHER]}
    async with running(provider) as gateway, running_agui(gateway) as client:
        asked = user("What is the weather in Paris?")
        events = await client.answer([asked], {"max_tokens": 100}, **more)
        end = events[-1]
        (interrupt,) = end["outcome"]["interrupts"]
        own = interrupt["toolCallId"]
        assert interrupt["id"] == f"client_tool_{own}"
        assert interrupt["metadata"]["toolName"] == "get_weather"
        arguments = "".join(one["delta"] for one in events if one["type"] == "TOOL_CALL_ARGS")
        assert interrupt["metadata"]["input"] == json.loads(arguments)
        assert end["metadata"]["tanstack"]["finishReason"] == "tool_calls"
        begun = kinds(events).index("TOOL_CALL_START")
        assert kinds(events)[begun:] == [
            *("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "RUN_FINISHED")
        ]
        call = {"name": "get_weather", "arguments": arguments}
        turn = {"role": "assistant", "toolCalls": [{"id": own, "function": call}]}
        payload = {"temperature": 21, "sky": "clear"}
        resume = [{"interruptId": interrupt["id"], "payload": payload, "status": "resolved"}]
        result = {"role": "tool", "toolCallId": own, "content": json.dumps(payload)}
        texts = [
            text_of(await client.answer([asked, turn], resume=resume, **more)),
            text_of(await client.answer([asked, turn, result], **more)),
        ]
    assert "21" in texts[0]
    assert texts[0] == texts[1]


# Errors. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"messages": []}, "`messages`: must be a list of messages"),
        ({"messages": [{"role": "human"}]}, "`messages[0]`: must be a message with one of"),
        ({"props": {"temperature": "hot"}}, "`forwardedProps.temperature`: expected"),
        ({"forwardedProps": None, "data": {"topP": 7}}, "`data.topP`: must be"),
        ({"forwardedProps": 7}, "`forwardedProps`: must be an object"),
        ({"props": {"tools": [WEATHER]}, "tools": [WEATHER]}, "`forwardedProps.tools`: differs"),
        ({"tools": [{"name": "a b"}]}, "`tools[0].name`: must be"),
        ({"state": {"a": 1}}, "`state`: models here are not shown it"),
        ({"threadId": 7}, "`threadId`: must be a string"),
        ({"resume": [{"interruptId": "approval"}]}, "`resume[0]`: no such interrupt"),
    ],
)
async def test_a_wrong_field_is_named_by_its_path(provider, fields, said):
    fields = {"messages": "hi", **fields}
    async with running(provider) as gateway, running_agui(gateway) as client:
        (event,) = [
            one for one in await client.answer(**fields) if one["type"] in ("RUN_ERROR", "X")
        ]
    assert (event["code"], event["runId"]) == ("invalid_request", "r0")
    assert event["message"].startswith(said)


@pytest.mark.parametrize("message", ["{", "[]", b"{}"])
async def test_no_frame_ends_the_connection(message):
    async with running(scripted()) as gateway, running_agui(gateway) as client:
        await client.socket.send(message)
        with pytest.raises(ConnectionClosed):
            await client.receive()
        assert client.socket.close_code == CloseCode.NOT_A_FRAME


async def test_a_frame_that_holds_too_much_is_an_error():
    deep = {}
    for _ in range(99):
        deep = {"a": deep}
    async with running(scripted(), max_values=3000) as gateway, running_agui(gateway) as client:
        (event,) = await client.answer("hi", {"a": [1] * 9000})
        assert "3000 keys and values" in event["message"]
        (event,) = await client.answer("hi", deep)
        assert event["message"] == "`forwardedProps`: nested deeper than 64"


async def test_a_token_is_shown_in_the_handshake_or_as_a_subprotocol():
    async with running(scripted(Say("x")), TOKENS) as gateway:
        async with running_agui(gateway, **PAGE) as client:
            assert client.socket.subprotocol == "ag-ui.v1"
            assert text_of(await client.answer("hi")) == "x"
        with pytest.raises(InvalidStatus, match="401"):
            async with running_agui(gateway):
                pass
        assert (await get(gateway, "/v1/agui"))[0] == 426


# Stopping. ---------------------------------------------------------------------------------------


async def test_an_abort_stops_the_model_and_has_no_answer(provider):
    async with running(provider) as gateway, running_agui(gateway) as client:
        run = await client.ask(STORY, {"maxOutputTokens": 4000})
        await client.until_text()
        await client.abort(run)
        await eventually(lambda: not gateway._generations.live)
        assert gateway._generations.metrics.ended["cancelled"] == 1
        await client.abort("unknown")
        await client.ask("hi", {"maxOutputTokens": 3})
        events = await client.until("RUN_STARTED")
        assert {one["type"] for one in events[:-1]} <= {"TEXT_MESSAGE_CONTENT"}
        assert (await client.until_end())[-1]["type"] == "RUN_FINISHED"


async def test_a_run_that_is_sent_again_stops_the_earlier_one():
    provider = scripted(Say("a"), Pause(3600))
    async with running(provider) as gateway:
        async with running_agui(gateway) as client:
            for _ in range(2):
                await client.ask("hi", runId="same")
                await client.until_text()
            await eventually(lambda: len(provider.live) == 1)
        await eventually(lambda: not gateway._generations.connections)
        async with running_agui(gateway) as client:
            await client.ask("hi", runId="same")
            await client.until_text()
            await eventually(lambda: len(provider.live) == 1)
        assert gateway._generations.metrics.ended["cancelled"] == 2


def test_a_run_that_is_sent_again_and_refused_stops_the_earlier_one_too():
    budget = ByteBudget(1000, 1.0)
    dialect = ROUTE.prepare(RouteLimits())(Opening(client="c", waiting=budget))

    def send(run, text):
        fields = {"threadId": "t", "runId": run, "messages": [user(text)]}
        return dialect.decode(json.dumps(fields))

    (again,) = send("again", "a")
    assert [*send("next", "b"), *send("last", "c")] == []
    stop, begun, refused = send("again", "x" * 1000)
    assert (stop, begun.messages[0]["content"]) == (Cancel(id=again.id), "b")
    (error,) = dialect.encode(Pong(nonce=refused.nonce))
    assert json.loads(error.data)["code"] == "overloaded"


def test_values_inside_a_call_s_arguments_are_bounded_as_a_message_s_own():
    limits = RouteLimits(frames=FrameLimits(values=40))
    dialect = ROUTE.prepare(limits)(Opening(client="c"))
    function = {"name": "f", "arguments": json.dumps({"a": [[]] * 40})}
    call = {"id": "1", "type": "function", "function": function}
    messages = [user("hi"), {"role": "assistant", "toolCalls": [call]}]
    sent = json.dumps({"threadId": "t", "runId": "r", "messages": messages})
    (refused,) = dialect.decode(sent)
    (error,) = dialect.encode(Pong(nonce=refused.nonce))
    assert json.loads(error.data)["code"] == "invalid_request"
    assert "`messages[1].toolCalls[0].function.arguments`" in json.loads(error.data)["message"]


@pytest.mark.parametrize("query", ["", "?runId=r&offset=-1"])
async def test_a_page_that_is_not_let_in_is_told_by_an_event(query):
    async with running(scripted(), TOKENS, max_connections_per_token=1) as gateway:
        async with running_agui(gateway, query, origin="http://evil.example") as client:
            event = await client.receive()
            assert (event["type"], event["code"]) == ("RUN_ERROR", "forbidden")
            assert "start the gateway with `--origins" in event["message"]
            assert await close_code(client.socket) == CloseCode.FORBIDDEN
        async with running_agui(gateway, **PAGE), running_agui(gateway, query, **PAGE) as client:
            event = await client.receive()
            assert (event["type"], event["code"]) == ("RUN_ERROR", "rate_limited")
            assert await close_code(client.socket) == CloseCode.TOO_MANY


# Resuming. ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [1, 3])
async def test_a_run_is_read_on_after_an_offset(provider, read):
    async with running(provider) as gateway:
        async with running_agui(gateway) as client:
            await client.ask(STORY, {"maxOutputTokens": 40})
            before = [await client.receive() for _ in range(read)]
            offset = client.offsets[-1]
        async with running_agui(gateway, f"?runId=r0&offset={offset}") as client:
            await client.ask("nobody reads this")
            after = await client.until_end()
            assert await close_code(client.socket) == 1000
        async with running_agui(gateway, "?runId=r0&offset=-1") as client:
            whole = await client.until_end()
            assert await close_code(client.socket) == 1000
    assert kinds(whole) == ["RUN_STARTED", *TEXT, "RUN_FINISHED"]
    assert text_of([*before, *after]) == text_of(whole)
    assert whole[-len(after) :] == after


@pytest.mark.parametrize("query", ["?runId=r0&offset=-1", "?offset=msg-1.2", "?runId=x&offset="])
async def test_what_is_not_kept_is_not_read(query):
    async with running(scripted()) as gateway, running_agui(gateway, query) as client:
        event = await client.receive()
        assert (event["type"], event["code"]) == ("RUN_ERROR", "not_resumable")
        assert await close_code(client.socket) == 1008


async def test_an_offset_of_another_run_is_refused():
    async with running(scripted(Say("a"), Pause(3600))) as gateway:
        async with running_agui(gateway) as client:
            await client.ask("hi")
            await client.until_text()
            newest = client.offsets[-1]
            for offset in ("msg-other.1", "x", f"{newest}x", f"{newest}{'9' * 5000}"):
                async with running_agui(gateway, f"?runId=r0&offset={offset}") as reader:
                    assert (await reader.receive())["code"] == "not_resumable"


async def test_a_run_is_read_in_two_pages_and_stopped_in_the_first():
    go = asyncio.Event()
    provider = scripted(Say("a"), Gate(go), Say("b"), Pause(3600))
    async with running(provider) as gateway, running_agui(gateway) as first:
        run = await first.ask("hi")
        await first.until_text()
        async with running_agui(gateway, f"?runId={run}&offset=-1") as second:
            assert text_of(await second.until_text()) == "a"
            go.set()
            assert [text_of(await one.until_text()) for one in (first, second)] == ["b", "b"]
            await first.abort(run)
            events = await second.until_end()
            assert (events[-1]["type"], events[-1]["code"]) == ("RUN_ERROR", "aborted")
        await eventually(lambda: not provider.live)


async def test_a_slow_reader_holds_the_provider_up():
    provider = scripted(*[Say("x" * 2000)] * 4000)
    limits = {"outbox_bytes": 4096, "kernel_buffer_bytes": 4096, "write_timeout_s": 60.0}
    async with running(provider, **limits) as gateway:
        async with running_agui(gateway, max_queue=1) as client:
            await client.ask("hi")
            await eventually(lambda: provider.live)
            before = None
            while before != provider.requests[0].produced:
                before = provider.requests[0].produced
                await asyncio.sleep(0.05)
            assert before < 4000
            assert len(text_of(await client.until_end())) == 2000 * 4000
