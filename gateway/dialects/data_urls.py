"""Reads data URLs, in which clients send files. Source: RFC 2397."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

__all__ = ["NOT_DATA", "data_of"]

NOT_DATA = "must be a data URL: the gateway fetches nothing"


def data_of(url: str) -> tuple[str, bytes]:
    """Return a data URL's type, "" without one, and its data. Raises ValueError."""
    head, comma, rest = url.partition(",")
    if not comma or not head.startswith("data:"):
        raise ValueError(NOT_DATA)
    kind, *parameters = head.removeprefix("data:").split(";")
    if "base64" not in parameters:
        return kind, unquote_to_bytes(rest)
    try:
        return kind, base64.b64decode(unquote_to_bytes(rest), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("its base64 text can't be read") from error
