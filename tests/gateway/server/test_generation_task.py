"""The task of one generation: what it holds, what it tells, when it waits."""

import asyncio
import gc
import tracemalloc

import pytest

from gateway.protocol.codes import ErrorCode
from gateway.protocol.frames import Generate, Ping
from gateway.protocol.generation import Generation
from gateway.server.generation_task import GenerationTask
from gateway.server.metrics import Metrics
from provider.interface import (
    AbstractLLMInterface,
    ContextWindowExceededError,
    FileProcessingError,
    GenerateResponse,
    GenerationError,
    InvalidParameterError,
    MemoryExceededError,
    ModelLoadingError,
    QuotaExceededError,
    ResourceExceededError,
)
from provider.scripted import Fail, Pause, Say
from tests.support.servers import TIMEOUT, eventually, running, scripted, wired

LARGE = 4 << 20  # bytes of a prompt


class Forgetful(AbstractLLMInterface):
    """A provider that keeps nothing of its prompt, and comes to no end."""

    streams = 0

    def generate(self, *given, **options):
        raise NotImplementedError

    async def generate_async(self, prompt, *given, **options):
        assert len(prompt) == LARGE
        return self._stream()

    async def _stream(self):
        self.streams += 1
        yield GenerateResponse(content="x")
        await asyncio.Event().wait()


@pytest.mark.parametrize("protocol", ["mlx-gateway.v1.json", "mlx-gateway.v1.msgpack"])
async def test_a_large_request_is_not_held_while_its_answer_is_generated(protocol):
    provider = Forgetful()
    async with running(provider) as gateway, wired(gateway, protocol) as wire:
        tracemalloc.start()
        try:
            await wire.send(Generate(id="a", prompt="x" * LARGE))
            await wire.until("chunk")
            await wire.send(Ping())  # websockets holds a frame until the next one, a pong at least
            await wire.until("pong")
            gc.collect()
            held, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most > LARGE
    assert held < LARGE / 4


class Listener:
    """A subscriber that makes the provider wait while `full` is set."""

    def __init__(self):
        self.notified = 0
        self.full = False

    def notify(self, task):
        self.notified += 1

    def must_wait(self, generation):
        return self.full

    def lose(self, task):
        raise AssertionError("nobody takes it over")


def begun(provider, listener, prompt="hi", **options):
    frame = Generate(id="a", prompt=prompt, model="asked")
    generation = Generation(frame, 0.0)
    task = GenerationTask(generation, listener, Metrics(), **options)
    task.start(provider, frame, lambda ended: None)
    return task


async def ended(task):
    async with asyncio.timeout(TIMEOUT):
        await asyncio.gather(task.asyncio_task, return_exceptions=True)
    return task.generation.pop_events()[-1]


async def test_no_response_is_taken_while_the_subscriber_makes_it_wait():
    provider, listener = scripted(Say("a b c d")), Listener()
    listener.full = True
    task = begun(provider, listener)
    await eventually(lambda: listener.notified == 1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert listener.notified == 1
    task.wake()
    await asyncio.sleep(0)
    assert listener.notified == 1
    listener.full = False
    task.wake()
    assert (await ended(task)).finish_reason == "stop"


async def test_a_task_that_is_stopped_closes_its_generator():
    provider, listener = scripted(Say("a"), Pause(3600)), Listener()
    task = begun(provider, listener)
    await eventually(lambda: provider.live)
    task.stop()
    task.stop()
    await asyncio.gather(task.asyncio_task, return_exceptions=True)
    assert task.asyncio_task.cancelled()
    assert not provider.live
    assert task.stopped_at is not None


@pytest.mark.parametrize(
    ("error", "code", "fields", "message"),
    [
        (
            InvalidParameterError("top_k", 1, "`top_k` is odd"),
            "invalid_request",
            ("top_k",),
            "is odd",
        ),
        (InvalidParameterError("top_k", 1, "odd"), "invalid_request", ("top_k",), "odd"),
        (FileProcessingError("too large"), "invalid_request", ("files",), "too large"),
        (ContextWindowExceededError(1, 2, "long"), "context_too_long", (), "long"),
        (MemoryExceededError("large"), "invalid_request", (), "large"),
        (ResourceExceededError("busy"), "overloaded", (), "busy"),
        (GenerationError("broken"), "model_error", (), "broken"),
        (ModelLoadingError("in /home/x", model_name="y"), "model_error", (), "`asked` cannot be"),
        (QuotaExceededError("secret"), "internal", (), "internal error"),
        (RuntimeError("secret"), "internal", (), "internal error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_an_error_is_told_by_its_code_the_field_at_fault_and_no_secret(
    error, code, fields, message
):
    failed = await ended(begun(scripted(Fail(error)), Listener()))
    assert (failed.code, failed.fields) == (ErrorCode(code), fields)
    assert failed.message.startswith(message)
    assert "secret" not in failed.message
    assert "/home" not in failed.message


async def test_an_error_says_when_it_is_worth_a_retry():
    error = ResourceExceededError("busy", details={"retry_after": 3})
    failed = await ended(begun(scripted(Fail(error)), Listener()))
    assert (failed.retry_after, failed.retryable) == (3.0, True)


async def test_what_takes_too_long_is_cut_and_said_to_be_unread_where_it_was():
    done = await ended(begun(scripted(Say("a"), Pause(3600)), Listener(), max_seconds=0.05))
    assert done.finish_reason == "length"
    listener = Listener()
    listener.full = True
    failed = await ended(begun(scripted(Say("a b")), listener, max_seconds=0.05))
    assert failed.code is ErrorCode.SLOW_CLIENT


async def test_a_prompt_that_is_too_long_is_refused_once_its_length_is_known():
    failed = await ended(begun(scripted(Say("a")), Listener(), "two words", max_prompt_tokens=1))
    assert failed.code is ErrorCode.CONTEXT_TOO_LONG


async def test_the_provider_is_told_how_long_a_prompt_may_be():
    provider = scripted(Say("a"))
    await ended(begun(provider, Listener(), max_prompt_tokens=7))
    await ended(begun(provider, Listener()))
    limits = [request.options.get("max_input_tokens") for request in provider.requests]
    assert limits == [7, None]
