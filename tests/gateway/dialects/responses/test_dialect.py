"""Responses over real sockets, on the model in the package where a model matters."""

import asyncio
import json

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.protocol.codes import CloseCode
from provider.scripted import Gate, Pause, Queue, Say
from tests.gateway.dialects.responses.clients import kinds, responding, text_of
from tests.support.servers import TOKENS, eventually, get, native, running, scripted

STORY = "Tell me a story about a fox"
TEXT_EVENTS = [
    "created",
    "in_progress",
    "output_item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "output_item.done",
    "completed",
]


async def test_a_text_is_streamed_as_the_whole_sequence_of_events(provider):
    async with running(provider) as gateway, responding(gateway) as client:
        events = await client.create("What is two plus two?", max_output_tokens=400)
    assert [kind for kind in kinds(events) if kind != "queued"] == TEXT_EVENTS
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert not any("stream_id" in event for event in events)
    created, end = events[0]["response"], events[-1]["response"]
    assert created["output"] == []
    assert {event["response"]["id"] for event in events if "response" in event} == {end["id"]}
    (item,) = end["output"]
    about = [event for event in events if "item_id" in event]
    places = {(e["item_id"], e["output_index"], e["content_index"]) for e in about}
    assert places == {(item["id"], 0, 0)}
    text = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    assert (item["role"], item["status"], item["content"]) == ("assistant", "completed", [part])
    assert events[-4]["text"] == text
    assert events[-3]["part"] == part
    assert events[-2]["item"] == item
    assert end["status"] == "completed"
    assert end["completed_at"] >= end["created_at"]


async def test_its_text_and_its_usage_are_those_of_the_native_language(provider):
    async with running(provider) as gateway:
        expected = await native(gateway, [{"role": "user", "content": STORY}], 20)
        async with responding(gateway) as client:
            end = (await client.create(STORY, max_output_tokens=20))[-1]["response"]
    assert text_of(end) == expected["text"]
    usage = end["usage"]
    assert usage["output_tokens"] == 20
    assert usage["input_tokens"] == expected["usage"]["prompt_tokens"]
    assert usage["total_tokens"] == usage["input_tokens"] + 20
    assert usage["input_tokens_details"]["cached_tokens"] >= 0
    assert usage["output_tokens_details"] == {"reasoning_tokens": 0}


async def test_an_answer_that_is_cut_is_incomplete(provider):
    async with running(provider) as gateway, responding(gateway) as client:
        events = await client.create(STORY, max_output_tokens=3)
    end = events[-1]
    assert end["type"] == "response.incomplete"
    assert end["response"]["status"] == "incomplete"
    assert end["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert end["response"]["output"][0]["status"] == "incomplete"


async def test_messages_of_all_roles_are_read(provider):
    items = [
        {"role": "developer", "content": "You are terse."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hello!"}]},
        {"role": "user", "content": STORY},
    ]
    said = [
        {"role": "system", "content": "Be brief.\n\nYou are terse."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": STORY},
    ]
    async with running(provider) as gateway:
        expected = await native(gateway, said, 12)
        async with responding(gateway) as client:
            events = await client.create(items, instructions="Be brief.", max_output_tokens=12)
    assert text_of(events[-1]["response"]) == expected["text"]


async def test_a_conversation_that_is_too_long_is_shortened_if_asked_for(provider):
    talk = [{"role": role, "content": "x " * 40} for role in ("user", "assistant")] * 10
    talk.append({"role": "user", "content": STORY})
    async with (
        running(provider, max_prompt_tokens=300) as gateway,
        responding(gateway) as client,
    ):
        (error,) = await client.create(talk, max_output_tokens=2)
        assert error["error"]["code"] == "context_length_exceeded"
        events = await client.create(talk, max_output_tokens=2, truncation="auto")
        end = events[-1]["response"]
        assert (end["status"], end["truncation"]) == ("incomplete", "auto")
        assert 100 < end["usage"]["input_tokens"] <= 300
        assert kinds(events).count("created") == 1
        (error,) = await client.create("x " * 400, truncation="auto")
        assert error["error"]["code"] == "context_length_exceeded"


async def test_a_response_that_waits_says_so():
    async with running(scripted(Queue(1), Say("a"))) as gateway, responding(gateway) as client:
        events = await client.create("hi")
    assert kinds(events)[:3] == ["created", "queued", "in_progress"]
    assert events[1]["response"]["status"] == "queued"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"input": "x", "temperature": 7}, 400, "invalid_value", "temperature"),
        ({"input": "x", "max_output_tokens": 0}, 400, "invalid_value", "max_output_tokens"),
        ({"input": "x", "max_output_tokens": "9"}, 400, "invalid_type", "max_output_tokens"),
        ({"input": "x", "conversation": "c"}, 400, "unsupported_parameter", "conversation"),
        ({"input": "x", "model": "gpt"}, 404, "model_not_found", "model"),
        ({"input": "x " * 9000}, 400, "context_length_exceeded", "input"),
        ({}, 400, "missing_required_parameter", "input"),
        ({"input": [{"role": "judge"}]}, 400, "invalid_value", "input[0].role"),
    ],
)
async def test_a_request_that_is_refused_names_its_field(provider, fields, status, code, param):
    async with running(provider) as gateway, responding(gateway) as client:
        (error,) = await client.create(**fields)
        assert error["type"] == "error"
        assert error["status"] == status
        assert error["error"]["type"] == "invalid_request_error"
        assert (error["error"]["code"], error["error"]["param"]) == (code, param)
        assert error["sequence_number"] == 0
        assert "stream_id" not in error
        events = await client.create("Hi", max_output_tokens=1)
        assert events[-1]["type"] == "response.incomplete"


