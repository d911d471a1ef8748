import functools
import re
from typing import Literal

import pytest

from provider.inputs.tools import MAX_BYTES, _by_docstring, _by_transformers, normalise_tools
from provider.interface import InvalidParameterError


def weather(city: str, days: int = 1) -> str:
    """Tell the weather in a city."""


FLAT = {"name": "weather", "description": "Tell.", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    "tool",
    [weather, FLAT, {"type": "function", **FLAT}, {"type": "function", "function": FLAT}],
)
def test_all_forms_of_a_tool_become_one(tool):
    (tool,) = normalise_tools([tool])
    assert tool["type"] == "function"
    assert tool["function"]["name"] == "weather"
    assert tool["function"]["parameters"]["type"] == "object"


def test_a_function_is_described_by_its_signature():
    (tool,) = normalise_tools([weather])
    assert tool["function"]["description"] == "Tell the weather in a city."
    assert tool["function"]["parameters"] == {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    }


def forecast(city: str, unit: Literal["c", "f"] = "c", days: list[int] | None = None):
    """Tell how the weather will be.

    Args:
        city: Where.
        unit: Celsius or Fahrenheit.
        days: From today.
    """


def test_a_docstring_that_describes_the_arguments_is_read():
    (tool,) = normalise_tools([forecast])
    assert tool["function"]["description"] == "Tell how the weather will be."
    properties = tool["function"]["parameters"]["properties"]
    assert properties["city"] == {"type": "string", "description": "Where."}
    assert properties["unit"]["enum"] == ["c", "f"]
    assert properties["days"]["items"] == {"type": "integer"}
    assert tool["function"]["parameters"]["required"] == ["city"]


def departures(station: str, minutes: int = 30, exact: bool = False):
    """Tell which trains leave.

    Args:
        station: The name of the station,
            in any spelling.
        minutes: How far to look ahead.
        exact: Whether delays count.

    Returns:
        The trains.
    """


def test_plain_types_are_described_without_transformers_as_with_it():
    assert _by_docstring(departures) == _by_transformers(departures)
    assert "spelling" in str(_by_docstring(departures))


def test_a_callable_that_cannot_be_described_is_named_by_its_index():
    with pytest.raises(InvalidParameterError) as caught:
        normalise_tools([functools.partial(weather, "Ulm")])
    assert caught.value.parameter == "tools[0]"


@pytest.mark.parametrize(
    "bad", [3, {}, {"name": 3}, {"name": ""}, {"type": "function", "function": None}]
)
def test_a_bad_tool_is_named_by_its_index(bad):
    with pytest.raises(InvalidParameterError) as caught:
        normalise_tools([FLAT, bad])
    assert caught.value.parameter == "tools[1]"


@pytest.mark.parametrize(
    "name", ['a"b', "<tool_call>", "</think>", "a\nb", "a b", "a\n", "f(", "a:b", "a" * 257]
)
def test_a_name_that_no_family_can_write_is_refused_by_its_path(name):
    for tool, path in (
        ({"name": name}, "tools[0].name"),
        ({"type": "function", "function": {"name": name}}, "tools[0].function.name"),
    ):
        with pytest.raises(InvalidParameterError, match="letters, digits") as caught:
            normalise_tools([tool])
        assert caught.value.parameter == path


@pytest.mark.parametrize("name", ["weather", "get-weather_2", "server.tool", "größe"])
def test_a_name_that_a_family_can_write_is_kept(name):
    assert normalise_tools([{"name": name}])[0]["function"]["name"] == name


def test_a_function_without_a_name_of_its_own_is_refused():
    with pytest.raises(InvalidParameterError, match="letters, digits") as caught:
        normalise_tools([lambda city: city])
    assert caught.value.parameter == "tools[0].__name__"


def test_parameters_that_are_not_a_schema_are_named_by_their_path():
    with pytest.raises(InvalidParameterError) as caught:
        normalise_tools([FLAT, {"name": "tell", "parameters": ["city"]}])
    assert caught.value.parameter == "tools[1].parameters"


def test_the_path_in_an_error_fits_the_form_of_the_tool():
    for tool, path in (
        ({"name": "f", "parameters": {"required": True}}, "tools[0].parameters.required"),
        ({"name": "f", "description": 3}, "tools[0].description"),
    ):
        for given, at in (
            (tool, path),
            ({"type": "function", "function": tool}, path.replace("[0]", "[0].function")),
        ):
            with pytest.raises(InvalidParameterError) as caught:
                normalise_tools([given])
            assert caught.value.parameter == at


def test_variadic_arguments_are_not_described():
    def sum_of(first: int, *more: int, **options: str) -> int:
        """Add numbers."""

    [tool] = normalise_tools([sum_of])
    assert list(tool["function"]["parameters"]["properties"]) == ["first"]


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"type": "string"}, "tools[0].parameters.type"),
        ({"properties": {"a": {"const": b"x"}}}, "tools[0].parameters"),
    ],
)
def test_parameters_that_are_not_an_object_or_not_json_are_named(parameters, path):
    with pytest.raises(InvalidParameterError, match=re.escape(f"`{path}`")):
        normalise_tools([{"name": "f", "parameters": parameters}])


def test_tools_that_are_too_large_together_are_refused_by_the_one_that_is_too_much():
    half = {"name": "a", "description": "x" * (MAX_BYTES // 2)}
    assert len(normalise_tools([half, FLAT])) == 2
    for large in (half, {"name": "b", "parameters": {"properties": {"é" * (MAX_BYTES // 4): {}}}}):
        with pytest.raises(InvalidParameterError, match=f"{MAX_BYTES} bytes") as raised:
            normalise_tools([half, FLAT, large])
        assert raised.value.parameter == "tools[2]"
