"""ReplicasProvider: the AbstractLLMInterface of models that other gateways run.

A generation is a `generate` on a replica's connection, with a window, so that a reader that pauses
makes the replica pause. Closing it sends a `cancel`. If its replica is lost, greedy and seeded
generations go on on another one, exactly; others end with a retryable error, unless the caller has
nothing of the answer yet.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Dict, List, Optional, Union  # noqa: UP035 - the contract's own spelling

import msgspec

from gateway.client import ConnectionLostError, GatewayError
from gateway.client.asynchronous import WINDOW
from gateway.protocol.codes import ErrorCode
from gateway.protocol.frames import Done, Generate, Relayed, Started
from provider.interface import (
    CHAT_ABILITIES,
    AbstractLLMInterface,
    GenerateResponse,
    Health,
    InvalidParameterError,
    ModelCapability,
    ModelInfo,
    ModelParameter,
    TokenLogprobs,
    whole_answer,
)
from provider.replicas.delivered import Delivered, DifferentAnswerError
from provider.replicas.failures import BUSY, failure_of, lost, none_ready
from provider.replicas.fleet import Fleet, Place
from provider.replicas.prefixes import prefixes_of
from provider.replicas.relay import Relay
from provider.replicas.requests import frame_of
from provider.replicas.responses import Responses
from provider.replicas.search import Search
from provider.replicas.statistics import FleetStatistics

__all__ = ["ReplicasProvider"]

MAX_MOVES = 3  # replicas that one generation may lose before it ends
LOOK_S = 0.05  # seconds between two looks for a place

Files = Optional[List[Union[str, Path]]]
Tools = Optional[List[Union[Dict[str, Any], Callable[..., Any]]]]


class _LostError(Exception):
    """The replica of a generation has gone, or is stopping and has cut the generation."""


class _RefusedError(Exception):
    """A replica takes no further generation, while another one may."""

    def __init__(self, error: GatewayError):
        super().__init__(str(error))
        self.error = error


class ReplicasProvider(AbstractLLMInterface):
    """Generates on replicas, which are gateways that serve the same models.

    `config` may have these entries:
    - `replicas`: the addresses of the gateways, in the forms that `mlx-gateway chat` takes.
    - `token`: the token for those whose address has none.
    - defaults for the configurable options of a call and for `system_prompt`.

    `load` connects to the replicas, and its event loop is the only one that may use the provider.
    """

    _grows = False  # whether replicas come later

    def __init__(self, config: Optional[Dict[Union[str, ModelParameter], Any]] = None):
        super().__init__(config)
        self._urls = [str(url) for url in self.get_param("replicas") or ()]
        self._token: Optional[str] = self.get_param("token")
        self._numbers = itertools.count(1)
        try:
            self.fleet = Fleet(self._urls, self._token)
        except ValueError as error:
            raise InvalidParameterError("replicas", self._urls, f"`replica`: {error}") from error
        names = [replica.name for replica in self.fleet.replicas]
        if not names and self._grows:
            return
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None or not names:
            said = f"`{twice}` is given twice" if twice else "no address is given"
            raise InvalidParameterError("replicas", self._urls, f"`replica`: {said}")

    async def load(self) -> None:
        """Connect to the replicas, and wait until one takes generations."""
        self.fleet.start()
        await self.fleet.wait_ready()

    async def aclose(self) -> None:
        """Close the connections; running generations end with an error."""
        await self.fleet.close()

    def health(self) -> Health:
        """Return whether a replica takes generations, and how many do."""
        ready = self.fleet.ready
        if not ready:
            return Health(ready=False, reason=self.fleet.why_not())
        return Health(ready=True, reason=self.device())

    def models(self) -> List[ModelInfo]:
        """Return the models of all replicas, the default model first."""
        return self.fleet.models()

    def replicas(self) -> int:
        """Return how many of the replicas take generations."""
        return self.fleet.ready

    def places(self) -> int:
        """Return how many answers the replicas that take generations make at once."""
        return self.fleet.places

    def device(self) -> str:
        """Return how many of the replicas take generations."""
        return f"{self.fleet.ready} of {len(self.fleet.replicas)} replicas"

    def statistics(self) -> FleetStatistics:
        """Return a snapshot of the metrics; never waits."""
        return self.fleet.statistics()

    def get_capabilities(self) -> Dict[Union[str, ModelCapability], Any]:
        """Return the capabilities of a gateway; `VISION` is that of the default model."""
        sees = any(model.vision for model in self.models()[:1])
        return {
            **super().get_capabilities(),
            **dict.fromkeys(CHAT_ABILITIES, True),
            ModelCapability.VISION: sees,
        }

    # Generating.

    def generate(
        self,
        prompt: str,
        system_prompt: Optional[str] = None,
        files: Files = None,
        stream: bool = False,
        tools: Tools = None,
        **kwargs: Any,
    ) -> Union[GenerateResponse, Generator[GenerateResponse, None, None]]:
        """Generate on connections of its own, in an event loop of its own, and wait for the end.

        For scripts; with `stream=True` the deltas are given when all are there.
        """

        async def collect() -> List[GenerateResponse]:
            urls = [replica.url for replica in self.fleet.replicas]
            own = ReplicasProvider({**self.get_config(), "replicas": urls})
            try:
                await own.load()
                deltas = await own.generate_async(
                    prompt, system_prompt, files, stream=True, tools=tools, **kwargs
                )
                assert isinstance(deltas, AsyncGenerator)
                async with aclosing(deltas):
                    return [delta async for delta in deltas]
            finally:
                await own.aclose()

        deltas = asyncio.run(collect())
        return (delta for delta in deltas) if stream else whole_answer(deltas)

    async def generate_async(
        self,
        prompt: str,
        system_prompt: Optional[str] = None,
        files: Files = None,
        stream: bool = False,
        tools: Tools = None,
        **kwargs: Any,
    ) -> Union[GenerateResponse, AsyncGenerator[GenerateResponse, None]]:
        """Generate on a replica; closing the stream, or cancelling the await, stops it there.

        The await raises InvalidParameterError and FileProcessingError. The stream raises what the
        replica says, ResourceExceededError if none takes the generation, and
        ProviderConnectionError if the replica is lost and the answer can't go on elsewhere.
        """
        frame, options = frame_of(
            prompt, system_prompt, files or (), tools or (), kwargs, self.get_config()
        )
        deltas = self._deltas(frame, options.client, events=options.events)
        if stream:
            return deltas
        async with aclosing(deltas):
            return whole_answer([delta async for delta in deltas])

    async def _deltas(
        self, frame: Generate, client: Optional[str], *, events: bool
    ) -> AsyncGenerator[GenerateResponse, None]:
        """Yield the responses of a generation, on one replica after another if need be."""
        repeatable = _is_repeatable(frame)
        delivered = Delivered(again=repeatable)
        tells = repeatable and not frame.logprobs and (frame.n or 1) == 1
        relayed = Relayed(client=client, tell_tokens=tells)
        counters = self.fleet.counters
        search = Search(prefixes_of(frame))
        while True:
            place = await self._place(frame, search)
            key = place.link.key
            relay = place.relay(self._named(frame, relayed if place.link.relays else None))
            try:
                deltas = self._on_replica(place, relay, delivered)
                async with aclosing(deltas):
                    async for delta in deltas:
                        if events or not _is_event(delta):
                            yield delta
            except _RefusedError as refused:
                counters.passed_on += 1
                search.refused(key, refused.error, time.monotonic())
            except (_LostError, DifferentAnswerError) as error:
                search.was_lost(key, time.monotonic())
                again = isinstance(error, _LostError) and delivered.may_begin_again
                if not again or len(search.lost) > MAX_MOVES:
                    counters.failed += 1
                    raise lost(place.link.replica.name) from error
                counters.moved += 1
                delivered.rewind()
                if len(relay.tokens) > len(relayed.answer or ()):
                    relayed = msgspec.structs.replace(relayed, answer=relay.tokens)
            else:
                return

    async def _place(self, frame: Generate, search: Search) -> Place:
        """Return a place on a replica that was not lost, and does not refuse the generation now.

        A generation whose replica was lost waits for one. Raises the last refusal, or
        ResourceExceededError.
        """
        while True:
            now = time.monotonic()
            place = self.fleet.place(frame, search.prefixes, search.avoided(now))
            if place is not None:
                return place
            if self.fleet.closed or not search.waits(now):
                break
            await asyncio.sleep(LOOK_S)
        if search.refusal is not None:
            raise failure_of(search.refusal)
        if search.lost:
            self.fleet.counters.failed += 1
        raise none_ready(self.fleet.why_none(frame.model))

    def _named(self, frame: Generate, relayed: Optional[Relayed]) -> Generate:
        """Return the frame for one replica."""
        return msgspec.structs.replace(
            frame, id=f"r{next(self._numbers)}", stream=True, window=WINDOW, relayed=relayed
        )

    async def _on_replica(
        self, place: Place, relay: Relay, delivered: Delivered
    ) -> AsyncGenerator[GenerateResponse, None]:
        """Yield what the caller does not have yet of a generation on one replica.

        Raises _RefusedError and _LostError, for another replica to be asked, and provider errors.
        """
        responses = Responses(relay.answers)
        begun = False
        try:
            await place.link.client.start(relay)
            while True:
                taken = await relay.take()
                if isinstance(taken, Done) and taken.finish_reason == "cancelled":
                    raise _LostError  # nobody here has cancelled it: the replica is stopping
                begun = begun or isinstance(taken, Started)
                for response in responses.of(taken):
                    if (new := delivered.new_in(response)) is not None:
                        yield new
                if isinstance(taken, Done):
                    return
        except GatewayError as error:
            if isinstance(error, ConnectionLostError):
                raise _LostError from error
            if error.code == ErrorCode.SHUTTING_DOWN:
                place.link.replica.refuses(str(error))
            if error.code in BUSY and not begun:
                raise _RefusedError(error) from error
            raise failure_of(error) from error
        finally:
            place.leave()
            await relay.stop()


def _is_repeatable(frame: Generate) -> bool:
    """Return whether a replica makes the same answer as any other, by what the request says."""
    return frame.seed is not None or frame.temperature == 0


def _is_event(response: GenerateResponse) -> bool:
    """Return whether a response has no part of an answer that callers without `events` get."""
    text = response.content or response.reasoning_trace or response.finish_reason
    return not text and not isinstance(response.raw_response, TokenLogprobs)
