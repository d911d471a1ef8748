"""Codex on /v1/responses: a turn with a tool that writes a file."""

import asyncio
from asyncio.subprocess import DEVNULL, PIPE

import pytest

from provider.scripted import Call, Say, ScriptedProvider
from tests.clients.programs import ELSEWHERE, LIMIT, NODE, environment_of
from tests.support.servers import TOKENS, running
from tests.support.timeouts import TIMEOUT

CONFIG = """
model = "scripted"
model_provider = "here"

[model_providers.here]
name = "here"
base_url = "{url}v1"
env_key = "KEY"
wire_api = "responses"
supports_websockets = true
"""

pytestmark = [pytest.mark.clients, pytest.mark.timeout(LIMIT + TIMEOUT)]


def script(request):
    if request.options["messages"][-1]["role"] == "tool":
        return [Say("It is written.")]
    return [Say("I write it. "), Call("exec_command", {"cmd": "echo hello > made.txt"})]


async def test_codex_writes_a_file_over_one_socket(tmp_path):
    provider = ScriptedProvider(script=script, tokens_per_second=None)
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    codex = environment_of("codex") / "node_modules/@openai/codex/bin/codex.js"
    sandbox = "--dangerously-bypass-approvals-and-sandbox"  # it works in a scratch folder
    command = [NODE, codex, "exec", "--skip-git-repo-check", sandbox, "Write a file."]
    async with running(provider, TOKENS) as gateway:
        (home / "config.toml").write_text(CONFIG.format(url=gateway.url))
        env = {**ELSEWHERE, "HOME": str(home), "CODEX_HOME": str(home), "KEY": "sesame"}
        options = {"cwd": work, "env": env, "stdin": DEVNULL, "stdout": PIPE, "stderr": PIPE}
        process = await asyncio.create_subprocess_exec(*command, **options)
        async with asyncio.timeout(LIMIT):
            out, err = await process.communicate()
        metrics = gateway._generations.metrics
        assert (metrics.opened["responses"], process.returncode) == (1, 0), err.decode()
    assert out.decode().strip() == "It is written."
    assert (work / "made.txt").read_text() == "hello\n"
    # A warm-up with the rules and the tools, the question, and the tool's output.
    warm, question, output = provider.requests
    assert (warm.options["max_tokens"], metrics.received_frames) == (1, 3)
    assert [message["role"] for message in warm.options["messages"]] == ["system"]
    # Each prompt begins as the one before, whose system message may grow.
    for before, after in ((warm, question), (question, output)):
        rules, *earlier = before.options["messages"]
        more_rules, *later = after.options["messages"]
        assert more_rules["content"].startswith(rules["content"])
        assert later[: len(earlier)] == earlier
