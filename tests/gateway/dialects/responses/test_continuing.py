"""Responses that continue others, on one connection and on several.

Those named `websocket_…` are the cases of Open Responses of the same ids.
"""

import hashlib

import pytest

from gateway.server.tokens import Token, Tokens
from provider.interface import GenerationError, InvalidRequestError
from provider.scripted import Call, Fail, Pause, Reason, Say, ScriptedProvider
from tests.gateway.dialects.responses.clients import kinds, responding, text_of
from tests.support.servers import eventually, running, scripted

STORY = "Tell me a story about a fox"


def said(provider):
    """Return the texts of the messages of the last request."""
    return [message["content"] for message in provider.requests[-1].options["messages"]]


async def ended(client, given, **fields):
    """Return the response at its end."""
    end = (await client.create(given, **fields))[-1]
    assert end["type"] in {"response.completed", "response.incomplete"}, end
    return end["response"]


async def is_not_found(client, own, **fields):
    (error,) = await client.create("go on", previous_response_id=own, **fields)
    assert (error["type"], error["status"]) == ("error", 400)
    assert error["error"]["code"] == "previous_response_not_found"
    assert error["error"]["param"] == "previous_response_id"


async def test_websocket_response(provider):
    async with running(provider) as gateway, responding(gateway) as client:
        events = await client.create("Say hello.", store=False, max_output_tokens=8)
    assert kinds(events)[0] == "created"
    end = events[-1]["response"]
    assert events[-1]["type"] in {"response.completed", "response.incomplete"}
    assert (end["object"], end["store"], bool(text_of(end))) == ("response", False, True)


async def test_websocket_sequential_responses(provider):
    async with running(provider) as gateway, responding(gateway) as client:
        ends = [await ended(client, "Hi", max_output_tokens=3) for _ in range(2)]
        for _ in range(2):  # without waiting for the first
            await client.send("response.create", input="Hi", max_output_tokens=3)
        ends += [(await client.until_end())[-1]["response"] for _ in range(2)]
    assert len({end["id"] for end in ends}) == 4
    assert len({text_of(end) for end in ends}) == 1


async def test_websocket_continuation(provider):
    async with running(provider) as gateway, responding(gateway) as client:
        first = await ended(client, STORY, store=False, max_output_tokens=8)
        asked = {"store": False, "max_output_tokens": 8}
        second = await ended(client, "And then?", previous_response_id=first["id"], **asked)
        assert second["previous_response_id"] == first["id"]
        whole = [
            {"role": "user", "content": STORY},
            {"role": "assistant", "content": text_of(first)},
            {"role": "user", "content": "And then?"},
        ]
        assert text_of(await ended(client, whole, **asked)) == text_of(second)


async def test_websocket_reconnect_store_false_recovery(provider):
    async with running(provider) as gateway:
        async with responding(gateway) as client:
            first = await ended(client, "Hi", store=False, max_output_tokens=3)
        async with responding(gateway) as client:
            await is_not_found(client, first["id"], store=False)
            whole = [
                {"role": "user", "content": "Hi"},
                *first["output"],
                {"role": "user", "content": "And?"},
            ]
            await ended(client, whole, store=False, max_output_tokens=3)


async def test_websocket_previous_response_not_found(provider):
    async with running(provider) as gateway, responding(gateway) as client:
        await is_not_found(client, "resp_00000000000000000000000000000000", store=False)
        await ended(client, "Hi", max_output_tokens=1)


async def test_websocket_failed_continuation_evicts_cache(provider):
    lost = {"type": "function_call_output", "call_id": "call_nobody", "output": "1"}
    async with running(provider) as gateway, responding(gateway) as client:
        first = await ended(client, "Hi", store=False, max_output_tokens=3)
        own = {"previous_response_id": first["id"], "store": False}
        (error,) = await client.create([lost], **own)
        assert error["status"] == 400
        assert "No tool call found" in error["error"]["message"]
        await is_not_found(client, first["id"], store=False)


@pytest.mark.parametrize(
    "wrong", [{"temperature": 9}, {"conversation": "c"}, {"tools": [{}]}, {"tool_choice": "some"}]
)
async def test_a_continuation_that_is_refused_for_anything_evicts(wrong):
    async with running(scripted(Say("a"))) as gateway, responding(gateway) as client:
        own = {"previous_response_id": (await ended(client, "hi", store=False))["id"]}
        (error,) = await client.create("x", **own, **wrong)
        assert error["type"] == "error"
        await is_not_found(client, own["previous_response_id"])


