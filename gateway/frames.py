"""Every frame of the native protocol, its two codecs, and the error and close codes.

Rule 1: frames are plain data, frozen; what they mean is session.py's business.
Rule 2: a client's frame that has an unknown field is refused, to catch typing errors; a client
must ignore fields that it does not know.
Rule 3: whatever bytes arrive, `decode` returns a frame or raises NotAFrame or BadFrame.
Rule 4: the number of a frame in the msgpack codec and the order of its fields never change; new
fields go to the end, with a default.

Source: PROTOCOL.md, sections "Frames" and "Codecs".
"""

from __future__ import annotations

import difflib
import json
import re
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "JSON_PROTOCOL",
    "MSGPACK_PROTOCOL",
    "NUMBERS",
    "RETRYABLE",
    "Ack",
    "BadFrame",
    "Cancel",
    "Chunk",
    "ClientFrame",
    "CloseCode",
    "Codec",
    "Done",
    "Error",
    "ErrorCode",
    "File",
    "Generate",
    "Hello",
    "JsonCodec",
    "Loading",
    "MsgpackCodec",
    "NotAFrame",
    "Ping",
    "Pong",
    "Progress",
    "Queued",
    "Ready",
    "Resume",
    "ServerFrame",
    "Started",
    "Timing",
    "ToolCall",
    "Usage",
    "codec_for",
    "name_of",
    "server_frame",
]

JSON_PROTOCOL = "mlx-gateway.v1.json"
MSGPACK_PROTOCOL = "mlx-gateway.v1.msgpack"

Id = Annotated[str, Meta(min_length=1, max_length=64)]
Count = Annotated[int, Meta(ge=0)]
Text = str | None


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


# Whether the same request may succeed if it is sent again. A model's error is not: the same
# prompt would most likely meet the same fault.
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


# Client to server ------------------------------------------------------------------------------


class _FromClient(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="type",
):
    pass


class File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file as data: base64 text in JSON, bytes in msgpack. Never a path or a URL."""

    name: Annotated[str, Meta(min_length=1, max_length=255)]
    mime: Text = None
    data: bytes


class Hello(_FromClient, tag="hello", frozen=True, kw_only=True):
    """Authenticates and names the client; optional, first."""

    token: Text = None
    client: Text = None


class Generate(_FromClient, tag="generate", frozen=True, kw_only=True):
    """Starts a generation. The provider checks the ranges of the sampling options."""

    id: Id
    prompt: Text = None
    messages: list[dict[str, Any]] | None = None
    system_prompt: Text = None
    files: list[File] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    model: Text = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    stream: bool = True
    window: int | None = None
    resumable: bool = False
    enable_thinking: bool | None = None
    max_reasoning_tokens: int | None = None
    raw: bool | None = None
    continue_final_message: bool | None = None
    n: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class Cancel(_FromClient, tag="cancel", frozen=True, kw_only=True):
    """Stops a generation now; an unknown or finished id is ignored."""

    id: Id


class Ack(_FromClient, tag="ack", frozen=True, kw_only=True):
    """Says that the frames up to `seq` are processed."""

    id: Id
    seq: Count


class Resume(_FromClient, tag="resume", frozen=True, kw_only=True):
    """Takes over a generation after a reconnect."""

    id: Id
    ticket: str
    after: Annotated[int, Meta(ge=-1)]


class Ping(_FromClient, tag="ping", frozen=True, kw_only=True):
    """Asks for a pong with the same nonce."""

    nonce: str | int | None = None


ClientFrame = Hello | Generate | Cancel | Ack | Resume | Ping


# Server to client ------------------------------------------------------------------------------


class _FromServer(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    pass


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens of one generation."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Timing(Struct, frozen=True, kw_only=True):
    """Times of one generation in milliseconds."""

    queue: float = 0.0
    prefill: float = 0.0
    first_token: float = 0.0
    total: float = 0.0
    tokens_per_second: float = 0.0


class Ready(_FromServer, tag="ready", frozen=True, kw_only=True):
    """The server's first frame."""

    protocol: str
    server: str
    epoch: str
    connection: str
    models: list[str]
    limits: dict[str, int]


