import hashlib

import pytest

from gateway.client import UnauthorizedError, connect
from gateway.client.blocking import SyncClient
from gateway.protocol.address import Address, address_of, without_token
from gateway.server.tokens import Token, Tokens
from provider.scripted import Say, ScriptedProvider
from tests.support.servers import running

STREAM = "ws://localhost:8765/v1/stream"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://localhost:8765/", STREAM),  # as `mlx-gateway serve` prints it
        ("http://localhost:8765", STREAM),
        ("HTTP://localhost:8765", STREAM),
        ("localhost:8765", STREAM),
        ("localhost:8765/", STREAM),
        ("ws://localhost:8765", STREAM),
        (STREAM, STREAM),
        ("localhost", "ws://localhost/v1/stream"),
        ("http://[::1]:8765/", "ws://[::1]:8765/v1/stream"),
        ("https://example.com", "wss://example.com/v1/stream"),
        ("https://example.com/?team=a", "wss://example.com/v1/stream?team=a"),
        ("wss://example.com/behind/a/proxy", "wss://example.com/behind/a/proxy"),
    ],
)
def test_an_address_of_any_form_has_its_websocket(text, url):
    assert address_of(text) == Address(url)


def test_a_ticket_says_at_which_of_several_gateways_its_generation_is():
    assert address_of("localhost:8765").url_of("a.local.x_y-") == f"{STREAM}?node=a.local"
    several = address_of("localhost:8765/?team=a")
    assert several.url_of("one.xy") == f"{STREAM}?node=one&team=a"
    assert address_of(several.url_of("two.z")).url_of("one.xy") == several.url_of("one.xy")
    assert several.url_of("xy") == several.url_of("") == f"{STREAM}?team=a"


def test_the_address_of_the_page_has_a_token():
    assert address_of("http://localhost:8765/#token=se%2Dsame") == Address(STREAM, "se-same")
    assert address_of("http://localhost:8765/#top") == Address(STREAM)


def test_an_address_is_shown_without_its_token():
    assert without_token("http://localhost:8765/#token=sesame") == "http://localhost:8765/"
    assert without_token("localhost:8765") == "localhost:8765"


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("localhost:8765", "http://localhost:8765/v1/models"),
        (f"{STREAM}#token=sesame", "http://localhost:8765/v1/models"),
        ("https://example.com/?team=a", "https://example.com/v1/models"),
        ("wss://example.com/behind/", "https://example.com/behind/v1/models"),
        ("https://example.com/behind/v1/stream", "https://example.com/behind/v1/models"),
        ("unix:/run/gateway", "http://localhost/v1/models"),
    ],
)
def test_a_page_is_beside_the_stream(text, page):
    assert address_of(text).page("/v1/models") == page


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the host is missing"),
        ("http://", "the host is missing"),
        ("http:///v1/stream", "the host is missing"),
        ("ftp://localhost:8765/#token=sesame", "`ftp` is none of http, https, ws, wss"),
        ("localhost:port#token=sesame", "the port must be"),
        ("localhost:87650", "the port must be"),
        ("::1:8765", "the host is missing"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("Open http://localhost:8765/", "a blank"),
        ("http://localhost:8765/\n", "a blank"),
        ("unix:", "the path of the socket file is missing"),
    ],
)
def test_another_text_is_refused_with_the_reason_and_without_the_token(text, why):
    for refuse in (address_of, connect, SyncClient):
        with pytest.raises(ValueError, match=why) as caught:
            refuse(text)
        assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("fragment", "token"),
    [
        ("", None),
        ("token=", None),
        ("chat/1", None),
        ("token=a+b/c==", "a+b/c=="),
        ("token=a%2Bb%20c", "a+b c"),
        ("token=a&token=b", "a"),
        ("room=wall&token=a", "a"),
    ],
)
def test_the_token_is_the_first_of_the_fragment_as_it_stands(fragment, token):
    assert address_of(f"http://localhost:8765/#{fragment}").token == token


async def said(url, **options):
    async with connect(url, **options) as client:
        run = client.generate(prompt="hi")
        await run.result()
        return run.text


@pytest.mark.parametrize("file", [False, True])
async def test_what_a_gateway_prints_is_where_a_client_connects(tmp_path, file):
    place = {"unix": str(tmp_path / "gateway")} if file else {}
    provider = ScriptedProvider(script=[Say("a b")], tokens_per_second=None)
    async with running(provider, **place) as gateway:
        assert gateway.url.startswith("unix:" if file else "http:")
        assert await said(gateway.url) == "a b"


async def test_a_token_in_the_address_is_shown_unless_another_is_given():
    tokens = Tokens([Token("alice", hashlib.sha256(b"sesame").hexdigest())])
    provider = ScriptedProvider(script=[Say("a b")], tokens_per_second=None)
    async with running(provider, tokens) as gateway:
        url = f"{gateway.url}#token=sesame"
        assert await said(url) == "a b"
        with pytest.raises(UnauthorizedError):
            await said(url, token="wrong")
