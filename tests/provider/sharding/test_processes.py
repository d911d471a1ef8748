"""Two processes that serve one model, as `mlx.launch` starts them: `--shard`."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from gateway.client import GatewayError, connect
from provider import MLXProvider
from tests.support.timeouts import STARTING, TIMEOUT
from tests.support.tiny_models import LLAMA, write_model

pytestmark = pytest.mark.slow("two processes on one processor wait for each other")

PROMPTS = [f"Tell me a story about {name}." for name in ("Ada", "Bo", "Cleo", "Dan", "Eve", "Fay")]
GREEDY = {"temperature": 0.0, "max_tokens": 40}
SEEDED = {"temperature": 0.8, "top_p": 0.95, "seed": 7, "max_tokens": 40}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
HELD = {
    "temperature": 0.0,
    "max_tokens": 40,
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
}


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Ranks:
    """The processes of one model; rank 0 serves on `url`."""

    def __init__(self, folder, how, *arguments, count=2):
        hosts = folder / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(count)]))
        command = [sys.executable, "-m", "gateway", "serve", "--shard", how, "--port", "0"]
        self.logs = [folder / f"rank{rank}.log" for rank in range(count)]
        self.processes = []
        for rank, log in enumerate(self.logs):
            environment = {
                **os.environ,
                "MLX_HOSTFILE": str(hosts),
                "MLX_RANK": str(rank),
                "MLX_DISABLE_COMPILE": "1",
                "OPENBLAS_NUM_THREADS": "1",
            }
            with log.open("wb") as errors:
                self.processes.append(
                    subprocess.Popen(
                        [*command, *arguments],
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        text=True,
                    )
                )

    def opened(self):
        """Wait until rank 0 serves; return the address."""
        line = self.processes[0].stdout.readline()
        assert line.startswith("Open "), [log.read_text() for log in self.logs]
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
def expected():
    """The texts of one process."""
    provider = MLXProvider({})
    texts = {
        name: [provider.generate(prompt, **options).content for prompt in PROMPTS]
        for name, options in (("greedy", GREEDY), ("seeded", SEEDED), ("held", HELD))
    }
    provider.close()
    return texts


async def text_of(client, prompt, options):
    run = client.generate(prompt=prompt, **options)
    return "".join([chunk.text async for chunk in run])


async def texts_of(client, options):
    return await asyncio.gather(*(text_of(client, prompt, options) for prompt in PROMPTS))


async def test_two_ranks_say_what_one_says_and_end_together(started, expected):
    ranks = started("tensor")
    async with connect(ranks.opened()) as client:
        assert await texts_of(client, GREEDY) == expected["greedy"]
        assert await texts_of(client, SEEDED) == expected["seeded"]
        assert await texts_of(client, HELD) == expected["held"]
        cancelled = []
        for number in range(30):  # come, and go while others decode
            run = client.generate(prompt=PROMPTS[number % 6], temperature=1.0, max_tokens=2000)
            chunks = aiter(run)
            await anext(chunks)
            cancelled.append((run, chunks))
        told = asyncio.gather(*(run.cancel() for run, _ in cancelled))
        assert await texts_of(client, GREEDY) == expected["greedy"]
        await told
    ranks.processes[0].send_signal(signal.SIGTERM)
    assert ranks.ended() == [0, 0]


async def test_layers_are_shared_by_two_ranks(started, tmp_path):
    model = write_model(tmp_path / "qwen2", {**LLAMA, "model_type": "qwen2"}, markers=False)
    index = {"weight_map": dict.fromkeys(LAYERS, "model.safetensors")}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    ranks = started("pipeline", str(model))
    with_all = MLXProvider({"model": str(model)})
    expected = [with_all.generate(prompt, **GREEDY).content for prompt in PROMPTS]
    with_all.close()
    async with connect(ranks.opened()) as client:
        assert await texts_of(client, GREEDY) == expected
    ranks.processes[0].send_signal(signal.SIGTERM)
    assert ranks.ended() == [0, 0]


LAYERS = [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_lost_rank_ends_all_with_an_error(started, number):
    """A process that is gone is noticed at once, one that is silent after a while."""
    ranks = started("tensor")
    async with connect(ranks.opened()) as client:
        runs = [aiter(client.generate(prompt=prompt, max_tokens=2000)) for prompt in PROMPTS]
        for run in runs:
            await anext(run)
        ranks.processes[1].send_signal(number)

        async def ending(run):
            with pytest.raises(GatewayError, match="rank 1 is lost"):
                async for _ in run:
                    pass

        async with asyncio.timeout(TIMEOUT * 2):
            await asyncio.gather(*map(ending, runs))
    assert ranks.processes[0].wait(TIMEOUT) == 1


async def test_the_others_end_when_the_first_is_lost(started):
    ranks = started("tensor")
    async with connect(ranks.opened()) as client:
        run = aiter(client.generate(prompt=PROMPTS[0], max_tokens=2000))
        await anext(run)
        ranks.processes[0].kill()
        assert ranks.processes[1].wait(TIMEOUT) == 1


def test_a_model_that_is_not_divided_so_ends_all_with_a_reason(started):
    ranks = started("pipeline")  # the model in the package has no such parts
    assert set(ranks.ended()) <= {1, 4}
    assert any("does not support pipelining" in log.read_text() for log in ranks.logs)
