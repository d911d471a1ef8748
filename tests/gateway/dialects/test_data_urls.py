import pytest

from gateway.dialects.data_urls import data_of


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
    assert data_of(url) == (kind, data)


@pytest.mark.parametrize("url", ["https://a.example/x.png", "data:nothing", "", "file:///etc,x"])
def test_what_would_have_to_be_fetched_is_refused(url):
    with pytest.raises(ValueError, match="must be a data URL"):
        data_of(url)


def test_broken_base64_is_refused():
    with pytest.raises(ValueError, match="base64 text"):
        data_of("data:image/png;base64,%%%")
