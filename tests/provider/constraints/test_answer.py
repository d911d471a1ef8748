"""Constrained answers of the embedded model and of a tiny model."""

import asyncio
import json
import random
import re

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLParserLimits

from provider import MLXProvider
from provider.constraints.answer import AnswerConstraint
from provider.constraints.compiler import GrammarCompiler, constraint_of
from provider.constraints.masks import Masks
from provider.constraints.matcher import Matcher
from provider.embedded import MODEL_PATH
from provider.formats.thinking import Thinking
from provider.interface import GenerationError, InvalidParameterError
from provider.models.loading import tokenizer_of
from tests.support.servers import eventually

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["old", "kind"]}, "maxItems": 2},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
HOT = {"temperature": 1.0, "max_tokens": 200}


@pytest.fixture(scope="module")
def provider():
    made = MLXProvider({"temperature": 0.0})
    yield made
    made.close()


async def answer(provider, response_format, prompt="Tell me about a fox", **options):
    return await provider.generate_async(
        prompt, response_format=response_format, **{**HOT, **options}
    )


async def answers(provider, response_format, count):
    """Return answers of as many seeds, made at the same time."""
    seeds = range(count)
    return await asyncio.gather(*(answer(provider, response_format, seed=n) for n in seeds))


FORMATS = [
    ({"type": "regex", "regex": "[a-c]{3}-[0-9]{2}"}, r"[a-c]{3}-[0-9]{2}"),
    ({"type": "choice", "choices": ["yes", "no", "it (depends)"]}, r"yes|no|it \(depends\)"),
    ({"type": "lark", "grammar": 'start: ("a" | "b")~3 "!"'}, r"[ab]{3}!"),
]


@pytest.mark.parametrize(("constraint", "pattern"), FORMATS)
async def test_an_answer_satisfies_its_constraint_and_ends_when_it_is_complete(
    quick, constraint, pattern
):
    for response in await answers(quick, constraint, 4):
        assert re.fullmatch(pattern, response.content)
        assert response.finish_reason == "stop"


@pytest.mark.parametrize(
    "constraint",
    [
        {"type": "json_schema", "schema": PERSON},
        {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}},
    ],
)
async def test_json_fits_its_schema_in_both_spellings(provider, constraint):
    for response in await answers(provider, constraint, 4):
        assert response.finish_reason == "stop"
        jsonschema.validate(json.loads(response.content), PERSON)


async def test_any_json_object_parses_unless_it_was_cut_off(provider):
    for response in await answers(provider, {"type": "json_object"}, 6):
        if response.finish_reason == "stop":
            assert isinstance(json.loads(response.content), dict)
        else:
            assert response.finish_reason == "length"


async def test_plain_text_is_not_constrained(quick):
    given = {"temperature": 0.0, "max_tokens": 40}
    free = await answer(quick, {"type": "text"}, **given)
    plain = await quick.generate_async("Tell me about a fox", **given)
    assert free.content == plain.content


async def test_thinking_comes_first_and_is_not_constrained(provider):
    constraint = {"type": "choice", "choices": ["yes", "no"]}
    response = await answer(
        provider,
        constraint,
        "Tell me a story about a fox",
        enable_thinking=True,
        max_tokens=400,
        seed=1,
    )
    assert len(response.reasoning_trace) > 20
    assert response.content in {"yes", "no"}


@pytest.mark.parametrize("most", [0, 5, 1000])
async def test_thinking_is_closed_after_its_budget_and_the_answer_begins(provider, most):
    prompt = "Tell me a story about a fox"
    given = {"enable_thinking": True, "max_tokens": 120, "temperature": 0.0}
    response, free = await asyncio.gather(
        provider.generate_async(prompt, max_reasoning_tokens=most, **given),
        provider.generate_async(prompt, **given),
    )
    assert response.content
    assert "<" not in response.content[:20]
    thoughts = response.usage["reasoning_tokens"]
    marker = 4  # most tokens of the marker that ends the thinking
    assert thoughts <= most + marker
    assert (thoughts > 10) is (most == 1000)
    assert (response.content == free.content) is (most == 1000)


@pytest.mark.parametrize("most", [0, 1, 6])
async def test_a_budget_holds_for_a_model_that_opens_its_thinking_repeatedly(provider, most):
    think = tokenizer_of(MODEL_PATH).think_start_id
    response = await provider.generate_async(
        "Tell me a story about a fox",
        max_reasoning_tokens=most,
        max_tokens=60,
        logit_bias={think: 100},  # makes the model think whenever it is allowed to
    )
    assert 0 <= response.usage["reasoning_tokens"] <= 2 * most
    assert (response.usage["reasoning_tokens"] > 0) is (most > 0)
    assert response.content


