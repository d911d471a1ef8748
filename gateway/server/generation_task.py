"""The asyncio task that iterates over one generation's stream from the provider.

Rule 1: the task that iterates over the provider's generator also closes it. A generation is stopped
by cancelling its task, and nothing else waits while the generator closes.
Rule 2: no response is taken while the subscriber says `must_wait`; this is the backpressure.
Rule 3: a resumable generation outlives its connection; then the resume store is its subscriber.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Protocol

from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Refusal
from gateway.protocol.follower import Follower
from gateway.protocol.frames import Generate
from gateway.protocol.generation import Generation
from gateway.server.byte_budget import Held
from gateway.server.logs import unexpected
from gateway.server.metrics import Metrics
from provider import interface
from provider.interface import AbstractLLMInterface, FileData, GenerateResponse
from provider.options import OF_THE_CALLER
from provider.options import OPTIONS as OPTIONS_OF_A_CALL

__all__ = ["GenerationTask", "Subscriber"]

log = logging.getLogger(__name__)

# The options that are passed on to the provider; a `generate` frame has a field for each.
OPTIONS = tuple(sorted(OPTIONS_OF_A_CALL.keys() - OF_THE_CALLER))

TURN = 32  # responses after which the task yields to the event loop

# The first class that an error is an instance of gives its code; any other error is `internal`.
CODES: tuple[tuple[type[Exception], ErrorCode], ...] = (
    (interface.RequestTimeoutError, ErrorCode.INVALID_REQUEST),  # a retry would not help
    (interface.ContextWindowExceededError, ErrorCode.CONTEXT_TOO_LONG),
    (interface.InvalidRequestError, ErrorCode.INVALID_REQUEST),
    (interface.FileProcessingError, ErrorCode.INVALID_REQUEST),
    (interface.ImageProcessingError, ErrorCode.INVALID_REQUEST),
    (interface.UnsupportedFeatureError, ErrorCode.UNSUPPORTED),
    (interface.UnsupportedModelError, ErrorCode.UNKNOWN_MODEL),
    (interface.ModelNotFoundError, ErrorCode.UNKNOWN_MODEL),
    (interface.MemoryExceededError, ErrorCode.INVALID_REQUEST),  # a retry would not help
    (interface.ResourceExceededError, ErrorCode.OVERLOADED),
    (interface.ProviderConnectionError, ErrorCode.OVERLOADED),  # a retry goes elsewhere
    (interface.ModelLoadingError, ErrorCode.MODEL_ERROR),
    (interface.GenerationError, ErrorCode.MODEL_ERROR),
)
OF_MODELS = (interface.ModelNotFoundError, interface.ModelLoadingError)


class Subscriber(Protocol):
    """The receiver of a generation's events: a connection, or the resume store."""

    def notify(self, task: GenerationTask) -> None:
        """Note that the generation has new events, or has ended."""

    def must_wait(self, generation: Generation) -> bool:
        """Return whether no further response may be taken from the provider for now."""

    def lose(self, task: GenerationTask) -> None:
        """Forget a generation that another subscriber has taken over."""


