"""AI SDK's chat over real sockets, on the model in the package where a model matters."""

import asyncio
import base64
import hashlib
import json

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.dialects.chat.dialect import MAX_CONTINUED
from gateway.protocol.codes import CloseCode
from gateway.protocol.frames import Generate
from gateway.server.tokens import Token, Tokens
from provider import MLXProvider
from provider.scripted import Call, Gate, Pause, Prefill, Queue, Reason, Say
from tests.gateway.dialects.chat.clients import (
    chatting,
    chunks,
    is_text,
    kinds,
    text_of,
    user,
)
from tests.support.servers import TOKENS, eventually, get, metrics_of, running, scripted, wired

STORY = "Tell me a story about a fox"
WHOLE = ["start", "start-step", "text-start", "text-delta", "text-end", "finish-step"]


@pytest.fixture(scope="module")
def provider():
    provider = MLXProvider({"temperature": 0.0, "max_tokens": 32})
    yield provider
    provider.close()


async def metric(gateway, name):
    _, text, _ = await metrics_of(gateway)
    lines = [line for line in text.decode().splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].split()[-1])


# Sending. ----------------------------------------------------------------------------------------


async def test_a_text_is_streamed_as_the_whole_sequence_of_chunks(provider):
    async with running(provider) as gateway, chatting(gateway) as client:
        frames = await client.answer(STORY, body={"maxOutputTokens": 20, "userId": 7})
        async with wired(gateway) as wire:
            messages = [{"role": "user", "content": STORY}]
            await wire.send(Generate(id="a", messages=messages, max_tokens=20, stream=False))
            expected = (await wire.until("done"))[-1]
    assert kinds(frames) == [*WHOLE, "data-usage", "finish"]
    assert frames[-1]["type"] == "end"
    assert text_of(frames) == expected["text"]
    first, *_, usage, finish = chunks(frames)
    assert first["messageId"].startswith("msg-")
    assert finish["finishReason"] == "length"
    assert usage["data"]["usage"]["completion_tokens"] == 20
    assert usage["transient"]


async def test_a_system_message_and_earlier_turns_reach_the_model(provider):
    turns = [
        {"id": "s", "role": "system", "parts": [{"type": "text", "text": "Be short."}]},
        user("Hello"),
        {
            "id": "a",
            "role": "assistant",
            "parts": [
                {"type": "step-start"},
                {"type": "reasoning", "text": "hm"},
                {"type": "text", "text": "Hi!", "state": "done"},
                {"type": "source-url", "sourceId": "1", "url": "https://a.example"},
            ],
        },
        user("How are you?"),
    ]
    plain = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "How are you?"},
    ]
    async with running(provider) as gateway, chatting(gateway) as client:
        frames = await client.answer(turns, body={"max_tokens": 12})
        async with wired(gateway) as wire:
            await wire.send(Generate(id="a", messages=plain, max_tokens=12, stream=False))
            assert text_of(frames) == (await wire.until("done"))[-1]["text"]


async def test_chats_run_beside_each_other_on_one_connection(provider):
    async with running(provider) as gateway, chatting(gateway) as client:
        requests = {await client.ask(STORY, chat=f"chat {n}") for n in range(3)}
        texts = dict.fromkeys(requests, "")
        ended = set()
        while ended != requests:
            frame = await client.receive()
            if is_text(frame):
                texts[frame["requestId"]] += frame["chunk"]["delta"]
            elif frame["type"] == "end":
                ended.add(frame["requestId"])
        assert len(set(texts.values())) == 1


