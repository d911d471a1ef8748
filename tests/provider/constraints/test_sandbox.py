"""Grammars that are too expensive are refused, by a real process; clients take turns for it."""

import asyncio
import os
import resource
import threading
from concurrent.futures import Future
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from provider import MLXProvider
from provider.constraints import trial, trial_process
from provider.constraints.compiler import constraint_of
from provider.constraints.sandbox import MAX_WAITING, MAX_WAITING_OF_A_CLIENT, Sandbox
from provider.interface import GenerationError, InvalidParameterError, ResourceExceededError
from tests.support.servers import eventually

# Each schema would keep llguidance busy for hours and fill the memory.
REMAINDERS = {"type": "integer", "allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}
PATTERNS = {"allOf": [{"type": "string", "pattern": f"(a|b)*a(a|b){{{n}}}"} for n in range(1, 24)]}
HARMLESS = {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 5}}}


@pytest.fixture
def sandbox():
    made = Sandbox()
    yield made
    made.close()


def grammar(schema):
    return constraint_of({"type": "json_schema", "schema": schema}).grammar


def harmless(number):
    return grammar({"type": "integer", "multipleOf": number + 2})


def first_costly(sandbox, *grammars):
    """Return what the sandbox finds out about grammars, on its own thread."""
    found = []
    check = partial(_note, grammars, found)
    sandbox.submit(check).result(timeout=60)
    return found[0]


def _note(grammars, found, first):
    found.append(first(grammars))


class Held:
    """A check that holds the sandbox's thread until it is let go."""

    def __init__(self, sandbox):
        self.begun, self.free = threading.Event(), threading.Event()
        self.future = sandbox.submit(self, "another")
        assert self.begun.wait(timeout=30)

    def __call__(self, first):
        self.begun.set()
        assert self.free.wait(timeout=30)


@pytest.mark.parametrize("schema", [REMAINDERS, PATTERNS])
def test_an_expensive_grammar_is_found_among_others_and_the_next_ones_pass(sandbox, schema):
    assert first_costly(sandbox, grammar(HARMLESS), grammar(schema), harmless(1)) == 1
    assert first_costly(sandbox, grammar(HARMLESS), harmless(1)) is None


def test_what_is_known_of_a_grammar_needs_no_process(sandbox):
    given = (grammar(HARMLESS), grammar(REMAINDERS))
    assert first_costly(sandbox, *given) == 1
    sandbox._quick.process.stop()
    sandbox._long.process.stop()
    assert first_costly(sandbox, *given) == 1
    assert first_costly(sandbox, given[0]) is None
    assert sandbox._quick.process.pid is sandbox._long.process.pid is None


def test_a_killed_process_is_started_again(sandbox):
    assert first_costly(sandbox, grammar(HARMLESS)) is None
    sandbox._quick.process.kill()
    assert first_costly(sandbox, harmless(1)) is None


@pytest.mark.parametrize("text", ["", "no grammar", '{"grammars": [{"lark_grammar": "start: x"}]}'])
def test_a_malformed_grammar_passes(sandbox, text):
    assert first_costly(sandbox, text) is None


def test_a_closed_sandbox_passes_nothing(sandbox):
    first_costly(sandbox, grammar(HARMLESS))
    held, waiting = Held(sandbox), sandbox.submit(print)
    closing = threading.Thread(target=sandbox.close)
    closing.start()
    with pytest.raises(GenerationError, match="closed"):
        waiting.result(timeout=30)
    held.free.set()
    closing.join()
    sandbox.close()
    with pytest.raises(GenerationError, match="closed"):
        sandbox.submit(print)


def test_without_descriptors_a_grammar_is_refused_for_now_and_passes_later(sandbox):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = max(int(one.name) for one in Path("/dev/fd").iterdir()) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken, limit[1]))
    held = []
    try:
        with pytest.raises(OSError, match="Too many"):
            while True:
                held.append(os.dup(0))
        with pytest.raises(ResourceExceededError, match="try again later") as caught:
            first_costly(sandbox, grammar(HARMLESS))
    finally:
        for one in held:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert caught.value.details["retry_after"] > 0
    assert first_costly(sandbox, grammar(HARMLESS)) is None


def test_a_process_that_does_nothing_is_killed_after_a_time(sandbox, monkeypatch):
    first_costly(sandbox, grammar(HARMLESS))
    os.kill(sandbox._quick.process.pid, 19)  # stopped, it takes no processor time
    monkeypatch.setattr(trial_process, "MAX_WALL_SECONDS", 0.2)
    assert first_costly(sandbox, harmless(1)) == 0
    monkeypatch.undo()
    assert first_costly(sandbox, harmless(1)) is None  # nothing is held against the grammar


def test_a_usual_grammar_waits_for_no_costly_one(sandbox, monkeypatch):
    monkeypatch.setattr(sandbox._long, "_seconds", 3600)
    monkeypatch.setattr(trial, "MAX_SECONDS", 3600)
    costly = [sandbox.submit(partial(_note, [grammar(REMAINDERS)], []), "a") for _ in range(3)]
    for number in range(5):
        assert first_costly(sandbox, harmless(number)) is None
    assert sum(one.done() for one in costly) == 0
    for one in costly:
        assert one.cancel()


