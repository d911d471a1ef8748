"""The npm package as it is installed, and programs in Node that use it."""

import asyncio
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.servers import metrics_of
from tests.support.timeouts import STARTING

ROOT = Path(__file__).parents[3]
TOOLS = ROOT / ".build/npm"  # made by `make npm-package`, with the libraries that adapters are for
PRELUDE = """
const until = async (condition) => {
    while (!condition()) await new Promise((wake) => setTimeout(wake, 5));
};
const say = (value) => { console.log(JSON.stringify(value)); process.exit(); };
const newStorage = () => {
    const kept = new Map();
    return {
        kept,
        getItem: (key) => kept.get(key) ?? null,
        setItem: (key, value) => kept.set(key, value),
        removeItem: (key) => kept.delete(key),
    };
};
const sockets = [];
let reachable = true;
class Socket extends WebSocket {
    constructor(address, protocols) {
        super(reachable ? address : "ws://127.0.0.1:9", protocols);
        sockets.push(this);
    }
}
// What a browser does when a page is left: its sockets close, and nothing of it runs any more.
const leave = () => {
    for (const socket of sockets.splice(0)) {
        socket.onmessage = socket.onclose = null;
        socket.close();
    }
};
"""
NODE = Path(sys.executable).with_name("node")


@pytest.fixture(scope="session")
def tarball(tmp_path_factory):
    """The package, packed from this very source."""
    if not (TOOLS / "node_modules").exists():
        if os.environ.get("CI"):
            raise FileNotFoundError(TOOLS)
        pytest.skip("no tools to pack with: `make npm-package` fetches them")
    folder = tmp_path_factory.mktemp("npm")
    done = run(NODE, ROOT / "web_demo/npm/pack.mjs", TOOLS, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (tarball,) = folder.glob("*.tgz")
    return tarball


@pytest.fixture(scope="session")
def installed(tarball, tmp_path_factory):
    """A folder whose node_modules has the package, beside what its adapters are for."""
    folder = tmp_path_factory.mktemp("app")
    modules = folder / "node_modules"
    modules.mkdir()
    for path in (TOOLS / "node_modules").iterdir():
        (modules / path.name).symlink_to(path)
    with tarfile.open(tarball) as archive:
        archive.extractall(modules, filter="data")
    (modules / "package").rename(modules / "mlx-gateway-client")
    (folder / "package.json").write_text('{"private": true}')
    return folder


def run(program, *arguments, cwd=None):
    path = f"{NODE.parent}:{os.environ['PATH']}"
    return subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PATH": path},
    )


async def when_resumed(gateway, gate):
    """Open a gate once an answer is resumed."""
    while b"\nmlx_gateway_resumed_total 1" not in (await metrics_of(gateway))[1]:
        await asyncio.sleep(0.02)
    gate.set()


async def in_app(head, body, installed, gateway):
    """Run a program that asks a gateway by a library; return what it says."""
    url = json.dumps(f"http://127.0.0.1:{gateway.port}")
    return await run_in_node(f"const url = {url};{PRELUDE}{head}{body}", installed)


async def in_app_until_resumed(gate, head, body, installed, gateway):
    """Run such a program, and open a gate once it has resumed an answer."""
    going_on = asyncio.create_task(when_resumed(gateway, gate))
    try:
        return await in_app(head, body, installed, gateway)
    finally:
        going_on.cancel()


def assert_the_call_was_answered(gateway):
    """Check that a gateway whose script is `adding` was asked once more, with the result."""
    first, second = gateway.provider.requests
    assert [tool["name"] for tool in first.tools] == ["add"]
    turns = second.options["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool"]
    assert turns[1]["tool_calls"][0]["id"] == turns[2]["tool_call_id"]


async def run_in_node(program, cwd):
    """Run a program, and return what it says as JSON."""
    process = await asyncio.create_subprocess_exec(
        NODE,
        "--input-type=module",
        "--eval",
        program,
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(STARTING):  # a library is read too
            said, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()  # its pipes are closed in this test, and not in a later one
    assert process.returncode == 0, errors.decode()
    return json.loads(said)
