"""Takes the images out of messages, and opens them within limits on their size."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from provider.interface import ImageProcessingError

__all__ = ["open_image", "open_images", "take_images"]

MAX_PIXELS = 64_000_000  # per image; a larger one is a decompression bomb or a mistake
MAX_PIXELS_TOGETHER = 4 * MAX_PIXELS  # per conversation: 20 photographs, 768 MB when unpacked
# The formats that PIL decodes itself; for others it would start external programs.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF")


def take_images(
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


def open_images(images: Sequence[bytes], max_pixels: int = MAX_PIXELS_TOGETHER) -> list[Any]:
    """Return PIL images; see `open_image`.

    Raises ImageProcessingError also if they have more than `max_pixels` pixels together.
    """
    left, pictures = max_pixels, []
    for data in images:
        pictures.append(open_image(data, min(left, MAX_PIXELS)))
        left -= pictures[-1].width * pictures[-1].height
    return pictures


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Any:
    """Return a PIL image, upright and in RGB.

    Raises ImageProcessingError for an unreadable image or one of more than `max_pixels` pixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415 - only for images

    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    try:
        image = Image.open(io.BytesIO(data), formats=known)  # reads only the header
        pixels = image.width * image.height
        fits = pixels <= max_pixels
        shown = ImageOps.exif_transpose(image).convert("RGB") if fits else None
    except UnidentifiedImageError as error:
        said = f"an image has an unknown format; known formats are {', '.join(known)}"
        raise ImageProcessingError(said, original_exception=error) from error
    except Exception as error:  # the decoders of PIL raise many kinds of errors
        raise ImageProcessingError(
            f"an image cannot be read: {error}", original_exception=error
        ) from error
    if shown is None:
        limit = f"{MAX_PIXELS}, or {MAX_PIXELS_TOGETHER} for all images together"
        raise ImageProcessingError(f"an image has {pixels} pixels, more than {limit}")
    return shown
