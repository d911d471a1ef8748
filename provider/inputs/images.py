"""Images in messages and files: as data, checked, opened; never from a path or a URL of a client.

Taken are parts `{"type": "image", "data": …}` (bytes, or base64 text) and OpenAI's
`{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from provider.interface import ImageProcessingError

__all__ = ["all_opened", "opened", "take_images"]

MOST_PIXELS = 64_000_000  # larger images are decompression bombs, or mistakes
MOST_TOGETHER = 4 * MOST_PIXELS  # pixels of one conversation: 20 photographs, 768 MB once unpacked
# What PIL's own code reads; there are formats for which it would start other programs.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF")


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


def all_opened(images: Sequence[bytes], most_pixels: int = MOST_TOGETHER) -> list[Any]:
    """Return images as `opened` does; too many pixels together are an ImageProcessingError."""
    left, pictures = most_pixels, []
    for data in images:
        pictures.append(opened(data, min(left, MOST_PIXELS)))
        left -= pictures[-1].width * pictures[-1].height
    return pictures


def opened(data: bytes, most_pixels: int = MOST_PIXELS) -> Any:
    """Return an image as PIL has it, upright and in RGB. Raises ImageProcessingError."""
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415 - only for images

    Image.init()
    known = [form for form in FORMATS if form in Image.OPEN]
    try:
        image = Image.open(io.BytesIO(data), formats=known)  # reads only the header
        pixels = image.width * image.height
        fits = pixels <= most_pixels
        shown = ImageOps.exif_transpose(image).convert("RGB") if fits else None
    except UnidentifiedImageError as error:
        said = f"an image has an unknown format; known formats are {', '.join(known)}"
        raise ImageProcessingError(said, original_exception=error) from error
    except Exception as error:  # PIL passes on what the readers of its formats raise
        raise ImageProcessingError(
            f"an image cannot be read: {error}", original_exception=error
        ) from error
    if shown is None:
        most = f"{MOST_PIXELS}, or {MOST_TOGETHER} with the others"
        raise ImageProcessingError(f"an image has {pixels} pixels, more than {most}")
    return shown
