"""What a gateway asks of a provider that holds no model."""

import asyncio
import sys
from hashlib import sha256

from websockets.asyncio.client import unix_connect

from gateway.protocol.frames import Cancel, Generate
from gateway.server.tokens import Token, Tokens
from provider.interface import AbstractLLMInterface, GenerateResponse, Health
from provider.scripted import Pause, Say, ScriptedProvider
from tests.support.servers import Wire, eventually, get, running, wired

ECHO = """
import sys
for line in sys.stdin:
    for word in line.split():
        print(word, flush=True)
    print(flush=True)
"""


class Echo(AbstractLLMInterface):
    """Each prompt goes to another process, which gives its words back."""

    def __init__(self):
        super().__init__({"model": "echo"})
        self.process = None
        self.open = 0  # streams

    async def load(self):
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ECHO, stdin=pipe, stdout=pipe
        )

    async def aclose(self):
        self.process.stdin.close()
        await self.process.wait()

    def health(self):
        return Health(ready=self.process is not None, reason="the process is not there")

    def generate(self, prompt, *given, **options):
        raise NotImplementedError

    async def generate_async(
        self, prompt, system_prompt=None, files=None, stream=False, tools=None, **options
    ):
        return self._words(prompt)

    async def _words(self, prompt):
        self.open += 1
        try:
            self.process.stdin.write(f"{prompt}\n".encode())
            while word := (await self.process.stdout.readline()).strip():
                yield GenerateResponse(content=f"{word.decode()} ")
            if prompt.startswith("stay"):
                await asyncio.Event().wait()
            yield GenerateResponse(finish_reason="stop")
        finally:
            self.open -= 1


async def test_a_provider_in_another_process_is_served_with_what_it_overrides_alone():
    provider = Echo()
    async with running(provider) as gateway:
        assert (await get(gateway, "/readyz"))[:2] == (503, b"the process is not there\n")
        await gateway.provider.load()
        assert (await get(gateway, "/readyz"))[0] == 200
        assert b'"id":"echo"' in (await get(gateway, "/v1/models"))[1]
        assert b"mlx_gateway_ready 1.0" in (await get(gateway, "/metrics"))[1]
        async with wired(gateway) as wire:
            await wire.send(Generate(id="a", prompt="one two"))
            frames = await wire.until("done")
            assert "".join(f.get("text", "") for f in frames) == "one two "
            assert frames[-1]["finish_reason"] == "stop"
            await wire.send(Generate(id="b", prompt="stay here"))
            await wire.until("chunk")
            await wire.send(Cancel(id="b"))
            assert (await wire.until("done"))[-1]["finish_reason"] == "cancelled"
            await eventually(lambda: provider.open == 0)
        await gateway.provider.aclose()


async def test_the_provider_is_told_which_generations_are_of_the_same_client():
    tokens = [Token(name, sha256(name.encode()).hexdigest()) for name in ("alice", "bob")]
    provider = ScriptedProvider(script=[Say("x")])
    for accepted, secrets in ((Tokens(tokens), ["alice", "bob", "alice"]), (Tokens(), [None])):
        async with running(provider, accepted) as gateway:
            for secret in secrets:
                shown = {"Authorization": f"Bearer {secret}"} if secret else {}
                async with wired(gateway, additional_headers=shown) as wire:
                    await wire.send(Generate(id="a", prompt="hi"))
                    await wire.until("done")
    told = [request.options["client"] for request in provider.requests]
    assert told == ["token alice", "token bob", "token alice", "address 127.0.0.1"]


async def test_clients_that_cannot_be_told_apart_are_of_no_name_and_have_no_share(tmp_path):
    provider, path = ScriptedProvider(script=[Pause(3600)]), tmp_path / "socket"
    async with running(provider, unix=str(path), max_generations_in_all=4):
        async with unix_connect(str(path), "ws://localhost/v1/stream") as socket:
            wire = Wire(socket)
            for number in range(5):
                await wire.send(Generate(id=str(number), prompt="hi"))
            assert (await wire.until("error"))[-1]["id"] == "4"
        assert [request.options.get("client") for request in provider.requests] == [None] * 4


class Building(Echo):
    """Prompts are built once `gate` is set."""

    def __init__(self):
        super().__init__()
        self.gate = asyncio.Event()

    async def _words(self, prompt):
        await self.gate.wait()
        yield GenerateResponse(content="x")


async def test_large_requests_whose_prompts_are_not_built_are_counted_by_client():
    provider, limits = Building(), {"request_bytes": 40_000, "client_share": 0.5}
    tokens = Tokens([Token(name, sha256(name.encode()).hexdigest()) for name in "ab"])

    def of(name):
        return {"additional_headers": {"Authorization": f"Bearer {name}"}}

    def large(name):
        return Generate(id=name, prompt="x" * 6000)

    async with running(provider, tokens, **limits) as gateway:
        async with wired(gateway, **of("a")) as mine, wired(gateway, **of("b")) as other:
            await mine.send(large("1"))
            await mine.send(large("2"))
            refused = await mine.receive()
            assert (refused["id"], refused["code"]) == ("2", "overloaded")
            assert refused["retryable"] is True
            await mine.send(Generate(id="3", prompt="small"))
            await other.send(large("4"))
            await eventually(lambda: gateway._generations.live == 3)
            provider.gate.set()
            await mine.until("done")
            await mine.until("done")
            await other.until("done")
            assert gateway._generations.unbuilt.held == 0
            await mine.send(large("5"))
            await mine.until("done")
        assert gateway._generations.arriving.held == 0


async def test_a_cancelled_request_is_no_longer_counted():
    async with running(Building()) as gateway, wired(gateway) as wire:
        await wire.send(Generate(id="1", prompt="x" * 6000))
        await eventually(lambda: gateway._generations.unbuilt.held)
        await wire.send(Cancel(id="1"))
        await wire.until("done")
        await eventually(lambda: not gateway._generations.unbuilt.held)
