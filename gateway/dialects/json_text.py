"""Reads JSON as clients may write it, and writes it so that every client can read it.

JSON's grammar allows lone surrogates and numbers that are too large for a float (RFC 8259, sections
6 and 8.2), and JavaScript writes a lone surrogate when it cuts a string. Neither may close a
connection. UTF-8 can't encode a lone surrogate, so it becomes a "?".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.dialects.values import in_json, too_deep
from gateway.protocol.codes import NotAFrame
from gateway.protocol.outbox import PackedLogprobs

__all__ = [
    "MALFORMED",
    "LargeJsonError",
    "Room",
    "decode",
    "encode",
    "value_in",
    "without_surrogates",
]

MALFORMED = (msgspec.MsgspecError, UnicodeError, RecursionError)  # raised by decoders

# Of JSON inside a message:
MAX_DEPTH = 64
MAX_VALUES = 16_384  # keys and values; each takes some hundred nanoseconds and bytes
MAX_CHARACTERS = 1024 * 1024  # more than most context windows hold; counting takes milliseconds


class LargeJsonError(ValueError):
    """JSON inside a message that is too large to be read."""


@dataclass
class Room:
    """How much the JSON inside one message may have from here on, in all its strings together."""

    values: int = MAX_VALUES
    characters: int = MAX_CHARACTERS

    def take(self, text: str) -> None:
        """Count a text that is about to be read. Raises LargeJsonError."""
        self.characters -= len(text)
        if self.characters < 0:
            raise LargeJsonError(
                f"JSON in strings may have {MAX_CHARACTERS} characters in a message"
            )
        self.values -= max(in_json(text), default=0)
        if self.values < 0:
            raise LargeJsonError("there are too many keys and values in the JSON of strings")


def _in_json(value: Any) -> Any:
    if isinstance(value, PackedLogprobs):
        return value.raw(binary=False)
    raise NotImplementedError


ENCODER = msgspec.json.Encoder(enc_hook=_in_json)


def encode(value: Any) -> bytes:
    """Return a struct or plain data as UTF-8 JSON."""
    try:
        return ENCODER.encode(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value, builtin_types=(msgspec.Raw,), enc_hook=_in_json)
        return ENCODER.encode(without_surrogates(plain))


def decode(data: bytes | str) -> Any:
    """Return the value of a JSON text. Raises NotAFrame."""
    try:
        return msgspec.json.decode(data)
    except MALFORMED:
        return _decode_odd(data)


def value_in(text: str, room: Room | None = None) -> Any:
    """Return the value of JSON inside a message, a call's arguments.

    Raises ValueError, and LargeJsonError for more than there is `room` for; that is not built.
    """
    (room or Room()).take(text)
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if too_deep({"": value}, MAX_DEPTH) is not None:
        raise ValueError("nested too deep")
    return value


def _decode_odd(data: bytes | str) -> Any:
    try:
        text = data if isinstance(data, str) else data.decode()
        return without_surrogates(json.loads(text, parse_constant=_refuse_constant))
    except (*MALFORMED, ValueError) as error:
        raise NotAFrame("not JSON") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def without_surrogates(value: Any) -> Any:
    """Return plain data with "?" for each lone surrogate."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {without_surrogates(k): without_surrogates(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_surrogates(item) for item in value]
    return value
