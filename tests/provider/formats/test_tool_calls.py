"""Tool calls of every format that mlx-lm reads are shown in parts and parsed when complete."""

import importlib
import json
import pkgutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm import tool_parsers

from provider.formats.tool_calls import ToolText, parse_calls
from provider.inputs.tools import normalise_tools


def weather(city: str, days: int = 1) -> str:
    """Tell the weather in a city."""


TOOLS = normalise_tools([weather])
ARGUMENTS = {"city": "Zürich", "days": 2}
GLM = (
    "weather<arg_key>city</arg_key><arg_value>Zürich</arg_value>"
    "<arg_key>days</arg_key><arg_value>2</arg_value>"
)
WRITTEN = {  # one call of `weather` with ARGUMENTS in each format
    "function_gemma": "call:weather{city:<escape>Zürich<escape>,days:2}",
    "gemma4": 'call:weather{city:<|"|>Zürich<|"|>,days:2}',
    "glm47": GLM,
    "json_tools": '\n{"name": "weather", "arguments": {"city": "Zürich", "days": 2}}\n',
    "kimi_k2": (
        "<|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
        '{"city": "Zürich", "days": 2}<|tool_call_end|>'
    ),
    "kimi_k3": (
        '<|open|>call tool="weather" index="1"<|sep|>'
        '<|open|>argument key="city" type="string"<|sep|>Zürich<|close|>argument<|sep|>'
        '<|open|>argument key="days" type="integer"<|sep|>2<|close|>argument<|sep|>'
        "<|close|>call<|sep|>"
    ),
    "laguna": GLM,
    "longcat": (
        "weather\n<longcat_arg_key>city</longcat_arg_key>\n"
        "<longcat_arg_value>Zürich</longcat_arg_value>\n"
        "<longcat_arg_key>days</longcat_arg_key>\n<longcat_arg_value>2</longcat_arg_value>\n"
    ),
    "minicpm5": ('"weather"><param name="city">Zürich</param><param name="days">2</param>'),
    "minimax_m2": (
        '\n<invoke name="weather">\n<parameter name="city">Zürich</parameter>\n'
        '<parameter name="days">2</parameter>\n</invoke>\n'
    ),
    "mistral": 'weather[ARGS]{"city": "Zürich", "days": 2}',
    "muse_spark": (
        '<atem:invoke name="weather"><atem:parameter name="city">Zürich</atem:parameter>'
        '<atem:parameter name="days">2</atem:parameter></atem:invoke>'
    ),
    "pythonic": '[weather(city="Zürich", days=2)]',
    "qwen3_coder": (
        "\n<function=weather>\n<parameter=city>\nZürich\n</parameter>\n"
        "<parameter=days>\n2\n</parameter>\n</function>\n"
    ),
}
NAMES = sorted(module.name for module in pkgutil.iter_modules(tool_parsers.__path__))


def tokenizer_with(name):
    module = importlib.import_module(f"mlx_lm.tool_parsers.{name}")
    return SimpleNamespace(
        tool_parser=module.parse_tool_call,
        tool_call_start=module.tool_call_start,
        tool_call_end=module.tool_call_end,
    )


def read(name, pieces, *, cut=False, first=0, tools=TOOLS):
    tokenizer = tokenizer_with(name)
    text = ToolText(tokenizer, tools, first)
    deltas = [delta for piece in pieces for delta in text.add(piece)]
    return text, deltas + text.close("" if cut else tokenizer.tool_call_end, cut=cut)


def joined(deltas):
    """Join each call's deltas: (id, name, arguments, complete, error, text)."""
    calls = {}
    for delta in deltas:
        call = calls.setdefault(delta.index, [delta.id, None, "", False, None, None])
        assert not call[3], "nothing follows the last part"
        assert call[0] == delta.id
        call[1] = call[1] or delta.name
        call[2] += delta.arguments or ""
        call[3:] = [delta.complete, delta.error, delta.text]
    return {index: tuple(call) for index, call in calls.items()}


