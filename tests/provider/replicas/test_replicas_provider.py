"""Generations on replicas: real gateways, real sockets."""

import asyncio
from contextlib import aclosing

import msgspec
import pytest

from gateway.protocol.frames import Cancel, Generate
from provider import MLXProvider
from provider.interface import (
    AbstractLLMInterface,
    FileData,
    GenerationError,
    GenerationStarted,
    InvalidParameterError,
    PrefillProgress,
    ProviderConnectionError,
    QueuePosition,
    ResourceExceededError,
)
from provider.replicas.replicas_provider import ReplicasProvider
from provider.scripted import (
    MODEL_NAME,
    Call,
    Fail,
    Gate,
    Prefill,
    Queue,
    Reason,
    Say,
    ScriptedProvider,
)
from tests.provider.replicas.test_replica import lying
from tests.support.replicas import all_of, replicated, text_of, user
from tests.support.servers import eventually, get, running, wired

LONG = " ".join(str(number) for number in range(1000))


def scripted(*steps):
    return ScriptedProvider(script=list(steps), tokens_per_second=None)


async def test_an_answer_comes_with_its_events_as_from_the_replica_itself():
    back = scripted(
        Queue(2), Prefill(1, 2), Reason("let me see"), Say("one two"), Call("f", {"a": 1})
    )
    async with replicated(back) as replicas:
        given = {"messages": [user("Hi")], "tools": [FUNCTION], "temperature": 0.5}
        got = await all_of(replicas.provider, events=True, **given)
        direct = await all_of(back, events=True, **given)
    events = [type(one.raw_response) for one in got]
    assert [events.count(kind) for kind in (GenerationStarted, QueuePosition)] == [1, 1]
    assert PrefillProgress in events
    assert text_of(got) == text_of(direct) == "one two"
    assert "".join(one.reasoning_trace or "" for one in got) == "let me see"
    (call,) = got[-1].tool_calls
    assert (call["name"], call["arguments"]) == ("f", {"a": 1})
    assert (got[-1].finish_reason, got[-1].usage) == (direct[-1].finish_reason, direct[-1].usage)
    assert back.requests[0].options["temperature"] == 0.5
    assert back.requests[0].tools == back.requests[1].tools or back.requests[0].tools


FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


async def test_a_whole_answer_and_files_and_a_system_prompt():
    back = scripted(Say("hello"))
    async with replicated(back) as replicas:
        file = FileData("a.txt", "text/plain", b"text")
        whole = await replicas.provider.generate_async("Hi", "Be kind.", [file])
    assert (whole.content, whole.finish_reason) == ("hello", "stop")
    (request,) = back.requests
    assert (request.prompt, request.system_prompt, request.files) == ("Hi", "Be kind.", [file])


async def test_callers_without_events_get_text_alone():
    async with replicated(scripted(Prefill(1, 1), Say("a b"), Call("f", {}))) as replicas:
        *texts, last = await all_of(replicas.provider, "Hi")
    assert all(one.content for one in texts)
    assert last.tool_calls


async def test_it_can_be_called_without_asyncio():
    async with replicated(scripted(Say("one two"))) as replicas:
        provider = replicas.provider
        whole = await asyncio.to_thread(provider.generate, "Hi")
        deltas = await asyncio.to_thread(provider.generate, "Hi", stream=True)
    assert whole.content == "".join(one.content for one in deltas) == "one two"


class Growing(ReplicasProvider):
    """Has the replicas that it is told of later."""

    _grows = True


async def test_replicas_that_came_later_can_be_called_without_asyncio_too():
    async with running(scripted(Say("one two"))) as gateway:
        provider = Growing()
        try:
            provider.fleet.keep({"a": gateway.url})
            whole = await asyncio.to_thread(provider.generate, "Hi")
        finally:
            await provider.aclose()
    assert whole.content == "one two"


async def test_closing_a_stream_stops_it_on_the_replica():
    back = scripted(Say("one "), Gate(asyncio.Event()))
    async with replicated(back) as replicas:
        stream = await replicas.provider.generate_async("Hi", stream=True)
        async with aclosing(stream):
            await anext(stream)
            assert len(back.live) == 1
        await eventually(lambda: not back.live)
        assert list(replicas.fleet.statistics().replica_answers.values()) == [0]
        task = asyncio.create_task(replicas.provider.generate_async("Hi"))
        await eventually(lambda: back.live)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await eventually(lambda: not back.live)


