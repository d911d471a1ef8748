"""The requests that a session takes and the events that it emits, the same for all wire languages.

Most are frames of the native protocol, which are plain data. Refusals and failures are not frames:
they hold the fields at fault apart from the message, so that each wire language can name fields in
its own way.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

from gateway.protocol.codes import RETRYABLE, ErrorCode
from gateway.protocol.frames import (
    Chunk,
    ClientFrame,
    Done,
    Loading,
    Pong,
    Progress,
    Queued,
    Started,
    ToolCall,
)

__all__ = ["Event", "Failed", "Refusal", "Request"]

Request = ClientFrame


@dataclass(frozen=True)
class Refusal:
    """The reason why a request is not accepted, or a generation failed.

    `fields` are the fields of the request that are at fault; the wire language puts their names
    into `message`. With one field, the message leaves the name out: `must be at least 1`. With
    several, it has a `{}` in place of each name: `give either {} or {}`. `retry_after` is in
    seconds.
    """

    code: ErrorCode
    message: str
    retry_after: float | None = None
    fields: tuple[str, ...] = ()


class Failed(Struct, frozen=True, kw_only=True):
    """The end of a generation that failed, or the answer to a request that is refused.

    `id` and `seq` are None if the error belongs to no generation. The other fields are those of
    Refusal.
    """

    id: str | None = None
    seq: int | None = None
    code: ErrorCode
    message: str
    retry_after: float | None = None
    fields: tuple[str, ...] = ()

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed if it is sent again."""
        return RETRYABLE[self.code]


Event = Queued | Loading | Started | Progress | Chunk | ToolCall | Done | Failed | Pong
