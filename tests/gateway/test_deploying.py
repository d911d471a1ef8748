"""Two gateways behind a real HAProxy, with the configuration that DEPLOYING.md has."""

import asyncio
import re
import shutil
import socket
import subprocess
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.client import connect
from gateway.protocol.frames import Generate, Resume
from provider.scripted import Gate, Say, ScriptedProvider
from tests.gateway.server.test_resumable import begin, lose, numbers_of, text_of
from tests.support.servers import TIMEOUT, eventually, get, running, wired

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "gateway" / "DEPLOYING.md"
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")

behind = pytest.mark.skipif(HAPROXY is None, reason="no HAProxy: `make haproxy` gets one")


def block(language):
    return re.search(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1]


def configuration(bind, gateways):
    """The page's configuration, with the addresses of this test."""
    text, count = re.subn(r"bind :443 .*", f"bind {bind}", block("haproxy"))
    assert count == 1
    for number, gateway in enumerate(gateways, 1):
        text, count = re.subn(rf"10\.0\.0\.{number}:8765", f"127.0.0.1:{gateway.port}", text)
        assert count == 1
    # No more connections than may be open here; and no check is too late on a busy machine.
    return text.replace("maxconn 20000", "maxconn 200").replace("check 5s", f"check {TIMEOUT:g}s")


@asynccontextmanager
async def balanced(folder, gateways):
    """Run HAProxy in front of gateways, and wait until it knows that all are there."""
    file = folder / "haproxy.cfg"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        front = SimpleNamespace(port=listener.getsockname()[1])
        file.write_text(configuration(f"fd@{listener.fileno()}", gateways))
        process = await asyncio.create_subprocess_exec(
            HAPROXY, "-db", "-f", str(file), pass_fds=[listener.fileno()]
        )
    try:
        async with asyncio.timeout(TIMEOUT):
            while await status(front, "/readyz") != 200:
                assert process.returncode is None
                await asyncio.sleep(0.01)
        yield front
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def status(front, path, **headers):
    try:
        return (await get(front, path, **headers))[0]
    except OSError:
        return None


class Scene:
    """Two gateways, which say some words and then wait, behind a balancer."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.providers = [
            ScriptedProvider(script=(Say("begin "), Gate(self.gate), Say("end"))) for _ in range(2)
        ]


@asynccontextmanager
async def scene(folder):
    one = Scene()
    async with AsyncExitStack() as stack:
        changes = {"hosts": "app.example", "trusted_proxies": "127.0.0.1"}
        one.gateways = [
            await stack.enter_async_context(running(provider, node=node, **changes))
            for provider, node in zip(one.providers, ("one", "two"), strict=True)
        ]
        one.front = await stack.enter_async_context(balanced(folder, one.gateways))
        yield one


def cookie_of(wire):
    """The cookie that a connection has been given, as a browser shows it again."""
    return wire.socket.response.headers["Set-Cookie"].partition(";")[0]


@behind
def test_haproxy_finds_no_fault_in_the_pages_configuration(tmp_path):
    gateways = [SimpleNamespace(port=1), SimpleNamespace(port=2)]
    file = tmp_path / "haproxy.cfg"
    file.write_text(configuration("127.0.0.1:8443", gateways))
    found = subprocess.run([HAPROXY, "-c", "-f", file], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "WARNING" not in found.stderr


@behind
async def test_a_browser_comes_back_to_its_answer_from_any_address(tmp_path):
    """From other addresses it would be sent to either; the cookie decides."""
    async with scene(tmp_path) as one:
        async with wired(one.front) as wire:
            frames, ticket = await begin(wire)
            cookie = cookie_of(wire)
            await lose(wire)
        one.gate.set()
        for number in range(2, 8):
            async with wired(
                one.front,
                additional_headers={"Cookie": cookie},
                local_addr=(f"127.0.0.{number}", 0),
            ) as wire:
                await wire.send(Resume(id="a", ticket=ticket, after=numbers_of(frames)[-1]))
                rest = await wire.until("done")
        assert text_of(frames + rest).endswith("end")


@behind
async def test_a_client_without_cookies_comes_back_from_its_address(tmp_path):
    async with scene(tmp_path) as one:
        async with wired(one.front) as wire:
            frames, ticket = await begin(wire)
            await lose(wire)
        one.gate.set()
        for _ in range(4):
            async with wired(one.front) as wire:
                await wire.send(Resume(id="a", ticket=ticket, after=numbers_of(frames)[-1]))
                rest = await wire.until("done")
        assert text_of(frames + rest).endswith("end")


@behind
async def test_a_ticket_finds_its_gateway_whatever_the_address_or_a_cookie_say(tmp_path):
    """All come from one address, which alone would send them to one gateway."""
    async with scene(tmp_path) as one:
        for node, other in (("one", "two"), ("two", "one")):
            query = f"?node={node}"
            async with wired(one.front, query=query) as wire:
                frames, ticket = await begin(wire)
                assert ticket.startswith(f"{node}.")
                await lose(wire)
            cookie = {"Cookie": f"gateway={other}"}
            async with wired(one.front, query=query, additional_headers=cookie) as wire:
                await wire.send(Resume(id="a", ticket=ticket, after=numbers_of(frames)[-1]))
                one.gate.set()
                assert text_of(frames + await wire.until("done")).endswith("end")
            one.gate.clear()


@behind
async def test_a_client_follows_a_ticket_of_another_gateway_than_its_own(tmp_path):
    async with scene(tmp_path) as one:
        url = f"ws://127.0.0.1:{one.front.port}/v1/stream"
        clients = [connect(f"{url}?node={node}") for node in ("one", "two")]
        async with clients[0] as client, clients[1] as other:
            assert (client.ready.node, other.ready.node) == ("one", "two")
            run = client.generate(prompt="hi")
            reading = asyncio.create_task(run.result())
            await eventually(lambda: run.ticket)
            follower = other.follow(run.ticket)
            following = asyncio.create_task(follower.result())
            await eventually(lambda: follower.text)
            one.gate.set()
            await asyncio.gather(reading, following)
            assert follower.text == run.text == "begin end"


@behind
async def test_a_gateway_that_stops_gets_nobody_new_and_finishes_its_answers(tmp_path):
    async with scene(tmp_path) as one, wired(one.front) as wire:
        await begin(wire)
        number = {"gateway=one": 1, "gateway=two": 2}[cookie_of(wire)]
        stopping, other = one.gateways[number - 1], one.gateways[2 - number]
        draining = asyncio.ensure_future(stopping.drain())
        other_one = one.providers[2 - number]
        await eventually(lambda: stopping._handshake.draining)

        # Before the next check too, and although its cookie names the one that stops.
        cookie = {"Cookie": cookie_of(wire)}
        async with wired(one.front, additional_headers=cookie) as late:
            await late.send(Generate(id="b", prompt="hi"))
            await late.until("chunk")
            assert len(other_one.live) == 1
            one.gate.set()
            assert text_of(await wire.until("done")).endswith("end")
            await late.until("done")
        await draining
        await eventually(lambda: not other.live)


@behind
async def test_the_gateways_know_their_clients_addresses(tmp_path):
    async with scene(tmp_path) as one:
        async with wired(
            one.front,
            local_addr=("127.0.0.9", 0),
            additional_headers={"X-Forwarded-For": "6.6.6.6"},
        ):
            known = [
                connection._address
                for gateway in one.gateways
                for connection in gateway._connections
            ]
    assert known == ["127.0.0.9"]
