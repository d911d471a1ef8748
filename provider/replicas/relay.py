"""A generation on a replica, whose frames are taken one by one, in order."""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.client import ConnectionLostError, GatewayClient, GatewayError, Run
from gateway.client.asynchronous import WINDOW
from gateway.client.errors import error_of
from gateway.protocol.frames import Chunk, Done, Error, Generate, Progress, ServerFrame

__all__ = ["Relay"]

MAX_ARRIVED = 4 * WINDOW  # frames; more come only from a replica that ignores the window
MAX_TOKENS = 1 << 20  # that are kept for another replica, for which the first ones will do


class Relay(Run):
    """A run whose reader gets all frames, those without a number too.

    Between two numbered frames only the newest of those without a number is kept, so the window
    bounds what waits.
    """

    def __init__(self, client: GatewayClient, frame: Generate):
        super().__init__(client, frame)
        self.asked_to_stop = False
        self.tokens: list[int] = []  # the first ones of the answer, as far as they were told
        self.answers = max(1, frame.n or 1)
        self._taker = client
        self._loop = asyncio.get_running_loop()
        self._ack_after = max(1, (frame.window or 1) // 2)  # frames
        self._arrived: deque[ServerFrame | GatewayError] = deque()
        self._waker: asyncio.Future[None] | None = None

    def receive(self, frame: ServerFrame) -> None:
        """Keep a frame for the reader; the client calls it."""
        if self.over:
            return
        if isinstance(frame, Chunk):  # first, because almost every frame is one
            self.last = frame.seq
        elif isinstance(frame, Progress) and frame.tokens:
            if frame.first == len(self.tokens) < MAX_TOKENS:
                self.tokens += frame.tokens
            return
        elif isinstance(frame, Done | Error):
            self._end(error_of(frame) if isinstance(frame, Error) else frame)
            return
        elif (seq := getattr(frame, "seq", None)) is not None:
            self.last = seq
        elif self._arrived and type(self._arrived[-1]) is type(frame):
            self._arrived[-1] = frame
            return
        if len(self._arrived) >= MAX_ARRIVED:
            self._end(ConnectionLostError("the replica sends more than was asked for"))
        elif not self.asked_to_stop:
            self._add(frame)

    def fail(self, error: GatewayError) -> None:
        """End it with an error of the client; the client calls it."""
        if not self.over:
            self._end(error)

    async def take(self) -> ServerFrame:
        """Return the next frame, and let the replica send more. Raises GatewayError."""
        while not self._arrived:
            self._waker = self._loop.create_future()
            await self._waker
        frame = self._arrived.popleft()
        if isinstance(frame, GatewayError):
            raise frame
        if not isinstance(frame, Chunk) or frame.seq - self.acknowledged >= self._ack_after:
            await self._taker.acknowledge(self, frame)
        return frame

    async def stop(self) -> None:
        """Ask the replica to stop if it was asked to begin; don't wait until it has."""
        if self.started_here and not self.over and not self.asked_to_stop:
            self.asked_to_stop = True
            self._arrived.clear()
            await self._taker.cancel(self)

    def _end(self, last: Done | GatewayError) -> None:
        self.over = True
        self._add(last)

    def _add(self, frame: ServerFrame | GatewayError) -> None:
        self._arrived.append(frame)
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)