async def test_a_fork_in_another_lane_that_fails_and_a_stored_response_are_kept():
    async with running(scripted(Say("a"))) as gateway, responding(gateway) as client:
        for first, lane in (({"store": False}, {"stream_id": "fork"}), ({}, {})):
            own = {"previous_response_id": (await ended(client, "hi", **first))["id"]}
            (error,) = await client.create("x", temperature=9, **own, **lane)
            assert error["type"] == "error"
            await ended(client, "x", **own)


async def test_a_response_that_failed_is_not_continued():
    script = [Say("a"), Fail(GenerationError("broken"))]
    async with running(scripted(*script)) as gateway, responding(gateway) as client:
        end = (await client.create("hi"))[-1]
        assert end["type"] == "response.failed"
        assert end["response"]["error"] == {"code": "server_error", "message": "broken"}
        await is_not_found(client, end["response"]["id"])


async def test_a_continuation_that_breaks_evicts_and_one_that_is_cancelled_does_not():
    ways = {"break": Fail(GenerationError("broken")), "stop": Pause(3600)}

    def script(request):
        return [Say("a"), *filter(None, [ways.get(request.last_user_text)])]

    provider = ScriptedProvider(script=script, tokens_per_second=None)
    async with running(provider) as gateway, responding(gateway) as client:
        own = {"previous_response_id": (await ended(client, "hi", store=False))["id"]}
        await client.send("response.create", input="stop", **own)
        await client.until("response.output_text.delta")
        await client.send("response.cancel")
        assert (await client.until_end())[-1]["type"] == "response.incomplete"
        assert (await client.create("break", **own))[-1]["type"] == "response.failed"
        await is_not_found(client, own["previous_response_id"])


async def test_several_continue_one():
    provider = scripted(Say("a"))
    async with running(provider) as gateway, responding(gateway) as client:
        first = await ended(client, "1")
        for given in ("2", "3"):
            second = await ended(client, given, previous_response_id=first["id"])
            assert said(provider) == ["1", "a", given]
        await ended(client, "4", previous_response_id=second["id"], instructions="brief")
        assert said(provider) == ["brief", "1", "a", "3", "a", "4"]


async def test_what_is_asked_in_the_form_of_realtime_is_continued_in_its_lane():
    provider = scripted(Say("a"))
    async with running(provider) as gateway, responding(gateway) as client:
        first = await ended(client, "1")
        nested = {"input": "2", "previous_response_id": first["id"], "stream_id": "lane"}
        end = (await client.create(response=nested))[-1]
        assert (end["stream_id"], said(provider)) == ("lane", ["1", "a", "2"])


async def test_what_is_stored_is_continued_on_another_connection_of_the_same_token_alone():
    names = ("alice", "mallory")
    tokens = Tokens([Token(n, hashlib.sha256(n.encode()).hexdigest()) for n in names])
    alice, mallory = ({"additional_headers": {"Authorization": f"Bearer {n}"}} for n in names)
    async with running(scripted(Say("a")), tokens) as gateway:
        async with responding(gateway, **alice) as client:
            own = (await ended(client, "hi"))["id"]
        async with responding(gateway, **mallory) as client:
            await is_not_found(client, own)
        async with responding(gateway, **alice) as client:
            await ended(client, "x", previous_response_id=own)


async def test_a_conversation_is_forgotten_when_others_fill_the_memory_or_time_is_up():
    limits = {"response_bytes": 5000}
    async with running(scripted(Say("a")), **limits) as gateway, responding(gateway) as client:
        first, second = [(await ended(client, "x" * 2000))["id"] for _ in range(2)]
        await is_not_found(client, first)
        await ended(client, "x", previous_response_id=second)
    async with running(scripted(Say("a")), response_ttl_s=0) as gateway:
        async with responding(gateway) as client:
            await is_not_found(client, (await ended(client, "hi"))["id"])