async def test_reasoning_comes_in_parts_of_its_own():
    script = (Queue(2), Prefill(3, 9), Reason("hm so"), Say("So."))
    async with running(scripted(*script)) as gateway, chatting(gateway) as client:
        frames = await client.answer("hi")
    reasoning = ["reasoning-start", "reasoning-delta", "reasoning-end"]
    assert kinds(frames) == [*WHOLE[:2], *reasoning, *WHOLE[2:], "data-usage", "finish"]
    assert text_of(frames, "reasoning") == "hm so"
    ids = [one["id"] for one in chunks(frames) if one["type"].endswith("-start") and "id" in one]
    assert len(set(ids)) == 2
    told = [one for one in chunks(frames, waiting=True) if one["type"] == "data-progress"]
    assert {"queued": {"position": 2}} in [one["data"] for one in told]
    assert all(one["transient"] for one in told)


# Tools. ------------------------------------------------------------------------------------------

WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


async def test_a_tool_is_called_and_its_output_is_answered(provider):
    body = {"tools": [WEATHER], "maxOutputTokens": 100}
    async with running(provider) as gateway, chatting(gateway) as client:
        asked = user("What is the weather in Paris?")
        choice = {"type": "tool", "toolName": "get_weather"}
        frames = await client.answer([asked], body={**body, "toolChoice": choice})
        made = chunks(frames)
        (call,) = [one for one in made if one["type"] == "tool-input-available"]
        text = "".join(one["inputTextDelta"] for one in made if "inputTextDelta" in one)
        assert call["toolName"] == "get_weather"
        assert call["input"] == json.loads(text)
        assert made[-1]["finishReason"] == "tool-calls"
        begun = kinds(frames).index("tool-input-start")
        assert kinds(frames)[begun : begun + 3] == [
            "tool-input-start",
            "tool-input-delta",
            "tool-input-available",
        ]
        part = {
            "type": "tool-get_weather",
            "toolCallId": call["toolCallId"],
            "state": "output-available",
            "input": call["input"],
            "output": {"temperature": 21, "sky": "clear"},
        }
        answered = {"id": "m1", "role": "assistant", "parts": [{"type": "step-start"}, part]}
        frames = await client.answer([asked, answered], body=body)
    assert chunks(frames)[0]["messageId"] == "m1"  # it goes on with that message
    assert "21" in text_of(frames)


async def test_what_cannot_be_read_as_a_call_is_an_error_of_that_call():
    script = (Say("I look."), Call("f", {"a": 1}), Call("g", {}))
    async with running(scripted(*script)) as gateway, chatting(gateway) as client:
        frames = await client.answer("hi")
    made = [one for one in chunks(frames) if one["type"] == "tool-input-available"]
    assert [(one["toolName"], one["input"]) for one in made] == [("f", {"a": 1}), ("g", {})]


# Files. ------------------------------------------------------------------------------------------


def file_part(kind, data, **more):
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "file", "mediaType": kind, "url": url, **more}


async def test_files_reach_the_model():
    provider = scripted(Say("ok"))
    turn = user("What is this?")
    turn["parts"] += [file_part("text/plain", b"A note.", filename="note.txt")]
    turn["parts"] += [file_part("image/png", b"\x89PNG")]
    async with running(provider) as gateway, chatting(gateway) as client:
        assert (await client.answer([turn]))[-1]["type"] == "end"
    (request,) = provider.requests
    (file,) = request.files
    assert (file.name, file.mime, file.data) == ("note.txt", "text/plain", b"A note.")
    (message,) = request.options["messages"]
    assert [part["type"] for part in message["content"]] == ["text", "image_url"]


