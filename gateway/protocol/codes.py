"""Error codes and close codes, and which errors are worth a retry.

Source: PROTOCOL.md, sections "Errors" and "Close codes".
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

__all__ = [
    "RETRYABLE",
    "BadFrame",
    "CloseCode",
    "ErrorCode",
    "NotAFrame",
]


class ErrorCode(StrEnum):
    """Why a frame or a generation failed."""

    INVALID_FRAME = "invalid_frame"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    DUPLICATE_ID = "duplicate_id"
    INVALID_REQUEST = "invalid_request"
    UNKNOWN_MODEL = "unknown_model"
    CONTEXT_TOO_LONG = "context_too_long"
    UNSUPPORTED = "unsupported"
    OVERLOADED = "overloaded"
    RATE_LIMITED = "rate_limited"
    SLOW_CLIENT = "slow_client"
    NOT_RESUMABLE = "not_resumable"
    MODEL_ERROR = "model_error"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL = "internal"


# Whether the same request may succeed if it is sent again. `model_error` is not retryable: the same
# prompt would most likely fail again.
RETRYABLE: dict[ErrorCode, bool] = {
    ErrorCode.INVALID_FRAME: False,
    ErrorCode.UNAUTHORIZED: False,
    ErrorCode.FORBIDDEN: False,
    ErrorCode.DUPLICATE_ID: False,
    ErrorCode.INVALID_REQUEST: False,
    ErrorCode.UNKNOWN_MODEL: False,
    ErrorCode.CONTEXT_TOO_LONG: False,
    ErrorCode.UNSUPPORTED: False,
    ErrorCode.OVERLOADED: True,
    ErrorCode.RATE_LIMITED: True,
    ErrorCode.SLOW_CLIENT: True,
    ErrorCode.NOT_RESUMABLE: False,
    ErrorCode.MODEL_ERROR: False,
    ErrorCode.SHUTTING_DOWN: True,
    ErrorCode.INTERNAL: False,
}


class CloseCode(IntEnum):
    """Why the server closes a connection."""

    NORMAL = 1000
    GOING_AWAY = 1001
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    OVERLOADED = 1013
    NOT_A_FRAME = 4400
    NOT_AUTHENTICATED = 4401
    FORBIDDEN = 4403
    NO_HELLO = 4408
    TOO_MANY = 4429


class NotAFrame(Exception):  # noqa: N818 - describes the client's message, not a fault of ours
    """A message that can't be decoded to a frame; the connection closes with 4400."""


class BadFrame(Exception):  # noqa: N818
    """A frame with a wrong type or field; `frame_id` is its id, None if that is unusable.

    `fields` are the fields at fault, and the message leaves them out, as in `events.Refusal`.
    """

    def __init__(
        self,
        message: str,
        frame_id: str | None,
        *,
        code: ErrorCode,
        fields: tuple[str, ...] = (),
    ):
        super().__init__(message)
        self.frame_id = frame_id
        self.code = code
        self.fields = fields
