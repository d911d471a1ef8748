"""Images are taken out of messages, opened, and refused beyond the limits."""

import base64
import io

import pytest
from PIL import Image

from provider.formats.pieces import at_once
from provider.inputs.images import (
    MAX_SHOWN_TOGETHER,
    PIECE,
    decoding_images,
    extract_images,
    open_image,
    open_images,
)
from provider.interface import ImageProcessingError, InvalidParameterError
from tests.support.tiny_vision import picture

ORIENTATION, TURN_RIGHT = 274, 6  # an EXIF tag, and a value of it


def shown(data):
    return {"type": "image", "data": data}


def test_images_in_base64_are_decoded_in_pieces():
    data = bytes(range(256)) * 3001
    said = {"type": "text", "text": "Which?"}
    text = base64.b64encode(data).decode()
    messages = [{"role": "user", "content": [shown(text), said, shown(b"x")]}, {"content": "b"}]
    steps = decoding_images("messages", messages)
    pieces = sum(1 for _ in steps)
    assert pieces == -(-len(text) // PIECE) > 3
    decoded = at_once(decoding_images("messages", messages))
    assert decoded == ({"role": "user", "content": [shown(data), said, shown(b"x")]}, messages[1])
    assert messages[0]["content"][0] == shown(text)


@pytest.mark.parametrize(
    "given",
    [
        "/etc/passwd",
        "not base64!",
        "AAAAA",
        "AA=A",
        "A" * (PIECE - 4) + "AA==" + "AAAA",
        "A" * PIECE + "=",
        "A" * PIECE + "A===",
        "Füchse==",
    ],
)
def test_what_is_no_base64_is_refused_by_its_path(given):
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, shown(given)]}]
    with pytest.raises(InvalidParameterError, match="must be an image as data") as caught:
        at_once(decoding_images("messages", messages))
    assert caught.value.parameter == "messages[0].content[1]"


def test_images_leave_empty_parts_in_the_messages():
    said = {"type": "text", "text": "Which?"}
    turns = [
        {"role": "user", "content": [{"type": "image", "data": b"a"}, said]},
        {"role": "assistant", "content": "The first."},
        {"role": "user", "content": [said, {"type": "image", "data": b"b"}]},
    ]
    taken, data = extract_images(turns)
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
    assert len(at_once(open_images([red] * 3, 30_000))) == 3
    with pytest.raises(ImageProcessingError, match="for all images together"):
        at_once(open_images([red] * 4, 30_000))


def test_an_error_says_which_image_is_meant():
    with pytest.raises(ImageProcessingError, match="image 2: an image has an unknown format"):
        at_once(open_images([picture("red"), b"none"]))
    with pytest.raises(ImageProcessingError, match="there: an image has an unknown format"):
        at_once(open_images([b"none"], names=["there"]))


@pytest.mark.parametrize("size", [(6500, 100), (100, 6500)])
def test_an_image_of_one_long_line_is_refused(size):
    with pytest.raises(ImageProcessingError, match="more than 64 times the other"):
        open_image(picture("red", size))


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_large_image_is_made_smaller_and_looks_the_same(name):
    image = Image.new("RGB", (400, 200), "blue")
    image.paste("red", (0, 0, 200, 200))
    turned, data = Image.Exif(), io.BytesIO()
    turned[ORIENTATION] = TURN_RIGHT
    image.save(data, name, exif=turned)
    small = open_image(data.getvalue(), max_shown=20_000)
    assert small.width * small.height <= 20_000
    upright = open_image(data.getvalue())
    assert (small.width < small.height) is (upright.width < upright.height)
    seen, whole = (one.resize((2, 2)).convert("RGB") for one in (small, upright))
    for place in ((0, 0), (1, 1)):
        pairs = zip(seen.getpixel(place), whole.getpixel(place), strict=True)
        assert all(abs(a - b) < 40 for a, b in pairs)


def test_images_share_the_pixels_that_are_shown():
    many = at_once(open_images([picture("red", (2000, 2000))] * 16))
    assert sum(image.width * image.height for image in many) <= MAX_SHOWN_TOGETHER


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
