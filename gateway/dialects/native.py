"""The native wire language: JSON text frames and msgpack binary frames, over PROTOCOL.md's frames.

Rule 1: whatever bytes arrive, `decode` returns a frame or raises NotAFrame or BadFrame.
Rule 2: only this module writes fields as paths, `$.max_tokens`.

Source: PROTOCOL.md, section "Codecs".
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Union

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from gateway.dialects import json_text, values
from gateway.dialects.base import Dialect, FrameLimits, Message, Opening, Route, RouteLimits
from gateway.dialects.json_text import MALFORMED
from gateway.protocol.address import STREAM_PATH
from gateway.protocol.answer import is_packed_as, repack
from gateway.protocol.codes import BadFrame, ErrorCode, NotAFrame
from gateway.protocol.events import Event, Failed
from gateway.protocol.frames import (
    CLIENT_FRAMES,
    FIRST_OF_SERVER,
    JOINED_PROTOCOL,
    JSON_PROTOCOL,
    MSGPACK_PROTOCOL,
    NUMBERS,
    Chunk,
    ClientFrame,
    Done,
    Error,
    Ready,
    ServerFrame,
    name_of,
)
from gateway.protocol.outbox import LONG_ARRAY, PackedLogprobs

__all__ = [
    "BEARER_PROTOCOL",
    "ROUTE",
    "JsonCodec",
    "MsgpackCodec",
    "NativeDialect",
    "codec_for",
    "secret_in",
    "server_frame",
    "worded",
]

BEARER_PROTOCOL = "mlx-gateway.bearer."  # followed by the token in base64url; used by browsers


def _in_msgpack(value: Any) -> Any:
    if isinstance(value, PackedLogprobs):
        return value.raw(binary=True)
    raise NotImplementedError


TO_MSGPACK = msgspec.msgpack.Encoder(enc_hook=_in_msgpack)
# The id of a client's frame, found before decoding, where clients put it: after other short fields.
EARLY = 4096  # characters that are searched
STRING = r'"(?:[^"\\]|\\.)*+"'
EARLY_JSON = re.compile(
    rf'\s*{{(?:\s*+{STRING}\s*+:\s*+(?:{STRING}|[-+.\w]++)\s*+,)*?\s*+"id"\s*+:\s*+({STRING})',
    re.DOTALL,
)
EARLY_MSGPACK = re.compile(
    rb"(?:[\x91-\x9f]|\xdc..|\xdd....)[\x02-\x05]([\xa1-\xbf]|\xd9.)", re.DOTALL
)
UNKNOWN = "Object contains unknown field `"
MAX_QUOTED = 64  # characters of an unknown field's name in an error
MAX_PATH = 256  # characters of a field's path in an error
SHORT_TEXT = 0xD9  # head of a msgpack text of up to 255 bytes


class _Codec:
    COUNTED = "keys and values"

    def __init__(self, limits: FrameLimits | None = None):
        self._limits = limits or FrameLimits()

    def check(self, data: bytes | str) -> Iterator[None]:
        """Raise BadFrame once a client's frame has too many keys and values; yield meanwhile."""
        for count in self._count(data):
            if count > self._limits.values:
                message = f"must have at most {self._limits.values} {self.COUNTED}"
                code, frame_id = ErrorCode.INVALID_REQUEST, _known(self._early_id(data))
                raise BadFrame(message, frame_id, code=code, fields=("",))
            yield

    def _count(self, data: bytes | str) -> Iterator[int]:
        raise NotImplementedError

    def _early_id(self, data: bytes | str) -> Any:
        """Return the frame's id without decoding the frame, None if that can't be done."""
        raise NotImplementedError

    def decode_fields(self, data: bytes | str) -> dict[str, Any]:
        raise NotImplementedError

    def frames_in(self, data: bytes | str) -> Sequence[dict[str, Any]]:
        """Return the frames in a server's message, as `decode_fields`. Raises NotAFrame."""
        return (self.decode_fields(data),)

    def server_frames(self, data: bytes | str) -> Sequence[ServerFrame]:
        """Return the frames in a server's message, except those of unknown types.

        Raises NotAFrame, also where a field has a wrong value.
        """
        frames = map(server_frame, self.frames_in(data))
        return [frame for frame in frames if frame is not None]

    def _client_frame(self, data: bytes | str, *, bytes_in: type) -> ClientFrame:
        fields = self.decode_fields(data)
        return _client_frame(fields, bytes_in=bytes_in, max_depth=self._limits.depth)


