"""What a dialect says by itself, without an event that causes it."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.dialects.base import Message
from gateway.dialects.kept_runs import new_id
from gateway.protocol.frames import Ping, Pong

__all__ = ["OwnAnswers"]


class OwnAnswers:
    """Messages of one connection; each is sent when its `Pong` comes, in its turn among events."""

    def __init__(self) -> None:
        self._waiting: dict[str, Sequence[Message]] = {}
        self.waiting_bytes = 0

    def say(self, messages: Sequence[Message], nonce: str | None = None) -> Ping:
        """Return the request after which messages are sent; `nonce` comes back in its `Pong`."""
        nonce = nonce or new_id("own")
        self._waiting[nonce] = messages
        self.waiting_bytes += _size(messages)
        return Ping(nonce=nonce)

    def take(self, pong: Pong) -> Sequence[Message]:
        """Return the messages that waited for a `Pong`."""
        messages = self._waiting.pop(str(pong.nonce), ())
        self.waiting_bytes -= _size(messages)
        return messages


def _size(messages: Sequence[Message]) -> int:
    return sum(len(message.data) for message in messages)
