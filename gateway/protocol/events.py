"""What a session takes and says, in whichever wire language: requests, events, refusals.

Most are the native protocol's frames, which are plain data. What is refused or fails is not: which
fields it is about stands beside its text, so that each wire language can name them in its own way.
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
    """Why a request is not accepted, or a generation failed.

    `fields` are the fields of the request that are at fault. A message about one of them does not
    name it; one about several has a `{}` for each. `retry_after` is in seconds.
    """

    code: ErrorCode
    message: str
    retry_after: float | None = None
    fields: tuple[str, ...] = ()


class Failed(Struct, frozen=True, kw_only=True):
    """The end of a generation that failed, or the answer to a request that is refused.

    `id` and `seq` are absent where no generation has the error; the rest is as in Refusal.
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
