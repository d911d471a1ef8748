"""Codex on /v1/responses: a tool that writes a file, a form, a lost connection, refusals."""

import asyncio
import json
import signal
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import asynccontextmanager
from functools import partial

import pytest
from websockets.asyncio.client import connect

from provider.scripted import Call, Gate, Pause, Say, ScriptedProvider
from tests.clients.programs import ELSEWHERE, LIMIT, NODE, environment_of
from tests.clients.providers import (
    Scripted,
    doors,
    has_begun,
    meanwhile,
    staying,
    steps_stopped,
)
from tests.support.proxy import proxied
from tests.support.servers import TOKENS, eventually, running
from tests.support.timeouts import TIMEOUT

CONFIG = """
model = "scripted"
model_provider = "here"

[model_providers.here]
name = "here"
base_url = "{url}"
env_key = "KEY"
wire_api = "responses"
supports_websockets = true
"""
HERE = "model_providers.here"
# By the socket, then by a POST.
ONCE = ["-c", f"{HERE}.stream_max_retries=0", "-c", f"{HERE}.request_max_retries=0"]
SCHEMA = {
    "type": "object",
    "properties": {"number": {"type": "integer"}},
    "required": ["number"],
    "additionalProperties": False,
}

pytestmark = [pytest.mark.clients, pytest.mark.timeout(LIMIT + TIMEOUT)]


class Codex:
    """Codex in a scratch folder, with a home of its own."""

    def __init__(self, folder):
        self.home, self.work = folder / "home", folder / "work"
        self.home.mkdir()
        self.work.mkdir()

    async def start(self, url, said, *options, key="sesame"):
        """Start a turn, as from a shell."""
        program = environment_of("codex") / "node_modules/@openai/codex/bin/codex.js"
        (self.home / "config.toml").write_text(CONFIG.format(url=url))
        env = {**ELSEWHERE, "HOME": str(self.home), "CODEX_HOME": str(self.home), "KEY": key}
        # It works in a scratch folder.
        free = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        command = [NODE, program, "exec", *free, *options, said]
        pipes = {"stdin": DEVNULL, "stdout": PIPE, "stderr": PIPE}
        return await asyncio.create_subprocess_exec(*command, cwd=self.work, env=env, **pipes)

    async def told(self, *arguments, **options):
        """Run a turn; return its answer, what else is said, and the exit status."""
        return await end_of(await self.start(*arguments, **options))


async def end_of(process):
    """Wait for a turn's end; return its answer, what else is said, and the exit status."""
    try:
        async with asyncio.timeout(LIMIT):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode().strip(), err.decode(), process.returncode


@pytest.fixture
def codex(tmp_path):
    return Codex(tmp_path)


def warms_up(request):
    return request.options.get("max_tokens") == 1


async def test_codex_writes_a_file_over_one_socket(codex):
    def script(request):
        if request.options["messages"][-1]["role"] == "tool":
            return [Say("It is written.")]
        return [Say("I write it. "), Call("exec_command", {"cmd": "echo hello > made.txt"})]

    provider = ScriptedProvider(script=script, tokens_per_second=None)
    async with running(provider, TOKENS) as gateway:
        out, err, status = await codex.told(f"{gateway.url}v1", "Write a file.")
        metrics = gateway._generations.metrics
        assert (metrics.opened["responses"], status) == (1, 0), err
    assert out == "It is written."
    assert (codex.work / "made.txt").read_text() == "hello\n"
    # A warm-up with the rules and the tools, the question, and the tool's output.
    warm, question, output = provider.requests
    assert (warms_up(warm), metrics.received_frames) == (True, 3)
    assert [message["role"] for message in warm.options["messages"]] == ["system"]
    # Each prompt begins as the one before, whose system message may grow.
    for before, after in ((warm, question), (question, output)):
        rules, *earlier = before.options["messages"]
        more_rules, *later = after.options["messages"]
        assert more_rules["content"].startswith(rules["content"])
        assert later[: len(earlier)] == earlier


async def test_codex_asks_for_a_form_and_again_after_a_lost_connection(codex, tmp_path):
    lost = asyncio.Event()

    def script(request):
        if warms_up(request) or lost.is_set():
            return [Say('{"number": 7}')]
        lost.set()
        return [Say("so far"), Pause(3600)]

    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    form = ("--output-schema", str(tmp_path / "schema.json"))
    provider = ScriptedProvider(script=script, tokens_per_second=None)
    async with running(provider, TOKENS) as gateway, proxied(gateway) as proxy:
        turn = codex.told(f"{proxy.address}/v1", "Which?", *form)
        async with meanwhile(turn, lambda: lost.is_set() and provider.live) as task:
            proxy.cut()
            out, err, status = await task
        await eventually(lambda: not provider.live)
    assert (out, status) == ('{"number": 7}', 0), err
    *_, cut, again = (request.options for request in provider.requests)
    assert again["messages"] == cut["messages"]
    assert again["response_format"] == {"type": "json_schema", "schema": SCHEMA}