@pytest.mark.parametrize("said", ["{", "[]", '{"input": "x"}', '{"type": 1}'])
async def test_what_is_no_request_is_told_and_ends_nothing(said):
    async with running(scripted(Say("a"))) as gateway, responding(gateway) as client:
        await client.socket.send(said)
        error = await client.receive()
        assert (error["status"], error["error"]["code"]) == (400, "invalid_json")
        assert (await client.create("hi"))[-1]["type"] == "response.completed"


async def test_a_binary_message_ends_the_connection():
    async with running(scripted()) as gateway, responding(gateway) as client:
        await client.socket.send(b"{}")
        with pytest.raises(ConnectionClosed):
            await client.receive()
        assert client.socket.close_code == CloseCode.NOT_A_FRAME


async def test_unknown_types_of_messages_are_ignored():
    async with running(scripted()) as gateway, responding(gateway) as client:
        await client.send("response.processed", response_id="resp_1")
        await client.send("whatever")
        await client.nothing_comes()


async def test_steering_is_refused_with_what_it_was():
    async with running(scripted()) as gateway, responding(gateway) as client:
        await client.send("response.steer", previous_response_id="resp_1", input="left")
        event = await client.receive()
        await client.send("response.steer", previous_response_id="resp_1", input="x" * 5000)
        assert (await client.receive())["steer"] == {"input": "", "previous_response_id": ""}
    assert event["type"] == "response.steer.failed"
    assert event["error"]["code"] == "steering_not_supported"
    assert event["steer"] == {"input": "left", "previous_response_id": "resp_1"}


async def test_a_model_that_says_half_a_character_is_read_and_continued():
    async with running(scripted(Say("\ud800x"))) as gateway, responding(gateway) as client:
        end = (await client.create("hi"))[-1]["response"]
        assert text_of(end) == "?x"
        end = (await client.create("and?", previous_response_id=end["id"]))[-1]
        assert end["type"] == "response.completed"


# Cancelling.


@pytest.mark.parametrize("by_id", [True, False])
async def test_a_cancel_ends_a_response_with_one_incomplete(by_id):
    provider = scripted(Say("one two"), Pause(3600))
    async with running(provider) as gateway, responding(gateway) as client:
        await client.send("response.create", input="hi")
        events = await client.until("response.output_text.delta")
        own = {"response_id": events[0]["response"]["id"]} if by_id else {}
        for _ in range(2):
            await client.send("response.cancel", **own)
        end = (await client.until_end())[-1]
        assert end["type"] == "response.incomplete"
        assert end["response"]["status"] == "cancelled"
        assert end["response"]["output"][0]["status"] == "incomplete"
        await eventually(lambda: not provider.live)
        await client.nothing_comes()


