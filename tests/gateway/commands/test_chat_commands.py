"""The flags of `chat` and `run`, and what a gateway is asked for by them."""

import asyncio

import pytest
from typer.testing import CliRunner

from gateway.commands import cli, console
from gateway.commands.failure import ExitStatus
from gateway.server.tokens import Tokens, from_environment
from provider.errors import InvalidParameterError
from provider.scripted import Fail, Say, ScriptedProvider
from tests.support.servers import running
from tests.support.timeouts import TIMEOUT

YES = (Say("Yes."),)


async def command(*arguments, script=YES, typed="", token=None):
    """Run the command line in this process; return how it ended, and the requests."""
    console.errors.cache_clear()
    provider = ScriptedProvider(script=list(script), tokens_per_second=None)
    tokens = Tokens(from_environment(token or "", "TOKENS"))
    async with running(provider, tokens) as gateway, asyncio.timeout(TIMEOUT):
        given = [*arguments, "--url", gateway.url]
        done = await asyncio.to_thread(CliRunner().invoke, cli.app, given, typed, obj=0.0)
    console.errors.cache_clear()
    return done, provider.requests


FLAGS = ("--system", "Be brief.", "--temperature", "0", "--max-tokens", "3", "-o", "seed=7")
ASKED = {"system_prompt": "Be brief.", "temperature": 0.0, "max_tokens": 3, "seed": 7}


async def test_a_chat_asks_with_its_flags_and_the_token(monkeypatch):
    monkeypatch.setenv("MLX_GATEWAY_TOKEN", "secret")
    done, (request,) = await command("chat", *FLAGS, typed="Foxes?\n", token="alice:secret")
    assert (done.exit_code, done.stdout) == (ExitStatus.OK, "Yes.\n")
    assert ASKED.items() <= {**request.options, "system_prompt": request.system_prompt}.items()


async def test_a_prompt_is_asked_with_its_flags():
    done, (request,) = await command("run", "Foxes?", "-m", "scripted", *FLAGS)
    assert (done.exit_code, done.stdout) == (ExitStatus.OK, "Yes.\n")
    assert ASKED.items() <= {**request.options, "system_prompt": request.system_prompt}.items()
    assert request.options["model"] == "scripted"


@pytest.mark.parametrize("arguments", [("chat",), ("run", "Foxes?")])
async def test_an_answer_that_failed_is_told_to_the_shell(arguments):
    script = [Fail(InvalidParameterError("seed", 7))]
    done, _ = await command(*arguments, script=script, typed="Foxes?\n")
    assert done.exit_code == ExitStatus.FAILED
    assert "seed" in done.stderr or arguments == ("chat",)
    done, _ = await command(*arguments, typed="Foxes?\n", token="alice:secret")
    assert done.exit_code == ExitStatus.UNAUTHORIZED
    assert "hint: " in done.stderr
