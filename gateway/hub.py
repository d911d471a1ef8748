"""What all connections of a gateway share: its provider, and the generations under way."""

from __future__ import annotations

import asyncio
import logging

from gateway.frames import ErrorCode, Generate
from gateway.generation import Generation
from gateway.pull import Audience, Pull
from gateway.session import Refusal
from gateway.settings import Settings
from gateway.shelf import Shelf
from provider.interface import AbstractLLMInterface

__all__ = ["Hub"]

log = logging.getLogger(__name__)


class Hub:
    """The generations of a gateway, whichever connection they have, if any."""

    def __init__(self, provider: AbstractLLMInterface, settings: Settings):
        self.provider = provider
        self.settings = settings
        self.shelf = Shelf(settings.resume_ttl_s, settings.resume_total_bytes)
        self.draining = False
        self._pulls: set[Pull] = set()  # whose generator is not closed yet
        self._idle = asyncio.Event()
        self._idle.set()

    def refusal(self) -> Refusal | None:
        """Return why no generation may begin now, None if one may."""
        if self.draining:
            return Refusal(ErrorCode.SHUTTING_DOWN, "the gateway is stopping")
        return None

    def begin(
        self, generation: Generation, frame: Generate, audience: Audience, owner: str | None
    ) -> Pull:
        """Start a generation's task."""
        pull = Pull(
            generation, audience, owner=owner, most_seconds=self.settings.generation_timeout_s
        )
        self._pulls.add(pull)
        self._idle.clear()
        self.shelf.add(pull)
        pull.start(self.provider, frame, self._ended)
        return pull

    async def idle(self) -> None:
        """Wait until no generation is under way."""
        await self._idle.wait()

    async def close(self) -> None:
        """Stop every generation that is left, and wait until their generators are closed."""
        self.shelf.close()
        tasks = [pull.task for pull in self._pulls if pull.task is not None]
        for pull in self._pulls:
            pull.stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, pull: Pull) -> None:
        self._pulls.discard(pull)
        if not self._pulls:
            self._idle.set()
        one = pull.generation
        log.info(
            "generation %s: %s, %d tokens for %d, first after %.0f ms, %.0f ms in all",
            one.id,
            one.reason,
            one.usage.completion_tokens,
            one.usage.prompt_tokens,
            one.timing.first_token,
            one.timing.total,
        )