# Errors. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"messages": []}, "invalid_request: `messages`: must be a list of UI messages"),
        ({"messages": [{"role": "tool", "parts": []}]}, "`messages[0]`: must be a UI message"),
        ({"messages": [user("x"), {"role": "user"}]}, "`messages[1].parts`: must be a list"),
        (
            {
                "messages": [
                    user("x", parts=[{"type": "file", "mediaType": "a/b", "url": "http:a"}])
                ]
            },
            "`messages[0].parts[0].url`: must be a data URL",
        ),
        ({"body": {"temperature": "hot"}}, "`body.temperature`: expected `float | null`"),
        ({"body": {"topP": 7}}, "`body.topP`: must be"),
        ({"body": {"n": 2}}, "`body.n`: an answer is one message"),
        ({"body": {"max_tokens": 1, "maxTokens": 2}}, "`body.maxTokens`: differs from"),
        ({"body": {"model": "other"}}, "unknown_model: "),
        ({"body": {"tools": [{"name": "a b"}]}}, "`body.tools[0].name`: must be"),
        ({"body": []}, None),
        ({"trigger": "resend"}, "`trigger`: must be one of submit-message"),
        ({"chat": 7}, "`id`: must be a string"),
    ],
)
async def test_a_wrong_field_is_named_by_its_path(provider, fields, said):
    fields = {"messages": "hi", **fields}
    async with running(provider) as gateway, chatting(gateway) as client:
        (frame,) = [one for one in await client.answer(**fields) if one["type"] != "chunk"]
        if said is None:
            assert frame["type"] == "end"
        else:
            assert frame["type"] == "error"
            assert said in frame["errorText"]


@pytest.mark.parametrize("message", ["{", "[]", "{}", '{"type": "send"}', b"{}"])
async def test_no_frame_ends_the_connection(message):
    async with running(scripted()) as gateway, chatting(gateway) as client:
        await client.socket.send(message)
        with pytest.raises(ConnectionClosed):
            await client.receive()
        assert client.socket.close_code == CloseCode.NOT_A_FRAME


async def test_a_frame_with_too_many_values_is_an_error_of_its_request():
    async with running(scripted(), max_values=3000) as gateway, chatting(gateway) as client:
        request = await client.ask("hi", body={"a": [1] * 9000})
        (frame,) = await client.until_end()
    assert frame["requestId"] == request
    assert "3000 keys and values" in frame["errorText"]


async def test_a_frame_that_is_nested_too_deep_is_an_error_of_its_request():
    deep = {}
    for _ in range(99):
        deep = {"a": deep}
    async with running(scripted()) as gateway, chatting(gateway) as client:
        (frame,) = await client.answer("hi", body=deep)
    assert frame["errorText"] == "invalid_request: `body`: nested deeper than 64"


async def test_the_limits_of_a_gateway_hold_here_too():
    async with running(scripted(Pause(3600)), max_generations=1) as gateway:
        async with chatting(gateway) as client:
            await client.ask("hi", chat="a")
            request = await client.ask("hi", chat="b")
            (frame,) = await client.until(lambda one: one["requestId"] == request)
    assert frame["errorText"].startswith("rate_limited: at most 1 generation")
    assert "retry after 1 s" in frame["errorText"]


async def test_a_token_is_shown_in_the_handshake_or_as_a_subprotocol():
    encoded = base64.urlsafe_b64encode(b"sesame").decode().rstrip("=")
    bearer = f"mlx-gateway.bearer.{encoded}"
    async with running(scripted(Say("x")), TOKENS) as gateway:
        header = {"Authorization": "Bearer sesame"}
        async with chatting(gateway, additional_headers=header) as client:
            assert text_of(await client.answer("hi")) == "x"
        async with chatting(gateway, subprotocols=["ai-sdk.v1", bearer]) as client:
            assert client.socket.subprotocol == "ai-sdk.v1"
            assert text_of(await client.answer("hi")) == "x"
        with pytest.raises(InvalidStatus, match="401"):
            async with chatting(gateway):
                pass


async def test_a_plain_get_says_what_the_path_is_for():
    async with running(scripted()) as gateway:
        status, body, _ = await get(gateway, "/v1/chat")
    assert status == 426
    assert b"WebSocketChatTransport" in body


# Stopping. ---------------------------------------------------------------------------------------