def test_every_parser_of_mlx_lm_is_among_the_formats():
    assert sorted(WRITTEN) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_call_of_every_format_is_read(name):
    text, deltas = read(name, [WRITTEN[name]])
    (call,) = text.calls
    assert (call["name"], call["arguments"]) == ("weather", ARGUMENTS)
    assert text.broken == []
    (shown,) = joined(deltas).values()
    assert shown[:2] == (call["id"], "weather")
    assert json.loads(shown[2]) == ARGUMENTS
    assert shown[3:] == (True, None, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_call_that_is_cut_off_anywhere_is_never_read_as_another(name):
    written = WRITTEN[name]
    for length in range(len(written)):
        text, deltas = read(name, [written[:length]], cut=True)
        known = [(call["name"], call["arguments"]) for call in text.calls]
        assert known in ([], [("weather", ARGUMENTS)]), written[:length]
        broken = [delta for delta in deltas if delta.error]
        assert [delta.error for delta in broken] == ([] if known else ["cut_off"])
        assert all(delta.text.endswith(written[:length]) for delta in broken)


def test_plain_text_is_not_read_as_a_call():
    text, _ = read("glm47", ["I would rather not"])
    assert (text.calls, [delta.error for delta in text.broken]) == ([], ["malformed"])
    text, _ = read("glm47", ["tell<arg_key>raw</arg_key><arg_value>fish</arg_value>"])
    assert text.calls[0]["arguments"] == {"raw": "fish"}
    assert read("glm47", ["tell"])[0].calls[0]["arguments"] == {}


def test_the_models_own_call_id_is_kept():
    text, deltas = read("kimi_k2", [*WRITTEN["kimi_k2"]])
    assert text.calls[0]["id"] == "functions.weather:0"
    assert {delta.id for delta in deltas} == {"functions.weather:0"}
    text, _ = read("kimi_k2", [WRITTEN["kimi_k2"] * 2])  # one that it gives twice is not kept
    first, second = [call["id"] for call in text.calls]
    assert (first, second.startswith("call_")) == ("functions.weather:0", True)


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_calls_of_two_answers_have_different_ids(name):
    if name == "kimi_k2":
        pytest.skip("the model writes ids of its own")
    ids = {delta.id for _ in range(2) for delta in read(name, [WRITTEN[name]])[1]}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("name", "written", "arguments"),
    [
        ("json_tools", '{"name": "f", "arguments": {"a": "\\ud800"}}', {"a": "?"}),
        ("glm47", "f<arg_key>a</arg_key><arg_value>{1}</arg_value>", {"a": "{1}"}),
        ("pythonic", "[f(a=(1, 2), b=b'x')]", {"a": [1, 2], "b": "b'x'"}),
        ("pythonic", "[f(a={(1, 2): 3})]", {"value": "{'a': {(1, 2): 3}}"}),
        ("pythonic", "[f(a=[1e999, 1])]", {"a": ["Infinity", 1]}),
        ("glm47", "f<arg_key>a</arg_key><arg_value>NaN</arg_value>", {"a": "NaN"}),
        ("json_tools", '{"name": "f", "arguments": {"a": -1e999}}', {"a": "-Infinity"}),
    ],
)
def test_arguments_that_json_does_not_support_become_strings(name, written, arguments):
    text, deltas = read(name, [*written])
    (call,) = text.calls
    assert call["arguments"] == arguments
    json.dumps(call, ensure_ascii=False, allow_nan=False).encode()
    shown = "".join(delta.arguments or "" for delta in deltas)
    assert shown.encode()
    json.loads(shown, parse_constant=pytest.fail)


SHOWN = [
    "glm47",
    "json_tools",
    "kimi_k2",
    "laguna",
    "longcat",
    "minimax_m2",
    "mistral",
    "qwen3_coder",
]


@pytest.mark.parametrize("name", SHOWN)
def test_a_call_is_shown_while_it_is_written(name):
    text = ToolText(tokenizer_with(name), TOOLS)
    shown = [text.add(char) for char in WRITTEN[name]]
    parts = [delta for deltas in shown for delta in deltas]
    assert parts[0].name == "weather"
    assert [part.name for part in parts[1:]] == [None] * (len(parts) - 1)
    fragments = [part.arguments for part in parts if part.arguments]
    assert len(fragments) > 5
    assert not any(part.complete for part in parts)
    (last,) = text.close("</tool_call>")
    assert last.complete
    assert last.arguments in {None, "}"}
    assert json.loads("".join(fragments) + (last.arguments or "")) == ARGUMENTS


def test_the_name_may_come_after_the_arguments():
    written = '{"id": 7, "arguments": {"city": "Bern"}, "name": "weather"}'
    _, deltas = read("json_tools", written)
    assert deltas[0].name == "weather"
    assert deltas[0].arguments == '{"city": "Bern"}'


def test_arguments_as_text_come_whole_at_the_end():
    written = '{"name": "weather", "arguments": "{\\"city\\": \\"Bern\\"}"}'
    text, deltas = read("json_tools", written)
    assert text.calls[0]["arguments"] == {"city": "Bern"}
    assert [delta.name for delta in deltas] == ["weather", None]
    assert json.loads(deltas[1].arguments) == {"city": "Bern"}


def test_several_calls_in_one_text_have_an_index_each():
    written = 'weather[ARGS]{"city": "Bern"} weather[ARGS]{"city": "Ulm"}'
    text, deltas = read("mistral", written, first=2)
    assert len({call["id"] for call in text.calls}) == 2
    assert {i: json.loads(call[2])["city"] for i, call in joined(deltas).items()} == {
        2: "Bern",
        3: "Ulm",
    }


