"""Two and three processes that serve one model, as `mlx.launch` starts them: `--shard`."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

import pytest

from gateway.client import GatewayError, connect
from provider import MLXProvider
from provider.embedded import MODEL_PATH
from tests.support.servers import free_ports, running, stream_url
from tests.support.timeouts import STARTING
from tests.support.tiny_models import LLAMA, write_model

pytestmark = pytest.mark.slow("two processes on one processor wait for each other")

PROMPTS = [f"Tell me a story about {name}." for name in ("Ada", "Bo", "Cleo", "Dan", "Eve", "Fay")]
GREEDY = {"temperature": 0.0, "max_tokens": 40}
COUNTS = [f"Count from {first} to 90" for first in range(3, 9)]  # answers of hundreds of tokens
LONG = {"temperature": 0.0, "max_tokens": 2000}
SEEDED = {"temperature": 0.8, "top_p": 0.95, "seed": 7, "max_tokens": 40}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
HELD = {
    "temperature": 0.0,
    "max_tokens": 40,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
}


GATEWAY = ["-m", "gateway", "serve"]
LAUNCH = str(Path(sys.executable).with_name("mlx.launch"))
ENVIRONMENT = {**os.environ, "MLX_DISABLE_COMPILE": "1", "OPENBLAS_NUM_THREADS": "1"}


class Ranks:
    """The processes of one model; rank 0 serves on `url`.

    `programs` has what runs instead of the gateway, by rank.
    """

    def __init__(self, folder, how, *arguments, count=2, programs=None):
        hosts = folder / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(count)]))
        serve = [*GATEWAY, "--shard", how, "--port", "0", *arguments]
        self.logs = [folder / f"rank{rank}.log" for rank in range(count)]
        self.processes = []
        for rank, log in enumerate(self.logs):
            environment = {**ENVIRONMENT, "MLX_HOSTFILE": str(hosts), "MLX_RANK": str(rank)}
            with log.open("wb") as errors:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, *(programs or {}).get(rank, serve)],
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        text=True,
                    )
                )

    def said(self):
        """Return what each process has logged."""
        return [log.read_text() for log in self.logs]

    def opened(self):
        """Wait until rank 0 serves; return the address."""
        line = self.processes[0].stdout.readline()
        assert line.startswith("Open "), self.said()
        return "ws" + line.split()[1].removeprefix("http")

    def ended(self):
        """Wait until all have ended; return their exit statuses."""
        return [process.wait(STARTING) for process in self.processes]

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.fixture
def started(tmp_path):
    """A function that starts the ranks of a test."""
    found = []

    def start(how, *arguments, **options):
        found.append(Ranks(tmp_path, how, *arguments, **options))
        return found[-1]

    yield start
    for ranks in found:
        ranks.close()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The address of two ranks of the model in the package, for tests that leave them as they are.

    In the end they stop in order.
    """
    ranks = Ranks(tmp_path_factory.mktemp("two"), "tensor")
    try:
        yield ranks.opened()
        ranks.processes[0].send_signal(signal.SIGTERM)
        assert ranks.ended() == [0, 0], ranks.said()
    finally:
        ranks.close()


async def text_of(client, prompt, options):
    run = client.generate(prompt=prompt, **options)
    return "".join([chunk.text async for chunk in run])


async def texts_of(client, options):
    return await asyncio.gather(*(text_of(client, prompt, options) for prompt in PROMPTS))


async def in_turns(client, options):
    """Return texts of runs of which each begins once the one before has said something."""
    texts = []
    for number, prompt in enumerate(PROMPTS):
        run = aiter(client.generate(prompt=prompt, **{**options, "max_tokens": 40 - 5 * number}))
        first = await anext(run)
        texts.append(asyncio.create_task(rest_of(first, run)))
    return await asyncio.gather(*texts)


async def rest_of(first, run):
    return first.text + "".join([chunk.text async for chunk in run])


async def answers_of(client, options):
    run = client.generate(prompt=PROMPTS[0], n=3, **options)
    await run.result()
    return [run.text, *run.others.values()]


async def probabilities_of(client):
    """Return tokens, and the logarithms of their probabilities."""
    options = {**GREEDY, "stream": False, "logprobs": True, "top_logprobs": 2}
    done = await client.generate(prompt=PROMPTS[0], **options).result()
    tokens = [token["token"] for token in done.logprobs]
    return tokens, [token["logprob"] for token in done.logprobs]


async def second_turn(client):
    """Return an answer whose prompt begins as an earlier one, and how much of that was known."""
    told = "The fox is red, the hare is grey, and both live by the sea. " * 8
    await client.generate(prompt=told + "Hello!", **GREEDY).result()
    run = client.generate(prompt=told + "Who are they?", **GREEDY)
    done = await run.result()
    return run.text, done.usage.cached_tokens