async def test_an_abort_stops_the_model(provider):
    async with running(provider) as gateway, chatting(gateway) as client:
        request = await client.ask(STORY, body={"maxOutputTokens": 4000})
        await client.until_text(2)
        await client.abort(request)
        frames = await client.until_end()
        assert [chunks(frames)[-1]["type"], frames[-1]["type"]] == ["abort", "end"]
        await eventually(lambda: not gateway._generations.live)
        stopped = 'mlx_gateway_generations_ended_total{reason="cancelled"}'
        assert await metric(gateway, stopped) == 1
        assert await metric(gateway, "mlx_gateway_completion_tokens_total") < 4000
        await client.resume()
        assert (await client.receive())["type"] == "no-active"


async def test_a_chat_goes_on_at_once_after_an_abort():
    provider = scripted(Say("a"), Pause(3600))
    async with running(provider) as gateway, chatting(gateway) as client:
        for _ in range(2):
            request = await client.ask("hi")
            await client.until_text()
            await client.abort(request)
        await client.abort(request)
        await client.abort("unknown")
        await client.ask("hi")
        frames = await client.until_text()
    assert "error" not in {frame["type"] for frame in frames}


async def test_a_chat_has_one_answer_at_a_time():
    async with running(scripted(Say("a"), Pause(3600))) as gateway:
        async with chatting(gateway) as client, chatting(gateway) as other:
            await client.ask("hi")
            await client.until_text()
            for one in (client, other):
                (frame,) = await one.answer("again")
                assert frame["errorText"] == ("duplicate_id: an answer of this chat is being made")


# Resuming. ---------------------------------------------------------------------------------------


async def test_an_answer_is_told_again_from_its_beginning_after_a_reload(provider):
    async with running(provider) as gateway:
        async with chatting(gateway) as client:
            await client.ask(STORY, body={"maxOutputTokens": 40})
            before = await client.until_text(3)
            await client.socket.close(CloseCode.GOING_AWAY)  # as a page that is loaded again
        async with chatting(gateway) as client:
            await client.resume()
            frames = await client.until_end()
            assert frames[0]["type"] == "start"
            assert frames[-1]["type"] == "end"
            assert kinds(frames) == [*WHOLE, "data-usage", "finish"]
            first = [one for one in chunks(before) if one["type"] != "data-progress"]
            assert chunks(frames)[: len(first)] == first
            whole = text_of(await client.answer(STORY, chat="d", body={"maxOutputTokens": 40}))
            assert text_of(frames) == whole


async def test_what_nobody_began_or_has_failed_is_not_resumed():
    async with running(scripted(Pause(3600))) as gateway, chatting(gateway) as client:
        await client.resume()
        assert [one["type"] for one in await client.until_end()] == ["no-active"]
        (frame,) = await client.answer("hi", body={"topP": 7})
        assert frame["type"] == "error"
        await client.resume()
        assert [one["type"] for one in await client.until_end()] == ["no-active"]
        (frame,) = [await client.resume(lastSequence=3)] and await client.until_end()
        assert "`lastSequence`" in frame["errorText"]


async def test_what_is_kept_no_longer_is_not_resumed():
    async with running(scripted(Say("a"), Pause(3600)), resume_ttl_s=0.0) as gateway:
        async with chatting(gateway) as client:
            await client.ask("hi")
            await client.until_text()
        await eventually(lambda: not gateway._generations.live)
        async with chatting(gateway) as client:
            await client.resume()
            assert [one["type"] for one in await client.until_end()] == ["no-active"]


async def test_one_chat_is_read_in_two_pages_and_stopped_in_either():
    go = asyncio.Event()
    provider = scripted(Say("a"), Gate(go), Say("b"), Pause(3600))
    async with running(provider) as gateway, chatting(gateway) as first:
        await first.ask("hi")
        await first.until_text()
        async with chatting(gateway) as second:
            request = await second.resume()
            assert text_of(await second.until_text()) == "a"
            go.set()
            assert [text_of(await one.until_text()) for one in (first, second)] == ["b", "b"]
            await second.abort(request)
            for one in (first, second):
                assert chunks(await one.until_end())[-1]["type"] == "abort"
        await eventually(lambda: not provider.live)


