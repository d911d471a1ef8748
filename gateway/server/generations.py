"""The state that all connections of a gateway share: its provider and the live generations."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from functools import partial

import msgspec

from gateway.configuration.settings import Settings
from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Refusal
from gateway.protocol.frames import Generate, Resume
from gateway.protocol.generation import Generation
from gateway.server.byte_budget import ByteBudget, SharedBuffer
from gateway.server.closing import all_end
from gateway.server.generation_task import GenerationTask, Subscriber
from gateway.server.limits import RETRY_AFTER_S, Load, refusal
from gateway.server.logs import fields
from gateway.server.loop_share import LoopShare
from gateway.server.metrics import KeptText, Metrics, exposition
from gateway.server.rates import Counts
from gateway.server.resumable import ResumeStore
from gateway.server.send_turns import SendTurns
from gateway.server.tokens import Token
from provider.interface import AbstractLLMInterface, ModelParameter, with_defaults
from provider.options import GenerationOptions
from provider.wording import counted

__all__ = ["Generations", "client_name"]

log = logging.getLogger(__name__)


class Generations:
    """All live generations of a gateway, those without a connection included."""

    def __init__(self, provider: AbstractLLMInterface, settings: Settings):
        self.provider = with_defaults(provider)
        self.settings = settings
        share = settings.client_share
        self.resume_store = ResumeStore(settings.resume_ttl_s, settings.resume_total_bytes, share)
        self.draining = False
        self.metrics = Metrics()
        self._metrics_text = KeptText()
        self.connections = 0
        # Text that waits for all clients.
        self.outbox = SharedBuffer(settings.outbox_total_bytes, share)
        # What is sent again of large events, to clients that may not read it.
        self.again = ByteBudget(settings.outbox_total_bytes, share)
        self.decoding = asyncio.Lock()  # of large messages, one at a time
        self.preparing = asyncio.Lock()  # of large events, a piece of one at a time
        self.send_turns = SendTurns()
        # Bytes of large messages that are on their way, and of those whose prompts are not built.
        half = settings.request_bytes // 2
        self.arriving = ByteBudget(half, share)
        self.unbuilt = ByteBudget(half, share)
        self.authority = f"{settings.host}:{settings.port}"  # HOST:PORT that clients connect to
        self._tasks: set[GenerationTask] = set()  # tasks whose generator is not closed yet
        self._answers = 0  # of all live generations
        self._by_client = Counts()  # answers of live generations
        self.loop_share = LoopShare(settings.client_loop_share, self._serves_others)
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def live(self) -> int:
        """The number of live generations."""
        return len(self._tasks)

    def _serves_others(self, client: str) -> bool:
        return self._answers > self._by_client[client]

    def refusal(
        self,
        request: Generate | Resume,
        on_connection: int,
        token: Token | None,
        address: str,
        size: int = 0,
    ) -> Refusal | None:
        """Return the reason why a generation can't begin or be taken over now, None if it can.

        `on_connection` is the number of answers that are live on the client's connection; `size` is
        that of the request in bytes, if it is large.
        """
        client = client_name(token, address)
        if size and not self.unbuilt.fits(client, size):
            waiting = self.unbuilt.of_client(client) >> 20
            said = f"{waiting} MiB of this client's requests wait for their prompts to be built"
            return Refusal(ErrorCode.OVERLOADED, said, RETRY_AFTER_S)
        held = 0 if client is None else self._by_client[client]
        load = Load(on_connection, held, self._answers, self.draining)
        return refusal(request, self.settings, token, load, datetime.now(UTC))

    def begin(
        self,
        generation: Generation,
        frame: Generate,
        subscriber: Subscriber,
        token: Token | None,
        address: str,
        size: int = 0,
    ) -> GenerationTask:
        """Start a generation's task, for a client with this token, or else at this address.

        The request's `size` in bytes counts until the provider's first response.
        """
        client = client_name(token, address)
        self.unbuilt.add(client, size)
        task = GenerationTask(
            generation,
            subscriber,
            self.metrics,
            owner=token.name if token else None,
            client=client,
            max_seconds=self.settings.generation_timeout_s,
            max_prompt_tokens=self.settings.max_prompt_tokens,
        )
        task.held.join(self.outbox)
        self._tasks.add(task)
        self._answers += generation.answers
        self._by_client.add(task.client, generation.answers)
        self._idle.clear()
        self.resume_store.add(task)
        task.on_built = partial(self.unbuilt.add, client, -size)
        task.start(self.provider, self._limited(frame), self._ended)
        return task

    def _limited(self, frame: Generate) -> Generate:
        """Apply `max_answer_tokens` to a request without `max_tokens`."""
        most = self.settings.max_answer_tokens
        if most is None or frame.max_tokens is not None:
            return frame
        usual = self.provider.get_param(ModelParameter.MAX_TOKENS) or GenerationOptions().max_tokens
        return msgspec.structs.replace(frame, max_tokens=min(most, usual))

    async def idle(self) -> None:
        """Wait until no generation is live."""
        await self._idle.wait()

    async def close(self) -> None:
        """Stop all remaining generations, and wait until their generators are closed.

        Bounded by `close_timeout_s`.
        """
        self.resume_store.close()
        tasks = [task.asyncio_task for task in self._tasks if task.asyncio_task is not None]
        for task in self._tasks:
            task.generation.cancel(time.monotonic())
            task.stop()
        if not await all_end(tasks, self.settings.close_timeout_s):
            log.warning("%s did not close in time", counted(self.live, "generation"))

    def _ended(self, task: GenerationTask) -> None:
        task.built()
        self._tasks.discard(task)
        self._answers -= task.generation.answers
        self._by_client.remove(task.client, task.generation.answers)
        if not self._tasks:
            self._idle.set()
        self._count(task)

    def _count(self, task: GenerationTask) -> None:
        """Count a generation that has ended, and log one line about it, without its text."""
        one, metrics, now = task.generation, self.metrics, time.monotonic()
        metrics.ended[one.reason] += 1
        metrics.prompt_tokens += one.usage.prompt_tokens
        metrics.completion_tokens += one.usage.completion_tokens
        metrics.merged_chunks += one.merged
        metrics.durations.add(now - one.accepted_at)
        if one.first_text_at is not None:
            metrics.first_text.add(one.first_text_at - one.accepted_at)
        if task.stopped_at is not None:
            metrics.cancels.add(now - task.stopped_at)
        log.info(
            "generation %r: %s, %s for %d, first %.0f ms, all %.0f ms",
            one.id,
            one.reason,
            counted(one.usage.completion_tokens, "token"),
            one.usage.prompt_tokens,
            one.timing.first_token,
            one.timing.total,
            extra=fields(
                generation=one.id,
                reason=one.reason,
                owner=task.owner,
                **msgspec.structs.asdict(one.usage),
                first_token_ms=one.timing.first_token,
                total_ms=one.timing.total,
            ),
        )

    def exposition(self) -> bytes:
        """Return the metrics of the gateway and the engine in Prometheus' text format.

        They are some hundredths of a second old where requests come without end.
        """
        return self._metrics_text.get(self._exposition)

    def _exposition(self) -> bytes:
        provider = self.provider
        now = {
            "connections": self.connections,
            "generations": self.live,
            "tickets": len(self.resume_store),
            "lost_generations": self.resume_store.waiting,
            "waiting_text_bytes": self.outbox.held,
            "ready": int(provider.health().ready and not self.draining),
        }
        return exposition(self.metrics, now, provider.statistics())


def client_name(token: Token | None, address: str) -> str | None:
    """Return the name of a client, which is its token, or its address where there is none.

    None if that is not known either, on a Unix socket: then clients can't be told apart, and no one
    may have a share of them all.
    """
    if token is not None:
        return f"token {token.name}"
    return f"address {address}" if address else None
