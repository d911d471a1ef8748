import base64

import pytest

from gateway.dialects.data_urls import MAX_BYTES, MAX_ESCAPES, DataRoom, data_of, kind_of


@pytest.mark.parametrize(
    ("url", "kind", "data"),
    [
        ("data:text/plain;base64,aGk=", "text/plain", b"hi"),
        ("data:text/plain;charset=utf-8;base64,aGk%3D", "text/plain", b"hi"),
        ("data:text/plain,h%C3%A9", "text/plain", "hé".encode()),
        ("data:,", "", b""),
    ],
)
def test_data_is_read_as_base64_or_with_escapes(url, kind, data):
    assert data_of(url, DataRoom()) == (kind, data)


@pytest.mark.parametrize("url", ["https://a.example/x.png", "data:nothing", "", "file:///etc,x"])
def test_what_would_have_to_be_fetched_is_refused(url):
    with pytest.raises(ValueError, match="must be a data URL"):
        data_of(url, DataRoom())


def test_broken_base64_is_refused():
    with pytest.raises(ValueError, match="base64 text"):
        data_of("data:image/png;base64,%%%", DataRoom())


def test_the_type_is_known_without_the_data():
    assert kind_of("data:image/png;base64,%%%") == "image/png"
    with pytest.raises(ValueError, match="must be a data URL"):
        kind_of("data:" + "x" * 5000 + ",")


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("," + "%41" * (MAX_ESCAPES + 1), f"{MAX_ESCAPES} escapes"),
        (";base64," + "%3D" * (MAX_ESCAPES + 1), f"{MAX_ESCAPES} escapes"),
        ("," + "x" * (MAX_BYTES + 1), f"{MAX_BYTES} bytes"),
        (";base64," + "!" * (MAX_BYTES // 3 * 4 + 8), f"{MAX_BYTES} bytes"),  # and is no base64
    ],
)
def test_what_is_too_large_is_not_decoded(rest, said):
    with pytest.raises(ValueError, match=said):
        data_of("data:text/plain" + rest, DataRoom())


def test_the_largest_data_is_decoded():
    text = base64.b64encode(b"x" * (MAX_BYTES - 2)).decode()
    assert len(data_of(f"data:;base64,{text}", DataRoom())[1]) == MAX_BYTES - 2
    assert data_of("data:," + "%41" * MAX_ESCAPES, DataRoom())[1] == b"A" * MAX_ESCAPES


def test_the_urls_of_a_message_share_its_room():
    room = DataRoom(bytes=10, escapes=1)
    assert data_of("data:,12345%20", room)[1] == b"12345 "
    with pytest.raises(ValueError, match="bytes together"):
        data_of("data:,12345", room)
    with pytest.raises(ValueError, match="escapes"):
        data_of("data:,%20", DataRoom(escapes=0))
