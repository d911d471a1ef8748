"""A conversation on these streams; those in a terminal of their own are in test_cli.py."""

import asyncio
import contextlib
import io
import json
import os
import pty

import pytest
from websockets.asyncio.server import serve as listen

from gateway.client.tool_loop import Toolbox
from gateway.commands.chat import NoGatewayError, ask_user, chat_with, screen_for
from gateway.commands.screens import PlainScreen
from gateway.protocol.frames import JSON_PROTOCOL, ToolCall
from provider.errors import InvalidParameterError
from provider.scripted import Call, Fail, Reason, Say, ScriptedProvider
from tests.support.servers import running
from tests.support.timeouts import TIMEOUT


def test_a_gateway_that_is_not_there_is_an_oserror():
    with pytest.raises(OSError, match="9"):
        chat_with("http://127.0.0.1:9/", None, {}, io.StringIO())


async def echo(socket):
    async for message in socket:
        await socket.send(message)


@pytest.mark.parametrize("subprotocols", [None, [JSON_PROTOCOL]])
async def test_another_server_than_a_gateway_is_an_oserror_too(subprotocols):
    async with listen(echo, "127.0.0.1", 0, subprotocols=subprotocols) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(NoGatewayError, match="not an mlx-gateway"):
            await asyncio.to_thread(chat_with, url, None, {}, io.StringIO())


async def chat(typed, script, system=None, toolbox=None, attachments=()):
    """Return whether a chat with a scripted provider was answered, and what it was asked."""
    provider = ScriptedProvider(script=script, tokens_per_second=None)
    options = {"max_tokens": 99}
    async with running(provider) as gateway, asyncio.timeout(TIMEOUT):
        answered = await asyncio.to_thread(
            chat_with, gateway.url, system, options, typed, None, toolbox, attachments
        )
    return answered, provider.requests


def lines(*typed):
    return io.StringIO("".join(f"{line}\n" for line in typed))


async def test_each_line_is_a_turn_and_an_empty_one_is_none(capsys):
    typed = lines("Foxes?", "", "Bears?")
    answered, requests = await chat(typed, [Say("Yes.")], system="Be brief.")
    assert answered
    assert capsys.readouterr() == ("Yes.\nYes.\n", "")
    assert [request.options["max_tokens"] for request in requests] == [99, 99]
    turns = [turn["content"] for turn in requests[1].options["messages"]]
    assert turns[-3:] == ["Foxes?", "Yes.", "Bears?"]


async def test_attachments_come_with_the_first_turn_alone():
    note = {"type": "text", "text": "Buy bread."}
    _, (first, second) = await chat(lines("What?", "Why?"), [Say("So.")], attachments=[note])
    assert first.last_user_text == "Buy bread.What?"
    assert second.last_user_text == "Why?"


async def test_attachments_come_again_after_a_turn_that_failed():
    def script(request):
        bad = request.last_user_text.endswith("Bad?")
        return [Fail(InvalidParameterError("seed", 7))] if bad else [Say("So.")]

    note = {"type": "text", "text": "Buy bread."}
    _, requests = await chat(lines("Bad?", "What?", "Why?"), script, attachments=[note])
    asked = [request.last_user_text for request in requests]
    assert asked == ["Buy bread.Bad?", "Buy bread.What?", "Why?"]


async def test_attachments_that_are_refused_can_be_left_out(capsys):
    def script(request):
        bad = "Buy bread." in request.last_user_text
        return [Fail(InvalidParameterError("seed", 7))] if bad else [Say("So.")]

    note = {"type": "text", "text": "Buy bread."}
    with terminal("What?\n/new\nWhy?\n/quit\n") as (typed, _):
        _, requests = await chat(typed, script, attachments=[note])
    assert [request.last_user_text for request in requests] == ["Buy bread.What?", "Why?"]
    said = capsys.readouterr().err
    assert "go with your next message; /new leaves them out" in said
    assert "a new conversation, without the files" in said


async def test_a_turn_that_fails_is_said_and_is_none_of_the_conversation(capsys):
    def script(request):
        bad = request.last_user_text == "Bad"
        return [Fail(InvalidParameterError("seed", 7))] if bad else [Say("Fine.")]

    answered, requests = await chat(lines("Bad", "Good"), script)
    assert not answered
    out, err = capsys.readouterr()
    assert out.endswith("Fine.\n")
    assert "seed" in err
    assert [turn["content"] for turn in requests[1].options["messages"]] == ["Good"]