class JsonCodec(_Codec):
    """Text frames with one JSON object each, `{"type": …, fields}`, without default values."""

    name = JSON_PROTOCOL
    text = True
    COUNTED = (
        f"keys and values ({values.ESCAPES} escapes are one, "
        f"and {values.LONG} digits where numbers are long)"
    )

    encode = staticmethod(json_text.encode)

    def decode(self, data: bytes | str) -> ClientFrame:
        """Return a client's frame. Raises NotAFrame or BadFrame."""
        return self._client_frame(data, bytes_in=str)

    def _count(self, data: bytes | str) -> Iterator[int]:
        return values.in_json(data if isinstance(data, str) else data.decode("utf-8", "replace"))

    def _early_id(self, data: bytes | str) -> Any:
        head = data[:EARLY] if isinstance(data, str) else data[:EARLY].decode("utf-8", "replace")
        found = EARLY_JSON.match(head)
        try:
            return json.loads(found[1]) if found is not None else None
        except ValueError:
            return None

    def decode_fields(self, data: bytes | str) -> dict[str, Any]:
        """Return any frame as a dict with `type`. Raises NotAFrame."""
        fields = json_text.decode(data)
        if not isinstance(fields, dict):
            raise NotAFrame("not a JSON object")
        return fields


class MsgpackCodec(_Codec):
    """Binary frames with one array each, `[number, fields…]`; trailing defaults are left out."""

    name = MSGPACK_PROTOCOL
    text = False

    def encode(self, frame: ServerFrame | ClientFrame) -> bytes:
        """Return the frame as a msgpack array; a lone surrogate in a text becomes a "?"."""
        kind = type(frame)
        if isinstance(frame, Chunk) and _has_text_alone(frame):  # as almost every frame
            values: list[Any] = [frame.id, frame.seq, frame.text]
        else:
            values = list(astuple(frame))
            defaults = DEFAULTS[kind]
            while values and values[-1] == defaults[len(values) - 1]:
                values.pop()
        try:
            return TO_MSGPACK.encode([NUMBERS[kind], *values])
        except UnicodeEncodeError:
            kept = (bytes, msgspec.Raw)
            plain = msgspec.to_builtins(values, builtin_types=kept, enc_hook=_in_msgpack)
            return msgspec.msgpack.encode(json_text.without_surrogates([NUMBERS[kind], *plain]))

    def decode(self, data: bytes | str) -> ClientFrame:
        """Return a client's frame. Raises NotAFrame or BadFrame."""
        return self._client_frame(data, bytes_in=bytes)

    def _count(self, data: bytes | str) -> Iterator[int]:
        return values.in_msgpack(data if isinstance(data, bytes) else data.encode())

    def _early_id(self, data: bytes | str) -> Any:
        if isinstance(data, str) or (found := EARLY_MSGPACK.match(data)) is None:
            return None
        length = found[1][-1] if found[1][0] == SHORT_TEXT else found[1][0] & 31
        return data[found.end() : found.end() + length].decode("utf-8", "replace")

    def decode_fields(self, data: bytes | str) -> dict[str, Any]:
        """Return any frame as a dict with `type`. Raises NotAFrame."""
        return self._fields_of(self._values(data))

    def _values(self, data: bytes | str) -> list[Any]:
        if isinstance(data, str):
            raise NotAFrame("a text message, but the subprotocol is msgpack")
        try:
            values = msgspec.msgpack.decode(data)
        except (*MALFORMED, TypeError, ValueError) as error:  # TypeError for a list as a key
            raise NotAFrame("not msgpack") from error
        if not isinstance(values, list) or not values:
            raise NotAFrame("not a msgpack array")
        return values

    def _fields_of(self, values: list[Any]) -> dict[str, Any]:
        number, *rest = values
        kind = BY_NUMBER.get(number) if type(number) is int else None
        if kind is None:
            return {"type": None}
        names = kind.__struct_fields__
        extra = {f"[{i}]": value for i, value in enumerate(rest) if i >= len(names)}
        return {"type": name_of(kind), **dict(zip(names, rest, strict=False)), **extra}


