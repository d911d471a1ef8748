"""Gateways as replicas of a provider, each behind a proxy that can cut it off."""

from contextlib import AsyncExitStack, asynccontextmanager

from provider.replicas.replicas_provider import ReplicasProvider
from tests.support.proxy import Proxy
from tests.support.servers import eventually, running


class Replicas:
    """The provider, and for each replica its own provider, its gateway and its proxy."""

    def __init__(self, provider, backs, gateways, proxies):
        self.provider, self.fleet = provider, provider.fleet
        self.backs, self.gateways, self.proxies = backs, gateways, proxies

    def at(self, replica):
        """Return the number of a replica of the fleet."""
        return self.fleet.replicas.index(replica)

    async def kill(self, number):
        """End a replica's connections without a word, and take no new ones."""
        await self.proxies[number].stop()


@asynccontextmanager
async def replicated(*backs, config=None, **settings):
    """Connect a provider to a gateway for each of the providers `backs`."""
    async with AsyncExitStack() as stack:
        gateways, proxies = [], []
        for back in backs:
            gateway = await stack.enter_async_context(running(back, **settings))
            proxy = Proxy(gateway.port)
            await proxy.start()
            stack.push_async_callback(proxy.stop)
            gateways.append(gateway)
            proxies.append(proxy)
        addresses = [proxy.address for proxy in proxies]
        provider = ReplicasProvider({"replicas": addresses, **(config or {})})
        stack.push_async_callback(provider.aclose)
        await provider.load()
        await eventually(lambda: provider.fleet.ready == len(backs))
        yield Replicas(provider, backs, gateways, proxies)


def user(text):
    return {"role": "user", "content": text}


async def all_of(provider, prompt="", **options):
    """Return the responses of a stream."""
    stream = await provider.generate_async(prompt, stream=True, **options)
    return [response async for response in stream]


def text_of(responses, choice=0):
    own = [one for one in responses if getattr(one, "choice", 0) == choice]
    return "".join(one.content or "" for one in own)