async def test_a_late_or_a_wrong_cancel_is_silent():
    async with running(scripted(Say("a"))) as gateway, responding(gateway) as client:
        own = (await client.create("hi"))[0]["response"]["id"]
        for fields in ({}, {"response_id": own}, {"response_id": "x"}, {"stream_id": "x"}):
            await client.send("response.cancel", **fields)
        await client.nothing_comes()


@pytest.mark.parametrize("wrong", [{"response_id": 5}, {"stream_id": ["x"]}])
async def test_a_cancel_of_what_is_no_name_cancels_nothing(wrong):
    gate = asyncio.Event()
    async with running(scripted(Say("a"), Gate(gate))) as gateway, responding(gateway) as client:
        await client.send("response.create", input="hi")
        await client.until("response.output_text.delta")
        await client.send("response.cancel", **wrong)
        await client.nothing_comes()
        gate.set()
        assert (await client.until_end())[-1]["type"] == "response.completed"


async def test_a_reader_that_stops_holds_the_provider_up_and_gets_all_later():
    provider = scripted(*[Say("x" * 1000)] * 3000)
    limits = {"outbox_bytes": 4096, "kernel_buffer_bytes": 1024}
    reader = {"max_queue": 1, "max_size": None}
    async with running(provider, **limits) as gateway, responding(gateway, **reader) as client:
        await client.send("response.create", input="hi")
        await eventually(lambda: provider.live)
        (request,) = provider.requests
        before = -1
        while before != request.produced:
            before = request.produced
            await asyncio.sleep(0.05)
        assert request.produced < 3000
        events = await client.until_end()
        assert [e["sequence_number"] for e in events] == list(range(len(events)))
        assert len(text_of(events[-1]["response"])) == 3_000_000


async def test_a_closed_socket_stops_the_model():
    provider = scripted(Say("a"), Pause(3600))
    async with running(provider) as gateway, responding(gateway) as client:
        await client.send("response.create", input="hi")
        await client.until("response.output_text.delta")
        client.socket.transport.abort()
        await eventually(lambda: not provider.live)


async def test_a_cancel_stops_the_model_in_the_package(provider):
    async with running(provider) as gateway, responding(gateway) as client:
        before = provider.statistics()
        await client.send("response.create", input=STORY, max_output_tokens=100_000)
        await client.until("response.output_text.delta")
        await client.send("response.cancel")
        end = (await client.until_end())[-1]
        assert end["response"]["status"] == "cancelled"
        await eventually(lambda: gateway.live == 0 and provider.statistics().decoding == 0)
        assert provider.statistics().decode_tokens - before.decode_tokens < 1000


# The handshake.


async def test_the_path_is_for_websockets():
    async with running(scripted()) as gateway:
        status, body, headers = await get(gateway, "/v1/responses")
        assert (status, headers["Upgrade"]) == (426, "websocket")
        assert b"Responses" in body


async def test_a_post_gets_an_answer():
    async with running(scripted()) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        body = json.dumps({"input": "hi"})
        head = f"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"WebSocket" in answer


@pytest.mark.parametrize("shown", [{}, {"Authorization": "Bearer wrong"}])
async def test_a_token_is_shown_in_the_handshake(shown):
    async with running(scripted(Say("a")), TOKENS) as gateway:
        with pytest.raises(InvalidStatus, match="401"):
            async with responding(gateway, additional_headers=shown):
                pass
        headers = {"Authorization": "Bearer sesame"}
        async with responding(gateway, additional_headers=headers) as client:
            assert (await client.create("hi"))[-1]["type"] == "response.completed"


async def test_a_gateway_that_stops_ends_what_runs_and_what_waits():
    gate = asyncio.Event()
    provider = scripted(Say("a"), Gate(gate))
    async with running(provider, shutdown_grace_s=0) as gateway, responding(gateway) as client:
        for _ in range(2):
            await client.send("response.create", input="hi")
        await client.until("response.output_text.delta")
        await gateway.close()
        end = (await client.until_end())[-1]
        assert end["response"]["status"] == "cancelled"
        assert (await client.receive())["error"]["code"] == "server_shutting_down"
        with pytest.raises(ConnectionClosed):
            await client.receive()
        assert client.socket.close_code == CloseCode.RESTART
