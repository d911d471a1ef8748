"""Images in messages and files: as data, checked, opened; never from a path or a URL of a client.

Taken are parts `{"type": "image", "data": …}` (bytes, or base64 text) and OpenAI's
`{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}`.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from typing import Any

from provider.interface import ImageProcessingError, InvalidParameterError

__all__ = ["image_part", "is_image_part", "opened", "take_images"]

KINDS = ("image", "image_url", "input_image")
MOST_PIXELS = 64_000_000  # beyond it an image is a bomb, or a mistake


def is_image_part(part: Any) -> bool:
    """Return whether a part of a message says that it is an image."""
    return isinstance(part, Mapping) and part.get("type") in KINDS


def image_part(path: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """Return an image part with its data as bytes. Raises InvalidParameterError."""
    given = part.get("data", part.get("image_url", part.get("image")))
    if isinstance(given, Mapping):
        given = given.get("url")
    if isinstance(given, bytes | bytearray):
        return {"type": "image", "data": bytes(given)}
    form = 'base64 text, bytes, or a URL "data:image/…;base64,…"; not a path or another URL'
    said = f"`{path}` must be an image as data: {form}"
    if not isinstance(given, str) or not given:
        raise InvalidParameterError(path, given, said)
    head, comma, rest = given.partition(",")
    if comma and not (head.startswith("data:image/") and head.endswith(";base64")):
        raise InvalidParameterError(path, head[:40], said)
    try:
        return {"type": "image", "data": base64.b64decode(rest if comma else given, validate=True)}
    except (binascii.Error, ValueError) as error:
        raise InvalidParameterError(path, given[:40], said) from error


def take_images(
    turns: Sequence[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return messages whose image parts are empty places, as templates have them, and the data."""
    data: list[bytes] = []
    taken = []
    for turn in turns:
        content = turn.get("content")
        if isinstance(content, list):
            data += [part["data"] for part in content if part["type"] == "image"]
            places = [{"type": "image"} if p["type"] == "image" else p for p in content]
            taken.append({**turn, "content": places})
        else:
            taken.append(dict(turn))
    return taken, data


def opened(data: bytes) -> Any:
    """Return an image as PIL has it, in RGB. Raises ImageProcessingError."""
    from PIL import Image  # noqa: PLC0415 - only who has images needs it

    try:
        image = Image.open(io.BytesIO(data))  # reads the head alone
        pixels = image.width * image.height
        shown = image.convert("RGB") if pixels <= MOST_PIXELS else None
    except Exception as error:  # PIL raises what its formats' readers raise
        raise ImageProcessingError(
            f"an image cannot be read: {type(error).__name__}", original_exception=error
        ) from error
    if shown is None:
        raise ImageProcessingError(f"an image has {pixels} pixels, more than {MOST_PIXELS}")
    return shown
