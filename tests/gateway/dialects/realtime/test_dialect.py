"""Realtime over real sockets, on the model in the package where a model matters."""

import asyncio
import json
import logging

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.dialects.realtime.dialect import secret_in
from gateway.protocol.codes import CloseCode
from provider import MLXProvider
from provider.interface import ContextWindowExceededError
from provider.scripted import Call, Fail, Gate, Pause, Queue, Reason, Say, ScriptedProvider
from tests.gateway.dialects.realtime.clients import kinds, output, realtime, text_of, user
from tests.support.servers import TOKENS, eventually, get, native, running, scripted

STORY = "Tell me a story about a fox"
ADD = {
    "type": "function",
    "name": "add",
    "description": "Add two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
}
ODD = {**ADD, "parameters": {"type": "odd"}}
ONLY_ADD = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "add"}]}
TEXT_EVENTS = [
    "created",
    "output_item.added",
    "conversation.item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "conversation.item.done",
    "output_item.done",
    "done",
]


@pytest.fixture(scope="module")
def provider():
    provider = MLXProvider({"temperature": 0.0, "max_tokens": 32})
    yield provider
    provider.close()


def echoing():
    """Return a provider that says the last message, and waits for ever after "wait"."""

    def script(request):
        said = request.options["messages"][-1]["content"]
        return [Say(said), Pause(3600 if said == "wait" else 0)]

    return ScriptedProvider(script=script, tokens_per_second=None)


# A conversation.