async def test_a_reader_that_pauses_makes_the_replica_pause():
    back = scripted(Say(LONG))
    async with replicated(back) as replicas:
        stream = await replicas.provider.generate_async("Hi", stream=True)
        async with aclosing(stream):
            await anext(stream)
            (link,) = replicas.fleet._links.values()
            (relay,) = link.client._runs.values()
            await eventually(lambda: relay.last >= 63)
            assert len(relay._arrived) <= 64
            assert relay.last < 70
            rest = [one async for one in stream]
    assert rest[-1].finish_reason == "stop"


async def test_what_a_replica_refuses_is_refused():
    error = InvalidParameterError("seed", 5, "`seed` must be even")
    async with replicated(scripted(Fail(error))) as replicas:
        with pytest.raises(InvalidParameterError, match="`seed` must be even"):
            await all_of(replicas.provider, "Hi", seed=5)
        with pytest.raises(InvalidParameterError, match="temperature"):
            await replicas.provider.generate_async("Hi", stream=True, temperature=9)
    async with replicated(scripted(Say("a"), Fail(GenerationError("broken")))) as replicas:
        with pytest.raises(GenerationError, match="broken"):
            await all_of(replicas.provider, "Hi", temperature=0)


async def test_a_busy_replica_is_passed_over():
    class Busy(ScriptedProvider):
        async def generate_async(self, *given, **options):
            raise ResourceExceededError("full", details={"retry_after": 7.0})

    async with replicated(Busy(), Busy()) as replicas:
        with pytest.raises(ResourceExceededError, match="full") as caught:
            await all_of(replicas.provider, "Hi")
        assert caught.value.details == {"retry_after": 7.0}
        assert replicas.fleet.statistics().generations_passed_on == 2
    async with replicated(Busy(), scripted(Say("hello"))) as replicas:
        for number in range(4):
            assert text_of(await all_of(replicas.provider, f"{number}")) == "hello"


async def test_a_replica_that_was_busy_is_asked_again_when_another_one_is_lost():
    calls, gate = [], asyncio.Event()

    class BusyAtFirst(ScriptedProvider):
        async def generate_async(self, *given, **options):
            calls.append(self)
            if len(calls) == 1:
                raise ResourceExceededError("full")
            return await super().generate_async(*given, **options)

    backs = [BusyAtFirst(script=(Say("a "), Gate(gate), Say("b"))) for _ in range(2)]
    async with replicated(*backs) as replicas:
        stream, first, at = await one_of_two(replicas, seed=1)
        assert calls == [backs[1 - at], backs[at]]
        await replicas.kill(at)
        gate.set()
        assert text_of([first] + [one async for one in stream]) == "a b"


async def test_an_answer_that_was_moved_asks_a_replica_again_that_was_busy():
    gate = asyncio.Event()

    class BusyForTwo(ScriptedProvider):
        left = 0

        async def generate_async(self, *given, **options):
            if self.left:
                self.left -= 1
                raise ResourceExceededError("full", details={"retry_after": 0.01})
            return await super().generate_async(*given, **options)

    backs = [BusyForTwo(script=(Say("a "), Gate(gate), Say("b"))) for _ in range(2)]
    async with replicated(*backs) as replicas:
        stream, first, at = await one_of_two(replicas, seed=1)
        backs[1 - at].left = 2
        await replicas.kill(at)
        gate.set()
        assert text_of([first] + [one async for one in stream]) == "a b"
        assert replicas.fleet.statistics().generations_passed_on == 2


async def test_without_a_replica_a_retryable_error_comes_at_once():
    async with replicated(scripted(Say("hello"))) as replicas:
        await replicas.kill(0)
        await eventually(lambda: not replicas.provider.health().ready)
        with pytest.raises(ResourceExceededError, match="no replica is ready"):
            await all_of(replicas.provider, "Hi")
        assert "no replica is ready" in replicas.provider.health().reason


async def one_of_two(replicas, **options):
    """Begin a generation; return its stream, its first text, and which replica has it."""
    stream = await replicas.provider.generate_async("Hi", stream=True, **options)
    first = await anext(stream)
    (at,) = [number for number, back in enumerate(replicas.backs) if back.live]
    return stream, first, at


