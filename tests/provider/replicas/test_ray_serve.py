"""Replicas that Ray Serve starts, watches and ends; `make test-ray`."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from provider.replicas.ray_provider import RayProvider
from tests.support.replicas import all_of, text_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

START = 120.0  # seconds, for a cluster on a busy machine


async def until(condition):
    async with asyncio.timeout(START):
        while not condition():
            await asyncio.sleep(0.1)


def gateways():
    """Return the processes of replicas' gateways, by their ids."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                line = (path / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"--as-replica" in line:
                found.append(int(path.name))
    return found


def held():
    """Return how many calls Serve counts on each replica."""
    import ray
    from ray.serve._private.constants import SERVE_NAMESPACE

    names = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True)]
    actors = [
        ray.get_actor(name, namespace=SERVE_NAMESPACE) for name in names if "#Gateway#" in name
    ]
    return sorted(ray.get([actor.get_num_ongoing_requests.remote() for actor in actors]))


@pytest.mark.filterwarnings("ignore")
async def test_serve_starts_counts_and_brings_back_what_answers(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # the path of a socket has at most 107 bytes
    before = set(gateways())
    arguments = ["--provider", "scripted", "--log-level", "error"]
    provider = RayProvider({"replicas": "2", "arguments": arguments})
    try:
        await provider.load()
        await until(lambda: provider.fleet.ready == 2)
        assert {model.id for model in provider.models()} == {"scripted"}
        asked = [all_of(provider, f"{number}", temperature=0) for number in range(6)]
        going = [asyncio.ensure_future(one) for one in asked]
        await until(lambda: sum(held()) == 6)
        first, *_ = sorted(set(gateways()) - before)
        os.kill(first, signal.SIGKILL)
        texts = [text_of(one) for one in await asyncio.gather(*going)]
        assert [text.split(chr(10))[0] for text in texts] == [f"You said: {n}" for n in range(6)]
        assert all(text.endswith("The end.") for text in texts)
        await until(lambda: provider.fleet.ready == 2)  # another one was started
        await until(lambda: sum(held()) == 0)
        stream = await provider.generate_async("stop", stream=True)
        await anext(stream)
        await until(lambda: sum(held()) == 1)
        await stream.aclose()
        await until(lambda: sum(held()) == 0)
    finally:
        await provider.aclose()
    await until(lambda: set(gateways()) <= before)