async def test_a_text_is_streamed_as_the_whole_sequence_of_events(provider):
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": STORY}]
    async with running(provider) as gateway:
        expected = await native(gateway, said, 12)
        async with realtime(gateway, "?model=embedded") as client:
            assert client.session["model"] == "embedded"
            assert client.session["output_modalities"] == ["text"]
            await client.set(instructions="Be brief.", max_output_tokens=12)
            events = await client.ask(STORY)
    assert kinds(events) == TEXT_EVENTS
    assert len({event["event_id"] for event in events}) == len(events)
    end = events[-1]["response"]
    about = [event for event in events if "item_id" in event]
    places = {(e["response_id"], e["output_index"], e["content_index"]) for e in about}
    assert places == {(end["id"], 0, 0)}
    deltas = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    assert text_of(events[-1]) == deltas == expected["text"]
    assert end["usage"]["output_tokens"] == 12
    assert end["usage"]["input_tokens"] == expected["usage"]["prompt_tokens"]
    assert end["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}


async def test_a_function_is_called_and_its_output_is_read(provider):
    async with running(provider) as gateway, realtime(gateway) as client:
        choice = {"type": "function", "name": "add"}
        session = await client.set(tools=[ADD], tool_choice=choice)
        assert (session["tools"], session["tool_choice"]) == ([ADD], choice)
        events = await client.ask("What is 1 plus 2?")
        (call,) = events[-1]["response"]["output"]
        assert set(json.loads(call["arguments"])) == {"a", "b"}
        named = {e.get("call_id", call["call_id"]) for e in events}
        assert named == {call["call_id"]}
        _, before = await client.add(output(call["call_id"], "3"))
        assert before == call["id"]
        events = await client.create(tool_choice="none", max_output_tokens=8)
        assert text_of(events[-1])


async def test_the_conversation_is_kept_on_the_connection():
    provider = scripted(Reason("hm"), Say("so"), Call("f", {"a": 1}))
    async with running(provider) as gateway, realtime(gateway) as client:
        await client.add({"type": "message", "role": "system", "content": "Be brief."})
        end = (await client.ask("one", tools=[ADD]))[-1]["response"]
        await client.add(output(end["output"][-1]["call_id"], "1"))
        await client.create(tools=[ADD])
        async with realtime(gateway) as other:
            await other.ask("two")
    *_, second, third = provider.requests
    roles = [message["role"] for message in second.options["messages"]]
    assert roles == ["system", "user", "assistant", "tool"]
    answer = second.options["messages"][2]
    assert (answer["content"], answer["reasoning_content"]) == ("so", "hm")
    assert answer["tool_calls"][0]["function"]["name"] == "f"
    assert [message["content"] for message in third.options["messages"]] == ["two"]


async def test_items_are_put_deleted_and_shown_where_the_client_says():
    provider = echoing()
    async with running(provider) as gateway, realtime(gateway) as client:
        first, before = await client.add(user("one", id="one"))
        assert (first["id"], before) == ("one", None)
        await client.add(user("two", id="two"))
        _, before = await client.add(user("three", id="three"), previous_item_id="one")
        assert before == "one"
        await client.send("conversation.item.retrieve", item_id="one")
        assert (await client.receive())["item"] == first
        await client.send("conversation.item.delete", item_id="one")
        deleted = await client.receive()
        assert (deleted["type"], deleted["item_id"]) == ("conversation.item.deleted", "one")
        await client.create()
    said = [message["content"] for message in provider.requests[0].options["messages"]]
    assert said == ["three", "two"]


async def test_a_response_may_have_an_input_of_its_own_beside_the_conversation():
    provider = echoing()
    async with running(provider) as gateway, realtime(gateway) as client:
        await client.add(user("wait"))
        await client.send("response.create")
        (active, *_) = await client.until("response.output_text.delta")
        given = [user("aside")]
        events = await client.create(conversation="none", input=given, metadata={"topic": "b"})
        assert not any(event["type"].startswith("conversation.") for event in events)
        end = events[-1]["response"]
        assert (end["conversation_id"], end["metadata"]) == (None, {"topic": "b"})
        assert text_of(events[-1]) == "aside"
        await client.send("response.cancel", response_id=active["response"]["id"])
        end = (await client.until("response.done"))[-1]["response"]
        assert end["conversation_id"] == active["response"]["conversation_id"]


async def test_a_conversation_that_is_too_long_is_shortened_unless_that_is_forbidden(provider):
    async with running(provider, max_prompt_tokens=300) as gateway, realtime(gateway) as client:
        for _ in range(20):
            await client.add(user("x " * 40))
        (*_, end) = await client.ask(STORY, max_output_tokens=2)
        assert 100 < end["response"]["usage"]["input_tokens"] <= 300
        await client.set(truncation="disabled")
        (error,) = await client.create()
        assert error["error"]["code"] == "context_length_exceeded"
        assert error["error"]["param"] == "conversation"


async def test_items_may_be_deleted_while_a_prompt_that_was_too_long_is_shortened():
    gate = asyncio.Event()

    def script(request):
        given = [message["content"] for message in request.options["messages"]]
        too_long = ContextWindowExceededError(2, len(given))
        return [Say(" ".join(given))] if len(given) <= 2 else [Gate(gate), Fail(too_long)]

    provider = ScriptedProvider(script=script, tokens_per_second=None)
    async with running(provider) as gateway, realtime(gateway) as client:
        for name in "abcdef":
            await client.add(user(name, id=name))
        await client.send("response.create", response={"truncation": "auto"})
        await eventually(lambda: provider.live)
        for name in "abcde":
            await client.send("conversation.item.delete", item_id=name)
            await client.until("conversation.item.deleted")
        gate.set()
        assert text_of((await client.until("response.done"))[-1]) == "f"
        assert text_of((await client.ask("g"))[-1]).endswith("g")


# Refusals.


async def test_audio_is_refused_by_its_field():
    async with running(scripted(Say("a"))) as gateway, realtime(gateway) as client:
        audio = ["audio"]
        error = await client.refused("session.update", session={"output_modalities": audio})
        assert error["param"] == "session.output_modalities"
        error = await client.refused("response.create", response={"output_modalities": audio})
        assert error["param"] == "response.output_modalities"
        said = {**user("x"), "content": [{"type": "input_audio", "audio": "AA"}]}
        error = await client.refused("conversation.item.create", item=said)
        assert error["param"] == "item.content[0].type"
        for kind in ("input_audio_buffer.append", "conversation.item.truncate"):
            assert (await client.refused(kind, audio="AA"))["param"] == "type"
        assert text_of((await client.ask("hi"))[-1]) == "a"


@pytest.mark.parametrize(
    ("response", "code", "param"),
    [
        ({"temperature": 7}, "invalid_value", "response.temperature"),
        ({"max_output_tokens": 0}, "invalid_value", "response.max_output_tokens"),
        ({"input": []}, "missing_required_parameter", None),
        ({"input": [user("x " * 9000)]}, "context_length_exceeded", "response.input"),
        ({"tool_choice": "required"}, "invalid_value", "response.tool_choice"),
        ({"tools": [{"type": "mcp"}, ODD]}, "invalid_value", 0),
        ({"tools": [{**ADD, "name": "sub"}, ODD], "tool_choice": ONLY_ADD}, "invalid_value", 0),
    ],
)
async def test_a_response_that_is_refused_names_its_field(provider, response, code, param):
    async with running(provider) as gateway, realtime(gateway) as client:
        await client.add(user("hi"))
        error = await client.refused("response.create", response=response)
        assert error["code"] == code
        if param == 0:
            assert error["param"].startswith("response.tools[1].parameters")
        else:
            assert error["param"] == param
        assert (await client.create(max_output_tokens=1))[-1]["type"] == "response.done"


async def test_a_field_of_the_session_is_named_as_such(provider):
    async with running(provider) as gateway:
        async with realtime(gateway, "?model=gpt") as client:
            await client.add(user("hi"))
            error = await client.refused("response.create")
            assert (error["code"], error["param"]) == ("model_not_found", "session.model")
        async with realtime(gateway) as client:
            await client.set(temperature=7)
            await client.add(user("hi"))
            assert (await client.refused("response.create"))["param"] == "session.temperature"


async def test_what_is_no_event_is_told_and_ends_nothing():
    async with running(scripted(Say("a")), max_values=1024) as gateway:
        async with realtime(gateway) as client:
            for said in ("{", "[]"):
                await client.socket.send(said)
                error = (await client.receive())["error"]
                assert (error["code"], error["event_id"]) == ("invalid_json", None)
            assert (await client.refused("whatever"))["param"] == "type"
            many = [user("x")] * 500
            error = await client.refused("response.create", response={"input": many})
            assert error["type"] == "invalid_request_error"
            deep = {"a": {}}
            for _ in range(100):
                deep = {"a": deep}
            assert (await client.refused("session.update", session=deep))["param"] == "session"
            assert text_of((await client.ask("hi"))[-1]) == "a"


async def test_a_binary_message_ends_the_connection():
    async with running(scripted()) as gateway, realtime(gateway) as client:
        await client.socket.send(b"{}")
        with pytest.raises(ConnectionClosed):
            await client.receive()
        assert client.socket.close_code == CloseCode.NOT_A_FRAME


async def test_one_response_at_a_time_writes_to_the_conversation():
    gate = asyncio.Event()
    async with running(scripted(Say("a"), Gate(gate))) as gateway, realtime(gateway) as client:
        await client.add(user("hi"))
        await client.send("response.create")
        await client.until("response.output_text.delta")
        error = await client.refused("response.create")
        assert error["code"] == "conversation_already_has_active_response"
        gate.set()
        assert text_of((await client.until("response.done"))[-1]) == "a"


async def test_so_many_responses_run_on_a_connection():
    gate = asyncio.Event()
    provider = scripted(Say("a"), Gate(gate))
    async with running(provider, max_generations=2) as gateway, realtime(gateway) as client:
        beside = {"conversation": "none", "input": [user("hi")]}
        for _ in range(2):
            await client.send("response.create", response=beside)
        await eventually(lambda: len(provider.requests) == 2)
        await client.send("response.create", response=beside)
        error = (await client.until("error"))[-1]["error"]
        assert error["code"] == "rate_limit_exceeded"
        gate.set()


async def test_what_runs_and_what_is_said_is_counted_until_it_ends():
    gate = asyncio.Event()
    limits = {"request_bytes": 1 << 16, "response_bytes": 1 << 16}
    async with running(scripted(Say("a"), Gate(gate)), **limits) as gateway:
        held = gateway._generations.unbuilt
        async with realtime(gateway) as client:
            await client.add(user("x" * 20_000))
            error = await client.refused("conversation.item.create", item=user("x" * 20_000))
            assert error["code"] == "server_is_overloaded"
            asked = {"input": [user("y" * 2000)]}
            await client.send("response.create", response=asked)
            await client.until("response.output_text.delta")
            assert 2000 < held.held < 3000
            large = {"conversation": "none", "input": [user("y" * 20_000)]}
            error = await client.refused("response.create", response=large)
            assert error["code"] == "server_is_overloaded"
            gate.set()
            await client.until("response.done")
            assert held.held == 0
            gate.clear()
            await client.send("response.create", response=asked)
            await client.until("response.output_text.delta")
        await eventually(lambda: held.held == 0)
        async with realtime(gateway) as client:
            await client.add(user("x" * 20_000))


async def test_a_conversation_that_holds_too_much_takes_no_more_answers():
    provider = scripted(Say("x" * 5000))
    async with running(provider, response_bytes=9000) as gateway, realtime(gateway) as client:
        await client.add(user("hi"))
        await client.send("response.create")
        end = (await client.until("response.done"))[-1]["response"]
        error = await client.refused("response.create")
        assert error["code"] == "server_is_overloaded"
        beside = {"conversation": "none", "input": [user("hi")]}
        await client.send("response.create", response=beside)
        await client.until("response.done")
        await client.send("conversation.item.delete", item_id=end["output"][0]["id"])
        await client.send("response.create")
        assert (await client.until("response.done"))[-1]["response"]["status"] == "completed"


async def test_a_client_that_does_not_read_what_it_asks_to_see_is_not_read():
    async with running(scripted(), kernel_buffer_bytes=1024) as gateway:
        async with realtime(gateway, max_queue=1, close_timeout=0.1) as client:
            item, _ = await client.add(user("x" * 300_000))
            (connection,) = gateway._connections
            sent = 0
            while connection._flushed.is_set() or not connection._dialect.waiting_bytes:
                await client.send("conversation.item.retrieve", item_id=item["id"])
                await asyncio.sleep(0)
                sent += 1
                assert sent < 250, "it is read, whatever waits"
            assert connection._dialect.waiting_bytes < 3 * 300_000
            for _ in range(sent):
                assert (await client.receive())["item"] == item


async def test_sessions_are_counted_with_the_conversations():
    long = "x" * 30_000
    async with running(scripted(), response_bytes=100_000) as gateway:
        async with realtime(gateway) as client, realtime(gateway) as other:
            (kept,) = {one._dialect._kept for one in gateway._connections}
            assert (await client.set(instructions=long))["instructions"] == long
            assert 30_000 < kept.held < 31_000
            error = await other.refused("session.update", session={"instructions": long})
            assert (error["type"], error["code"]) == ("server_error", "server_is_overloaded")
            await client.set(instructions="short")
            await other.set(instructions=long)
        await eventually(lambda: kept.held == 0)


async def test_tools_of_other_types_are_left_out_and_the_log_says_which(caplog):
    provider = scripted(Say("a"))
    async with running(provider) as gateway, realtime(gateway) as client:
        with caplog.at_level(logging.INFO, "gateway.dialects"):
            for _ in range(2):
                await client.ask("hi", tools=[{"type": "mcp", "server_label": "s"}, ADD])
    assert [tool["name"] for tool in provider.requests[-1].tools] == ["add"]
    said = [r.getMessage() for r in caplog.records if r.name.startswith("gateway.dialects")]
    assert said == ["tools of the types mcp are left out of prompts"]


# Its end.


@pytest.mark.parametrize("by_id", [True, False])
async def test_a_cancel_ends_a_response_with_one_done(by_id):
    provider = echoing()
    async with running(provider) as gateway, realtime(gateway) as client:
        await client.add(user("wait"))
        await client.send("response.create")
        events = await client.until("response.output_text.delta")
        own = {"response_id": events[0]["response"]["id"]} if by_id else {}
        await client.send("response.cancel", **own)
        end = (await client.until("response.done"))[-1]["response"]
        assert end["status"] == "cancelled"
        assert end["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        assert end["output"][0]["status"] == "incomplete"
        await eventually(lambda: not provider.live)
        error = await client.refused("response.cancel", **own)
        assert error["code"] == "response_cancel_not_active"
        await client.ask("go on")
    said = [message["content"] for message in provider.requests[-1].options["messages"]]
    assert said == ["wait", "wait", "go on"]


async def test_a_response_may_be_asked_for_right_after_a_cancel():
    async with running(echoing()) as gateway, realtime(gateway) as client:
        await client.add(user("wait"))
        await client.send("response.create")
        await client.until("response.output_text.delta")
        await client.send("response.cancel")
        await client.send("conversation.item.create", item=user("next"))
        await client.send("response.create")
        ends = [(await client.until("response.done"))[-1] for _ in range(2)]
    assert [end["response"]["status"] for end in ends] == ["cancelled", "completed"]
    assert text_of(ends[1]) == "next"


async def test_a_cancel_stops_the_model_in_the_package(provider):
    async with running(provider) as gateway, realtime(gateway) as client:
        before = provider.statistics()
        await client.add(user(STORY))
        await client.send("response.create", response={"max_output_tokens": 100_000})
        await client.until("response.output_text.delta")
        await client.send("response.cancel")
        end = (await client.until("response.done"))[-1]
        assert end["response"]["status"] == "cancelled"
        await eventually(lambda: gateway.live == 0 and provider.statistics().decoding == 0)
        assert provider.statistics().decode_tokens - before.decode_tokens < 1000


async def test_one_that_waits_is_created_and_one_that_breaks_fails():
    provider = scripted(Queue(1), Say("a"), Fail(RuntimeError("broken")))
    async with running(provider) as gateway, realtime(gateway) as client:
        events = await client.ask("hi")
    assert kinds(events).count("created") == 1
    end = events[-1]["response"]
    assert (end["status"], end["status_details"]["type"]) == ("failed", "failed")
    assert end["status_details"]["error"]["type"] == "server_error"


async def test_a_closed_socket_stops_the_model():
    provider = echoing()
    async with running(provider) as gateway, realtime(gateway) as client:
        await client.add(user("wait"))
        await client.send("response.create")
        await client.until("response.output_text.delta")
        client.socket.transport.abort()
        await eventually(lambda: not provider.live)


# The handshake.


async def test_the_path_is_for_websockets():
    async with running(scripted()) as gateway:
        status, body, headers = await get(gateway, "/v1/realtime")
        assert (status, headers["Upgrade"]) == (426, "websocket")
        assert b"Realtime" in body


async def test_a_token_is_shown_in_the_handshake():
    async with running(scripted(Say("a")), TOKENS) as gateway:
        with pytest.raises(InvalidStatus, match="401"):
            async with realtime(gateway):
                pass
        for shown in (
            {"additional_headers": {"Authorization": "Bearer sesame"}},
            {"subprotocols": ["realtime", "openai-insecure-api-key.sesame"]},
        ):
            async with realtime(gateway, **shown) as client:
                assert text_of((await client.ask("hi"))[-1]) == "a"


def test_a_browser_shows_its_token_as_openai_or_as_here():
    assert secret_in(["realtime", "openai-insecure-api-key.abc"]) == "abc"
    assert secret_in(["realtime", "mlx-gateway.bearer.c2VzYW1l"]) == "sesame"
    assert secret_in(["realtime"]) is None
