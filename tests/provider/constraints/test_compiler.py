"""Constraints are compiled, refused with a reason, and kept."""

import re

import pytest

from provider.constraints import compiler as module
from provider.constraints.compiler import (
    MAX_COMPILED,
    MAX_SOURCE_BYTES,
    GrammarCompiler,
    constraint_of,
    refuse_costly,
    refuse_large,
)
from provider.embedded import MODEL_PATH
from provider.inputs.tools import normalise_tools
from provider.interface import GenerationError, InvalidParameterError
from provider.models.loading import tokenizer_of
from tests.provider.constraints.test_answer import answer

TOKENIZER = tokenizer_of(MODEL_PATH)


@pytest.fixture(scope="module")
def compiler():
    return GrammarCompiler(TOKENIZER, len(TOKENIZER))


def takes(matcher, text):
    """Whether a matcher accepts a text and is complete after it."""
    tokens = TOKENIZER.encode(text, add_special_tokens=False)
    taken = matcher.inner.try_consume_tokens(tokens)
    return taken == len(tokens) and matcher.inner.is_accepting()


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        ({"type": "json_object"}, '{"a": [1]}', "[1]"),
        ({"type": "json_schema", "schema": {"type": "integer"}}, "12", "1.5"),
        ({"type": "json_schema", "schema": True}, "null", "nil"),
        ({"type": "regex", "regex": "[ab]{2}"}, "ab", "abc"),
        ({"type": "lark", "grammar": 'start: "x" "y"'}, "xy", "yx"),
        ({"type": "choice", "choices": ["a.b", "c"]}, "a.b", "axb"),
    ],
)
def test_each_kind_of_format_accepts_only_what_fits(compiler, constraint, good, bad):
    assert takes(compiler.matcher(constraint), good)
    assert not takes(compiler.matcher(constraint), bad)


def test_a_schema_that_no_value_fits_is_refused(compiler):
    with pytest.raises(InvalidParameterError, match="schema is false"):
        compiler.matcher({"type": "json_schema", "schema": False})


def test_plain_text_has_no_constraint(compiler):
    assert constraint_of({"type": "text"}) is None
    assert compiler.matcher({"type": "text"}) is None


def test_matchers_of_one_constraint_are_independent(compiler):
    constraint = {"type": "regex", "regex": "ab|cd"}
    one, other = compiler.matcher(constraint), compiler.matcher(constraint)
    assert takes(one, "ab")
    assert takes(other, "cd")


def test_only_the_most_recently_used_constraints_are_kept():
    made = GrammarCompiler(TOKENIZER, len(TOKENIZER))
    constraints = [{"type": "choice", "choices": [str(n)]} for n in range(MAX_COMPILED + 1)]
    for constraint in constraints[:-1]:
        made.matcher(constraint)
    made.matcher(constraints[0])
    made.matcher(constraints[-1])
    assert len(made._kept) == MAX_COMPILED
    assert constraint_of(constraints[0]) in made._kept
    assert constraint_of(constraints[1]) not in made._kept


def test_a_constraint_whose_masks_took_long_is_compiled_anew_for_the_next_answer(compiler):
    given = {"type": "regex", "regex": "[xyz]{3}"}
    first = compiler.matcher(given)
    assert compiler.matcher(given).shared is first.shared
    first.shared.note(3600)
    again = compiler.matcher(given)
    assert again.shared is not first.shared
    assert takes(again, "xyz")


def test_what_the_kept_constraints_hold_is_bounded(monkeypatch):
    made = GrammarCompiler(TOKENIZER, len(TOKENIZER))
    large = {"type": "choice", "choices": [f"{n} of many" for n in range(300)]}
    small = [{"type": "choice", "choices": [str(n)]} for n in range(4)]
    matcher = made.matcher(large)
    assert matcher.shared.nbytes > 2 * made.matcher(small[0]).shared.nbytes
    monkeypatch.setattr(module, "MAX_COMPILED_BYTES", matcher.shared.nbytes + (3 << 20))
    for one in small:
        made.matcher(one)
    assert [*made._kept] == [constraint_of(one) for one in small]
    matcher = made.matcher(large)
    assert constraint_of(large) in made._kept
    matcher.shared.note(3600)  # its masks have filled the lexer's table of states
    made.matcher(small[3])
    assert [*made._kept] == [constraint_of(small[3])]


