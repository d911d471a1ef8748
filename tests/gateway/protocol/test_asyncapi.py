"""The AsyncAPI document: made from the frame types, served, and valid to AsyncAPI's own parser."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.protocol.asyncapi import document
from gateway.protocol.frames import NUMBERS, name_of
from provider.scripted import ScriptedProvider
from tests.support.servers import TIMEOUT, get, running

ROOT = Path(__file__).parents[3]
CHECK = Path(__file__).parent / "asyncapi" / "check.mjs"
MODULES = ROOT / ".venv" / "asyncapi"  # `make test` fetches the parser to here
NODE = Path(sys.executable).with_name("node")


async def served():
    async with running(ScriptedProvider()) as gateway:
        status, body, headers = await get(gateway, "/asyncapi.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    return body


async def test_asyncapis_parser_finds_nothing_wrong():
    if not (MODULES / "node_modules").exists():
        assert not os.environ.get("CI"), "`make test` fetches the parser"
        pytest.skip("no AsyncAPI parser: `make test` fetches it")
    done = await asyncio.to_thread(
        subprocess.run,
        [NODE, CHECK, MODULES],
        input=await served(),
        capture_output=True,
        timeout=TIMEOUT * 3,
        check=True,
    )
    found = json.loads(done.stdout)
    assert [one for one in found["diagnostics"] if one["severity"] < 2] == []
    assert set(found["messages"]) == {name_of(kind) for kind in NUMBERS}


async def test_every_frame_is_in_it_with_its_number():
    made = json.loads(await served())
    messages = made["components"]["messages"]
    assert {name: one["x-msgpack-number"] for name, one in messages.items()} == {
        name_of(kind): number for kind, number in NUMBERS.items()
    }
    assert made["asyncapi"] == "3.1.0"
    assert made["channels"]["stream"]["address"] == "/stream"
    assert set(made["channels"]["stream"]["bindings"]["ws"]["query"]["properties"]) == {"node"}


def test_null_is_what_nobody_sends():
    assert '"null"' not in json.dumps(document("localhost:8765", "1"))
    assert document("h", "1")["components"]["schemas"]["Chunk"]["properties"]["channel"] == {
        "enum": ["reasoning"]
    }