@pytest.mark.parametrize("sure", [{"temperature": 0}, {"seed": 7}])
async def test_a_sure_answer_goes_on_elsewhere_when_its_replica_is_lost(sure):
    gate = asyncio.Event()
    backs = [scripted(Say("one two "), Gate(gate), Say("three four")) for _ in range(2)]
    async with replicated(*backs) as replicas:
        stream, first, at = await one_of_two(replicas, **sure)
        await replicas.kill(at)
        gate.set()
        rest = [one async for one in stream]
        assert text_of([first, *rest]) == "one two three four"
        assert rest[-1].finish_reason == "stop"
        assert [len(back.requests) for back in backs] == [1, 1]
        statistics = replicas.fleet.statistics()
        assert (statistics.generations_moved, statistics.generations_lost) == (1, 0)


async def test_a_connection_that_is_closed_in_one_direction_is_lost():
    gate = asyncio.Event()
    backs = [scripted(Say("one two "), Gate(gate), Say("three four")) for _ in range(2)]
    async with replicated(*backs) as replicas:
        stream, first, at = await one_of_two(replicas, temperature=0)
        going = asyncio.create_task(rest_of(stream))
        replicas.proxies[at].half_close()
        await eventually(lambda: backs[1 - at].requests)
        gate.set()
        assert text_of([first, *await going]) == "one two three four"
        await eventually(lambda: replicas.fleet.ready == 2)


async def rest_of(stream):
    return [one async for one in stream]


@pytest.mark.parametrize("said", [b"\xc1", "text", [20, "r1", 1, 5], [[20], 7], [[20, "r1"]]])
async def test_an_answer_goes_on_elsewhere_where_a_replica_says_what_is_no_frame(said):
    async with lying() as one, running(scripted(Say("hello"))) as gateway:
        one.pages["/v1/models"] = f'{{"data": [{{"id": "{MODEL_NAME}"}}]}}'
        one.answer = msgspec.msgpack.encode(said) if isinstance(said, list) else said
        provider = ReplicasProvider({"replicas": [one.url, gateway.url]})
        try:
            await provider.load()
            await eventually(lambda: provider.fleet.ready == 2)
            got = await asyncio.gather(*(all_of(provider, f"{n}", temperature=0) for n in range(2)))
        finally:
            await provider.aclose()
    assert [text_of(one) for one in got] == ["hello", "hello"]
    assert provider.fleet.counters.moved == 1


async def test_an_answer_by_chance_ends_with_one_retryable_error():
    backs = [scripted(Say("one two "), Gate(asyncio.Event())) for _ in range(2)]
    async with replicated(*backs) as replicas:
        stream, _, at = await one_of_two(replicas)
        await replicas.kill(at)
        with pytest.raises(ProviderConnectionError, match="was lost; send the request again"):
            [one async for one in stream]
        assert replicas.fleet.statistics().generations_lost == 1
        assert len(backs[1 - at].requests) == 0


async def test_an_answer_that_has_not_begun_goes_on_in_any_case():
    gates = [asyncio.Event(), asyncio.Event()]
    backs = [scripted(Queue(1), Gate(gate), Say("hello")) for gate in gates]
    async with replicated(*backs) as replicas:
        stream = await replicas.provider.generate_async("Hi", stream=True, events=True)
        assert (await anext(stream)).raw_response == QueuePosition(1)
        (at,) = [number for number, back in enumerate(backs) if back.live]
        await replicas.kill(at)
        gates[1 - at].set()
        assert text_of([one async for one in stream]) == "hello"


async def test_another_answer_elsewhere_is_an_error_and_not_a_mixture():
    backs = [scripted(Say(f"one {name} "), Gate(asyncio.Event())) for name in ("two", "zwei")]
    async with replicated(*backs) as replicas:
        stream, _, at = await one_of_two(replicas, temperature=0)
        second = await anext(stream)
        assert second.content in {"two ", "zwei "}
        await replicas.kill(at)
        with pytest.raises(ProviderConnectionError):
            [one async for one in stream]


