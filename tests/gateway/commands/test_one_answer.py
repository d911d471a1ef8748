"""One answer, by a gateway that runs or without one."""

import asyncio
import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from gateway.commands.failure import ExitStatus, Failure
from gateway.commands.one_answer import Question, _is_piped, answer_once
from gateway.server.tokens import Token, Tokens
from provider.embedded import MODEL_PATH
from provider.errors import InvalidParameterError
from provider.scripted import Fail, Say, ScriptedProvider
from tests.gateway.commands.conftest import run
from tests.support.servers import running
from tests.support.terminal import Terminal
from tests.support.timeouts import TIMEOUT

NOBODY = "http://127.0.0.1:9/"


def question(prompt="Foxes?", piped="", model=None, **fields):
    return Question(prompt, io.StringIO(piped), (), (), fields, model)


def answered(asked, url, usual=NOBODY):
    console = Console(file=io.StringIO())
    return answer_once(asked, url, usual, None, console, plain=False)


async def by_gateway(asked, script, *, usual=False, tokens=None):
    provider = ScriptedProvider(script=script, tokens_per_second=None)
    async with running(provider, tokens) as gateway, asyncio.timeout(TIMEOUT):
        addresses = (None, gateway.url) if usual else (gateway.url, NOBODY)
        status = await asyncio.to_thread(answered, asked, *addresses)
    return status, provider.requests


@pytest.mark.parametrize("usual", [False, True])
async def test_a_gateway_that_runs_answers(capsys, usual):
    asked = question(max_tokens=9, model="scripted")
    status, (request,) = await by_gateway(asked, [Say("Two words.")], usual=usual)
    assert status is ExitStatus.OK
    assert capsys.readouterr().out == "Two words.\n"
    assert (request.last_user_text, request.options["max_tokens"]) == ("Foxes?", 9)


async def test_what_is_piped_is_added_to_the_prompt(capsys):
    _, (request,) = await by_gateway(question("Sum up:", "One.\nTwo.\n"), [Say("x")])
    assert request.last_user_text == "Sum up:\n\nOne.\nTwo."
    _, (request,) = await by_gateway(question(None, "One?\n"), [Say("x")])
    assert request.last_user_text == "One?"


def test_without_a_prompt_there_is_nothing_to_answer():
    with pytest.raises(Failure, match="there is no prompt") as caught:
        answered(question(None, " \n"), None)
    assert caught.value.status is ExitStatus.USAGE


def test_an_address_that_is_given_must_be_that_of_a_gateway():
    for url, status in [(NOBODY, ExitStatus.NO_GATEWAY), ("ftp://x", ExitStatus.USAGE)]:
        with pytest.raises(Failure) as caught:
            answered(question(), url)
        assert caught.value.status is status


async def test_an_answer_that_fails_is_a_failure():
    with pytest.raises(Failure, match="seed"):
        await by_gateway(question(), [Fail(InvalidParameterError("seed", 7))])


async def test_a_gateway_that_wants_a_token_says_so():
    with pytest.raises(Failure) as caught:
        await by_gateway(question(), [Say("x")], tokens=Tokens([Token("alice", "0" * 64)]))
    assert caught.value.status is ExitStatus.UNAUTHORIZED


def test_only_what_ends_is_read_to_its_end(tmp_path):
    reading, writing = os.pipe()
    os.close(writing)
    (tmp_path / "a.txt").write_text("")
    with os.fdopen(reading) as pipe, (tmp_path / "a.txt").open() as file:
        assert _is_piped(pipe)
        assert _is_piped(file)
    with Path(os.devnull).open() as nothing:
        assert not _is_piped(nothing)


def test_a_prompt_is_answered_without_a_gateway():
    flags = ("-m", str(MODEL_PATH), "--temperature", "0")
    done = run("run", "Count from 3 to 9", *flags)
    assert done.returncode == ExitStatus.OK, done.stderr
    assert done.stdout == "3, 4, 5, 6, 7, 8, 9.\n"
    assert done.stderr == ""


def test_what_is_piped_is_a_prompt_too(scripted):
    done = run("run", "--url", scripted, "--max-tokens", "9", input="Foxes?\n")
    assert (done.returncode, done.stdout[:16]) == (ExitStatus.OK, "You said: Foxes?")
    assert run("run", "--url", scripted).returncode == ExitStatus.USAGE


def test_ctrl_c_stops_the_answer_of_a_prompt(scripted):
    terminal = Terminal("run", "Foxes?", "--url", scripted)
    terminal.wait_for("Sentence 1 ")
    terminal.type("\x03")
    assert terminal.close() == ExitStatus.INTERRUPTED
    assert "stopped by you" in terminal.text
    assert "The end." not in terminal.text