class Queued(_FromServer, tag="queued", frozen=True, kw_only=True):
    """A generation waits; 1 is next."""

    id: str
    position: int


class Loading(_FromServer, tag="loading", frozen=True, kw_only=True):
    """The model is being loaded: `done` of `total` bytes of its weights are there."""

    id: str
    model: str
    done: int = 0
    total: int = 0


class Started(_FromServer, tag="started", frozen=True, kw_only=True):
    """A generation begins; always its frame number 0."""

    id: str
    seq: int
    model: str
    prompt_tokens: int
    cached_tokens: int
    ticket: Text = None


class Progress(_FromServer, tag="progress", frozen=True, kw_only=True):
    """`done` of `total` prompt tokens are read."""

    id: str
    done: int
    total: int


class Chunk(_FromServer, tag="chunk", frozen=True, kw_only=True):
    """Some text; the answer's, unless `channel` says otherwise."""

    id: str
    seq: int
    text: str
    channel: Literal["reasoning"] | None = None
    logprobs: list[dict[str, Any]] | None = None
    choice: int = 0


class ToolCall(_FromServer, tag="tool_call", frozen=True, kw_only=True):
    """A call, or a part of one; with an `error`, what was written of one that can't be read."""

    id: str
    seq: int
    index: int
    call_id: str
    name: Text = None
    arguments: Text = None
    complete: bool = False
    error: Literal["cut_off", "malformed"] | None = None
    text: Text = None
    choice: int = 0


class Done(_FromServer, tag="done", frozen=True, kw_only=True):
    """The end of a generation that did not fail."""

    id: str
    seq: int
    finish_reason: Literal["stop", "length", "tool_calls", "cancelled"]
    usage: Usage
    timing: Timing
    text: Text = None
    reasoning: Text = None
    tool_calls: list[dict[str, Any]] | None = None
    logprobs: list[dict[str, Any]] | None = None
    broken_calls: list[dict[str, Any]] | None = None
    choices: list[dict[str, Any]] | None = None


class Error(_FromServer, tag="error", frozen=True, kw_only=True):
    """The end of a generation that failed, or what is wrong with a frame."""

    id: Text = None
    seq: int | None = None
    code: ErrorCode
    message: str
    retryable: bool
    retry_after: float | None = None


class Pong(_FromServer, tag="pong", frozen=True, kw_only=True):
    """The answer to a ping."""

    nonce: str | int | None = None


ServerFrame = Ready | Queued | Started | Progress | Chunk | ToolCall | Done | Error | Pong | Loading


# Codecs ----------------------------------------------------------------------------------------

FIRST_OF_SERVER = 16
NUMBERS: dict[type[Struct], int] = {
    Hello: 1,
    Generate: 2,
    Cancel: 3,
    Ack: 4,
    Resume: 5,
    Ping: 6,
    Ready: 16,
    Queued: 17,
    Started: 18,
    Progress: 19,
    Chunk: 20,
    ToolCall: 21,
    Done: 22,
    Error: 23,
    Pong: 24,
    Loading: 25,
}
CLIENT_FRAMES: tuple[type[ClientFrame], ...] = (Hello, Generate, Cancel, Ack, Resume, Ping)
MAX_DEPTH = 64  # of what a client sends; JSON Schemas of tools need a dozen
MALFORMED = (msgspec.MsgspecError, UnicodeError, RecursionError)


class NotAFrame(Exception):  # noqa: N818 - it names what came, not what went wrong here
    """The bytes are no frame at all; the connection closes with 4400."""


class BadFrame(Exception):  # noqa: N818
    """A frame with something wrong in it; `frame_id` is its id, where it has a usable one."""

    def __init__(self, message: str, frame_id: str | None, *, code: ErrorCode):
        super().__init__(message)
        self.frame_id = frame_id
        self.code = code