async def test_a_budget_changes_nothing_for_a_model_that_does_not_think(provider):
    with_budget = await provider.generate_async("Count from 3 to 9", max_reasoning_tokens=3)
    assert with_budget.content == (await provider.generate_async("Count from 3 to 9")).content


async def test_a_budget_and_a_constraint_go_together(provider):
    response = await answer(
        provider,
        {"type": "choice", "choices": ["yes", "no"]},
        "Tell me a story about a fox",
        enable_thinking=True,
        max_reasoning_tokens=8,
        seed=1,
    )
    assert response.content in {"yes", "no"}
    assert 0 < len(response.reasoning_trace) < 80


async def test_rows_with_and_without_a_constraint_run_together_and_keep_their_texts(quick):
    def asks(n):
        constraint = FORMATS[n % 3][0] if n % 2 else None
        given = {"response_format": constraint} if constraint else {}
        return {"prompt": f"Count from {n} to 30", "seed": n, **HOT, "max_tokens": 60, **given}

    alone = [(await quick.generate_async(**asks(n))).content for n in range(8)]
    together = await asyncio.gather(*(quick.generate_async(**asks(n)) for n in range(8)))
    assert [response.content for response in together] == alone


async def test_a_run_that_was_parked_goes_on_under_its_constraint(light):
    provider = MLXProvider({"model": str(light), "max_unread": 4})
    try:
        constraint = {"type": "regex", "regex": "[ab]{60}"}
        stream = await provider.generate_async(
            "x", stream=True, response_format=constraint, temperature=1.0, seed=2
        )
        text = ""
        async for delta in stream:
            text += delta.content or ""
            await eventually(lambda: provider.statistics().parkings)
        assert re.fullmatch("[ab]{60}", text)
    finally:
        await provider.aclose()


# What becomes too complex. --------------------------------------------------------------------

WORDS = ["".join(random.Random(n).choices("abcdefghijklm", k=9)) for n in range(3000)]
WORDS_OF_LARK = "start: " + " | ".join(f'"{word}"' for word in WORDS)
COUNTED = constraint_of({"type": "regex", "regex": "([a-z]{1,400}[a-y]{1,400}){1,50}"}).grammar
READ_IN_MANY_WAYS = "start: a\na: /[a-z]/ | a a a | a a\n"
LIMITS = {
    "max_items_in_row": (WORDS_OF_LARK, {}),
    "step_max_items": (READ_IN_MANY_WAYS, {"step_max_items": 2000}),
    "step_lexer_fuel": (COUNTED, {"step_lexer_fuel": 20_000}),
    "max_lexer_states": (COUNTED, {"max_lexer_states": 5000}),
}


@pytest.fixture(scope="module")
def tokenizer():
    compiler = GrammarCompiler(tokenizer_of(MODEL_PATH), 1536)
    compiler.matcher({"type": "regex", "regex": "x"})
    return compiler._tokenizer


def constrained(tokenizer, grammar, ends=(), **limits):
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=LLParserLimits(**limits))
    assert not matcher.is_error()
    return AnswerConstraint(Matcher(matcher), ends or tokenizer.eos_tokens, Thinking())


def allowed_by(constraint):
    masks = Masks(1, 1536)
    constraint.write(masks.row(0))
    bits = np.unpackbits(masks.row(0).view(np.uint8), bitorder="little")
    return [int(token) for token in np.flatnonzero(bits)]


@pytest.mark.parametrize("limit", LIMITS)
def test_an_answer_whose_constraint_reaches_a_limit_ends_with_an_error(tokenizer, limit):
    grammar, limits = LIMITS[limit]
    held, tokens, draw = constrained(tokenizer, grammar, **limits), [], random.Random(1)
    with pytest.raises(GenerationError, match="constraint is too complex"):
        while len(tokens) < 400:
            choices = [token for token in allowed_by(held) if token not in tokenizer.eos_tokens]
            assert choices  # it could go on
            tokens.append(draw.choice(choices))
            held.follow(len(tokens), tokens[-1], lambda: tokens)
    # And again, however often it is asked.
    for _ in range(2):
        with pytest.raises(GenerationError, match="constraint is too complex"):
            allowed_by(held)