@pytest.mark.parametrize(
    ("kind", "field", "large"),
    [
        ("regex", "regex", "a" * MAX_SOURCE_BYTES),
        ("lark", "grammar", "ä" * (MAX_SOURCE_BYTES // 2)),
        ("choice", "choices", ["a" * 1000] * (MAX_SOURCE_BYTES // 1000)),
        ("json_schema", "schema", {"enum": [{"a" * 1000: 1}] * (MAX_SOURCE_BYTES // 1000)}),
    ],
)
def test_a_source_that_is_too_large_is_refused_by_its_field(kind, field, large):
    path = f"response_format.{field}"
    with pytest.raises(InvalidParameterError, match="at most 1,048,576 bytes") as caught:
        refuse_large({"type": kind, field: large}, [])
    assert caught.value.parameter == path
    refuse_large({"type": "regex", "regex": "a" * (MAX_SOURCE_BYTES // 2)}, [])


def test_the_schemas_of_tools_are_limited_alone_and_together():
    def tool(size):
        parameters = {"type": "object", "properties": {"a": {"const": "a" * size}}}
        return {"name": "f", "parameters": parameters}

    with pytest.raises(InvalidParameterError) as caught:
        refuse_large(None, normalise_tools([tool(1), tool(MAX_SOURCE_BYTES)]))
    assert caught.value.parameter == "tools[1].function.parameters"
    half = MAX_SOURCE_BYTES // 2
    with pytest.raises(InvalidParameterError) as caught:
        refuse_large(None, normalise_tools([tool(half), tool(half)]))
    assert caught.value.parameter == "tools"
    refuse_large({"type": "json_object"}, normalise_tools([tool(half)]))


async def test_a_large_source_is_refused_before_it_is_tried(provider):
    large = {"type": "regex", "regex": "a" * MAX_SOURCE_BYTES}
    with pytest.raises(InvalidParameterError, match=r"`response_format\.regex` must have at most"):
        await provider.generate_async("x", response_format=large)


def test_a_call_must_be_of_one_of_the_tools(compiler):
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    tools = normalise_tools([{"name": "add", "parameters": parameters}])
    call = '<tool_call>{{"name": "{}", "arguments": {{"a": 1}}}}</tool_call>'
    assert takes(compiler.call_matcher(tools), call.format("add"))
    assert not takes(compiler.call_matcher(tools), call.format("sub"))


def test_an_expensive_constraint_is_refused_with_the_name_of_its_option():
    constraint = {"type": "json_schema", "schema": {"type": "integer"}}
    tool = normalise_tools([{"name": "f", "parameters": {"properties": {"a": {}}}}])
    refuse_costly(lambda _grammars: None, constraint, tool)
    with pytest.raises(InvalidParameterError, match="too much time or memory") as caught:
        refuse_costly(lambda _grammars: 0, constraint, tool)
    assert caught.value.parameter == "response_format"
    with pytest.raises(InvalidParameterError) as caught:
        refuse_costly(lambda _grammars: 1, constraint, tool)
    assert caught.value.parameter == "tools"
    with pytest.raises(InvalidParameterError) as caught:
        refuse_costly(lambda _grammars: 0, None, tool)
    assert caught.value.parameter == "tools"
    refuse_costly(lambda grammars: 0 if grammars else None, None, [])


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ({"type": "regex", "regex": "("}, "invalid regex"),
        ({"type": "regex", "regex": "(?=a)b"}, "regex parse error: look-around, including"),
        ({"type": "lark", "grammar": "x y z"}, "Expected token"),
        ({"type": "json_schema", "schema": {"type": "nope"}}, "Invalid type"),
        ({"type": "json_schema"}, "must be a JSON Schema"),
        ({"type": "choice", "choices": []}, "must be a non-empty list of strings"),
        ({"type": "verse"}, "must be an object with a `type` of text, json_object"),
        ("json", "must be an object"),
        ({"type": "lark", "grammar": "start: start"}, "no text can fit it"),
        ({"type": "regex", "regex": r"[^\s\S]"}, "no text can fit it"),
        ({"type": "json_schema", "schema": {"const": b"x"}}, "not JSON serializable"),
    ],
)
async def test_an_impossible_constraint_is_refused_at_once(provider, constraint, said):
    with pytest.raises(InvalidParameterError, match=re.escape(said)) as caught:
        await provider.generate_async("x", stream=True, response_format=constraint)
    assert caught.value.parameter.startswith("response_format")


async def test_a_constraint_that_reached_its_limit_can_be_requested_again(provider):
    # Each letter that was written is counted on from, until there is too much to keep count of.
    constraint = {"type": "regex", "regex": r"([a-z]{1,400}[a-y]{1,400}){30,50}"}
    with pytest.raises(GenerationError, match="constraint is too complex: lexer error: too many"):
        await answer(provider, constraint, max_tokens=2000, seed=1)
    assert re.fullmatch(
        "[a-z]*", (await answer(provider, constraint, max_tokens=8, seed=1)).content
    )


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "integer", "minimum": 1 << 64}, "minimum"),
        ({"properties": {"a": {"type": "integer", "maximum": -(1 << 63)}}}, "properties.a.maximum"),
        ({"type": "number", "maximum": 1e300}, "maximum"),
        ({"enum": [1, {"x": 10**400}]}, "enum[1].x"),
    ],
)
def test_a_number_that_is_too_large_for_a_constraint_is_named_by_its_path(compiler, schema, path):
    path = f"response_format.schema.{path}"
    with pytest.raises(InvalidParameterError, match=re.escape(f"`{path}` must be from")) as caught:
        compiler.matcher({"type": "json_schema", "schema": schema})
    assert caught.value.parameter == path
    parameters = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1 << 64}}}
    tools = normalise_tools([{"name": "f", "parameters": parameters}])
    said = re.escape("`tools[0].function.parameters.properties.n.minimum` must be from")
    with pytest.raises(InvalidParameterError, match=said):
        compiler.call_matcher(tools)


def test_another_error_is_not_blamed_on_a_large_number(compiler):
    schema = {"properties": {"a": {"const": 1 << 64}, "b": {"type": "string", "pattern": "("}}}
    with pytest.raises(InvalidParameterError, match="regex parse error"):
        compiler.matcher({"type": "json_schema", "schema": schema})