async def outcomes(client):
    return {
        "greedy": await texts_of(client, GREEDY),
        "seeded": await texts_of(client, SEEDED),
        "constrained": await texts_of(client, HELD),
        "in turns": await in_turns(client, GREEDY),
        "in turns, seeded": await in_turns(client, SEEDED),
        "several": await answers_of(client, SEEDED),
        "second turn": await second_turn(client),
    }


async def test_two_ranks_answer_as_one_process_does(two):
    provider = MLXProvider({})
    try:
        async with running(provider) as gateway, connect(stream_url(gateway)) as client:
            expected = await outcomes(client)
            tokens, logprobs = await probabilities_of(client)
    finally:
        await provider.aclose()
    async with connect(two) as client:
        assert await outcomes(client) == expected
        theirs, found = await probabilities_of(client)
    assert expected["second turn"][1] > 0
    assert len(set(expected["several"])) > 1
    assert theirs == tokens
    assert found == pytest.approx(logprobs, abs=1e-3)


async def test_runs_that_come_and_go_change_no_other(two):
    async with connect(two) as client:
        expected = await texts_of(client, GREEDY)
        cancelled = []
        for number in range(30):
            drawn = {"temperature": 1.0, "seed": number, "max_tokens": 2000}
            run = client.generate(prompt=PROMPTS[number % 6], **drawn)
            chunks = aiter(run)
            await anext(chunks)
            cancelled.append((run, chunks))
        told = asyncio.gather(*(run.cancel() for run, _ in cancelled))
        assert await texts_of(client, GREEDY) == expected
        await told


async def test_layers_are_shared_by_two_ranks_freed_when_idle_and_loaded_again(started, tmp_path):
    model = write_model(tmp_path / "qwen2", {**LLAMA, "model_type": "qwen2"}, markers=False)
    index = {"weight_map": dict.fromkeys(LAYERS, "model.safetensors")}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    ranks = started("pipeline", str(model), "--idle-unload", "0.5")
    with_all = MLXProvider({"model": str(model)})
    expected = [with_all.generate(prompt, **GREEDY).content for prompt in PROMPTS]
    with_all.close()
    url = ranks.opened()
    async with connect(url) as client:
        assert await texts_of(client, GREEDY) == expected
        while await metric(url, "engine_weights_bytes"):
            await asyncio.sleep(0.05)
        assert await texts_of(client, GREEDY) == expected
    ranks.processes[1].send_signal(signal.SIGTERM)  # any of them, and all end in order
    assert ranks.ended() == [0, 0], ranks.said()
    assert ranks.said()[1].count("has its part") >= 2


LAYERS = [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)]


async def metric(url, name):
    """Return the value of a metric of rank 0."""
    address = "http" + url.removeprefix("ws").removesuffix("/v1/stream") + "metrics"

    def fetch():
        with urllib.request.urlopen(address) as answer:
            return answer.read().decode()

    lines = (await asyncio.to_thread(fetch)).splitlines()
    return float(next(one.split()[-1] for one in lines if one.startswith(f"mlx_gateway_{name}")))