@pytest.mark.parametrize("limit", [{"initial_lexer_fuel": 10}, {"max_grammar_size": 10}])
def test_a_constraint_beyond_a_limit_of_compiling_is_none(tokenizer, limit):
    matcher = LLMatcher(tokenizer, WORDS_OF_LARK, log_level=0, limits=LLParserLimits(**limit))
    with pytest.raises(GenerationError, match="constraint is too complex"):
        AnswerConstraint(Matcher(matcher), tokenizer.eos_tokens, Thinking())


def test_an_answer_that_has_violated_its_constraint_ends_with_an_error(tokenizer):
    held = constrained(tokenizer, constraint_of({"type": "regex", "regex": "ab"}).grammar)
    (z,) = tokenizer.tokenize_str("z")
    held.follow(1, z, lambda: [z])
    assert held.violated
    assert not held.satisfied(1)
    with pytest.raises(GenerationError, match="violated its constraint"):
        allowed_by(held)


@pytest.mark.parametrize("ahead", [0, 1])
def test_an_answer_may_end_where_its_constraint_is_satisfied(tokenizer, ahead):
    tokens = [*tokenizer.tokenize_str("ab") * 2, tokenizer.eos_tokens[0]]
    held = constrained(tokenizer, constraint_of({"type": "regex", "regex": "(ab)+"}).grammar)
    found = {}
    for n in range(len(tokens)):
        held.follow(n, tokens[n - 1], lambda n=n: tokens[:n])
        allowed_by(held)
        if n >= ahead:  # a step is launched before the token of the last one is read
            found[tokenizer.decode_str(tokens[: n - ahead])] = held.satisfied(n - ahead)
    assert found == {text: text in {"ab", "abab"} for text in found}
    assert "ab" in found
    assert not held.satisfied(100)


async def test_an_answer_with_too_many_choices_ends_with_an_error_and_not_as_a_story(quick):
    given = {"type": "lark", "grammar": WORDS_OF_LARK}
    with pytest.raises(GenerationError, match="constraint is too complex"):
        await answer(quick, given, "Tell me a story")
    # As a list of choices they are one regular expression, which is no problem.
    given = {"type": "choice", "choices": WORDS}
    assert (await answer(quick, given, "Tell me a story")).content in WORDS


async def test_a_drafted_run_keeps_to_its_constraint(tmp_path):
    provider = MLXProvider({"draft_model": "embedded"})
    try:
        for seed in range(3):
            response = await answer(provider, {"type": "json_schema", "schema": PERSON}, seed=seed)
            jsonschema.validate(json.loads(response.content), PERSON)
    finally:
        await provider.aclose()


def test_rejected_draft_tokens_are_taken_back_without_following_the_answer_anew(tokenizer):
    held = constrained(tokenizer, constraint_of({"type": "regex", "regex": "(ab|cd)*"}).grammar)
    held.drafted = True
    a, b, c, z = (tokenizer.tokenize_str(letter)[0] for letter in "abcz")
    resets = []
    held._restart = lambda: resets.append(held)
    masks = {}
    for tokens in ([a], [a, b], [a, b, c], [a, b, c, z], [a, b, c, z, z], [a, b], [a, b, a], [a]):
        held.follow(len(tokens), tokens[-1], lambda tokens=tokens: tokens)
        assert held.violated == (z in tokens)
        if not held.violated:
            masks.setdefault(tuple(tokens), []).append(allowed_by(held))
    assert masks[a,] == [masks[a,][0]] * 2
    assert masks[a, b] == [masks[a, b][0]] * 2
    assert masks[a,] != masks[a, b] != masks[a, b, a]
    assert resets == []


# Tool choice. -----------------------------------------------------------------------------------

TOOLS = [
    {
        "name": "get_weather",
        "description": "The weather of a place",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "maxLength": 20},
                "unit": {"enum": ["C", "F"]},
            },
            "required": ["place", "unit"],
            "additionalProperties": False,
        },
    },
    {
        "name": "add",
        "description": "Add two numbers",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "minimum": 0, "maximum": 99},
                "b": {"type": "integer", "minimum": 0, "maximum": 99},
            },
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
]


async def called(provider, choice, prompt="Tell me a story about a fox", **options):
    given = {"tools": TOOLS, "tool_choice": choice, "max_tokens": 200, **options}
    return await provider.generate_async(prompt, **given)


@pytest.mark.parametrize("seed", range(3))
async def test_a_required_call_comes_and_fits_its_tool(provider, seed):
    response = await called(provider, "required", temperature=1.0, seed=seed)
    (call,) = response.tool_calls
    assert (response.finish_reason, response.content) == ("tool_calls", "")
    parameters = {tool["name"]: tool["parameters"] for tool in TOOLS}
    jsonschema.validate(call["arguments"], parameters[call["name"]])


