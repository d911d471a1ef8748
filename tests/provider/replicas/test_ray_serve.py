"""Replicas that Ray Serve starts, watches, scales and ends; `make test-ray`."""

import asyncio
import os
import signal
import sys
from importlib.util import cache_from_source, find_spec
from pathlib import Path

import pytest
import pytest_asyncio

from provider.interface import ProviderConnectionError
from provider.replicas.ray_provider import RayProvider
from provider.scripted import Request, default_script
from tests.support.ray_cluster import START, head_node, own_folder, parent, processes
from tests.support.replicas import all_of, text_of

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(2 * START),
    pytest.mark.filterwarnings("ignore"),  # Ray leaves files and sockets open
    pytest.mark.asyncio(loop_scope="module"),
]

# What is stopped has to wait for its readers, who are as slow as the machine.
ARGUMENTS = ("--provider", "scripted", "--log-level", "error", "--shutdown-grace", "500")
THREADS = os.environ.get("OMP_NUM_THREADS")
MARK = f"GATEWAY_OF_A_TEST={os.getpid()}"  # in the environment of these tests' gateways


@pytest.fixture(scope="module")
def folder():
    with own_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def cluster(folder):
    with head_node(folder) as address:
        yield address


def provider_of(**config):
    environment = dict([MARK.split("=")])
    return RayProvider({"arguments": ARGUMENTS, "environment": environment, **config})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(cluster):
    """Return a provider with two replicas on the cluster."""
    provider = provider_of(replicas="2", ray=cluster)
    try:
        await provider.load()
        yield provider
    finally:
        await provider.aclose()


async def until(condition):
    async with asyncio.timeout(START):
        while not condition():
            await asyncio.sleep(0.1)


def gateways():
    """Return the processes of these replicas' gateways."""
    return sorted(set(processes(MARK, "environ")) & set(processes("--as-replica")))


def environment_of(process):
    text = Path(f"/proc/{process}/environ").read_text()
    return dict(one.split("=", 1) for one in text.split("\0") if "=" in one)


def held():
    """Return how many calls Serve counts on all replicas."""
    import ray
    from ray.serve._private.constants import SERVE_NAMESPACE

    names = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True)]
    actors = [
        ray.get_actor(name, namespace=SERVE_NAMESPACE) for name in names if "#Gateway#" in name
    ]
    return sum(ray.get([actor.get_num_ongoing_requests.remote() for actor in actors]))


def said_to(prompt):
    """Return the whole text of an answer."""
    return default_script(Request(prompt, None, [], [], {}))[-1].text


class Held:
    """A stream of which one response is read: its window closes, so it can't end."""

    def __init__(self, prompt):
        self.prompt, self.stream, self.read = prompt, None, []

    @classmethod
    async def begin(cls, provider, prompt, **options):
        held = cls(prompt)
        held.stream = await provider.generate_async(prompt, stream=True, **options)
        held.read.append(await anext(held.stream))
        return held

    async def rest(self):
        """Read to the end; return the text."""
        self.read += [response async for response in self.stream]
        return text_of(self.read)


async def begin(provider, name, count, **options):
    """Begin streams that no replica has read the prompts of: they are spread evenly."""
    return [await Held.begin(provider, f"{name} {n}", **options) for n in range(count)]


async def all_whole(streams):
    """Read streams to their ends, and tell whether each has its whole text."""
    texts = await asyncio.gather(*(one.rest() for one in streams))
    return texts == [said_to(one.prompt) for one in streams]


def test_what_each_process_of_ray_imports_is_compiled():
    # Its node gives up after half a minute, which they need where each of them compiles it.
    ray = Path(find_spec("ray").origin)
    # Imported, Ray would take its settings from the environment before `folder` has set them.
    assert "ray" not in sys.modules
    assert Path(cache_from_source(str(ray.parent / "serve" / ray.name))).exists()