BROKEN = [
    ("json_tools", "{no json}", None, ""),
    ("json_tools", '{"name": "weather", "arg', "weather", ""),
    ("json_tools", '{"name": "weather", "arguments": {"city": "B', "weather", '{"city": "B'),
    ("json_tools", '{"name": "", "arguments": {}}', None, ""),
    ("json_tools", '{"arguments": {}}', None, ""),
    ("json_tools", "3", None, ""),
    ("mistral", "weather[ARGS]{", "weather", "{"),
    ("qwen3_coder", "<parameter=city>", None, ""),
]


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(("name", "written", "called", "arguments"), BROKEN)
def test_a_call_that_cannot_be_read_is_reported_with_its_text(
    name, written, called, arguments, cut
):
    text, deltas = read(name, written, cut=cut)
    tokenizer = tokenizer_with(name)
    whole = f"{tokenizer.tool_call_start}{written}{'' if cut else tokenizer.tool_call_end}"
    error = "cut_off" if cut else "malformed"
    assert text.calls == []
    own = deltas[0].id
    assert joined(deltas) == {0: (own, called, arguments, True, error, whole)}
    assert [delta.error for delta in text.broken] == [error]


def test_a_call_whose_arguments_come_twice_is_malformed():
    written = '{"name": "weather", "arguments": {"city": "A"}, "arguments": {"city": "B"}}'
    text, _ = read("json_tools", written)
    assert text.calls == []
    assert text.broken[0].error == "malformed"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_call_is_malformed_if_what_was_shown_of_it_is_no_json(number):
    written = f'{{"name": "weather", "arguments": {{"days": {number}}}}}'
    text, deltas = read("json_tools", [*written])
    assert text.calls == []
    assert [delta.error for delta in deltas if delta.complete] == ["malformed"]


def test_a_complete_call_counts_even_if_the_next_one_is_cut_off():
    written = 'weather[ARGS]{"city": "Bern"}weather[ARGS]{"city": "U'
    text, deltas = read("mistral", written, cut=True)
    assert [call["arguments"] for call in text.calls] == [{"city": "Bern"}]
    assert [call[4] for call in joined(deltas).values()] == [None, "cut_off"]


def json_parser(text, tools):
    return json.loads(text)


def test_calls_without_ids_get_one_each():
    text = '[{"name": "a", "arguments": {"x": 1}}, {"name": "b", "arguments": "{\\"y\\": 2}"}]'
    calls, whole = parse_calls(text, json_parser, [])
    assert whole
    assert [call["arguments"] for call in calls] == [{"x": 1}, {"y": 2}]
    assert len({call["id"] for call in calls}) == 2


def test_one_bad_call_of_two_is_reported():
    calls, whole = parse_calls('[{"name": "a"}, {"nome": "b"}]', json_parser, [])
    assert [call["name"] for call in calls] == ["a"]
    assert not whole


@pytest.mark.parametrize("text", ["{", "[" * 9999])
def test_arguments_in_text_that_cannot_be_read_are_one_value(text):
    call = json.dumps({"name": "a", "arguments": text})
    [one], whole = parse_calls(call, json_parser, [])
    assert (one["arguments"], whole) == ({"value": text}, True)


def test_arguments_that_are_no_object_are_kept_or_dropped():
    def arguments_of(text):
        return parse_calls(text, json_parser, [])[0][0]["arguments"]

    assert arguments_of('{"name": "a", "arguments": "x"}') == {"value": "x"}
    assert arguments_of('{"name": "a"}') == {}


# Any split gives the same. -----------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text('a"\\{}[],:é🦊\n', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"{', max_size=3), inner),
    max_leaves=6,
)
calls = st.fixed_dictionaries(
    {"name": st.text("ab", max_size=3), "arguments": json_values},
    optional={"id": json_values, "x": json_values},
)


@st.composite
def written_calls(draw):
    """Return a format and a text in it: a valid one, one cut off, or one with trailing junk."""
    call = draw(calls)
    fields = draw(st.permutations(list(call.items())))
    if draw(st.booleans()):
        text = json.dumps(dict(fields), ensure_ascii=draw(st.booleans()))
        name = "json_tools"
    else:
        one = f"{call['name']}[ARGS]{json.dumps(call['arguments'])}"
        text, name = one * draw(st.integers(1, 3)), "mistral"
    if draw(st.booleans()):
        text = text[: draw(st.integers(0, len(text)))]
    return name, text + draw(st.sampled_from(["", " ", "\n", "x", "{", '"']))


@given(written_calls(), st.data(), st.booleans())
def test_any_split_of_a_tool_text_gives_the_same_calls(written, data, cut):
    hold_split(*written, data, cut)


def hold_split(name, text, data, cut, tools=TOOLS):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    one, shown_at_once = read(name, [text], cut=cut, tools=tools)
    many, shown_in_parts = read(name, pieces, cut=cut, tools=tools)
    assert [dict(call, id="") for call in many.calls] == [dict(call, id="") for call in one.calls]
    assert [replace(call, id="") for call in many.broken] == [
        replace(call, id="") for call in one.broken
    ]
    in_parts, at_once = joined(shown_in_parts), joined(shown_at_once)
    assert {i: call[1:] for i, call in in_parts.items()} == {
        i: call[1:] for i, call in at_once.items()
    }
    assert len({call[0] for call in in_parts.values()}) == len(in_parts)
    for index, call in joined(shown_in_parts).items():
        good = [c for c in many.calls if c["id"] == call[0]]
        assert bool(good) == (call[4] is None), index
        assert not good or json.loads(call[2]) == good[0]["arguments"]
