"""Runs programs that use other people's clients, each in an environment of its own."""

import asyncio
import json
import os
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.support.timeouts import STARTING

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent.parent / ".build/clients"
ELSEWHERE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def python_of(client):
    """Return the interpreter of a client's environment; skip the test if there is none."""
    folder = Path(os.environ.get("CLIENTS", ENVIRONMENTS)) / client
    if not (folder / "ready").exists():
        if os.environ.get("CI"):
            raise FileNotFoundError(folder)
        pytest.skip(f"no environment with `{client}`: `make test-clients` makes it")
    return folder / "bin/python"


async def told(client, program, *arguments):
    """Run a program of this folder; return the JSON values that it prints, one a line."""
    command = [python_of(client), "-W", "error", HERE / program, *arguments]
    options = {"env": ELSEWHERE, "stdout": PIPE, "stderr": PIPE}
    process = await asyncio.create_subprocess_exec(*command, **options)
    try:
        async with asyncio.timeout(STARTING):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    return [json.loads(line) for line in out.splitlines()]
