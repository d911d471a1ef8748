"""The errors that the clients raise."""

from __future__ import annotations

from gateway.protocol.codes import RETRYABLE, ErrorCode
from gateway.protocol.frames import (
    Error,
)

__all__ = [
    "ConnectionLostError",
    "GatewayError",
    "UnauthorizedError",
    "error_of",
]


class GatewayError(Exception):
    """The gateway refused a request or ended a generation with an error."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
    ):
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after  # in seconds, None if the gateway gave no time


class UnauthorizedError(GatewayError):
    """The gateway requires a token, or refuses the one that was sent."""

    def __init__(self) -> None:
        super().__init__("unauthorized", "the gateway wants a token")


class ConnectionLostError(GatewayError):
    """The connection was lost, and the generation can't be resumed."""

    def __init__(self, reason: str):
        super().__init__("connection_lost", reason, retryable=True)


def error_of(frame: Error) -> GatewayError:
    """Return the exception for an `error` frame, whose code may be unknown to this client."""
    retryable = frame.retryable or RETRYABLE.get(frame.code, False)
    return GatewayError(
        frame.code.value if isinstance(frame.code, ErrorCode) else str(frame.code),
        frame.message,
        retryable=retryable,
        retry_after=frame.retry_after,
    )
