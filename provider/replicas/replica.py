"""One replica: its connection, whether it takes generations, and those that run there.

A connection that is lost ends all its generations at once, because the replica ends them too; the
fleet then lets them go on elsewhere. Another connection is made as soon as possible.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gateway.client import GatewayClient, UnauthorizedError
from gateway.client.asynchronous import ConnectionState, pauses
from gateway.protocol.address import Address, address_of
from gateway.protocol.frames import JOINED_PROTOCOL
from provider.interface import ModelInfo
from provider.replicas import probe

__all__ = ["Link", "Replica"]

log = logging.getLogger(__name__)

HEALTH_S = 1.0  # seconds between looks at a replica's readiness
PROBE_S = 10.0  # seconds that an answer to a plain GET may take
PLACES = 32  # the usual `max_batch`, for replicas that don't say theirs
STABLE_S = 5.0  # seconds after which a connection that is lost is made again without a pause


@dataclass(eq=False)
class Link:
    """A connection to a replica that is up; another connection is another link."""

    replica: Replica
    number: int
    client: GatewayClient
    live: int = 0  # generations there

    @property
    def key(self) -> str:
        """The name by which the router knows it: its replica has read nothing before."""
        return f"{self.replica.name} {self.number}"

    @property
    def relays(self) -> bool:
        """Whether the replica takes what `Relayed` says of the clients here."""
        return self.client.ready.relays

    @property
    def most(self) -> int:
        """How many answers the replica accepts on this connection."""
        return self.client.ready.limits.get("max_generations", PLACES)

    @property
    def places(self) -> int:
        """How many answers the replica makes well at once."""
        return min(self.most, self.client.ready.limits.get("max_batch", PLACES))


class Replica:
    """A gateway at an address, to which a connection is kept.

    `changed` is called whenever it gets or loses its link, or `trouble` changes.
    """

    def __init__(self, url: str, token: str | None, changed: Callable[[Replica], None]):
        self.address: Address = address_of(url)
        self.name = self.address.url.partition("://")[2].partition("/")[0]
        if self.address.socket_file is not None:
            self.name = self.address.socket_file
        self.link: Link | None = None
        self.models: list[ModelInfo] = []
        self.trouble = "not connected yet"  # why it takes no generations, "" if it does
        self.lost = 0  # connections that were lost
        self.retiring = False  # whether it is given up once its generations have ended
        self.url = url
        self._token = token or self.address.token
        self._changed = changed
        self._links = 0

    @property
    def takes(self) -> bool:
        """Whether it can take a generation now."""
        return self.link is not None and not self.trouble and not self.retiring

    async def run(self) -> None:
        """Keep a connection until cancelled, or until it has retired."""
        pausing = pauses()
        while not self.retiring:
            begin = time.monotonic()
            try:
                await self._connected()
            except Exception as error:  # noqa: BLE001 - whatever it says, it is tried again
                self._say(_why(error))
            if time.monotonic() - begin > STABLE_S:
                pausing = pauses()
            await asyncio.sleep(next(pausing))

    def retire(self) -> None:
        """Take no more generations, and end once those that are there have ended."""
        self.retiring = True
        self._changed(self)

    def refuses(self, reason: str) -> None:
        """Note that the replica has refused a generation because it is stopping."""
        self._say(reason)

    async def _connected(self) -> None:
        down = asyncio.Event()

        def told(state: ConnectionState, reason: str) -> None:
            if state == "closed":
                down.set()
                self._lose("the connection was lost")

        client = GatewayClient(self.url, JOINED_PROTOCOL, self._token, give_up_s=0, on_state=told)
        async with client:
            self.models = await self._asked_models()
            if down.is_set():
                raise ConnectionError("the connection was lost")
            self._links += 1
            self.link = Link(self, self._links, client)
            looking = asyncio.create_task(self._look_until_retired(self.link))
            lost = asyncio.create_task(down.wait())
            try:
                done, _ = await asyncio.wait([looking, lost], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                if self.link is not None:
                    self.link, self.trouble = None, "closed"
                    self._changed(self)
                looking.cancel()
                lost.cancel()
                await asyncio.gather(looking, lost, return_exceptions=True)

    def _lose(self, why: str) -> None:
        """Give up the link, if there is one, so that nobody is sent there."""
        if self.link is not None:
            self.link = None
            self.lost += 1
            self._say(why)

    async def _asked_models(self) -> list[ModelInfo]:
        async with asyncio.timeout(PROBE_S):
            return await probe.models_of(self.address, self._token)

    async def _look_until_retired(self, link: Link) -> None:
        """Ask again and again whether the replica is ready, until it may go."""
        while link.live or not self.retiring:
            trouble = await self._asked_readiness()
            if self.link is link:
                self._say(trouble)
            await asyncio.sleep(HEALTH_S)

    async def _asked_readiness(self) -> str:
        try:
            async with asyncio.timeout(PROBE_S) as limit:
                return await probe.readiness(self.address)
        except (OSError, ValueError) as error:
            # It may only be slow, and what it makes goes on; one that is dead answers no pings.
            return f"no answer for {PROBE_S:g} s" if limit.expired() else _why(error)

    def _say(self, trouble: str) -> None:
        """Set `trouble` and tell of it, unless it is known."""
        if trouble == self.trouble:
            return
        if trouble:
            log.warning("replica %s: %s", self.name, trouble)
        else:
            log.info("replica %s is ready", self.name)
        self.trouble = trouble
        self._changed(self)


def _why(error: Exception) -> str:
    if isinstance(error, UnauthorizedError):
        return "it wants another token"
    if isinstance(error, msgspec.MsgspecError):
        return "it is no mlx-gateway"
    return str(error) or type(error).__name__