async def test_a_continuation_reads_only_what_is_new(provider):
    rules = "Answer as a fox would, who lives in a wood and knows its paths. " * 12
    async with running(provider) as gateway, responding(gateway) as client:
        own, before = {}, 0
        for given in ("Who are you?", "Where do you live?", "And then?"):
            end = await ended(client, given, instructions=rules, max_output_tokens=8, **own)
            usage = end["usage"]
            cached = usage["input_tokens_details"]["cached_tokens"]
            if own:
                assert cached >= before
                assert usage["input_tokens"] - cached < 60
            before, own = usage["input_tokens"], {"previous_response_id": end["id"]}


@pytest.mark.parametrize("store", [True, False])
async def test_a_warm_up_reads_its_prompt_and_is_continued(provider, store):
    rules = f"You are a fox, and this is rule {store}. " + "Foxes are red. " * 30
    async with running(provider) as gateway, responding(gateway) as client:
        items = [{"role": "developer", "content": rules}, {"role": "user", "content": "Hi"}]
        events = await client.create(items, generate=False, store=store)
        assert [kind for kind in kinds(events) if kind != "queued"] == [
            "created",
            "in_progress",
            "completed",
        ]
        warm = events[-1]["response"]
        assert (warm["output"], warm["usage"]["output_tokens"]) == ([], 0)
        given = [{"role": "user", "content": "Who are you?"}]
        own = {"previous_response_id": warm["id"], "max_output_tokens": 3}
        end = await ended(client, given, store=store, **own)
        assert end["usage"]["input_tokens_details"]["cached_tokens"] > 100


async def test_a_warm_up_of_nothing_needs_no_model():
    provider = scripted(Say("a"))
    async with running(provider) as gateway, responding(gateway) as client:
        events = await client.create(generate=False)
        assert kinds(events) == ["created", "completed"]
        assert not provider.requests
        await ended(client, "hi", previous_response_id=events[-1]["response"]["id"])
        assert said(provider) == ["hi"]


async def test_a_warm_up_that_the_template_does_not_take_is_continued_all_the_same():
    error = InvalidRequestError("No user query found in messages.")

    def script(request):
        last = request.options["messages"][-1]
        return [Say("a")] if last["role"] == "user" else [Fail(error)]

    provider = ScriptedProvider(script=script, tokens_per_second=None)
    async with running(provider) as gateway, responding(gateway) as client:
        rules = [{"role": "developer", "content": "Be brief."}]
        end = (await client.create(rules, generate=False, store=False))[-1]
        assert end["type"] == "response.completed"
        await ended(client, "hi", previous_response_id=end["response"]["id"])
        assert said(provider) == ["Be brief.", "hi"]


async def test_a_connection_that_ends_leaves_only_what_is_stored():
    async with running(scripted(Say("a"))) as gateway:
        dialects = []
        async with responding(gateway) as client:
            await ended(client, "hi", store=False)
            await ended(client, "hi")
            dialects += [connection._dialect for connection in gateway._connections]
            memory = dialects[0]._memory
            assert len(memory) == 2
        await eventually(lambda: not gateway.connections)
        assert len(memory) == 1


def refer(item):
    return {"type": "item_reference", "id": item["id"]}


async def test_an_item_of_an_earlier_answer_is_referred_to_by_its_id():
    provider = scripted(Reason("hm"), Say("I look."), Call("f", {"a": 1}))
    asked = {"role": "user", "content": "hi"}
    async with running(provider) as gateway:
        async with responding(gateway) as client:
            first = await ended(client, "hi")
            *_, call = first["output"]
            output = {"type": "function_call_output", "call_id": call["call_id"], "output": "2"}
        async with responding(gateway) as client:
            await ended(client, [asked, *first["output"], output])
            whole = provider.requests[-1].options["messages"]
            for places in ((), (0,), (1, 2), (0, 1, 2)):
                items = [refer(it) if at in places else it for at, it in enumerate(first["output"])]
                await ended(client, [asked, *items, output], store=False)
                assert provider.requests[-1].options["messages"] == whole
            again = (await ended(client, "hi", store=False))["output"][1]
            await ended(client, [refer(again)])
            assert said(provider) == ["I look."]
            (twice,) = await client.create([refer(again), refer(again)])
            assert twice["error"]["param"] == "input[1].id"
        async with responding(gateway) as client:
            (error,) = await client.create([asked, refer(again)])
    assert (error["status"], error["error"]["code"]) == (404, "item_not_found")
    assert error["error"]["param"] == "input[1].id"