class _Codec:
    def __init__(self, max_depth: int = MAX_DEPTH):
        self._max_depth = max_depth  # of a client's frame

    def decode_fields(self, data: bytes | str) -> dict[str, Any]:
        raise NotImplementedError

    def _client_frame(self, data: bytes | str, *, bytes_in: type) -> ClientFrame:
        fields = self.decode_fields(data)
        return _client_frame(fields, bytes_in=bytes_in, max_depth=self._max_depth)


class JsonCodec(_Codec):
    """Text frames, one JSON object each: `{"type": …, fields}`; defaults are left out."""

    name = JSON_PROTOCOL
    text = True

    def encode(self, frame: ServerFrame | ClientFrame) -> bytes:
        """Return the frame as UTF-8 JSON; a lone surrogate becomes a replacement character."""
        try:
            return msgspec.json.encode(frame)
        except UnicodeEncodeError:
            return msgspec.json.encode(_without_surrogates(msgspec.to_builtins(frame)))

    def decode(self, data: bytes | str) -> ClientFrame:
        """Return a client's frame. Raises NotAFrame or BadFrame."""
        return self._client_frame(data, bytes_in=str)

    def decode_fields(self, data: bytes | str) -> dict[str, Any]:
        """Return any frame as a dict with `type`. Raises NotAFrame."""
        try:
            fields = msgspec.json.decode(data)
        except MALFORMED:
            fields = _of_odd_json(data)
        if not isinstance(fields, dict):
            raise NotAFrame("not a JSON object")
        return fields


class MsgpackCodec(_Codec):
    """Binary frames, one array each: `[number, fields in order]`; trailing defaults left out."""

    name = MSGPACK_PROTOCOL
    text = False

    def encode(self, frame: ServerFrame | ClientFrame) -> bytes:
        """Return the frame as a msgpack array; a lone surrogate becomes a replacement."""
        kind = type(frame)
        values = [getattr(frame, name) for name in kind.__struct_fields__]
        while values and values[-1] == DEFAULTS[kind][len(values) - 1]:
            values.pop()
        try:
            return msgspec.msgpack.encode([NUMBERS[kind], *values])
        except UnicodeEncodeError:
            plain = msgspec.to_builtins(values, builtin_types=(bytes,))
            return msgspec.msgpack.encode(_without_surrogates([NUMBERS[kind], *plain]))

    def decode(self, data: bytes | str) -> ClientFrame:
        """Return a client's frame. Raises NotAFrame or BadFrame."""
        return self._client_frame(data, bytes_in=bytes)

    def decode_fields(self, data: bytes | str) -> dict[str, Any]:
        """Return any frame as a dict with `type`. Raises NotAFrame."""
        if isinstance(data, str):
            raise NotAFrame("a text frame, where msgpack was agreed")
        try:
            values = msgspec.msgpack.decode(data)
        except (*MALFORMED, TypeError, ValueError) as error:  # TypeError: a list as a key
            raise NotAFrame("not msgpack") from error
        if not isinstance(values, list) or not values:
            raise NotAFrame("not a msgpack array")
        number, *rest = values
        kind = BY_NUMBER.get(number) if type(number) is int else None
        if kind is None:
            return {"type": None}
        names = kind.__struct_fields__
        extra = {f"[{i}]": value for i, value in enumerate(rest) if i >= len(names)}
        return {"type": name_of(kind), **dict(zip(names, rest, strict=False)), **extra}


Codec = JsonCodec | MsgpackCodec


def server_frame(fields: dict[str, Any]) -> ServerFrame | None:
    """Turn a dict into the server's frame that it says it is.

    None for a type of a later version; an error's code of a later version becomes `internal`, but
    what it says of itself stays. Raises NotAFrame.
    """
    kind = SERVER_FRAMES.get(str(fields.get("type")))
    if kind is None:
        return None
    if kind is Error and fields.get("code") not in set(ErrorCode):
        fields = {**fields, "code": ErrorCode.INTERNAL}
    try:
        return msgspec.convert(fields, kind, strict=False)
    except MALFORMED as error:
        raise NotAFrame(str(error)) from error


