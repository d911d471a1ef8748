"""Reads data URLs, in which clients send files. Source: RFC 2397.

Rule: what a URL decodes to is bounded before it is decoded, and so are its escapes, each of which
takes as long as a hundred bytes of base64.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

__all__ = ["NOT_DATA", "DataRoom", "data_of", "decoded_size", "kind_of"]

NOT_DATA = "must be a data URL: the gateway fetches nothing"
MAX_HEAD = 4096  # characters of the type and its parameters
MAX_BYTES = 2 * 1024 * 1024  # half a million tokens; decoded in some 10 ms
MAX_ESCAPES = 16_384  # decoded in two or three milliseconds; base64 needs none


@dataclass
class DataRoom:
    """How much the data URLs of one message may decode to from here on, all together."""

    bytes: int = MAX_BYTES
    escapes: int = MAX_ESCAPES

    def take(self, size: int, escapes: int = 0) -> None:
        """Count what is about to be decoded, in bytes. Raises ValueError."""
        self.bytes -= size
        self.escapes -= escapes
        if self.bytes < 0:
            raise ValueError(f"the texts of all files may have {MAX_BYTES} bytes together")
        if self.escapes < 0:
            raise ValueError(f"files may have {MAX_ESCAPES} escapes; send them in base64")


def kind_of(url: str) -> str:
    """Return a data URL's type, "" without one. Raises ValueError; the data is not looked at."""
    return _head(url)[0]


def data_of(url: str, room: DataRoom) -> tuple[str, bytes]:
    """Return a data URL's type, "" without one, and its data.

    Raises ValueError, also if there is no room for the data; that is not decoded then.
    """
    kind, *parameters = _head(url)
    in_base64 = "base64" in parameters
    text = url[url.index(",") + 1 :]
    escapes = text.count("%")
    room.take(decoded_size(text) if in_base64 else len(text) - 2 * escapes, escapes)
    data = unquote_to_bytes(text) if escapes else text.encode()
    if not in_base64:
        return kind, data
    try:
        return kind, base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("its base64 text can't be read") from error


def decoded_size(text: str) -> int:
    """Return how many bytes a base64 text has at most."""
    return len(text) // 4 * 3


def _head(url: str) -> list[str]:
    """Return a data URL's type and its parameters. Raises ValueError."""
    head, comma, _ = url[:MAX_HEAD].partition(",")
    if not comma or not head.startswith("data:"):
        raise ValueError(NOT_DATA)
    return head.removeprefix("data:").split(";")
