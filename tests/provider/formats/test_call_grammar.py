"""The grammar of every format allows only calls that its parser reads back as fitting the tool."""

import importlib
import json
import random
import re
from functools import cache

import jsonschema
import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import AddedToken, AutoTokenizer

from provider.constraints.compiler import GrammarCompiler
from provider.embedded import MODEL_PATH
from provider.formats.tool_calls import parse_calls
from provider.inputs.tools import normalise_tools
from provider.interface import UnsupportedFeatureError
from provider.mlx_provider import MLXProvider
from tests.provider.formats.test_tool_calls import NAMES, TOOLS, WRITTEN
from tests.support.tiny_models import LIGHT, write_model

# Texts that are single tokens in the models' own vocabularies.
MARKS = re.findall(
    r"\S+",
    """<tool_call> </tool_call> <arg_key> </arg_key> <arg_value> </arg_value> <escape> <|"|>
<start_function_call> <end_function_call> <|tool_call> <tool_call|> <|open|> <|close|> <|sep|>
<|tool_calls_section_begin|> <|tool_calls_section_end|> <|tool_call_begin|> <|tool_call_end|>
<|tool_call_argument_begin|> [TOOL_CALLS] [ARGS] <longcat_tool_call> </longcat_tool_call>
<longcat_arg_key> </longcat_arg_key> <longcat_arg_value> </longcat_arg_value>
<|tool_call_start|> <|tool_call_end|> <minimax:tool_call> </minimax:tool_call>""",
)
# Texts that end a part of a call; a random walk would hardly find them.
ENDS = re.findall(
    r"\S+",
    """</arg_value> <escape> <|"|> <|close|> <|close|>argument<|sep|>
</longcat_arg_value> </param> </parameter>
</atem:parameter> " ] }""",
)
SCALARS = [
    {"type": "integer", "minimum": -9, "maximum": 99},
    {"type": "boolean"},
    {"type": "string"},
    {"type": "string", "enum": ["C", "F", "a b", "ü"]},
]
NESTED = [
    {"type": "array", "items": {"type": "integer", "maximum": 9, "minimum": 0}, "maxItems": 3},
    {"type": "array", "items": {"type": "string", "enum": ["x", "y"]}, "minItems": 1},
    {
        "type": "object",
        "properties": {"deep": {"type": "boolean"}, "more": {"type": "string", "enum": ["z"]}},
        "required": ["deep"],
        "additionalProperties": False,
    },
]


