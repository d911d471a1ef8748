"""What is said of the flags of `chat`; the chat itself runs in test_chat.py and test_cli.py."""

import io

import pytest

from gateway.commands.chat_flags import (
    NOT_OF_A_CHAT,
    OPTIONS,
    _option,
    _toolbox,
    chat_by_flags,
    refused,
)
from gateway.commands.failure import ExitStatus, Failure
from gateway.protocol.frames import Generate

NOBODY = "http://127.0.0.1:9/"


def refusal(url=NOBODY, **flags):
    with pytest.raises(Failure) as caught:
        chat_by_flags(url, None, {}, io.StringIO(), **flags)
    return caught.value


def test_an_option_is_any_field_that_a_chat_does_not_set_itself():
    assert {*OPTIONS, *NOT_OF_A_CHAT} == set(Generate.__struct_fields__)
    assert not {*OPTIONS} & NOT_OF_A_CHAT


@pytest.mark.parametrize(
    ("text", "value"),
    [("seed=7", 7), ('stop=["a", "b"]', ["a", "b"]), ("model=llama", "llama"), ("model=", "")],
)
def test_the_value_of_an_option_is_json_or_else_a_text(text, value):
    assert _option(text) == (text.partition("=")[0], value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("max_token=3", "did you mean `max_tokens`?"),
        ("window=3", "options are "),
        ("seed", "did you mean `seed`?"),
    ],
)
def test_an_option_that_a_chat_does_not_take_is_refused_with_a_hint(text, hint):
    failure = refusal(options=[text])
    assert str(failure) == f"`--option {text}`: no such option"
    assert failure.hint.startswith(hint)
    assert failure.status is ExitStatus.USAGE


def test_a_file_that_cannot_be_sent_is_named(tmp_path):
    (tmp_path / "data.bin").write_bytes(b"\x00\xff\x00")
    failure = refusal(files=[tmp_path / "data.bin"])
    assert "data.bin" in str(failure)
    assert failure.status is ExitStatus.USAGE


@pytest.mark.parametrize(
    ("text", "said"), [("1 / 0", "ZeroDivisionError"), (None, "No such file"), ("(", "SyntaxError")]
)
def test_a_file_of_tools_that_cannot_be_run_is_named(tmp_path, text, said):
    file = tmp_path / "tools.py"
    if text is not None:
        file.write_text(text)
    failure = refusal(tools=file)
    assert str(failure).startswith(f"`{file}`: {said}")


def test_definitions_are_tools_beside_the_functions_of_a_file(tmp_path):
    file = tmp_path / "tools.py"
    file.write_text('def add(a: int, b: int) -> int:\n    "Add."\n    return a + b\n')
    tools = _toolbox(
        file, {"name": "search", "parameters": {"type": "object"}}, io.StringIO()
    ).definitions
    assert [tool["function"]["name"] for tool in tools] == ["add", "search"]
    with pytest.raises(Failure):
        _toolbox(None, [3], io.StringIO())


def test_a_gateway_that_is_not_there_is_one_clear_line():
    failure = refusal()
    assert str(failure) == f"no gateway at `{NOBODY}`"
    assert failure.status is ExitStatus.NO_GATEWAY


def test_the_token_of_an_address_is_not_shown():
    assert str(refusal(f"{NOBODY}#token=secret")) == f"no gateway at `{NOBODY}`"
    assert str(refused(f"{NOBODY}#token=secret", "secret")) == f"`{NOBODY}` wants another token"


def test_a_text_that_is_no_address_is_refused_with_the_reason():
    failure = refusal("ftp://localhost")
    assert "`ftp` is none of http, https, ws, wss" in str(failure)
    assert failure.status is ExitStatus.USAGE
