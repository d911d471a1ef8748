"""Grammars that are too expensive to compile are refused, by a real process."""

import asyncio

import pytest

from provider import MLXProvider
from provider.constraints.compiler import form_of
from provider.constraints.sandbox import Sandbox
from provider.interface import GenerationError, InvalidParameterError

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
    return form_of({"type": "json_schema", "schema": schema}).grammar


@pytest.mark.parametrize("schema", [REMAINDERS, PATTERNS])
def test_an_expensive_grammar_does_not_pass_and_the_next_one_does(sandbox, schema):
    assert not sandbox.passes(grammar(schema))
    assert sandbox.passes(grammar(HARMLESS))


def test_a_killed_process_is_started_again(sandbox):
    assert sandbox.passes(grammar(HARMLESS))
    sandbox._process.kill()
    sandbox._process.wait()
    assert sandbox.passes(grammar({"type": "integer", "multipleOf": 7}))


@pytest.mark.parametrize("text", ["", "no grammar", '{"grammars": [{"lark_grammar": "start: x"}]}'])
def test_a_malformed_grammar_passes(sandbox, text):
    assert sandbox.passes(text)


def test_a_closed_sandbox_checks_nothing(sandbox):
    sandbox.passes(grammar(HARMLESS))
    sandbox.close()
    sandbox.close()
    assert sandbox.submit(print) is None


async def test_an_expensive_form_is_refused_without_delaying_other_requests():
    provider = MLXProvider({"temperature": 0.0})
    try:
        await provider.load()
        form = {"type": "json_schema", "schema": REMAINDERS}
        refused = asyncio.create_task(provider.generate_async("x", response_format=form))
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
        form = {"type": "choice", "choices": ["yes"]}
        assert (await provider.generate_async("x", response_format=form)).content == "yes"
    finally:
        await provider.aclose()


async def test_closing_ends_a_running_check():
    provider = MLXProvider()
    await provider.load()
    form = {"type": "json_schema", "schema": REMAINDERS}
    waiting = asyncio.create_task(provider.generate_async("x", response_format=form))
    await asyncio.sleep(0)
    await provider.aclose()
    with pytest.raises(GenerationError, match="closed"):
        await waiting