@cache
def compiler_of(name, *, marked):
    """Return the compiler of a tokenizer with that parser; `marked` if the markers are tokens."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    if marked:
        tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    module = importlib.import_module(f"mlx_lm.tool_parsers.{name}")
    wrapped = TokenizerWrapper(
        tokenizer,
        tool_parser=module.parse_tool_call,
        tool_call_start=module.tool_call_start,
        tool_call_end=module.tool_call_end,
    )
    return wrapped, GrammarCompiler(wrapped, len(tokenizer))


def some_tools(chance, *, nested):
    """Return two tools with arguments of many types."""
    kinds = SCALARS + (NESTED if nested else [])
    tools = []
    for name in ("weather", "set_alarm"):
        keys = [f"key_{n}" for n in range(chance.randint(0, 4))]
        parameters = {
            "type": "object",
            "properties": {key: chance.choice(kinds) for key in keys},
            "required": [key for key in keys if chance.random() < 0.6],
            "additionalProperties": False,
        }
        tools.append({"name": name, "parameters": parameters})
    return normalise_tools(tools)


def allowed(matcher):
    bits = memoryview(matcher.compute_bitmask()).cast("I")
    return [32 * n + bit for n, word in enumerate(bits) for bit in range(32) if word >> bit & 1]


def walk(matcher, tokenizer, chance):
    """Return a random text that the grammar allows, with a preference for end markers."""
    tokens = []
    ends = [
        tokenizer.encode(way + end, add_special_tokens=False) for end in ENDS for way in ("", "\n")
    ]
    while not matcher.is_stopped() and not matcher.is_accepting():
        assert len(tokens) < 2000, tokenizer.decode(tokens)
        for end in chance.sample(ends, len(ends)) if chance.random() < 0.3 else ():
            taken = matcher.try_consume_tokens(end)
            if taken == len(end):
                tokens += end
                break
            matcher.rollback(taken)
        else:
            token = chance.choice(allowed(matcher))
            assert matcher.try_consume_tokens([token]) == 1
            tokens.append(token)
    return tokenizer.decode(tokens)


MORE = pytest.param(range(8, 60), marks=pytest.mark.slow("many more texts"), id="more")


@pytest.mark.parametrize("seeds", [pytest.param(range(8), id="few"), MORE])
@pytest.mark.parametrize("marked", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize("name", NAMES)
def test_every_allowed_text_is_parsed_as_a_call_that_fits_its_tool(name, marked, seeds):
    wrapped, made = compiler_of(name, marked=marked)
    start, end = wrapped.tool_call_start, wrapped.tool_call_end
    for seed in seeds:
        chance = random.Random(seed)
        tools = some_tools(chance, nested=name != "function_gemma")
        text = walk(made.call_matcher(tools).inner, wrapped._tokenizer, chance)
        assert text.startswith(start), text
        assert text.endswith(end), text
        inner = text[len(start) : len(text) - len(end)]
        calls, whole = parse_calls(inner, wrapped.tool_parser, tools)
        assert (len(calls), whole) == (1, True), text
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
        try:
            jsonschema.validate(calls[0]["arguments"], schemas[calls[0]["name"]])
        except jsonschema.ValidationError as error:
            pytest.fail(f"{text!r}: {error.message}")


def takes(name, text, tools=TOOLS, *, marked=True, inside=True):
    """Return whether the grammar of a format allows a text."""
    wrapped, made = compiler_of(name, marked=marked)
    if inside:
        text = f"{wrapped.tool_call_start}{text}{wrapped.tool_call_end}"
    tokens = wrapped._tokenizer.encode(text, add_special_tokens=False)
    matcher = made.call_matcher(tools).inner
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


@pytest.mark.parametrize("marked", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize("name", NAMES)
def test_a_call_in_the_models_own_spelling_is_allowed(name, marked):
    written = WRITTEN[name]
    if name == "mistral" and not marked:  # of the time before the separator was a token
        written = '[{"name": "weather", "arguments": {"city": "Zürich", "days": 2}}]'
    assert takes(name, written, marked=marked)
    assert not takes(name, written.replace("weather", "wetter"), marked=marked)
    assert not takes(name, f"{written}{written}", marked=marked)
    assert not takes(name, "I would rather not.", marked=marked)


def test_only_optional_arguments_may_be_omitted():
    assert takes("pythonic", '[weather(city="Bern")]')
    assert not takes("pythonic", "[weather(days=2)]")
    assert takes("gemma4", 'call:weather{city:<|"|>Bern<|"|>}')
    assert not takes("gemma4", "call:weather{days:2}")


def told(schema):
    parameters = {"type": "object", "properties": {"what": schema}, "required": ["what"]}
    return normalise_tools([{"name": "tell", "parameters": parameters}])


def qwen(word):
    return f"\n<function=tell>\n<parameter=what>\n{word}\n</parameter>\n</function>\n"


@pytest.mark.parametrize(
    ("schema", "word", "may"),
    [
        ({"type": "string"}, "nullify", True),
        ({"type": "string"}, "Null", False),  # which the parser would take for none
        ({"type": ["string", "null"]}, "null", True),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null", True),
        ({"type": "string"}, "12", True),
        ({"type": "integer"}, "12", True),
        ({"type": "integer"}, "twelve", False),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "x", False),
        ({"enum": ["red", "dark red"]}, "dark red", True),
        ({"enum": ["red", "dark red"]}, "dark", False),
        ({"const": 3}, "3", True),
        ({"type": "string"}, "</parameter>", False),
    ],
)
def test_an_unquoted_argument_must_fit_its_type(schema, word, may):
    assert takes("qwen3_coder", qwen(word), told(schema)) is may


def test_a_schema_may_refer_to_another():
    tools = told({"$ref": "#/$defs/Word"})
    tools[0]["function"]["parameters"]["$defs"] = {"Word": {"enum": ["yes", "no"]}}
    assert takes("qwen3_coder", qwen("yes"), tools)
    assert not takes("qwen3_coder", qwen("perhaps"), tools)


TREE = {
    "properties": {
        "v": {"type": "integer"},
        "w": {"$ref": "#/properties/v"},
        "child": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
    },
    "required": ["v", "w", "child"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("json_tools", '{{"name": "tree", "arguments": {}}}'),
        (
            "kimi_k2",
            "<|tool_call_begin|>functions.tree:0<|tool_call_argument_begin|>{}<|tool_call_end|>",
        ),
    ],
)
def test_a_schema_may_refer_to_itself_and_omit_the_type_object(name, call):
    tools = normalise_tools([{"name": "tree", "parameters": TREE}])
    leaf = {"v": 1, "w": 2, "child": None}
    whole = {"v": 1, "w": 2, "child": leaf}
    wrapped = {"v": 1, "w": 2, "child": {"name": "tree", "arguments": leaf}}
    assert takes(name, call.format(json.dumps(leaf)), tools)
    assert takes(name, call.format(json.dumps(whole)), tools)
    assert not takes(name, call.format(json.dumps(wrapped)), tools)
    assert not takes(name, call.format(json.dumps({**leaf, "w": "x"})), tools)
    assert not takes(name, call.format("[]"), tools)
    assert not takes(name, call.format('"x"'), tools)


def test_no_text_is_allowed_that_a_parser_reads_as_another_type():
    written = (
        '<atem:invoke name="tell"><atem:parameter name="what">{}</atem:parameter></atem:invoke>'
    )
    tools = told({"type": "string"})
    for word, may in [("12 eggs", True), ("12", False), ("true", False), ("truer", True)]:
        assert takes("muse_spark", written.format(word), tools) is may


ITSELF = {
    "type": "object",
    "properties": {"next": {"$ref": "#/$defs/Node"}},
    "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}},
}
NOTHING_BUT_ITSELF = {
    "properties": {"a": {"$ref": "#/$defs/x"}},
    "$defs": {"x": {"$ref": "#/$defs/y"}, "y": {"$ref": "#/$defs/x"}},
}


@pytest.mark.parametrize(
    ("name", "tool", "said"),
    [
        ("function_gemma", {"properties": {"a": {"type": "array"}}}, "can't express"),
        ("gemma4", {"properties": {"a b": {"type": "string"}}}, "the name `a b`"),
        ("gemma4", ITSELF, "no recursive schemas"),
        ("qwen3_coder", NOTHING_BUT_ITSELF, "no recursive schemas"),
        ("pythonic", {"properties": {"class": {"type": "string"}}}, "the name `class`"),
    ],
)
def test_a_tool_that_a_format_cannot_express_is_an_error(name, tool, said):
    tools = normalise_tools([{"name": "tell", "parameters": tool}])
    with pytest.raises(UnsupportedFeatureError, match=said):
        takes(name, "", tools)


@pytest.fixture(params=NAMES)
def calling(request, tmp_path):
    """A model that must write calls in a format that it was not trained on."""
    path = write_model(tmp_path / "model", LIGHT, seed=1)
    file = path / "tokenizer_config.json"
    config = {**json.loads(file.read_text()), "tool_parser_type": request.param}
    file.write_text(json.dumps(config))
    provider = MLXProvider({"model": str(path), "temperature": 0.0})
    yield provider
    provider.close()


async def test_a_model_calls_in_every_format(calling):
    number = {"type": "integer", "minimum": 0, "maximum": 99}
    parameters = {"type": "object", "properties": {"a": number, "b": number}}
    parameters |= {"required": ["a"], "additionalProperties": False}
    tools = [{"name": "add", "description": "Add two numbers", "parameters": parameters}]
    options = {"tools": tools, "tool_choice": "required", "max_tokens": 200}
    response = await calling.generate_async("What is 3 plus 4?", **options)
    (call,) = response.tool_calls
    assert (call["name"], response.finish_reason, response.content) == ("add", "tool_calls", "")
    jsonschema.validate(call["arguments"], parameters)
