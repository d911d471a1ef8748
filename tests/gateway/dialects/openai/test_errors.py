import pytest
from msgspec import UNSET

from gateway.dialects.openai.errors import (
    KINDS,
    Refused,
    code_of_failure,
    of_failure,
    overloaded,
    quoted,
)
from gateway.protocol.codes import RETRYABLE, ErrorCode
from gateway.protocol.events import Failed

PATHS = ["instructions", "previous_response_id", "input[3]"]


def failed(*fields, code=ErrorCode.INVALID_REQUEST, message="must be small", **more):
    return Failed(id="a", code=code, message=message, fields=fields, **more)


def test_every_code_has_a_status_that_says_whether_a_retry_helps():
    assert set(KINDS) == set(ErrorCode)
    for code, (status, _, _) in KINDS.items():
        assert (status in {408, 429, 503}) == RETRYABLE[code], code


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("max_tokens", "max_output_tokens"),
        ("temperature", "temperature"),
        ("response_format.schema", "text.format.schema"),
        ("enable_thinking", "reasoning.effort"),
        ("chat_template_kwargs.reasoning_effort", "reasoning.effort"),
        ("prompt", "input"),
        ("messages", "input"),
        ("messages[2].content[1]", "input[3].content[1]"),
        ("messages[9].content", "input.content"),
        ("tools[1].parameters", "tools[4].parameters"),
        ("tools[7].parameters", "tools[7].parameters"),
    ],
)
def test_a_field_has_the_name_that_the_client_knows(field, param):
    status, error = of_failure(failed(field), PATHS, [0, 4])
    assert (status, error.type, error.param) == (400, "invalid_request_error", param)
    assert error.message == f"`{param}`: must be small"
    assert error.headers is UNSET


def test_fields_in_a_message_are_named_too():
    _, error = of_failure(failed("max_tokens", "prompt", message="give {} or {}"))
    assert error.message == "give `max_output_tokens` or `input`"
    _, error = of_failure(failed(message="`messages[2].content[0]` is no image"), PATHS)
    assert error.message == "`input[3].content[0]` is no image"


def test_what_is_about_no_field_of_the_gateway_still_has_its_field():
    assert of_failure(failed(code=ErrorCode.UNKNOWN_MODEL))[1].param == "model"
    assert of_failure(failed(code=ErrorCode.CONTEXT_TOO_LONG))[1].param == "input"
    assert of_failure(failed(code=ErrorCode.MODEL_ERROR))[1].param is None


def test_of_a_clients_value_an_error_quotes_the_beginning_of_a_text_or_the_type():
    assert quoted("x" * 100) == "x" * 64
    assert quoted("abc", 2) == "ab"
    assert [quoted(value) for value in (["x" * 100], {"a": 1}, None)] == [
        "list",
        "dict",
        "NoneType",
    ]


def test_a_retry_has_its_time():
    status, error = of_failure(failed(code=ErrorCode.RATE_LIMITED, retry_after=1.5))
    assert (status, error.headers) == (429, {"retry-after": "1.5"})
    assert overloaded("full").status == 503


def test_a_response_that_fails_has_a_code_that_openais_types_know():
    assert [code_of_failure(n) for n in (400, 429, 500)] == [
        "invalid_prompt",
        "rate_limit_exceeded",
        "server_error",
    ]


def test_every_error_has_a_code():
    assert all(code for _, _, code in KINDS.values())
    assert Refused("no").error.code == "invalid_value"