def test_a_grammar_that_takes_long_passes_where_it_is_not_too_expensive(sandbox, monkeypatch):
    monkeypatch.setattr(sandbox._quick, "_seconds", 0.01)
    words = [f"{n * 7919 % 99991} pieces" for n in range(20_000)]
    given = [constraint_of({"type": "choice", "choices": words[at::2]}).grammar for at in (0, 1)]
    assert first_costly(sandbox, *given) is None
    quick, long = sandbox._quick.process.pid, sandbox._long.process.pid
    nice = os.getpriority(os.PRIO_PROCESS, long) - os.getpriority(os.PRIO_PROCESS, quick)
    assert nice > 0 or os.getpriority(os.PRIO_PROCESS, long) == 19


def test_clients_take_turns(sandbox):
    held, order = Held(sandbox), []

    def asks(client, count):
        return [sandbox.submit(lambda _: order.append(client), client) for _ in range(count)]

    futures = [*asks("a", 5), *asks("b", 2), *asks(None, 1)]
    held.free.set()
    for future in futures:
        future.result(timeout=30)
    assert order[:3] == ["a", "b", None]  # the others by the time that these have taken
    assert sorted(map(str, order)) == ["None", *"aaaaabb"]


def test_too_many_checks_of_one_client_are_refused_and_those_of_another_are_not(sandbox):
    held = Held(sandbox)
    futures = [sandbox.submit(lambda _: None, "a") for _ in range(MAX_WAITING_OF_A_CLIENT)]
    with pytest.raises(ResourceExceededError, match="try again later"):
        sandbox.submit(lambda _: None, "a")
    while len(futures) < MAX_WAITING:
        futures.append(sandbox.submit(lambda _: None, f"client {len(futures) % 7}"))
    with pytest.raises(ResourceExceededError, match="try again later"):
        sandbox.submit(lambda _: None, "one more")
    held.free.set()
    for future in futures:
        future.result(timeout=30)


def test_a_cancelled_check_is_not_made(sandbox):
    held, made = Held(sandbox), []
    waiting = [sandbox.submit(lambda _, n=n: made.append(n), "a") for n in range(3)]
    assert waiting[1].cancel()
    held.free.set()
    waiting[2].result(timeout=30)
    assert made == [0, 2]


def test_cancelling_ends_a_trial_that_is_under_way(sandbox):
    first_costly(sandbox, grammar(HARMLESS))
    pid, begun = sandbox._quick.process.pid, threading.Event()
    sandbox._quick._seconds = 3600
    ended = Future()

    def check(first):
        begun.set()
        try:
            ended.set_result(first([grammar(REMAINDERS)]))
        except GenerationError as error:
            ended.set_exception(error)

    future = sandbox.submit(check)
    assert begun.wait(timeout=30)
    assert future.cancel()
    with pytest.raises(GenerationError, match="gone"):
        ended.result(timeout=30)
    assert first_costly(sandbox, harmless(1)) is None
    assert sandbox._quick.process.pid != pid
    # It was not found to be expensive, as its trial had no end.
    assert sandbox._quick._remembered.get(sha256(grammar(REMAINDERS).encode()).digest()) is None


async def test_an_expensive_constraint_is_refused_without_delaying_other_requests():
    provider = MLXProvider({"temperature": 0.0})
    try:
        await provider.load()
        held = Held(provider._sandbox)
        constraint = {"type": "json_schema", "schema": REMAINDERS}
        refused = asyncio.create_task(provider.generate_async("x", response_format=constraint))
        tool = {"name": "f", "parameters": {"properties": {"a": PATTERNS}}}
        called = asyncio.create_task(
            provider.generate_async("x", tools=[tool], tool_choice="required")
        )
        await eventually(lambda: len(provider._sandbox._quick) == 2)
        assert (await provider.generate_async("Count from 3 to 5", max_tokens=20)).content
        assert not refused.done()
        held.free.set()
        with pytest.raises(InvalidParameterError, match="too much time or memory") as caught:
            await refused
        assert caught.value.parameter == "response_format"
        with pytest.raises(InvalidParameterError, match="too much time or memory") as caught:
            await called
        assert caught.value.parameter == "tools"
        constraint = {"type": "choice", "choices": ["yes"]}
        assert (await provider.generate_async("x", response_format=constraint)).content == "yes"
    finally:
        await provider.aclose()


async def test_closing_ends_a_running_check():
    provider = MLXProvider()
    await provider.load()
    constraint = {"type": "json_schema", "schema": REMAINDERS}
    waiting = asyncio.create_task(provider.generate_async("x", response_format=constraint))
    await asyncio.sleep(0)
    await provider.aclose()
    with pytest.raises(GenerationError, match="closed"):
        await waiting


async def test_a_request_that_has_gone_leaves_the_queue():
    provider = MLXProvider()
    try:
        await provider.load()
        held = Held(provider._sandbox)
        constraint = {"type": "choice", "choices": ["yes"]}
        gone = asyncio.create_task(provider.generate_async("x", response_format=constraint))
        await eventually(lambda: len(provider._sandbox._quick) == 1)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert len(provider._sandbox._quick) == 0
        held.free.set()
    finally:
        await provider.aclose()
