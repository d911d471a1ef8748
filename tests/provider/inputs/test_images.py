"""Images are taken out of messages, opened, and refused beyond the limits."""

import io

import pytest
from PIL import Image

from provider.inputs.images import open_image, open_images, take_images
from provider.interface import ImageProcessingError
from tests.support.tiny_vision import picture

ORIENTATION, TURN_RIGHT = 274, 6  # an EXIF tag, and a value of it


def test_images_leave_empty_parts_in_the_messages():
    said = {"type": "text", "text": "Which?"}
    turns = [
        {"role": "user", "content": [{"type": "image", "data": b"a"}, said]},
        {"role": "assistant", "content": "The first."},
        {"role": "user", "content": [said, {"type": "image", "data": b"b"}]},
    ]
    taken, data = take_images(turns)
    assert data == [b"a", b"b"]
    assert taken[0]["content"] == [{"type": "image"}, said]
    assert taken[1] == turns[1]
    assert turns[0]["content"][0]["data"] == b"a"  # the argument does not change


def test_data_that_is_no_image_is_refused_with_a_reason():
    with pytest.raises(ImageProcessingError, match="has an unknown format"):
        open_image(b"no image")
    with pytest.raises(ImageProcessingError, match="cannot be read"):
        open_image(picture("red")[:60])


def test_a_decompression_bomb_is_refused_before_it_is_unpacked():
    with pytest.raises(ImageProcessingError, match="pixels"):
        open_image(picture("red", (9000, 9000)))


def test_images_that_are_too_large_together_are_refused():
    red = picture("red", (100, 100))
    assert len(open_images([red] * 3, 30_000)) == 3
    with pytest.raises(ImageProcessingError, match="for all images together"):
        open_images([red] * 4, 30_000)


def test_a_photograph_taken_sideways_is_turned_upright():
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 20, 20))  # red is at the top of the upright photograph
    turned, data = Image.Exif(), io.BytesIO()
    turned[ORIENTATION] = TURN_RIGHT
    image.save(data, "PNG", exif=turned)
    seen = open_image(data.getvalue())
    assert seen.size == (20, 40)
    assert (seen.getpixel((10, 5)), seen.getpixel((10, 35))) == ((255, 0, 0), (0, 0, 255))


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_images_of_usual_formats_are_read(name):
    assert open_image(picture("red", file_format=name)).size == (60, 44)


def test_a_format_that_needs_external_programs_is_refused():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(ImageProcessingError, match="has an unknown format; known formats are PNG"):
        open_image(eps)
