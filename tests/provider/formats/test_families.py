"""The table of families against what mlx-lm ships, and a family that is added to it."""

import importlib
import json
import pkgutil
from types import SimpleNamespace

import jsonschema
import pytest
from mlx_lm import tool_parsers
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import AddedToken, AutoTokenizer

from provider import MLXProvider
from provider.embedded import MODEL_PATH
from provider.events import CallDelta, TextDelta
from provider.formats.call_grammar import Headed
from provider.formats.chat_template import ChatTemplate
from provider.formats.families import (
    FAMILIES,
    UNKNOWN,
    model_format,
    what_is_missing,
    with_own_reading,
)
from provider.formats.lark import Lark
from provider.formats.text_stream import TextFormat, TextStream
from provider.formats.tool_calls import ToolText
from provider.inputs.messages import conversation
from provider.interface import UnsupportedFeatureError
from provider.models.loading import tokenizer_of
from tests.provider.formats import toy_family
from tests.provider.formats.test_tool_calls import ARGUMENTS, TOOLS, WRITTEN
from tests.support.tiny_models import LLAMA, write_model

# With the tokens that its models have, Mistral writes a name bare, and not as JSON.
IN_TOKENS = {"mistral": Headed("{name}[ARGS]")}
SHIPPED = sorted(module.name for module in pkgutil.iter_modules(tool_parsers.__path__))


def test_every_tool_parser_that_mlx_lm_ships_has_an_entry_and_a_sample():
    own = {name for name, family in FAMILIES.items() if family.own is not None}
    assert sorted(FAMILIES.keys() - own) == SHIPPED
    assert sorted(WRITTEN) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_tokenizer_with_a_shipped_parser_finds_the_entry(name):
    module = importlib.import_module(f"mlx_lm.tool_parsers.{name}")
    tokenizer = SimpleNamespace(tool_parser=module.parse_tool_call)
    assert model_format(tokenizer) is FAMILIES[name]
    assert what_is_missing(tokenizer) == ""


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_grammar_for_calls(name):
    assert FAMILIES[name].calls.grammar is not None


@pytest.mark.parametrize("name", ['a"b', "<tool_call>", "</think>", "a\nb"])
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"json_tools"}))
def test_no_family_can_write_a_refused_name(family, name):
    lark = Lark(AutoTokenizer.from_pretrained(MODEL_PATH))
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    grammar = IN_TOKENS.get(family, FAMILIES[family].calls.grammar)
    with pytest.raises(UnsupportedFeatureError, match="can't express the name"):
        grammar.call(lark, {"name": name, "parameters": parameters})


def test_a_name_in_json_cannot_contain_a_marker():
    tokenizer = tokenizer_of(MODEL_PATH)
    stream = TextStream(TextFormat(tokenizer))
    text = '<tool_call>{"name": "</tool_call>", "arguments": {}}</tool_call>'
    for token in tokenizer.encode(text, add_special_tokens=False):
        stream.add(token)
    stream.finish()
    assert [broken.error for broken in stream.broken] == ["malformed"]


@pytest.mark.parametrize(
    "name", [name for name in SHIPPED if FAMILIES[name].calls.part_ends_with is not None]
)
def test_parsers_marked_as_accepting_incomplete_calls_do_so(name):
    module = importlib.import_module(f"mlx_lm.tool_parsers.{name}")
    written = WRITTEN[name]

    def reads(text):
        try:
            return module.parse_tool_call(text, TOOLS)
        except Exception:  # noqa: BLE001 - parsers raise whatever the bad text makes them raise
            return None

    parts = [reads(written[:length]) for length in range(1, len(written))]
    assert any(part and part != reads(written) for part in parts)


# A family that nobody knows. ---------------------------------------------------------------------


def unknown_parser(text, tools):
    return json.loads(text)


unknown_parser.__module__ = "mlx_lm.tool_parsers.of_tomorrow"


def test_calls_of_an_unknown_family_are_shown_only_when_complete():
    tokenizer = SimpleNamespace(
        tool_parser=unknown_parser, tool_call_start="<c>", tool_call_end="</c>"
    )
    assert model_format(tokenizer) is UNKNOWN
    missing = what_is_missing(tokenizer)
    assert "`of_tomorrow`" in missing
    assert "`tool_choice`" in missing
    text = ToolText(tokenizer, TOOLS)
    assert text.add(json.dumps({"name": "weather", "arguments": ARGUMENTS})) == []
    (delta,) = text.close("</c>")
    assert (delta.name, json.loads(delta.arguments)) == ("weather", ARGUMENTS)


