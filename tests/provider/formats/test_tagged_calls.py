"""Calls with their arguments between tags, shown as JSON while they are written."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provider.formats.tagged_calls import TaggedCalls, Tags
from provider.formats.tool_calls import parse_calls
from provider.inputs.tools import normalise_tools
from tests.provider.formats.test_tool_calls import hold_split, read, tokenizer_with

TAGS = Tags(
    re.compile(r"\s*<f ([^\s<>]+)>"),
    re.compile(r"\s*<a ([^\s<>]+)>"),
    "</a>",
    re.compile(r"\s*</f>"),
    "</f>",
    several=True,
)
TELL = {"type": "object", "properties": {"s": {"type": "string"}, "n": {"type": "integer"}}}
TOOLS = normalise_tools([{"name": "tell", "parameters": TELL}])


def parser(text, _tools):
    """Read one call: `null` as none, what is JSON as that but for `s`, all else as it is."""
    name = re.search(r"<f (.*?)>", text)[1]
    arguments = {}
    for key, value in re.findall(r"<a (.*?)>(.*?)</a>", text, re.DOTALL):
        found = value.strip()
        if found == "null" or key != "s":
            found = json.loads(found)
        arguments[key] = found
    return {"name": name, "arguments": arguments}


def parts(*texts):
    reader = TaggedCalls(TAGS, parser, TOOLS)
    return [[(p.name, p.arguments) for p in reader.add(text)] for text in texts], reader


def test_a_string_is_shown_before_it_has_ended():
    shown, _ = parts("<f tell><a s>", "Once ", "upon", "</", "a></f>")
    assert shown == [
        [("tell", "")],
        [(None, '{"s": "Once')],
        [(None, " upon")],
        [],
        [(None, '"'), (None, "}")],
    ]


def test_a_possible_end_tag_and_a_possible_null_are_held_back():
    shown, _ = parts("<f tell><a s>nul", "l</a>")
    assert shown == [[("tell", "")], [(None, '{"s": null')]]
    shown, _ = parts("<f tell><a s>a</", "b</a>")
    assert shown == [[("tell", ""), (None, '{"s": "a')], [(None, '</b"')]]


def test_other_values_than_strings_are_shown_when_complete():
    shown, _ = parts("<f tell><a n>1", "2</a>", "</f><f tell>")
    assert shown == [[("tell", "")], [(None, '{"n": 12')], [(None, "}"), ("tell", "")]]


def test_nothing_is_shown_after_an_argument_that_the_parser_refuses():
    shown, _ = parts("<f tell><a n>x</a>", "<a s>more</a></f>")
    assert shown == [[("tell", "")], []]


def test_the_rest_of_an_open_call_has_the_arguments_not_yet_shown():
    _, reader = parts("<f tell><a n>1</a>")
    assert reader.rest({"n": 1, "s": "x"}) == ', "s": "x"}'
    assert parts("<f tell>")[1].rest({"n": 1}) == ""


@pytest.mark.parametrize("text", ["", "I would rather not", "<a s>no call</a>"])
def test_text_that_is_no_call_is_not_shown(text):
    assert parts(text)[0] == [[]]


# Of the families, any split. ---------------------------------------------------------------------

CALLS = {  # a call, one argument
    "glm47": ("{}\n{}", "<arg_key>{}</arg_key>\n<arg_value>{}</arg_value>\n"),
    "longcat": (
        "{}{}",
        "<longcat_arg_key>{}</longcat_arg_key><longcat_arg_value>{}</longcat_arg_value>",
    ),
    "minimax_m2": ('<invoke name="{}">\n{}</invoke>\n', '<parameter name="{}">{}</parameter>\n'),
    "qwen3_coder": (
        "\n<function={}>\n{}</function>\n",
        "<parameter={}>\n{}\n</parameter>\n",
    ),
}
VALUES = st.one_of(
    st.text('ab "\\<>/{}:é🦊\n ', max_size=9),
    st.sampled_from(
        ["null", "NULLS", "3", "x</par", "</arg_value", "[1, 2]", "{1, 2}", "'x'", "1e2"]
    ),
)


@st.composite
def tagged_calls(draw):
    """Return a format in tags, a text in it as above, tools, and whether the calls are whole."""
    name = draw(st.sampled_from(sorted(CALLS)))
    call, argument = CALLS[name]
    given = draw(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), VALUES), max_size=3))
    text = call.format("tell", "".join(argument.format(*one) for one in given))
    text *= draw(st.integers(1, 2)) if name == "minimax_m2" else 1
    whole = draw(st.booleans())
    if not whole:
        text = text[: draw(st.integers(0, len(text)))]
    kinds = st.sampled_from(["string", "string", "integer", "boolean", "object"])
    fields = {key: {"type": draw(kinds)} for key in "ab"}
    tools = [{"name": "tell", "parameters": {"type": "object", "properties": fields}}]
    return name, text + draw(st.sampled_from(["", "\n", "x", "<"])), normalise_tools(tools), whole


@given(tagged_calls(), st.data(), st.booleans())
def test_any_split_of_a_call_in_tags_gives_the_same_calls(written, data, cut):
    name, text, tools, whole = written
    hold_split(name, text, data, cut, tools)
    if whole:  # nothing that the parser reads is lost by having been shown
        parser = tokenizer_with(name).tool_parser
        parsed, _ = parse_calls(text, parser, tools)
        shown = read(name, [text], tools=tools)[0].calls
        assert [call["arguments"] for call in shown] == [call["arguments"] for call in parsed]
