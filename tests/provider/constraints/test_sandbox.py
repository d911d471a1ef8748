"""Grammars that are too expensive are refused, by a real process; clients take turns for it."""

import asyncio
import os
import resource
import sys
import threading
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest

from provider import MLXProvider
from provider.constraints import sandbox as module
from provider.constraints.compiler import constraint_of
from provider.constraints.sandbox import MAX_WAITING, MAX_WAITING_OF_A_CLIENT, Sandbox
from provider.interface import GenerationError, InvalidParameterError, ResourceExceededError

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
    process = sandbox._process
    assert process is None  # ended by the expensive one
    assert first_costly(sandbox, *given) == 1
    assert first_costly(sandbox, given[0]) is None
    assert sandbox._process is None


def test_a_killed_process_is_started_again(sandbox):
    assert first_costly(sandbox, grammar(HARMLESS)) is None
    sandbox._process.kill()
    sandbox._process.wait()
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


@pytest.mark.skipif(sys.platform != "linux", reason="a process's environment is read from /proc")
def test_the_process_has_nothing_of_the_environment_that_it_does_not_need(sandbox, monkeypatch):
    monkeypatch.setenv("MLX_GATEWAY_TOKENS", "secret")
    monkeypatch.setenv("LANG", "C")
    first_costly(sandbox, grammar(HARMLESS))
    given = Path(f"/proc/{sandbox._process.pid}/environ").read_bytes()
    assert b"LANG=C" in given
    assert b"secret" not in given
    assert {name.partition(b"=")[0].decode() for name in given.split(b"\0") if name} <= {
        *module.ENVIRONMENT
    }


@pytest.mark.skipif(sys.platform != "linux", reason="a process's limits are read from /proc")
def test_the_process_has_a_limit_of_memory(sandbox):
    first_costly(sandbox, grammar(HARMLESS))
    limits = Path(f"/proc/{sandbox._process.pid}/limits").read_text().splitlines()
    for what in ("Max address space", "Max data size", "Max core file size"):
        (line,) = (line for line in limits if line.startswith(what))
        assert "unlimited" not in line


def test_a_process_that_does_nothing_is_killed_after_a_time(sandbox, monkeypatch):
    first_costly(sandbox, grammar(HARMLESS))
    os.kill(sandbox._process.pid, 19)  # stopped, it takes no processor time
    monkeypatch.setattr(module, "MAX_WALL_SECONDS", 0.2)
    assert first_costly(sandbox, harmless(1)) == 0
    monkeypatch.undo()
    assert first_costly(sandbox, harmless(1)) is None  # nothing is held against the grammar


def test_clients_take_turns(sandbox):
    held, order = Held(sandbox), []

    def asks(client, count):
        return [sandbox.submit(lambda _: order.append(client), client) for _ in range(count)]

    futures = [*asks("a", 5), *asks("b", 2), *asks(None, 1)]
    held.free.set()
    for future in futures:
        future.result(timeout=30)
    assert order == ["a", "b", None, "a", "b", "a", "a", "a"]


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
    process, begun = sandbox._process, threading.Event()
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
    assert process.wait(timeout=30) is not None
    # It was not found to be expensive, as its trial had no end.
    assert all(sandbox._remembered.values())


async def test_an_expensive_constraint_is_refused_without_delaying_other_requests():
    provider = MLXProvider({"temperature": 0.0})
    try:
        await provider.load()
        constraint = {"type": "json_schema", "schema": REMAINDERS}
        refused = asyncio.create_task(provider.generate_async("x", response_format=constraint))
        tool = {"name": "f", "parameters": {"properties": {"a": PATTERNS}}}
        called = asyncio.create_task(
            provider.generate_async("x", tools=[tool], tool_choice="required")
        )
        assert (await provider.generate_async("Count from 3 to 5", max_tokens=20)).content
        assert not refused.done()
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
        await asyncio.sleep(0.05)
        assert len(provider._sandbox._waiting) == 1
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert len(provider._sandbox._waiting) == 0
        held.free.set()
    finally:
        await provider.aclose()
