from types import SimpleNamespace

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from gateway.dialects.base import Route
from gateway.dialects.native import NativeDialect, codec_for
from gateway.server.routing import Routing, query_of, upgrade_required


def key_in(offered):
    return next((name[4:] for name in offered if name.startswith("key-")), None)


ROUTE = Route(
    "/talk",
    lambda limits: lambda opening: NativeDialect(codec_for(opening.subprotocol)),
    subprotocols=("b", "a"),
    secret_in=key_in,
    hint="talk here",
)
ROUTING = Routing([ROUTE])


def request(path, **headers):
    return Request(
        path, Headers({name.replace("_", "-"): value for name, value in headers.items()})
    )


@pytest.mark.parametrize(
    ("path", "found"),
    [("/talk", True), ("/talk?x=1", True), ("/talk/", False), ("/", False), ("/talkative", False)],
)
def test_a_route_is_found_by_its_path_alone(path, found):
    assert (ROUTING.find(request(path)) is ROUTE) is found


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [(["x", "a", "b"], "a"), (["key-sesame", "b"], "b"), (["key-sesame"], None), ([], None)],
)
def test_the_first_offer_that_is_known_is_taken_and_a_token_is_not_echoed(offered, agreed):
    connection = SimpleNamespace(request=request("/talk"))
    assert ROUTING.select_subprotocol(connection, offered) == agreed
    assert ROUTING.select_subprotocol(SimpleNamespace(request=request("/")), offered) is None


def test_a_token_is_shown_in_the_header_or_as_the_route_says():
    assert ROUTING.secret(request("/talk")) is None
    assert ROUTING.secret(request("/talk", Authorization="Bearer abc")) == "abc"
    assert ROUTING.secret(request("/talk", Sec_WebSocket_Protocol="a, key-xyz")) == "xyz"
    both = request("/talk", Authorization="Bearer abc", Sec_WebSocket_Protocol="key-xyz")
    assert ROUTING.secret(both) == "abc"
    assert ROUTING.secret(request("/metrics", Sec_WebSocket_Protocol="key-xyz")) is None


def test_a_plain_get_is_told_to_upgrade():
    page = upgrade_required(ROUTE)
    assert (page.status, page.body) == (426, b"talk here\n")
    assert page.headers()["Upgrade"] == "websocket"


def test_a_request_has_a_query_or_none():
    assert query_of(request("/talk?runId=a&offset=-1")) == "runId=a&offset=-1"
    assert query_of(request("/talk")) == ""
