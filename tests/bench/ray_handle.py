"""The plain way through Ray Serve: a gateway that takes tokens from a streaming handle.

Each replica is an actor that has the engine itself; Serve chooses among them, and each response of
an answer is an item of its streaming call. `tests.bench.ray_serve` measures this beside
`mlx-gateway serve --replicas`. Prints the address of the gateway.
"""

import argparse
import asyncio
import signal
from contextlib import aclosing

import ray
from ray import serve

from gateway.configuration.settings import Settings
from gateway.server.server import Gateway
from provider.interface import AbstractLLMInterface, whole_answer
from provider.replicas.ray_serve import HEALTH_S, ONGOING


class Model:
    """A replica."""

    async def __init__(self, config):
        from provider import MLXProvider  # where it runs, in the right order

        self.provider = MLXProvider(config)
        await self.provider.load()

    def models(self):
        return self.provider.models()

    async def answer(self, given, kwargs):
        stream = await self.provider.generate_async(*given, stream=True, **kwargs)
        async with aclosing(stream):
            async for response in stream:
                yield response


class HandleProvider(AbstractLLMInterface):
    """Generates by a streaming call for each answer."""

    def __init__(self, handle, models):
        super().__init__()
        self._handle, self._models = handle.options(stream=True), models

    def models(self):
        return self._models

    def generate(self, *given, **kwargs):
        raise NotImplementedError

    async def generate_async(
        self, prompt, system_prompt=None, files=None, stream=False, tools=None, **kwargs
    ):
        responses = self._responses((prompt, system_prompt, files), {"tools": tools, **kwargs})
        return responses if stream else whole_answer([one async for one in responses])

    async def _responses(self, given, kwargs):
        call = self._handle.answer.remote(given, kwargs)
        try:
            async for response in call:
                yield response
        finally:
            call.cancel()


def deployed(config, replicas):
    """Start the replicas; return the handle of their deployment."""
    serve.start(proxy_location="Disabled")
    deployment = serve.deployment(
        Model,
        num_replicas=replicas,
        max_ongoing_requests=ONGOING,
        health_check_period_s=HEALTH_S,
        ray_actor_options={"num_cpus": 0},
    )
    return serve.run(deployment.bind(config), name="plain", route_prefix=None)


async def served(handle):
    stop = asyncio.Event()
    provider = HandleProvider(handle, await handle.models.remote())
    async with Gateway(provider, Settings(port=0)) as gateway:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        print(f"Open {gateway.url}", flush=True)
        await stop.wait()


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ray_handle", description=__doc__)
    parser.add_argument("replicas", type=int)
    parser.add_argument("--ray", required=True, help="address of a cluster")
    parser.add_argument("--model", help="a model's folder, file or id")
    given = parser.parse_args()
    ray.init(given.ray, log_to_driver=False, logging_level="ERROR")
    asyncio.run(served(deployed({"model": given.model} if given.model else {}, given.replicas)))
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