class JoinedCodec(MsgpackCodec):
    """Binary frames as MsgpackCodec has them, or an array of several of those."""

    name = JOINED_PROTOCOL

    def frames_in(self, data: bytes | str) -> Sequence[dict[str, Any]]:
        """Return the frames in a server's message, as `decode_fields`. Raises NotAFrame."""
        values = self._values(data)
        if not isinstance(values[0], list):
            return (self._fields_of(values),)
        if not all(isinstance(one, list) and one for one in values):
            raise NotAFrame("not an array of frames")
        return [self._fields_of(one) for one in values]

    def server_frames(self, data: bytes | str) -> Sequence[ServerFrame]:
        """Return the frames in a server's message, except those of unknown types.

        Each is of a subclass of its class, which msgspec decodes without a dict between. Raises
        NotAFrame, also where a field has a wrong value.
        """
        try:
            if data[:1] == LONG_ARRAY:
                return JOINED.decode(data)  # type: ignore[arg-type] # a text has no such byte
            return (ALONE.decode(data),)  # type: ignore[arg-type] # fails for a text
        except (*MALFORMED, TypeError, ValueError):  # also a type or an error code to come
            return super().server_frames(data)

    @staticmethod
    def join(messages: Sequence[Message]) -> Message:
        """Return one message for several."""
        if len(messages) == 1:
            return messages[0]
        head = LONG_ARRAY + len(messages).to_bytes(4, "big")
        return Message(b"".join([head, *(message.data for message in messages)]), text=False)


Codec = JsonCodec | MsgpackCodec


class NativeDialect(Dialect):
    """The native wire language: one message for each event, one request in each message."""

    def __init__(self, codec: Codec):
        self.name = codec.name
        self._codec = codec
        self._encode: Callable[[ServerFrame], bytes] = codec.encode  # bound once, for each token
        self._text = codec.text
        self.binary = not codec.text
        if isinstance(codec, JoinedCodec):
            self.join = codec.join

    def greet(self, ready: Ready) -> Sequence[Message]:
        """Return the `ready` frame."""
        return (Message(self._codec.encode(ready), self._text),)

    def check(self, message: str | bytes) -> Iterator[None]:
        """Raise BadFrame once the frame has too many keys and values; yield meanwhile."""
        return self._codec.check(message)

    def decode(self, message: str | bytes) -> Sequence[ClientFrame]:
        """Return the one frame in a message. Raises NotAFrame or BadFrame."""
        return (self._codec.decode(message),)

    def prepare(self, event: Done) -> Generator[None, None, Done] | None:
        """Return what packs log-probabilities anew that are not in this format, None for none."""
        packed = is_packed_as(event, binary=self.binary)
        return None if packed else repack(event, binary=self.binary)

    def encode(self, event: Event) -> Sequence[Message]:
        """Return the event's frame; an `error` frame names the fields at fault as `$.field`."""
        frame = _error(event) if type(event) is Failed else event
        return (Message(self._encode(frame), self._text),)  # type: ignore[arg-type]


def worded(message: str, fields: Sequence[str]) -> str:
    """Return a Refusal's message with its fields put in: "`$.max_tokens`: must be at most 5"."""
    paths = [f"`$.{field}`" if field else "`$`" for field in fields]
    match paths:
        case []:
            return message
        case [path]:
            return f"{path}: {message}"
        case _:
            return message.format(*paths)


def _has_text_alone(chunk: Chunk) -> bool:
    return chunk.channel is None and chunk.logprobs is None and not chunk.choice


def _error(failed: Failed) -> Error:
    return Error(
        id=failed.id,
        seq=failed.seq,
        code=failed.code,
        message=worded(failed.message, failed.fields),
        retryable=failed.retryable,
        retry_after=failed.retry_after,
    )


def secret_in(offered: Iterable[str]) -> str | None:
    """Return the token that a browser offers as a subprotocol, "" if it can't be decoded."""
    for name in offered:
        if name.startswith(BEARER_PROTOCOL):
            encoded = name.removeprefix(BEARER_PROTOCOL)
            try:
                padded = encoded + "=" * (-len(encoded) % 4)
                return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
            except (binascii.Error, ValueError):
                return ""
    return None


def server_frame(fields: dict[str, Any]) -> ServerFrame | None:
    """Return the server frame that a dict with `type` holds, None for an unknown `type`.

    An `error` with an unknown code gets the code `internal`; its other fields stay. Raises
    NotAFrame if a field has a wrong value.
    """
    kind = SERVER_FRAMES.get(str(fields.get("type")))
    if kind is None:
        return None
    if kind is Error and fields.get("code") not in list(ErrorCode):  # the code may have any type
        fields = {**fields, "code": ErrorCode.INTERNAL}
    try:
        return msgspec.convert(fields, kind, strict=False)
    except MALFORMED as error:
        raise NotAFrame(str(error)) from error


