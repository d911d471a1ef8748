"""What other people's clients talk to: a script, and a model that never ends by itself."""

import asyncio
import json
import re
import shutil
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect

from provider import MLXProvider
from provider.embedded import MODEL_PATH
from provider.errors import (
    ContextWindowExceededError,
    GenerationError,
    InvalidParameterError,
    ResourceExceededError,
)
from provider.scripted import MODEL_NAME, Fail, Pause, Say, ScriptedProvider
from tests.support.proxy import proxied
from tests.support.servers import TOKENS, eventually, metrics_of, running

STORY = [{"role": "user", "content": "Tell me a story about a fox"}]
NEVER = 65_536  # tokens, more than are made before a client that stops has done so
# What is refused, by the word that a client says.
REFUSALS = {
    "hot": InvalidParameterError("temperature", 9, "must be in [0, 2]"),
    "large": ContextWindowExceededError(8192, 9000),
    "full": ResourceExceededError("the queue is full"),
}
BROKEN = (Say("so far"), Fail(GenerationError("broken")))  # for the word `bad`


def write_endless(folder):
    """Make the model in the package, with a context that no test fills."""
    shutil.copytree(MODEL_PATH, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": NEVER}))
    return MLXProvider({"model": str(folder)}), config["eos_token_id"]


class Scripted(ScriptedProvider):
    """A script, beside a model that answers those who say `long` until they stop it."""

    def __init__(self, script, endless):
        super().__init__(script=self._steps, tokens_per_second=None)
        self._other, (self._model, self._end) = script, endless

    def _steps(self, request):
        said = _text(request.options["messages"][-1]["content"])
        return BROKEN if said == "bad" else self._other(request)

    def statistics(self):
        """Return the statistics of the model."""
        return self._model.statistics()

    async def generate_async(self, *given, **options):
        """Let the model answer where it is asked to."""
        said = _text(options["messages"][-1]["content"])
        if said in REFUSALS:
            raise REFUSALS[said]
        named = options.get("model", MODEL_NAME)
        if named == MODEL_NAME and said != "long":
            return await super().generate_async(*given, **options)
        kept = {name: options[name] for name in ("stream", "events") if name in options}
        if named != MODEL_NAME:
            kept["model"] = named  # which is not served
        more = {"messages": STORY, "max_tokens": NEVER - 1000, "logit_bias": {self._end: -100.0}}
        return await self._model.generate_async("", temperature=0.0, **kept, **more)


class Dropping(Scripted):
    """One whose script notes that a client has said `drop`, whose connection is to be cut then."""

    def __init__(self, script, endless):
        super().__init__(self._dropping, endless)
        self._script = script
        self.dropped = asyncio.Event()

    def _dropping(self, request):
        if _text(request.options["messages"][-1]["content"]) == "drop":
            self.dropped.set()
            return [Pause(3600)]
        return self._script(request)


async def cut_when_asked(proxy, gateway, program):
    """Run a program, and cut its connections when it says `drop`; return what it says."""
    async with meanwhile(program, gateway.provider.dropped.is_set) as task:
        await eventually(lambda: task.done() or has_begun(gateway))
        for _ in range(20):  # turns of the loop, in which the proxy passes on what was sent
            await asyncio.sleep(0)
        proxy.cut()
        return await task


def has_begun(gateway):
    """Return whether clients have been sent the beginning of each answer that goes on."""
    connections = gateway._connections
    going_on = [one for connection in connections for one in connection._session.generations]
    return bool(going_on) and all(one._sent_seq >= 0 for one in going_on)


def staying(request):
    """Answer as `echo` does, but for `stay` with what does not end by itself."""
    stays = _text(request.options["messages"][-1]["content"]) == "stay"
    return [Say("so far"), Pause(3600)] if stays else echo(request)


async def told_of_a_stop(program, connections=1, **settings):
    """Run a program against a gateway that stops, and then another one; return what it says.

    `program` makes it, of an address. The first gateway allows one generation and so many
    connections. It refuses work once a connection more has been tried, and is closed once another
    has been tried after that. `settings` are those of both gateways.
    """
    limits = {"max_generations_per_token": 1, "max_connections_per_token": connections}
    provider = ScriptedProvider(script=staying, tokens_per_second=None)
    async with (
        running(provider, TOKENS, **limits, **settings) as first,
        running(provider, TOKENS, **settings) as second,
        proxied(first) as proxy,
    ):
        refused = first._generations.metrics.refused
        told = program(proxy.address)
        async with meanwhile(told, lambda: refused["429"] or refused["4429"]) as task:
            draining = asyncio.create_task(first.drain())
            while not (task.done() or refused["503"]):
                await asyncio.sleep(0.005)
            draining.cancel()
            await asyncio.wait([draining])
            proxy.port = second.port
            await first.close()
            return await task


@asynccontextmanager
async def doors(path="", tls=None, **settings):
    """Run gateways; yield addresses at which a client is not let in, each for another reason.

    `tls` is the context of gateways whose `settings` have them speak TLS.
    """
    key, s = {"Authorization": "Bearer sesame"}, "s" if tls else ""
    async with (
        running(ScriptedProvider(script=echo), TOKENS, **settings) as gateway,
        running(ScriptedProvider(script=echo), TOKENS, max_connections=1, **settings) as full,
        connect(f"ws{s}://127.0.0.1:{full.port}/v1/responses", additional_headers=key, ssl=tls),
    ):
        yield [
            f"http{s}://0.0.0.0:{gateway.port}/v1{path}",  # this machine, by none of the Hosts
            f"http{s}://127.0.0.1:{gateway.port}/v2{path}",
            f"http{s}://127.0.0.1:{full.port}/v1{path}",
        ]


@asynccontextmanager
async def meanwhile(program, condition):
    """Run a program, and the block once a condition holds while it runs; it has its own limit."""
    task = asyncio.create_task(program)
    try:
        while not (task.done() or condition()):
            await asyncio.sleep(0.005)
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def echo(request):
    """Answer with what is said after the first word."""
    return [Say(_text(request.options["messages"][-1]["content"]).partition(" ")[2])]


def _text(content):
    parts = content if isinstance(content, list) else [{"text": content}]
    return "".join(str(part.get("text", "")) for part in parts)


async def metric(gateway, name, tls=None):
    """Return a number of `/metrics`, by its name and labels; 0 if it is not there."""
    _, text, _ = await metrics_of(gateway, tls=tls, Authorization="Bearer sesame")
    found = re.search(rf"^mlx_gateway_{re.escape(name)} (\S+)$", text.decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


@asynccontextmanager
async def steps_stopped(gateway, times=1, tls=None):
    """Check in `/metrics` that what begins in the block is cancelled, and that its steps stop.

    `tls` is the context of a gateway that speaks TLS.
    """
    cancelled, tokens = 'generations_ended_total{reason="cancelled"}', "engine_decode_tokens_total"
    before = await metric(gateway, tokens, tls)
    ended = await metric(gateway, cancelled, tls)
    yield
    await eventually(lambda: not gateway.provider.statistics().decoding and not gateway.live)
    assert await metric(gateway, cancelled, tls) == ended + times
    made = await metric(gateway, tokens, tls)
    assert before < made < before + NEVER / 2
    for _ in range(3):
        assert await metric(gateway, tokens, tls) == made
