"""What takes too much to compile is refused, in a real process, and disturbs nobody."""

import asyncio

import pytest

from provider import MLXProvider
from provider.constraints.compiler import form_of
from provider.constraints.sandbox import Sandbox
from provider.interface import GenerationError, InvalidParameterError

# Each would keep llguidance busy for hours, and fill the memory.
REMAINDERS = {"type": "integer", "allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}
PATTERNS = {"allOf": [{"type": "string", "pattern": f"(a|b)*a(a|b){{{n}}}"} for n in range(1, 24)]}
HARMLESS = {"type": "object", "properties": {"a": {"type": "integer", "multipleOf": 5}}}


@pytest.fixture
def trials():
    made = Sandbox()
    yield made
    made.close()


def grammar(schema):
    return form_of({"type": "json_schema", "schema": schema}).grammar


@pytest.mark.parametrize("schema", [REMAINDERS, PATTERNS])
def test_what_takes_too_much_does_not_pass_and_the_next_one_does(trials, schema):
    assert not trials.passes(grammar(schema))
    assert trials.passes(grammar(HARMLESS))


def test_a_process_that_somebody_has_ended_is_begun_anew(trials):
    assert trials.passes(grammar(HARMLESS))
    trials._process.kill()
    trials._process.wait()
    assert trials.passes(grammar({"type": "integer", "multipleOf": 7}))


@pytest.mark.parametrize("text", ["", "no grammar", '{"grammars": [{"lark_grammar": "start: x"}]}'])
def test_what_is_no_grammar_passes_since_compiling_it_tells_why(trials, text):
    assert trials.passes(text)


def test_one_that_was_closed_tries_nothing_more(trials):
    trials.passes(grammar(HARMLESS))
    trials.close()
    trials.close()
    assert trials.submit(print) is None


async def test_a_form_that_takes_too_much_is_refused_while_others_get_their_answers():
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


async def test_closing_ends_a_trial_that_goes_on():
    provider = MLXProvider()
    await provider.load()
    form = {"type": "json_schema", "schema": REMAINDERS}
    waiting = asyncio.create_task(provider.generate_async("x", response_format=form))
    await asyncio.sleep(0)
    await provider.aclose()
    with pytest.raises(GenerationError, match="closed"):
        await waiting