def codec_for(protocol: str | None, max_depth: int = MAX_DEPTH) -> Codec:
    """Return the codec of a subprotocol; JSON where none was agreed."""
    return (MsgpackCodec if protocol == MSGPACK_PROTOCOL else JsonCodec)(max_depth)


def name_of(kind: type[Struct]) -> str:
    """Return the `type` of a frame's class."""
    return str(kind.__struct_config__.tag)


BY_NUMBER = {number: kind for kind, number in NUMBERS.items()}
SERVER_FRAMES: dict[str, Any] = {
    name_of(kind): kind for kind, number in NUMBERS.items() if number >= FIRST_OF_SERVER
}
BY_NAME: dict[str, type[ClientFrame]] = {name_of(kind): kind for kind in CLIENT_FRAMES}
DEFAULTS = {kind: tuple(info.default for info in msgspec.structs.fields(kind)) for kind in NUMBERS}


def _client_frame(fields: dict[str, Any], *, bytes_in: type, max_depth: int) -> ClientFrame:
    """Turn a dict into the client's frame that it says it is. Raises BadFrame."""
    name, frame_id = fields.get("type"), fields.get("id")
    known_id = frame_id if isinstance(frame_id, str) and 1 <= len(frame_id) <= 64 else None
    if not isinstance(name, str) or name not in BY_NAME:
        message = f"`$.type` must be one of {', '.join(BY_NAME)}"
        raise BadFrame(message, known_id, code=ErrorCode.INVALID_FRAME)
    deep = _too_deep(fields, max_depth)
    if deep is not None:
        message = f"`{deep}`: nested deeper than {max_depth}"
        raise BadFrame(message, known_id, code=ErrorCode.INVALID_REQUEST)
    try:
        builtin = (bytes,) if bytes_in is bytes else ()  # else base64 text becomes bytes
        return msgspec.convert(fields, BY_NAME[name], builtin_types=builtin)
    except (*MALFORMED, TypeError, ValueError) as error:
        code = ErrorCode.INVALID_REQUEST if name == "generate" else ErrorCode.INVALID_FRAME
        raise BadFrame(_explain(str(error), BY_NAME[name]), known_id, code=code) from error


def _too_deep(fields: dict[str, Any], most: int) -> str | None:
    """Return the path of the first field that is nested too deep."""
    for name, value in fields.items():
        level = [value] if isinstance(value, dict | list) else []
        depth = 1
        while level:
            if depth > most:
                return f"$.{name}"
            inner = (one.values() if isinstance(one, dict) else one for one in level)
            level = [x for items in inner for x in items if isinstance(x, dict | list)]
            depth += 1
    return None


def _explain(message: str, kind: type[Struct]) -> str:
    """Put the path of the field first: `$.temperature`: what is wrong with it."""
    what, _, path = message.partition(" - at `")
    path = path.rstrip("`") or "$"
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL)
    missing = re.fullmatch(r"Object missing required field `(.*)`", what)
    if missing:
        return f"`{path}.{missing[1]}`: missing"
    if unknown:
        near = difflib.get_close_matches(unknown[1], kind.__struct_fields__, 1)
        hint = f"; did you mean `{near[0]}`?" if near and path == "$" else ""
        return f"`{path}.{unknown[1][:64]}`: unknown field{hint}"
    return f"`{path}`: {what[:1].lower()}{what[1:]}"


def _of_odd_json(data: bytes | str) -> Any:
    """Return what JSON says that has half a character or a number beyond all in it.

    JSON's grammar allows both (RFC 8259, sections 6 and 8.2), and JavaScript writes the half of a
    character that was cut; such a frame is no reason to close a connection. Raises NotAFrame.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        return _without_surrogates(json.loads(text, parse_constant=_refuse_constant))
    except (*MALFORMED, ValueError) as error:
        raise NotAFrame("not JSON") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is Python's, not JSON's")


def _without_surrogates(value: Any) -> Any:
    """Return plain data with each lone surrogate, which no encoding has, replaced."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value