def codec_for(protocol: str | None, limits: FrameLimits | None = None) -> Codec:
    """Return the codec of a subprotocol, JSON without one."""
    return CODECS.get(protocol or JSON_PROTOCOL, JsonCodec)(limits)


CODECS: dict[str, type[Codec]] = {
    JSON_PROTOCOL: JsonCodec,
    MSGPACK_PROTOCOL: MsgpackCodec,
    JOINED_PROTOCOL: JoinedCodec,
}


def _prepare(limits: RouteLimits) -> Callable[[Opening], NativeDialect]:
    return lambda opening: NativeDialect(codec_for(opening.subprotocol, limits.frames))


ROUTE = Route(
    STREAM_PATH,
    _prepare,
    subprotocols=tuple(CODECS),
    secret_in=secret_in,
    hint="this path is for WebSocket clients; /protocol says what they send",
)


BY_NUMBER = {number: kind for kind, number in NUMBERS.items()}

SERVER_FRAMES: dict[str, Any] = {
    name_of(kind): kind for kind, number in NUMBERS.items() if number >= FIRST_OF_SERVER
}

# The server's frames as msgspec decodes them from arrays.
_ARRAYS: Any = Union[
    tuple(
        msgspec.defstruct(
            kind.__name__, [], bases=(kind,), array_like=True, tag=NUMBERS[kind], frozen=True
        )
        for kind in SERVER_FRAMES.values()
    )
]
ALONE: msgspec.msgpack.Decoder[ServerFrame] = msgspec.msgpack.Decoder(_ARRAYS)
JOINED: msgspec.msgpack.Decoder[list[ServerFrame]] = msgspec.msgpack.Decoder(list[_ARRAYS])

BY_NAME: dict[str, type[ClientFrame]] = {name_of(kind): kind for kind in CLIENT_FRAMES}

DEFAULTS = {kind: tuple(info.default for info in msgspec.structs.fields(kind)) for kind in NUMBERS}


def _client_frame(fields: dict[str, Any], *, bytes_in: type, max_depth: int) -> ClientFrame:
    """Return the client's frame that a dict describes. Raises BadFrame."""
    name, known_id = fields.get("type"), _known(fields.get("id"))
    if not isinstance(name, str) or name not in BY_NAME:
        message = f"`$.type` must be one of {', '.join(BY_NAME)}"
        raise BadFrame(message, known_id, code=ErrorCode.INVALID_FRAME)
    deep = values.too_deep(fields, max_depth)
    if deep is not None:
        message = f"nested deeper than {max_depth}"
        raise BadFrame(message, known_id, code=ErrorCode.INVALID_REQUEST, fields=(deep,))
    if any(len(name) > MAX_PATH for name in fields):  # no field's; an error would quote it whole
        fields = {name[:MAX_PATH]: value for name, value in fields.items()}
    try:
        builtin = (bytes,) if bytes_in is bytes else ()  # else base64 text becomes bytes
        return msgspec.convert(fields, BY_NAME[name], builtin_types=builtin)
    except (*MALFORMED, TypeError, ValueError) as error:
        code = ErrorCode.INVALID_REQUEST if name == "generate" else ErrorCode.INVALID_FRAME
        field, message = _explain(str(error), BY_NAME[name])
        raise BadFrame(message, known_id, code=code, fields=(field,)) from error


def _known(frame_id: Any) -> str | None:
    """Return an id that an error can name, None for anything else."""
    return frame_id if isinstance(frame_id, str) and 1 <= len(frame_id) <= 64 else None


def _explain(message: str, kind: type[Struct]) -> tuple[str, str]:
    """Return the field at fault, and the reason, from the message of a msgspec error."""
    what, _, path = message.partition(" - at `")
    path = path[:MAX_PATH].rstrip("`").removeprefix("$").removeprefix(".")
    inside = f"{path}." if path else ""
    missing = re.fullmatch(r"Object missing required field `(.*)`", what)
    if missing:
        return f"{inside}{missing[1]}", "missing"
    if what.startswith(UNKNOWN):
        name = what.removeprefix(UNKNOWN).removesuffix("`")[:MAX_QUOTED]
        near = difflib.get_close_matches(name, kind.__struct_fields__, 1)
        hint = f"; did you mean `{near[0]}`?" if near and not path else ""
        return f"{inside}{name}", f"unknown field{hint}"
    return path, f"{what[:1].lower()}{what[1:]}"
