"""Reads JSON as clients may write it, and writes it so that every client can read it.

JSON's grammar allows lone surrogates and numbers that are too large for a float (RFC 8259, sections
6 and 8.2), and JavaScript writes a lone surrogate when it cuts a string. Neither may close a
connection. UTF-8 can't encode a lone surrogate, so it becomes a "?".
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from gateway.dialects.values import too_deep
from gateway.protocol.codes import NotAFrame
from gateway.protocol.outbox import PackedLogprobs

__all__ = ["MALFORMED", "decode", "encode", "value_in", "without_surrogates"]

MALFORMED = (msgspec.MsgspecError, UnicodeError, RecursionError)  # raised by decoders

MAX_DEPTH = 64  # of JSON inside a message


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


def value_in(text: str) -> Any:
    """Return the value of JSON inside a message, a call's arguments. Raises ValueError."""
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
