"""The errors of Responses: what a client is told when a request is refused or a response fails."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from gateway.dialects.openai.server_events import ErrorBody
from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Failed

__all__ = ["Refused", "code_of_failure", "of_failure", "overloaded", "quoted"]

INVALID = "invalid_request_error"
RETRY_AFTER = "retry-after"

# By the gateway's code: the HTTP status, the type and the code of OpenAI's error.
KINDS: dict[ErrorCode, tuple[int, str, str]] = {
    ErrorCode.INVALID_FRAME: (400, INVALID, "invalid_json"),
    ErrorCode.UNAUTHORIZED: (401, "authentication_error", "invalid_api_key"),
    ErrorCode.FORBIDDEN: (403, "permission_error", "permission_denied"),
    ErrorCode.DUPLICATE_ID: (400, INVALID, "duplicate_id"),
    ErrorCode.INVALID_REQUEST: (400, INVALID, "invalid_value"),
    ErrorCode.UNKNOWN_MODEL: (404, INVALID, "model_not_found"),
    ErrorCode.CONTEXT_TOO_LONG: (400, INVALID, "context_length_exceeded"),
    ErrorCode.UNSUPPORTED: (400, INVALID, "unsupported_value"),
    ErrorCode.OVERLOADED: (503, "server_error", "server_is_overloaded"),
    ErrorCode.RATE_LIMITED: (429, "too_many_requests", "rate_limit_exceeded"),
    ErrorCode.SLOW_CLIENT: (408, "server_error", "slow_client"),
    ErrorCode.NOT_RESUMABLE: (400, INVALID, "not_resumable"),
    ErrorCode.MODEL_ERROR: (500, "server_error", "model_error"),
    ErrorCode.SHUTTING_DOWN: (503, "server_error", "server_shutting_down"),
    ErrorCode.INTERNAL: (500, "server_error", "server_error"),
}
# The field of `response.create` for each of the gateway's own.
PARAMS = {
    "enable_thinking": "reasoning.effort",
    "chat_template_kwargs": "reasoning.effort",
    "max_tokens": "max_output_tokens",
    "prompt": "input",
    "messages": "input",
    "response_format": "text.format",
}
MESSAGE = re.compile(r"\bmessages\[(\d+)\]")
TOOL = re.compile(r"tools\[(\d+)\]")


class Refused(Exception):  # noqa: N818 - a message for the client, not a fault of ours
    """A request that is not accepted; `param` is the field at fault.

    `retry_after` is in seconds.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str = "invalid_value",
        *,
        status: int = 400,
        kind: str = INVALID,
        retry_after: str | None = None,
    ):
        super().__init__(message)
        self.status = status
        headers = UNSET if retry_after is None else {RETRY_AFTER: retry_after}
        self.error = ErrorBody(type=kind, code=code, message=message, param=param, headers=headers)

    def inside(self, path: str) -> Refused:
        """Return the refusal of the same field inside another one."""
        error = self.error
        param = f"{path}.{error.param}" if error.param else path
        said = error.message.replace(f"`{error.param}`", f"`{param}`", 1)
        return Refused(said, param, error.code, status=self.status, kind=error.type)


def quoted(value: Any, most: int = 64) -> str:
    """Return the beginning of a client's text for an error; of any other value, only its type."""
    return value[:most] if isinstance(value, str) else type(value).__name__


def overloaded(said: str) -> Refused:
    """Return the refusal of a request that may succeed when it is made again later."""
    status, kind, code = KINDS[ErrorCode.OVERLOADED]
    return Refused(said, code=code, status=status, kind=kind, retry_after="1")


def of_failure(
    failed: Failed, paths: Sequence[str] = (), tools: Sequence[int] = ()
) -> tuple[int, ErrorBody]:
    """Return the status and the error for an event.

    `paths` has the field of each message of the prompt, `tools` the place of each of its tools.
    """
    status, kind, code = KINDS[failed.code]
    params = [_param(field, paths, tools) for field in failed.fields]
    named = [f"`{param}`" for param in params]
    said = failed.message.format(*named) if len(params) > 1 else failed.message
    if len(params) == 1:
        said = f"{named[0]}: {said}"
    param = params[0] if params else "model" if failed.code is ErrorCode.UNKNOWN_MODEL else None
    if failed.code is ErrorCode.CONTEXT_TOO_LONG:
        param = "input"
    headers: dict[str, str] | UnsetType = UNSET
    if failed.retry_after is not None:
        headers = {RETRY_AFTER: f"{failed.retry_after:g}"}
    said = MESSAGE.sub(lambda found: _item(int(found[1]), paths), said)
    return status, ErrorBody(type=kind, code=code, message=said, param=param, headers=headers)


def code_of_failure(status: int) -> str:
    """Return the error code of a response that failed after it had begun, by its status."""
    return {400: "invalid_prompt", 429: "rate_limit_exceeded"}.get(status, "server_error")


def _param(field: str, paths: Sequence[str], tools: Sequence[int]) -> str:
    """Return the name of a field of `generate` as the client knows it."""
    message, tool = MESSAGE.match(field), TOOL.match(field)
    if message:
        return _item(int(message[1]), paths) + field[message.end() :]
    if tool and int(tool[1]) < len(tools):
        return f"tools[{tools[int(tool[1])]}]" + field[tool.end() :]
    name = re.split(r"[.\[]", field, maxsplit=1)[0]
    inside = "" if name == "chat_template_kwargs" else field[len(name) :]
    return PARAMS.get(name, name) + inside


def _item(number: int, paths: Sequence[str]) -> str:
    return paths[number] if number < len(paths) else "input"