@pytest.mark.parametrize(
    "choice", [{"type": "function", "function": {"name": "add"}}, {"name": "add"}]
)
async def test_a_tool_chosen_by_name_is_called_whatever_the_prompt(provider, choice):
    response = await called(provider, choice)
    assert [call["name"] for call in response.tool_calls] == ["add"]


async def test_no_tool_is_called_with_tool_choice_none(provider):
    prompt = "What is the weather in Paris, in C?"
    assert (await called(provider, "auto", prompt)).tool_calls
    response = await called(provider, "none", prompt)
    assert not response.tool_calls
    assert response.content


async def test_no_tool_is_called_with_tool_choice_none_after_turns_with_calls(provider):
    call = {"id": "1", "name": "get_weather", "arguments": {"place": "Paris", "unit": "C"}}
    messages = [
        {"role": "user", "content": "What is the weather in Paris, in C?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": '{"sky": "rainy"}'},
        {"role": "assistant", "content": "It is rainy in Paris."},
        {"role": "user", "content": "What is the weather in Tarvola, in C?"},
    ]
    assert (await called(provider, "auto", "", messages=messages)).tool_calls
    response = await called(provider, "none", "", messages=messages)
    assert response.finish_reason == "stop"
    assert response.content
    assert "get_weather" not in response.content


# Short ones, so that every answer comes to its end.
LEAVES = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda low: {"type": "integer", "minimum": low, "maximum": low + 99}, st.integers(0, 9)
    ),
    st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 8)),
    st.builds(
        lambda words: {"enum": words},
        st.lists(st.text('ab ü"\\', max_size=4), min_size=1, max_size=3, unique=True),
    ),
)


def composed(inner):
    names = st.sampled_from(["a", "b c", "ü", 'q"'])
    return st.one_of(
        st.builds(
            lambda items, least: {
                "type": "array",
                "items": items,
                "minItems": least,
                "maxItems": least + 1,
            },
            inner,
            st.integers(0, 1),
        ),
        st.builds(
            lambda fields: {
                "type": "object",
                "properties": fields,
                "required": sorted(fields),
                "additionalProperties": False,
            },
            st.dictionaries(names, inner, min_size=1, max_size=3),
        ),
        st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=2)),
    )


SCHEMAS = st.recursive(LEAVES, composed, max_leaves=5)
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def check_schema(provider, schema, seed):
    response = provider.generate(
        "Tell me about a fox",
        response_format={"type": "json_schema", "schema": schema},
        temperature=1.0,
        seed=seed,
        max_tokens=3000,  # white space takes more than all else, once in a while
    )
    assert response.finish_reason == "stop"
    jsonschema.validate(json.loads(response.content), schema)


@settings(max_examples=12, suppress_health_check=SHARED)
@given(schema=SCHEMAS, seed=st.integers(0, 99))
def test_an_answer_fits_any_schema(provider, schema, seed):
    check_schema(provider, schema, seed)


@pytest.mark.slow("a hundred schemas take half a minute")
@settings(max_examples=100, suppress_health_check=SHARED)
@given(schema=SCHEMAS, seed=st.integers(0, 99))
def test_an_answer_fits_any_of_many_schemas(provider, schema, seed):
    check_schema(provider, schema, seed)


# Penalties and biases. --------------------------------------------------------------------------


async def test_a_bias_forbids_and_forces_tokens(provider):
    plain = await provider.generate_async("Count from 3 to 9", max_tokens=20)
    biased = await provider.generate_async(
        "Count from 3 to 9", max_tokens=20, logit_bias={str(n): -100 for n in range(200, 1200)}
    )
    assert plain.content != biased.content
    token = 321
    forced = await provider.generate_async("x", max_tokens=3, logit_bias={token: 100})
    assert forced.content == tokenizer_of(MODEL_PATH).decode([token] * 3).lstrip()
    with pytest.raises(InvalidParameterError, match="has 1536 tokens, and no token 1536"):
        await provider.generate_async("x", logit_bias={"1536": 1})


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
async def test_penalties_make_for_fewer_repetitions(provider, name):
    async def distinct(**options):
        letters = {"type": "regex", "regex": "( [a-z]){24}"}
        response = await answer(provider, letters, "Hi", temperature=0.0, **options)
        return len(set(response.content))

    penalised, plain = await asyncio.gather(distinct(**{name: 2.0}), distinct())
    assert penalised > plain