async def test_the_older_page_stops_what_the_newer_reads():
    go = asyncio.Event()
    provider = scripted(Say("a"), Gate(go), Say("b"), Pause(3600))
    async with running(provider) as gateway:
        async with chatting(gateway) as first, chatting(gateway) as second:
            request = await first.ask("hi")
            await first.until_text()
            await second.resume()
            await second.until_text()
            go.set()
            await first.until_text()
            await first.abort(request)
            assert chunks(await second.until_end())[-1]["type"] == "abort"
        await eventually(lambda: not provider.live)


async def test_the_older_page_reads_on_when_the_newer_is_closed():
    read, closed = asyncio.Event(), asyncio.Event()
    provider = scripted(Say("a"), Gate(read), Say("b"), Gate(closed), Say("c"), Say("d"))
    async with running(provider) as gateway, chatting(gateway) as first:
        await first.ask("hi")
        await first.until_text()
        async with chatting(gateway) as second:
            await second.resume()
            await second.until_text()
            read.set()
            await first.until_text()
        await eventually(lambda: gateway._generations.connections == 1)
        closed.set()
        frames = await first.until_end()
        assert text_of(frames) == "cd"
        assert gateway._generations.metrics.resumed == 2


async def test_an_answer_that_nobody_reads_is_stopped_by_the_next_of_its_chat():
    provider = scripted(Say("a"), Pause(3600))
    async with running(provider) as gateway:
        async with chatting(gateway) as client:
            await client.ask("hi")
            await client.until_text()
        await eventually(lambda: not gateway._generations.connections)
        assert len(provider.live) == 1
        async with chatting(gateway) as client:
            await client.ask("again")
            frames = await client.until_text()
            assert {frame["requestId"] for frame in frames} == {"r0"}
            await eventually(lambda: len(provider.live) == 1)
            assert gateway._generations.metrics.ended["cancelled"] == 1


async def test_no_error_is_told_of_an_answer_that_can_no_longer_be_stopped():
    provider = scripted(Say("a"), Pause(3600))
    async with running(provider, resume_ttl_s=0.0) as gateway:
        async with chatting(gateway) as client:
            await client.ask("hi")
            await client.until_text()
        await eventually(lambda: not gateway._generations.live)
        provider.script = [Say("a")]
        async with chatting(gateway) as client:
            frames = await client.answer("again")
    assert frames[-1]["type"] == "end"
    assert {frame["requestId"] for frame in frames} == {"r0"}


async def test_an_answer_that_a_full_connection_can_not_stop_is_stopped_later():
    provider = scripted(Say("a"), Pause(3600))
    async with running(provider, max_generations=2) as gateway:
        async with chatting(gateway) as client:
            await client.ask("hi")
            await client.until_text()
        await eventually(lambda: not gateway._generations.connections)
        async with chatting(gateway) as client:
            others = [await client.ask("hello", chat=chat) for chat in ("d", "e")]
            await client.until_text(2)
            (refused,) = await client.answer("again")
            assert (refused["requestId"], refused["type"]) == ("r2", "error")
            assert "rate_limited" in refused["errorText"]
            assert len(provider.live) == 3
            for other in others:
                await client.abort(other)
                await client.until_end()
            await client.ask("again")
            await client.until_text()
            await eventually(lambda: len(provider.live) == 1)
            assert gateway._generations.metrics.ended["cancelled"] == 3