class GenerationTask:
    """One generation's task; `subscriber` may change while it runs."""

    def __init__(
        self,
        generation: Generation,
        subscriber: Subscriber,
        metrics: Metrics,
        *,
        owner: str | None = None,
        client: str | None = None,
        max_seconds: float | None = None,
        max_prompt_tokens: int | None = None,
    ):
        self.generation = generation
        self.subscriber = subscriber
        # Time of the cancel, in seconds on the monotonic clock.
        self.stopped_at: float | None = None
        self._metrics = metrics
        self.owner = owner  # the name of the token that started it
        self.client = client  # the name that the provider is given for its client
        # Called once, when the provider has built the prompt, or the task has ended.
        self.on_built: Callable[[], None] | None = None
        self.asyncio_task: asyncio.Task[None] | None = None
        # Called with each of its followers when there may be events for them.
        self.followers: dict[Follower, Callable[[Follower], None]] = {}
        self._max_seconds = max_seconds
        self._max_prompt_tokens = max_prompt_tokens  # limit of a prompt, in tokens
        self.held = Held(client)  # what its subscriber has counted for it
        self.kept_bytes = 0  # those of frames to send again that are counted
        self._may_read = asyncio.Event()  # set while responses may be taken
        self._may_read.set()

    def start(
        self,
        provider: AbstractLLMInterface,
        frame: Generate,
        on_end: Callable[[GenerationTask], None],
    ) -> None:
        """Create the asyncio task; `on_end` is called when it has closed the generator."""
        self.asyncio_task = asyncio.create_task(self._run(provider, frame))
        self.asyncio_task.add_done_callback(lambda task: on_end(self))

    def built(self) -> None:
        """Note that the prompt is built, so that the request takes no memory any more."""
        if self.on_built is not None:
            self.on_built()
            self.on_built = None

    def stop(self) -> None:
        """Cancel the asyncio task, which closes the generator; don't wait for that."""
        if self.asyncio_task is not None and not self.asyncio_task.done():
            self.stopped_at = self.stopped_at or time.monotonic()
            self.asyncio_task.cancel()

    def wake(self) -> None:
        """Let the task take responses again, unless the subscriber says `must_wait`."""
        if not self._may_read.is_set() and not self.subscriber.must_wait(self.generation):
            self._may_read.set()

    def join(self, follower: Follower, notify: Callable[[Follower], None]) -> None:
        """Let a follower read what is there and what comes."""
        self.followers[follower] = notify
        self.generation.followed = True
        self.subscriber.notify(self)
        notify(follower)

    def part(self, follower: Follower) -> None:
        """Forget a follower."""
        self.followers.pop(follower, None)
        self.generation.followed = bool(self.followers)

    def tell_followers(self) -> None:
        """Let the followers take new events."""
        for follower, notify in list(self.followers.items()):
            notify(follower)

    def lose_followers(self, why: Refusal) -> None:
        """End the following of those that have not read all."""
        for follower, notify in list(self.followers.items()):
            follower.lose(why)
            notify(follower)

    async def _run(self, provider: AbstractLLMInterface, frame: Generate) -> None:
        generation, model, taken, last = self.generation, frame.model, 0, None
        between = self._metrics.between_texts
        try:
            async with asyncio.timeout(self._max_seconds) as limit:
                responses = await self._call(provider, frame)
                del frame  # may hold megabytes of files, which are not needed any more
                async with aclosing(responses):
                    async for response in responses:
                        taken += 1
                        if taken == 1:
                            self.built()
                        if self._max_prompt_tokens is not None:
                            self._check(response, self._max_prompt_tokens)
                        now = time.monotonic()
                        if response.content or response.reasoning_trace:
                            if last is not None:
                                between.add(now - last)
                            last = now
                        generation.respond(response, now)
                        self.subscriber.notify(self)
                        if not generation.live:
                            break
                        if taken % TURN == 0:
                            await asyncio.sleep(0)
                        if self.subscriber.must_wait(generation):
                            self._may_read.clear()
                            await self._may_read.wait()
            generation.ended(time.monotonic())
        except Exception as error:  # noqa: BLE001 - a generation's fault ends that generation alone
            if isinstance(error, TimeoutError) and limit.expired():
                self._cut()
            else:
                generation.failed(_refusal(error, model))
        self.subscriber.notify(self)

    async def _call(
        self, provider: AbstractLLMInterface, frame: Generate
    ) -> AsyncGenerator[GenerateResponse, None]:
        """Call the provider with the fields that are set in the frame."""
        given: dict[str, Any] = {name: getattr(frame, name) for name in OPTIONS}
        given |= {"client": self.client, "max_input_tokens": self._max_prompt_tokens}
        if (relayed := frame.relayed) is not None:
            given |= {"client": relayed.client, "begun_answer": relayed.answer}
            given["tell_tokens"] = relayed.tell_tokens or None
        files: list[Any] = [FileData(f.name, f.mime, f.data) for f in frame.files or ()]
        responses = await provider.generate_async(
            frame.prompt or "",
            frame.system_prompt,
            files or None,
            stream=True,
            tools=list(frame.tools) if frame.tools else None,
            events=True,
            **{name: value for name, value in given.items() if value is not None},
        )
        return responses if isinstance(responses, AsyncGenerator) else _as_stream(responses)

    def _check(self, response: GenerateResponse, most: int) -> None:
        """Raise ContextWindowExceededError if `response` reports a prompt of over `most` tokens."""
        event = response.raw_response
        if isinstance(event, interface.GenerationStarted) and event.prompt_tokens > most:
            raise interface.ContextWindowExceededError(most, event.prompt_tokens)

    def _cut(self) -> None:
        """End a generation whose time is up, as `slow_client` if it waited for its client."""
        if self._may_read.is_set():
            self.generation.ended(time.monotonic(), "length")
        else:
            message = (
                f"the client did not read within the {self._max_seconds:g} s "
                "that a generation may take"
            )
            self.generation.failed(Refusal(ErrorCode.SLOW_CLIENT, message))


async def _as_stream(whole: GenerateResponse) -> AsyncGenerator[GenerateResponse, None]:
    """Return a stream of one whole answer, for a provider that never streams."""
    yield whole


def _refusal(error: Exception, model: str | None) -> Refusal:
    """Return what the client is told of a provider's error.

    An error about a model may name a folder of this machine. Its text goes only to a client that
    asked for the model by that name; others get a general message.
    """
    for kind, code in CODES:
        if isinstance(error, kind):
            if isinstance(error, OF_MODELS) and error.model_name != model:
                log.warning("a requested model can't be used: %s", error)
                named = "the model" if model is None else f"`{model}`"
                said = f"{named} cannot be loaded; the server's log says why"
                return Refusal(code, said, _retry_after(error))
            return Refusal(code, _without_name(error), _retry_after(error), _fields(error))
    request = uuid.uuid4().hex[:12]
    unexpected(log, f"internal error {request}", error)
    return Refusal(ErrorCode.INTERNAL, f"internal error {request}", _retry_after(error))


def _without_name(error: Exception) -> str:
    """Return an error's message, without the name of the parameter if it begins with that."""
    said, name = str(error), f"`{getattr(error, 'parameter', '')}`"
    return said[len(name) :].lstrip(": ") if said.startswith(name) else said


def _retry_after(error: Exception) -> float | None:
    details = getattr(error, "details", None)
    seconds = details.get("retry_after") if isinstance(details, dict) else None
    return float(seconds) if isinstance(seconds, int | float) else None


def _fields(error: Exception) -> tuple[str, ...]:
    """Return the field of `generate` that a provider's error names, if any."""
    if isinstance(error, interface.InvalidParameterError):
        return (error.parameter,)
    return ("files",) if isinstance(error, interface.FileProcessingError) else ()