async def test_ray_on_this_machine_is_started_and_leaves_nothing(folder):
    of_another = folder / "ray" / "ray_current_cluster"  # that somebody started, and is not asked
    of_another.parent.mkdir()
    of_another.write_text("127.0.0.1:1")
    provider = provider_of(replicas="1")
    try:
        await provider.load()
        assert {model.id for model in provider.models()} == {"scripted"}
        assert processes(str(folder))
        (gateway,) = gateways()
        assert environment_of(gateway).get("OMP_NUM_THREADS") == THREADS
        here = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, gateway) == here
        assert text_of(await all_of(provider, "a")) == said_to("a")
    finally:
        await provider.aclose()
    await until(lambda: not gateways() and not processes(str(folder)))


async def test_replicas_come_and_go_with_the_load_and_no_answer_is_lost(cluster):
    scaling = {"target": 3, "grow_s": 0.1, "shrink_s": 0.1, "look_s": 2}
    provider = provider_of(replicas="1-3", ray=cluster, scaling=scaling)
    try:
        await provider.load()
        assert provider.fleet.ready == 1
        first = await begin(provider, "first", 7)
        await until(lambda: provider.fleet.ready == 3)
        others = await begin(provider, "more", 2)
        assert sorted(provider.statistics().replica_answers.values()) == [1, 1, 7]
        assert await all_whole(first[1:])
        await until(lambda: provider.fleet.ready == 1)
        assert sorted(provider.statistics().replica_answers.values()) == [1, 1, 1]
        assert await all_whole([first[0], *others])
        await until(lambda: len(provider.fleet.replicas) == len(gateways()) == 1)
        assert provider.statistics().generations_moved == 0
    finally:
        await provider.aclose()
    await until(lambda: not gateways())


async def test_serve_counts_what_runs_and_sees_each_cancel(two):
    await until(lambda: two.fleet.ready == 2)
    streams = await begin(two, "cancel", 20)
    await until(lambda: held() == 20)
    for one in streams:
        await one.stream.aclose()
    await until(lambda: held() == 0)
    assert set(two.statistics().replica_answers.values()) == {0}


async def test_of_a_killed_replica_each_stream_ends_once_and_another_is_started(two):
    await until(lambda: two.fleet.ready == 2)
    kinds = ({"temperature": 0}, {"temperature": 1.0, "seed": 5}, {"temperature": 1.0})
    streams = [await Held.begin(two, f"kill {n}", **kinds[n % 3]) for n in range(64)]
    assert sorted(two.statistics().replica_answers.values()) == [32, 32]
    before = gateways()
    os.kill(before[0], signal.SIGKILL)
    ends = await asyncio.gather(*(one.rest() for one in streams), return_exceptions=True)
    lost = {n for n, end in enumerate(ends) if isinstance(end, ProviderConnectionError)}
    assert 10 <= len(lost) <= 11
    assert {n % 3 for n in lost} == {2}
    assert all(end == said_to(f"kill {n}") for n, end in enumerate(ends) if n not in lost)
    await until(lambda: two.fleet.ready == 2 and len(gateways()) == 2 and gateways() != before)
    await until(lambda: held() == 0)


@pytest.mark.parametrize(
    ("whose", "number"),
    [(int, signal.SIGTERM), (parent, signal.SIGKILL)],
    ids=["a gateway is told to stop", "Serve's process of a replica is killed"],
)
async def test_a_replica_that_stops_ends_what_it_has_and_another_is_started(two, whose, number):
    await until(lambda: two.fleet.ready == 2)
    moved, before = two.statistics().generations_moved, gateways()
    replicas = list(two.fleet.replicas)
    streams = await begin(two, number.name, 8, temperature=1.0)
    assert sorted(two.statistics().replica_answers.values()) == [4, 4]
    os.kill(whose(before[0]), number)
    await until(lambda: not all(one.takes for one in replicas))
    assert await all_whole(streams)
    await until(lambda: two.fleet.ready == 2 and before[0] not in gateways())
    assert two.statistics().generations_moved == moved