def test_a_template_with_tools_but_no_parser_is_reported():
    tokenizer = TokenizerWrapper(AutoTokenizer.from_pretrained(MODEL_PATH))
    assert "come as text" in what_is_missing(tokenizer)
    tokenizer.chat_template = "{{ messages[0].content }}"
    assert what_is_missing(tokenizer) == ""


async def test_loading_an_unknown_family_logs_one_line(tmp_path, caplog):
    folder = write_model(tmp_path / "odd", LLAMA, markers=False)
    template = folder / "chat_template.jinja"
    text = template.read_text() if template.exists() else ""
    template.write_text(text.replace("<tool_call>", "[tool_call]") + "{# tools #}")
    provider = MLXProvider({"model": str(folder)})
    try:
        with caplog.at_level("WARNING"):
            await provider.load()
    finally:
        await provider.aclose()
    lines = [r.getMessage() for r in caplog.records if "come as text" in r.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("`odd`: ")


# A family that is added: an entry, and a file. ---------------------------------------------------

ADD = {
    "name": "add",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["a"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(FAMILIES, "toy_family", toy_family.ENTRY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in toy_family.TOKENS])
    tokenizer.chat_template = toy_family.TEMPLATE
    path = tmp_path_factory.mktemp("toy")
    write_model(path, {**LLAMA, "vocab_size": len(tokenizer)}, markers=False)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (path / file).unlink(missing_ok=True)
    tokenizer.save_pretrained(path)
    config = path / "tokenizer.json"
    config.write_text(config.read_text().replace("<think>", "(think)"))  # nothing that mlx-lm knows
    return path


@pytest.fixture
def tokenizer(toy, folder):
    return tokenizer_of(folder)


def test_the_toy_family_is_found_by_its_vocabulary(tokenizer):
    assert not tokenizer.has_thinking
    assert model_format(tokenizer) is toy_family.ENTRY
    assert what_is_missing(tokenizer) == ""
    assert with_own_reading(tokenizer_of(MODEL_PATH)).tool_parser is not toy_family.parse_tool_call


def test_the_toy_familys_thinking_answer_and_call_are_separated(tokenizer):
    stream = TextStream(TextFormat(tokenizer), tools=[ADD])
    text = '[mind]I plan.[/mind]See: [call]add {"a": 12}[/call]'
    found = []
    for token in tokenizer.encode(text, add_special_tokens=False):
        found += stream.add(token)
    shown = [one.call for one in found if isinstance(one, CallDelta)]
    texts = [one for one in found if isinstance(one, TextDelta)]
    assert "".join(one.text for one in texts if one.reasoning) == "I plan."
    assert "".join(one.text for one in texts if not one.reasoning) == "See: "
    assert len(shown) > 2
    assert stream.calls == [{"id": shown[0].id, "name": "add", "arguments": {"a": 12}}]


def test_the_toy_familys_template_gets_earlier_calls_in_its_form(tokenizer):
    call = {"id": "1", "function": {"name": "add", "arguments": {"a": 1}}}
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "1"},
    ]
    text = ChatTemplate(tokenizer).text(conversation("", None, messages), [])
    assert '[call]add {"a": 1}[/call]' in text


async def test_the_toy_familys_calls_can_be_required_and_its_thinking_limited(toy, folder):
    provider = MLXProvider({"model": str(folder), "temperature": 1.0})
    opening = tokenizer_of(folder).convert_tokens_to_ids("[mind]")
    try:
        for seed in range(3):
            required = {"tools": [ADD], "tool_choice": "required", "seed": seed}
            (call,) = (await provider.generate_async("Hi", **required)).tool_calls
            jsonschema.validate(call["arguments"], ADD["parameters"])
        thought = await provider.generate_async(
            "Hi", logit_bias={opening: 100}, max_reasoning_tokens=4, max_tokens=30, seed=1
        )
        assert 0 < thought.usage["reasoning_tokens"] <= 5
        assert thought.content
    finally:
        await provider.aclose()