async def test_three_ranks_share_heads_and_a_lost_one_ends_them_all(started, tmp_path):
    heads = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 3}
    model = write_model(tmp_path / "three", {**LLAMA, **heads, "intermediate_size": 192})
    ranks = started("tensor", str(model), count=3)
    with_all = MLXProvider({"model": str(model)})
    expected = [with_all.generate(prompt, **GREEDY).content for prompt in PROMPTS]
    with_all.close()
    async with connect(ranks.opened()) as client:
        assert await texts_of(client, GREEDY) == expected
    ranks.processes[2].kill()
    assert ranks.ended() == [1, 1, -signal.SIGKILL]
    assert "rank 2 is lost" in ranks.said()[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_lost_rank_ends_all_with_an_error(started, number):
    """A process that is gone is noticed at once, one that is silent after a while."""
    ranks = started("tensor")
    async with connect(ranks.opened()) as client:
        runs = [aiter(client.generate(prompt=prompt, **LONG)) for prompt in COUNTS]
        await asyncio.gather(*map(anext, runs))
        ranks.processes[1].send_signal(number)

        async def ending(run):
            with pytest.raises(GatewayError, match="rank 1 is lost"):
                async for _ in run:
                    pass

        async with asyncio.timeout(STARTING):
            await asyncio.gather(*map(ending, runs))
    assert ranks.processes[0].wait(STARTING) == 1


async def test_the_others_end_when_the_first_is_lost(started):
    ranks = started("tensor")
    async with connect(ranks.opened()) as client:
        run = aiter(client.generate(prompt=COUNTS[0], **LONG))
        await anext(run)
        ranks.processes[0].kill()
        assert ranks.processes[1].wait(STARTING) == 1


def test_a_model_that_is_not_divided_so_ends_all_with_a_reason(started):
    ranks = started("pipeline")  # the model in the package has no such parts
    assert set(ranks.ended()) <= {0, 1, 4}
    assert any("does not support pipelining" in said for said in ranks.said())


# Other ranks that do what a test wants: they join, say what they have, and stay.
PEER = """
import sys, time
from pathlib import Path
from provider.models.sharded import facts_of
from provider.sharding.meeting import join

rank = join()
rank.has({**facts_of(Path(sys.argv[1]), "tensor"), **dict([sys.argv[2].split("=")])})
for told in rank.told():
    print(told, flush=True)
"""


def peer(changed="a=b"):
    return {1: ["-c", PEER, str(MODEL_PATH), changed]}


def test_a_rank_with_other_versions_is_refused(started):
    ranks = started("tensor", programs=peer("mlx-lm=0.0.1"))
    assert ranks.processes[0].wait(STARTING) == 4
    assert "rank 1 has mlx-lm 0.0.1, and rank 0 has" in ranks.said()[0]
    assert ranks.processes[1].wait(STARTING) is not None


# A rank of the gateway that is out of memory after some passes.
FAULTY = """
import sys
from gateway.__main__ import main
from provider.sharding.following import FollowingModel

run, passes = FollowingModel._run, iter(range(200))

def faulty(self, *given):
    if next(passes, None) is None:
        raise MemoryError("no memory is left here")
    run(self, *given)

FollowingModel._run = faulty
sys.argv[1:1] = ["serve"]
main()
"""


async def test_an_error_of_one_rank_ends_all_with_its_reason(started):
    program = ["-c", FAULTY, "--shard", "tensor", "--port", "0"]
    ranks = started("tensor", programs={1: program})
    async with connect(ranks.opened()) as client:
        with pytest.raises(GatewayError, match="rank 1 has failed: no memory is left here"):
            while True:
                await text_of(client, COUNTS[0], LONG)
    assert ranks.ended() == [1, 1], ranks.said()


def test_ranks_end_while_one_of_them_never_loads_its_part(started):
    ranks = started("tensor", programs=peer(f"mlx-lm={version('mlx-lm')}"))
    assert ranks.processes[1].stdout.readline().strip() == "Load()"
    ranks.processes[0].send_signal(signal.SIGTERM)
    assert ranks.processes[0].wait(STARTING) == 128 + signal.SIGTERM
    assert ranks.processes[1].wait(STARTING) == 0


def test_a_rank_whose_files_never_come_ends_all_at_a_signal(started):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub = f"http://127.0.0.1:{silent.getsockname()[1]}"
        of_the_hub = ["--shard", "tensor", "--port", "0", "someone/something"]
        program = ["-c", f"import os; os.environ['HF_ENDPOINT'] = {hub!r}; {RUN}", *of_the_hub]
        ranks = started("tensor", programs={1: program})
        silent.settimeout(STARTING)
        asked, _ = silent.accept()
        with asked:
            ranks.processes[1].send_signal(signal.SIGTERM)
            assert ranks.processes[0].wait(STARTING) == 128 + signal.SIGTERM
            assert ranks.processes[1].wait(STARTING) == 0


RUN = "import sys; sys.argv[1:1] = ['serve']; from gateway.__main__ import main; main()"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_a_killed_launcher_leaves_no_process(tmp_path):
    """The ports that it gives to the ranks are free again for its next start."""
    port = str(free_ports(2)[0])
    hosts = ["--hosts", "127.0.0.1,127.0.0.1", "--backend", "ring", "--starting-port", port]
    command = [LAUNCH, *hosts, "--", sys.executable, *GATEWAY, "--shard", "tensor", "--port", "0"]
    with (tmp_path / "log").open("wb") as log:
        launcher = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=ENVIRONMENT
        )
    try:
        line = b""
        while not line.startswith(b"Open "):
            line = launcher.stdout.readline()
            assert line, (tmp_path / "log").read_text()
        tasks = Path(f"/proc/{launcher.pid}/task").glob("*/children")
        ranks = [int(number) for task in tasks for number in task.read_text().split()]
        assert len(ranks) == 2
    finally:
        launcher.kill()
        launcher.wait()
        launcher.stdin.close()
        launcher.stdout.close()
    end = time.monotonic() + STARTING
    try:
        while any(map(lives, ranks)):
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        for rank in filter(lives, ranks):
            os.kill(rank, signal.SIGKILL)


def lives(process):
    """Return whether a process runs; one that has ended may wait for its parent to ask for it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