async def test_a_replica_that_stops_finishes_what_it_has_and_gets_nothing_new():
    gate = asyncio.Event()
    backs = [scripted(Say("one "), Gate(gate), Say("two")) for _ in range(2)]
    async with replicated(*backs) as replicas:
        stream, first, at = await one_of_two(replicas)
        draining = asyncio.create_task(replicas.gateways[at].drain())
        await eventually(lambda: replicas.fleet.ready == 1)
        others = [asyncio.create_task(all_of(replicas.provider, f"{n}")) for n in range(3)]
        await eventually(lambda: len(backs[1 - at].live) == 3)
        gate.set()
        rest = [one async for one in stream]
        assert text_of([first, *rest]) == "one two"
        assert [text_of(one) for one in await asyncio.gather(*others)] == ["one two"] * 3
        await draining
        assert len(backs[at].requests) == 1
        assert replicas.fleet.statistics().generations_moved == 0


async def test_an_answer_that_a_stopping_replica_cuts_goes_on_elsewhere():
    gate = asyncio.Event()
    backs = [scripted(Say("one "), Gate(gate), Say("two")) for _ in range(2)]
    async with replicated(*backs, shutdown_grace_s=0) as replicas:
        stream, first, at = await one_of_two(replicas, temperature=0)
        await replicas.gateways[at].drain()
        await replicas.gateways[at].close()
        gate.set()
        assert text_of([first, *[one async for one in stream]]) == "one two"


async def test_a_gateway_in_front_shows_its_replicas_and_cancels_on_them():
    back = scripted(Say("one "), Gate(asyncio.Event()))
    async with replicated(back) as replicas:
        provider = replicas.provider
        assert isinstance(provider, AbstractLLMInterface)
        async with running(provider) as front, wired(front) as wire:
            status, body, _ = await get(front, "/readyz")
            assert (status, body) == (200, b"ready: 1 of 1 replicas\n")
            metrics = (await get(front, "/metrics"))[1].decode()
            assert 'mlx_gateway_engine_replica_ready{replica="' in metrics
            await wire.send(Generate(id="a", prompt="Hi"))
            await wire.until("chunk")
            await wire.send(Cancel(id="a"))
            frames = await wire.until("done")
            assert frames[-1]["finish_reason"] == "cancelled"
            await eventually(lambda: not back.live)


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        ([], "no address"),
        (["ftp://a"], "`ftp` is none of"),
        (["a:1", "http://a:1/"], "`a:1` is given twice"),
    ],
)
def test_wrong_addresses_are_refused(addresses, said):
    with pytest.raises(InvalidParameterError, match=said):
        ReplicasProvider({"replicas": addresses})


class Noting(MLXProvider):
    """Notes the options of its calls."""

    def __init__(self):
        super().__init__({"max_tokens": 90})
        self.given = []

    async def generate_async(self, *given, **options):
        self.given.append(options)
        return await super().generate_async(*given, **options)


@pytest.fixture(scope="module")
def model():
    model = Noting()
    yield model
    model.close()


@pytest.mark.parametrize("sure", [{"temperature": 0}, {"seed": 7, "temperature": 1.0}])
async def test_a_models_answer_goes_on_after_its_tokens_and_is_the_same(model, sure):
    asked = {"messages": [user("Count from 3 to 90")], **sure}
    alone = await all_of(model, **asked)
    model.given.clear()
    async with replicated(model, model, as_replica=True) as replicas:
        provider = replicas.provider
        assert provider.places() == 2 * model.places() == 64
        stream = await provider.generate_async("", stream=True, client="me", **asked)
        got = [await anext(stream)]
        (key,) = replicas.fleet._links.keys() & busy(replicas)
        (relay,) = replicas.fleet._links[key].client._runs.values()
        while len(relay.tokens) < 32:
            got.append(await anext(stream))
        await replicas.kill(replicas.at(replicas.fleet._links[key].replica))
        got += [one async for one in stream]
    assert text_of(got) == text_of(alone)
    assert got[-1].usage["completion_tokens"] == alone[-1].usage["completion_tokens"]
    first, second = model.given
    assert (first["client"], first.get("begun_answer")) == ("me", None)
    assert len(second["begun_answer"]) >= 32


def busy(replicas):
    fleet = replicas.fleet
    return {key for key in fleet._links if fleet._router.live(key)}
