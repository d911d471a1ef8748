"""Images as data: taken out of messages, opened, refused."""

import io

import pytest
from PIL import Image

from provider.inputs.images import all_opened, opened, take_images
from provider.interface import ImageProcessingError
from tests.support.tiny_vision import picture

ORIENTATION, TURN_RIGHT = 274, 6  # EXIF's


def test_images_leave_their_places_in_the_messages():
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
    assert turns[0]["content"][0]["data"] == b"a"  # what was given is left as it is


def test_what_is_no_image_gives_the_reason():
    with pytest.raises(ImageProcessingError, match="has an unknown format"):
        opened(b"no image")
    with pytest.raises(ImageProcessingError, match="cannot be read"):
        opened(picture("red")[:60])


def test_a_bomb_is_refused_before_it_is_unpacked():
    with pytest.raises(ImageProcessingError, match="pixels"):
        opened(picture("red", (9000, 9000)))


def test_images_that_are_too_much_together_are_refused():
    red = picture("red", (100, 100))
    assert len(all_opened([red] * 3, 30_000)) == 3
    with pytest.raises(ImageProcessingError, match="with the others"):
        all_opened([red] * 4, 30_000)


def test_a_photograph_that_was_taken_sideways_stands_upright():
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 20, 20))  # where it was taken, red is above
    turned, data = Image.Exif(), io.BytesIO()
    turned[ORIENTATION] = TURN_RIGHT
    image.save(data, "PNG", exif=turned)
    seen = opened(data.getvalue())
    assert seen.size == (20, 40)
    assert (seen.getpixel((10, 5)), seen.getpixel((10, 35))) == ((255, 0, 0), (0, 0, 255))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_images_of_usual_formats_are_read(form):
    assert opened(picture("red", form=form)).size == (60, 44)


def test_a_format_that_other_programs_would_read_is_refused():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(ImageProcessingError, match="has an unknown format; known formats are PNG"):
        opened(eps)
