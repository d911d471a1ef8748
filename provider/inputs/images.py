"""Takes the images out of messages, and opens them within limits on their size."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from provider.interface import ImageProcessingError
from provider.message_types import not_an_image

__all__ = ["decoding_images", "extract_images", "open_image", "open_images"]

PIECE = 256 * 1024  # characters of base64 that are decoded in one go, in a millisecond

MAX_PIXELS = 64_000_000  # per image; a larger one is a decompression bomb or a mistake
MAX_PIXELS_TOGETHER = 4 * MAX_PIXELS  # per conversation: 20 photographs, 768 MB when unpacked
MAX_RATIO = 64  # of an image's sides; processors enlarge an image until its shorter side is enough
# Larger images are made smaller for a model's processor, which may take 40 bytes a pixel.
MAX_SHOWN = 12_600_000  # pixels per image; models look at fewer
MAX_SHOWN_TOGETHER = 2 * MAX_SHOWN  # per conversation: 20 images of a million pixels
# The formats that PIL decodes itself; for others it would start external programs.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF")


def decoding_images(
    name: str, messages: Sequence[Mapping[str, Any]]
) -> Generator[None, None, tuple[dict[str, Any], ...]]:
    """Return checked messages with all images as bytes, in steps of PIECE characters of base64.

    Raises InvalidParameterError with the path of an image; that of the messages is `name`.
    """
    decoded = []
    for i, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list):
            parts = []
            for j, part in enumerate(content):
                if isinstance(part.get("data"), str):
                    data = yield from _decoding(f"{name}[{i}].content[{j}]", part["data"])
                    parts.append({**part, "data": data})
                else:
                    parts.append(part)
            decoded.append({**message, "content": parts})
        else:
            decoded.append(dict(message))
    return tuple(decoded)


def _decoding(path: str, text: str) -> Generator[None, None, bytes]:
    pieces = []
    if text.find("=", 0, -2) >= 0:  # which the decoder would take at the end of each piece
        raise not_an_image(path, text[:40])
    try:
        for begin in range(0, len(text), PIECE):
            pieces.append(base64.b64decode(text[begin : begin + PIECE], validate=True))
            yield
    except (binascii.Error, ValueError) as error:
        raise not_an_image(path, text[:40]) from error
    return b"".join(pieces)


def extract_images(
    turns: Sequence[Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the messages with empty image parts, as chat templates need them, and the images."""
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


def open_images(
    images: Sequence[bytes], max_pixels: int = MAX_PIXELS_TOGETHER, names: Sequence[str] = ()
) -> Generator[None, None, list[Any]]:
    """Open images in steps, one each, and return them as PIL has them; see `open_image`.

    `names` say in errors which image is meant. Raises ImageProcessingError also if they have more
    than `max_pixels` pixels together.
    """
    left, pictures = max_pixels, []
    shown = min(MAX_SHOWN, MAX_SHOWN_TOGETHER // max(1, len(images)))
    for number, data in enumerate(images):
        name = names[number] if names else f"image {number + 1}"
        picture, pixels = _opened(data, min(left, MAX_PIXELS), shown, f"{name}: ")
        pictures.append(picture)
        left -= pixels
        yield
    return pictures


def open_image(data: bytes, max_pixels: int = MAX_PIXELS, max_shown: int = MAX_SHOWN) -> Any:
    """Return a PIL image, upright and in RGB, made smaller if it has over `max_shown` pixels.

    Raises ImageProcessingError for an unreadable image, one of more than `max_pixels` pixels, or
    one of which a side is more than MAX_RATIO times as long as the other.
    """
    return _opened(data, max_pixels, max_shown, "")[0]


def _opened(data: bytes, max_pixels: int, max_shown: int, name: str) -> tuple[Any, int]:
    """Return an image, and how many pixels it had. `name` begins the messages of errors."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - only for images

    Image.init()
    known = [form for form in FORMATS if form in Image.OPEN]
    try:
        image = Image.open(io.BytesIO(data), formats=known)  # reads only the header
        refused = _refusal(image.size, max_pixels)
        shown = None if refused else _shown(image, max_shown)
    except UnidentifiedImageError as error:
        said = f"{name}an image has an unknown format; known formats are {', '.join(known)}"
        raise ImageProcessingError(said, original_exception=error) from error
    except Exception as error:  # the decoders of PIL raise many kinds of errors
        raise ImageProcessingError(
            f"{name}an image cannot be read: {error}", original_exception=error
        ) from error
    if refused:
        raise ImageProcessingError(name + refused)
    return shown, image.width * image.height


def _refusal(size: tuple[int, int], max_pixels: int) -> str:
    """Return why an image of this size is not unpacked, "" if it is."""
    short, long = sorted(size)
    if short * long > max_pixels:
        limit = f"{MAX_PIXELS}, or {MAX_PIXELS_TOGETHER} for all images together"
        return f"an image has {short * long} pixels, more than {limit}"
    if long > MAX_RATIO * short:
        return f"an image has a side {long} pixels long, more than {MAX_RATIO} times the other"
    return ""


def _shown(image: Any, max_shown: int) -> Any:
    """Return an image as a model sees it, with as few copies as possible."""
    from PIL import ImageOps  # noqa: PLC0415

    factor = math.ceil(math.sqrt(image.width * image.height / max_shown))
    if factor > 1:
        image.draft("RGB", (image.width // factor, image.height // factor))  # for JPEG
        factor = math.ceil(math.sqrt(image.width * image.height / max_shown))
    shown = image if image.mode == "RGB" else image.convert("RGB")
    if factor > 1:
        shown = shown.reduce(factor)
        shown.info |= image.info  # has the orientation
    ImageOps.exif_transpose(shown, in_place=True)
    return shown