async def test_a_function_answers_the_model_and_its_result_is_a_note(capsys):
    def count(of: str) -> int:
        """Count."""
        return len(of)

    def script(request):
        told = any(turn["role"] == "tool" for turn in request.options["messages"])
        return [Reason("Counted."), Say("Five.")] if told else [Call("count", {"of": "foxes"})]

    answered, _ = await chat(lines("How many?"), script, toolbox=Toolbox([count]))
    assert answered
    out, err = capsys.readouterr()
    assert out == "Five.\n"
    assert [line.strip() for line in err.splitlines()] == [
        'count {"of": "foxes"}',
        "→ 5",
        "Counted.",
    ]


async def test_a_colon_between_letters_is_no_emoji(capsys):
    def part(a: str) -> str:
        """Take a part."""
        return f"x[{a}]"

    def script(request):
        told = any(turn["role"] == "tool" for turn in request.options["messages"])
        return [Reason("x[a:b:c]"), Say("So.")] if told else [Call("part", {"a": "a:b:c"})]

    await chat(lines("What?"), script, toolbox=Toolbox([part]))
    assert capsys.readouterr().err.count("a:b:c") == 3


@contextlib.contextmanager
def terminal(text=""):
    """Yield a terminal into which a text has been typed, and a function to type more."""
    parent, child = pty.openpty()
    os.write(parent, text.encode())
    with os.fdopen(child) as typed:
        yield typed, lambda more: os.write(parent, more.encode())
    os.close(parent)


async def test_a_terminal_shows_the_models_a_prompt_and_what_an_answer_took(capsys):
    with terminal("Foxes?\n\x04") as (typed, _):
        answered, _ = await chat(typed, [Say("Two words.")])
    assert answered
    out, err = capsys.readouterr()
    assert "Two words.\n" in out
    assert err.startswith("scripted · ")
    assert "2 tokens" in err


async def test_in_a_terminal_an_error_was_seen_and_the_chat_counts_as_answered(capsys):
    with terminal("Foxes?\n\x04") as (typed, _):
        answered, _ = await chat(typed, [Fail(InvalidParameterError("seed", 7))])
    assert answered
    assert "seed" in capsys.readouterr().err


@pytest.mark.parametrize("plain", [False, True])
def test_an_answer_that_goes_into_a_pipe_is_plain(plain):
    assert isinstance(screen_for(io.StringIO(), plain=plain), PlainScreen)


async def test_a_command_is_done_and_not_sent(capsys, tmp_path):
    file = tmp_path / "kept.json"
    with terminal(f"Foxes?\n/save {file}\n/new\nBears?\n/quit\n") as (typed, _):
        answered, requests = await chat(typed, [Say("Two words.")])
    assert answered
    assert [request.last_user_text for request in requests] == ["Foxes?", "Bears?"]
    assert len(requests[1].options["messages"]) == 1
    assert [turn["content"] for turn in json.loads(file.read_text())["messages"]] == [
        "Foxes?",
        "Two words.",
    ]
    assert "2 messages are forgotten" in capsys.readouterr().err


async def test_a_piped_line_with_a_slash_is_a_message():
    _, (request,) = await chat(lines("/help"), [Say("Yes.")])
    assert request.last_user_text == "/help"


CALL = ToolCall(id="a", seq=1, index=0, call_id="c", name="get_weather", complete=True)


async def test_the_user_answers_with_a_line(capsys):
    with terminal("foggy\n") as (typed, _):
        assert await ask_user(typed, CALL) == "foggy"
    assert capsys.readouterr().err == "get_weather returns > "


async def test_an_end_of_the_input_is_no_answer():
    with terminal("\x04") as (typed, _):
        with pytest.raises(EOFError):
            await ask_user(typed, CALL)


async def test_a_question_that_is_cancelled_leaves_the_next_line_to_others(capsys):
    with terminal() as (typed, type_text):
        asking = asyncio.create_task(ask_user(typed, CALL))
        while "returns" not in capsys.readouterr().err:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        type_text("Bears?\n")
        assert await asyncio.to_thread(typed.readline) == "Bears?\n"
    assert capsys.readouterr().err == "\n"