async def test_a_message_that_went_on_is_told_again_as_a_whole():
    part = {
        "type": "tool-f",
        "toolCallId": "1",
        "state": "output-available",
        "input": {"a": 1},
        "output": 5,
    }
    earlier = [{"type": "step-start"}, {"type": "text", "text": "I look."}, part]
    turns = [user("hi"), {"id": "m1", "role": "assistant", "parts": earlier}]
    async with running(scripted(Say("It is 5."), Pause(3600))) as gateway:
        async with chatting(gateway) as client:
            await client.ask(turns)
            assert kinds(await client.until_text())[:2] == ["start", "start-step"]
        async with chatting(gateway) as client:
            await client.resume()
            frames = await client.until(lambda one: "It" in str(one))
    assert chunks(frames)[0]["messageId"] == "m1"
    assert kinds(frames) == [
        *WHOLE[:5],
        "tool-input-start",
        "tool-input-delta",
        "tool-output-available",
        *WHOLE[1:4],
    ]


async def test_a_part_that_is_told_again_may_have_fields_of_any_name():
    odd = {"type": "data-x", "data": 1, "self": 2, "fields": 3, "chunk": 4}
    turns = [
        user("hi"),
        {"id": "m1", "role": "assistant", "parts": [{"type": "text", "text": "x"}, odd]},
    ]
    async with running(scripted(Say("so"))) as gateway, chatting(gateway) as client:
        await client.answer(turns)
        await client.resume()
        assert odd in chunks(await client.until_end())


async def test_a_message_of_very_many_parts_does_not_go_on():
    parts = [{"type": "text", "text": "x"}] * (MAX_CONTINUED + 1)
    turns = [user("hi"), {"id": "m1", "role": "assistant", "parts": parts}]
    async with running(scripted(Say("x"))) as gateway, chatting(gateway) as client:
        (error,) = await client.answer(turns)
        assert "`messages[1].parts`" in error["errorText"]
        assert text_of(await client.answer([*turns, user("go on")])) == "x"


async def test_what_is_continued_counts_until_its_end_and_is_bounded():
    part = {"type": "text", "text": "y" * 9000}
    turns = [user("hi"), {"id": "m1", "role": "assistant", "parts": [part]}]
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider, request_bytes=80_000, client_share=0.5) as gateway:
        counted = gateway._generations.unbuilt
        async with chatting(gateway) as client:
            first = await client.ask(turns)
            await client.until_text()
            assert 9000 < counted.held < 9100
            (error,) = await client.answer(turns, chat="other")
            assert error["errorText"].startswith("overloaded: ")
            assert counted.held < 9100
            await client.resume()
            await client.until_text(2)
            assert 18_000 < counted.held < 18_200
            await client.resume()
            assert (await client.receive())["errorText"].startswith("overloaded: ")
            await client.abort(first)
            await eventually(lambda: counted.held == 0)
            await client.ask(turns, chat="other")
            await eventually(lambda: counted.held > 9000)
        await eventually(lambda: counted.held == 0)


async def test_each_client_resumes_its_own_answers_alone():
    more = Tokens([*TOKENS._tokens, Token("bob", hashlib.sha256(b"b").hexdigest())])
    async with running(scripted(Say("a"), Pause(3600)), more) as gateway:
        alice, bob = ({"Authorization": f"Bearer {one}"} for one in ("sesame", "b"))
        async with chatting(gateway, additional_headers=alice) as client:
            await client.ask("hi")
            await client.until_text()
            async with chatting(gateway, additional_headers=bob) as other:
                await other.resume()
                assert (await other.receive())["type"] == "no-active"
                await other.ask("hi")
                assert text_of(await other.until_text()) == "a"


async def test_a_slow_reader_holds_the_provider_up():
    provider = scripted(*[Say("x" * 2000)] * 4000)
    limits = {"outbox_bytes": 4096, "kernel_buffer_bytes": 4096, "write_timeout_s": 60.0}
    async with running(provider, **limits) as gateway:
        async with chatting(gateway, max_queue=1) as client:
            await client.ask("hi")
            await eventually(lambda: provider.live)
            before = None
            while before != provider.requests[0].produced:
                before = provider.requests[0].produced
                await asyncio.sleep(0.05)
            assert before < 4000
            assert text_of(await client.until_end()) == "x" * 2000 * 4000
