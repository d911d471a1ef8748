"""The provider's errors for what a replica says; each gets the same code on the wire again."""

from __future__ import annotations

import re

from gateway.client.errors import GatewayError
from gateway.protocol.codes import ErrorCode
from provider.interface import (
    AbstractLLMError,
    ContextWindowExceededError,
    GenerationError,
    InvalidParameterError,
    InvalidRequestError,
    ProviderAPIError,
    ProviderConnectionError,
    ResourceExceededError,
    UnsupportedFeatureError,
    UnsupportedModelError,
)

__all__ = ["BUSY", "RETRY_AFTER_S", "failure_of", "lost", "none_ready"]

# Said by a replica that can't take a generation now, while another one may.
BUSY = frozenset({ErrorCode.OVERLOADED, ErrorCode.RATE_LIMITED, ErrorCode.SHUTTING_DOWN})
RETRY_AFTER_S = 1.0
PATH = re.compile(r"`\$\.(?P<path>[^`]+)`:? ?(?P<said>.*)", re.DOTALL)


def failure_of(error: GatewayError) -> AbstractLLMError:
    """Return the provider's error for the end of a generation on a replica."""
    said = str(error)
    match error.code:
        case ErrorCode.INVALID_REQUEST:
            return _invalid(said)
        case ErrorCode.CONTEXT_TOO_LONG:
            return ContextWindowExceededError(0, 0, said)
        case ErrorCode.UNKNOWN_MODEL:
            return UnsupportedModelError(said)
        case ErrorCode.UNSUPPORTED:
            return UnsupportedFeatureError("replica", said)
        case ErrorCode.MODEL_ERROR:
            return GenerationError(said)
        case (
            ErrorCode.OVERLOADED
            | ErrorCode.RATE_LIMITED
            | ErrorCode.SHUTTING_DOWN
            | ErrorCode.SLOW_CLIENT
        ):
            return ResourceExceededError(said, details=_later(error.retry_after))
        case _:
            return ProviderAPIError(f"a replica answered `{error.code}`: {said}")


def lost(name: str) -> AbstractLLMError:
    """Return the error of a generation whose replica has gone and that can't go on elsewhere."""
    said = f"the replica {name} that made this answer was lost; send the request again"
    return ProviderConnectionError(said, details=_later(RETRY_AFTER_S))


def none_ready(reason: str) -> AbstractLLMError:
    """Return the error of a generation that no replica can take now."""
    return ResourceExceededError(reason, details=_later(RETRY_AFTER_S))


def _invalid(said: str) -> AbstractLLMError:
    """Return the error for a refused field, which `said` begins with if there is one."""
    found = PATH.fullmatch(said)
    if found is None:
        return InvalidRequestError(said)
    return InvalidParameterError(found["path"], None, f"`{found['path']}` {found['said']}")


def _later(seconds: float | None) -> dict[str, float]:
    return {} if seconds is None else {"retry_after": seconds}