async def test_ctrl_c_stops_the_models_steps(codex, endless):
    provider = Scripted(lambda request: [Say("ready")], endless)
    async with running(provider, TOKENS) as gateway, steps_stopped(gateway):
        before = provider.statistics().decode_tokens
        process = await codex.start(f"{gateway.url}v1", "long")
        decodes = lambda: provider.statistics().decode_tokens > before  # noqa: E731
        async with meanwhile(end_of(process), decodes) as task:
            process.send_signal(signal.SIGINT)
            _, err, status = await task
    assert "turn interrupted" in err
    assert status == 1


async def error_of(codex, url, *options, said="hi", **more):
    """Return what Codex says of a turn that fails."""
    out, err, status = await codex.told(url, said, *ONCE, *options, **more)
    assert (out, status) == ("", 1), err
    return err


async def test_codex_shows_refusals(codex, endless):
    async with running(Scripted(lambda request: [Say("ready")], endless), TOKENS) as gateway:
        error = partial(error_of, codex, f"{gateway.url}v1")
        assert "`temperature`: must be in [0, 2]" in await error(said="hot")
        assert "out of room in the model's context window" in await error(said="large")
        assert "model is at capacity" in await error(said="full")
        assert "401 Unauthorized: a valid token is required" in await error(key="wrong")
        assert "`nobody` is not served" in await error("--model", "nobody")


async def test_codex_is_told_why_it_is_not_let_in(codex):
    async with doors() as addresses:
        host, path, full = [await error_of(codex, url) for url in addresses]
    assert "403 Forbidden: this Host is not allowed" in host
    assert "404 Not Found" in path
    assert "503 Service Unavailable: too many connections" in full


async def test_codex_is_told_of_limits(codex):
    provider = ScriptedProvider(script=staying, tokens_per_second=None)
    for limits in ({"max_generations_per_token": 1}, {"max_connections_per_token": 1}):
        async with running(provider, TOKENS, **limits) as gateway, asking(gateway, "stay"):
            await eventually(lambda: provider.live)
            said = await error_of(codex, f"{gateway.url}v1")
        assert "last status: 429 Too Many Requests" in said


@asynccontextmanager
async def asking(gateway, said):
    """Ask for a response over another connection, which ends with the block."""
    url, key = f"ws://127.0.0.1:{gateway.port}/v1/responses", {"Authorization": "Bearer sesame"}
    async with connect(url, additional_headers=key) as socket:
        await socket.send(json.dumps({"type": "response.create", "input": said}))
        yield


async def test_codex_is_told_of_a_gateway_that_stops(codex):
    warm, stopping = asyncio.Event(), asyncio.Event()

    def script(request):
        if not warms_up(request):
            return [Say("so far"), Pause(3600)]
        warm.set()
        return [Gate(stopping)]

    provider = ScriptedProvider(script=script, tokens_per_second=None)
    async with running(provider, TOKENS) as gateway:
        turn = error_of(codex, f"{gateway.url}v1")
        async with meanwhile(turn, warm.is_set) as task:
            draining = asyncio.create_task(gateway.drain())
            await asyncio.sleep(0)
            stopping.set()
            said = [await task, await error_of(codex, f"{gateway.url}v1")]
            await draining
    # One whose socket was open already, and one that comes anew.
    assert ["503 Service Unavailable: the gateway is stopping" in one for one in said] == [True] * 2
    assert ["failed to connect" in one for one in said] == [False, True]


async def test_codex_shows_what_a_gateway_that_stops_has_cut(codex):
    def script(request):
        return [Say("so far"), *([] if warms_up(request) else [Pause(3600)])]

    provider = ScriptedProvider(script=script, tokens_per_second=None)
    async with running(provider, TOKENS) as gateway:
        asked = lambda: len(provider.requests) == 2 and has_begun(gateway)  # noqa: E731
        async with meanwhile(codex.told(f"{gateway.url}v1", "Which?"), asked) as task:
            await gateway.close()
            out, err, status = await task
    assert (out, status) == ("", 1)
    assert "so far\n" in err
    assert "Incomplete response returned" in err
