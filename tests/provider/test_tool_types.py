"""The contract's tool types: definitions, calls, results."""

from typing import Optional, Union

import pytest

from provider.tool_types import ToolCall, ToolCallResponse, ToolDefinition, ToolResult


class Station:
    def weather(
        self,
        city: str,
        days: int = 1,
        hot: float | None = None,
        tags: Optional[list[str]] = None,
        place: Union[str, int] = "",
        *more: str,
        **others: str,
    ) -> str:
        """Tell the weather.

        Not of the first line.
        """


def test_a_function_is_described_by_its_signature_and_first_line():
    described = ToolDefinition.from_function(Station.weather)
    assert (described.name, described.description) == ("weather", "Tell the weather.")
    assert described.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "hot": {"type": "number"},
            "tags": {"type": "array"},
            "place": {"type": "string"},
        },
        "required": ["city"],
    }
    assert described.to_dict() == {
        "name": "weather",
        "description": "Tell the weather.",
        "parameters": described.parameters,
    }


def test_a_function_without_a_docstring_is_described_by_its_name():
    def add(a, b): ...

    described = ToolDefinition.from_function(add)
    assert described.description == "Function add"
    assert described.parameters["required"] == ["a", "b"]


def test_calls_without_an_id_get_one_each():
    one, other = ToolCall("add", {}), ToolCall("add", {})
    assert one.id != other.id
    assert one.id.startswith("call_")
    assert ToolCall("add", {}, "mine").id == "mine"


@pytest.mark.parametrize(("error", "success"), [(None, True), ("no such city", False)])
def test_a_result_without_an_error_is_a_success(error, success):
    assert ToolResult("call_0", "rain", error).success is success


def test_an_answer_says_whether_it_has_calls():
    assert not ToolCallResponse("It rains.").has_tool_calls()
    assert ToolCallResponse(None, [ToolCall("weather", {})]).has_tool_calls()
