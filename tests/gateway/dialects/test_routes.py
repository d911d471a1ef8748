from gateway.dialects.base import Message, Opening, RouteLimits
from gateway.dialects.routes import ROUTES
from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Failed
from gateway.protocol.frames import JOINED_PROTOCOL, JSON_PROTOCOL, MSGPACK_PROTOCOL, Ready

READY = Ready(protocol="p", server="s", epoch="e", connection="c", models=[], limits={})


def test_each_path_speaks_one_language():
    paths = [route.path for route in ROUTES]
    assert len(paths) == len(set(paths))
    assert "/v1/stream" in paths
    assert all(path.startswith("/") for path in paths)


def test_the_native_language_takes_its_codec_from_the_subprotocol():
    (native,) = [route for route in ROUTES if route.path == "/v1/stream"]
    assert native.subprotocols == (JSON_PROTOCOL, MSGPACK_PROTOCOL, JOINED_PROTOCOL)
    for agreed, text in ((JSON_PROTOCOL, True), (MSGPACK_PROTOCOL, False), (None, True)):
        (greeting,) = native.prepare(RouteLimits())(Opening(agreed)).greet(READY)
        assert isinstance(greeting, Message)
        assert greeting.text is text


def test_every_language_can_greet_or_not_and_refuse():
    refusal = Failed(id="a", code=ErrorCode.OVERLOADED, message="full")
    for route in ROUTES:
        for agreed in (*route.subprotocols, None):
            dialect = route.prepare(RouteLimits())(Opening(agreed))
            assert dialect.name
            assert all(isinstance(said, Message) for said in dialect.greet(READY))
            assert dialect.encode(refusal)
