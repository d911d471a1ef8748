import base64
import difflib
import json
import re
import tracemalloc
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

import gateway
from gateway.dialects.base import FrameLimits, Message
from gateway.dialects.native import (
    BEARER_PROTOCOL,
    JsonCodec,
    MsgpackCodec,
    NativeDialect,
    codec_for,
    secret_in,
    server_frame,
    worded,
)
from gateway.protocol.codes import RETRYABLE, BadFrame, CloseCode, ErrorCode, NotAFrame
from gateway.protocol.events import Failed
from gateway.protocol.frames import (
    JOINED_PROTOCOL,
    NUMBERS,
    Ack,
    Cancel,
    Chunk,
    Done,
    Error,
    File,
    Generate,
    Hello,
    Loading,
    Ping,
    Pong,
    Progress,
    Queued,
    Ready,
    Resume,
    Started,
    Timing,
    ToolCall,
    Usage,
    name_of,
)
from gateway.protocol.outbox import PackedLogprobs
from gateway.protocol.session import Session

PROTOCOL = (Path(gateway.__file__).parent / "PROTOCOL.md").read_text(encoding="utf-8")
CODECS = [JsonCodec(), MsgpackCodec()]
CLIENT = [
    Hello(token="t", client="c"),
    Generate(id="a", prompt="hi", files=[File(name="a.txt", data=b"\x00x")], temperature=0.5),
    Generate(id="a", messages=[{"role": "user", "content": "é"}], stop=["x"], stream=False),
    Cancel(id="a"),
    Ack(id="a", seq=3),
    Resume(id="a", ticket="t", after=-1),
    Ping(),
    Ping(nonce=3),
]
SERVER = [
    Ready(protocol="p", server="s", epoch="e", connection="c", models=["m"], limits={"x": 1}),
    Loading(id="a", model="m", done=1, total=2),
    Queued(id="a", position=1),
    Started(id="a", seq=0, model="m", prompt_tokens=3, cached_tokens=0),
    Progress(id="a", done=1, total=2),
    Chunk(id="a", seq=1, text="é", channel="reasoning"),
    ToolCall(id="a", seq=2, index=0, call_id="c", name="n", arguments="{}", complete=True),
    Done(id="a", seq=3, finish_reason="stop", usage=Usage(), timing=Timing(total=1.5)),
    Error(code=ErrorCode.INTERNAL, message="m", retryable=False),
    Error(id="a", seq=1, code=ErrorCode.OVERLOADED, message="m", retryable=True, retry_after=1.0),
    Pong(nonce="n"),
]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("frame", CLIENT, ids=lambda frame: type(frame).__name__)
def test_a_clients_frame_survives_the_wire(codec, frame):
    assert codec.decode(codec.encode(frame)) == frame


@pytest.mark.parametrize("frame", SERVER, ids=lambda frame: type(frame).__name__)
def test_both_codecs_say_the_same_of_a_servers_frame(frame):
    from_json, from_msgpack = (codec.decode_fields(codec.encode(frame)) for codec in CODECS)
    present = {k: v for k, v in from_msgpack.items() if v is not None or k in from_json}
    assert present == from_json


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("text", ["a", "a\ud800"])
@pytest.mark.parametrize("binary", [True, False])
def test_packed_log_probabilities_are_sent_as_they_came(codec, text, binary):
    token = {"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": []}
    packed = PackedLogprobs(binary=binary)
    packed.add([token, token])
    end = {"finish_reason": "stop", "usage": Usage(), "timing": Timing()}
    choices = [{"text": text, "logprobs": packed}]
    frame = Done(id="a", seq=3, text=text, logprobs=packed, choices=choices, **end)
    sent = codec.decode_fields(codec.encode(frame))
    assert sent["text"] == text.replace("\ud800", "?")
    assert sent["logprobs"] == sent["choices"][0]["logprobs"] == [token, token]


def test_every_frame_is_tested():
    assert {type(frame) for frame in CLIENT + SERVER} == set(NUMBERS)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(min_size=1, max_size=64))
def test_any_prompt_survives_both_codecs(prompt, frame_id):
    frame_id = frame_id.encode("utf-8", "replace").decode()[:64]
    frame = Generate(id=frame_id, prompt=prompt)
    assert all(codec.decode(codec.encode(frame)) == frame for codec in CODECS)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_lone_surrogate_in_a_text_is_replaced(codec):
    frame = Chunk(id="a", seq=0, text="a\ud800b")
    assert codec.decode_fields(codec.encode(frame))["text"] == "a?b"


def checked(codec, data):
    """Return the number of pieces in which a frame is checked."""
    return len(list(codec.check(data)))


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_frame_with_too_many_values_is_refused_before_it_is_decoded(codec):
    codec = type(codec)(FrameLimits(values=50))
    few = Generate(id="g1", messages=[{"role": "user", "content": "x" * 200_000}])
    assert checked(codec, codec.encode(few)) >= 1
    many = Generate(id="g1", messages=[{"content": "x"}] * 20)
    with pytest.raises(BadFrame) as caught:
        checked(codec, codec.encode(many))
    assert (caught.value.frame_id, caught.value.code) == ("g1", ErrorCode.INVALID_REQUEST)
    said = worded(str(caught.value), caught.value.fields)
    assert said == f"`$`: must have at most 50 {codec.COUNTED}"


@pytest.mark.parametrize(
    ("start", "frame_id"),
    [
        ('{"type": "generate", "id": "g1", ', "g1"),
        ('{"id":"g\\"1",', 'g"1'),
        (' { "stream" :false,"top_k":-1.5e3, "prompt": "a \\\\", "id": "g1", ', "g1"),
        ('{"prompt": "\\"id\\":\\"x\\"", "id": "g1", ', "g1"),
        ('{"type": "generate", "tools": [], "id": "g1", ', None),
        ('{"tool_choice": {"id": "inner"}, "id": "g1", ', None),
        ('{"id": "' + "x" * 65 + '", ', None),
        ('{"id": "", ', None),
        ('{"id": 5, ', None),
        ('{"id": "bad \\q", ', None),
        ('{"prompt": "' + "x" * 5000 + '", "id": "g1", ', None),
        ("", None),
    ],
)
def test_the_error_of_too_many_values_names_an_id_that_comes_early(start, frame_id):
    with pytest.raises(BadFrame) as caught:
        checked(JsonCodec(FrameLimits(values=50)), start + '"messages": [' + "{}," * 100)
    assert caught.value.frame_id == frame_id


@pytest.mark.parametrize("head", [b"\x95", b"\xdc\x00\x05", b"\xdd\x00\x00\x00\x05"])
@pytest.mark.parametrize("frame_id", ["g", "é" * 20, 5, ""])
def test_the_same_in_msgpack(head, frame_id):
    parts = [msgspec.msgpack.encode(one) for one in (2, frame_id, None, [{}] * 100)]
    with pytest.raises(BadFrame) as caught:
        checked(MsgpackCodec(FrameLimits(values=50)), head + b"".join(parts))
    assert caught.value.frame_id == (frame_id or None if frame_id != 5 else None)


def test_a_long_name_of_an_unknown_field_is_not_compared_at_length(monkeypatch):
    lengths = []
    compare = difflib.get_close_matches
    monkeypatch.setattr(
        difflib,
        "get_close_matches",
        lambda name, *rest: lengths.append(len(name)) or compare(name, *rest),
    )
    with pytest.raises(BadFrame) as caught:
        JsonCodec().decode(json.dumps({"type": "generate", "id": "a", "promp" * 100_000: 1}))
    assert (lengths, len(caught.value.fields[0])) == ([64], 64)
    with pytest.raises(BadFrame) as caught:
        JsonCodec().decode(json.dumps({"type": "ping", "x - at `" + "y" * 100_000: 1}))
    assert len(caught.value.fields[0]) < 500


def test_a_long_name_of_an_unknown_field_is_not_copied():
    frame = json.dumps({"type": "ping", "y" * 1_000_000: 1})
    tracemalloc.start()
    try:
        with pytest.raises(BadFrame, match="unknown field"):
            JsonCodec().decode(frame)
        assert tracemalloc.get_traced_memory()[1] < 1_500_000  # the name as it was decoded
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("nonce", ["n" * 65, 2**63, -(2**63) - 1])
def test_a_nonce_is_small(nonce):
    with pytest.raises(BadFrame) as caught:
        JsonCodec().decode(json.dumps({"type": "ping", "nonce": nonce}))
    assert (caught.value.code, caught.value.fields) == (ErrorCode.INVALID_FRAME, ("nonce",))
    with pytest.raises(BadFrame):
        MsgpackCodec().decode(msgspec.msgpack.encode([6, str(nonce) * 4]))


@pytest.mark.parametrize("nonce", ["n" * 64, "", 2**63 - 1, -(2**63), None])
def test_a_nonce_comes_back_in_both_codecs(nonce):
    for codec in CODECS:
        assert codec.decode(codec.encode(Ping(nonce=nonce))) == Ping(nonce=nonce)
        codec.encode(Pong(nonce=nonce))


def test_half_a_character_that_comes_is_replaced():
    frame = JsonCodec().decode('{"type": "generate", "id": "a", "prompt": "cut \\ud83d off"}')
    assert frame == Generate(id="a", prompt="cut ? off")


def test_a_token_costs_few_bytes():
    chunk = Chunk(id="g1", seq=120, text=" token")
    assert len(MsgpackCodec().encode(chunk)) <= 16
    assert len(JsonCodec().encode(chunk)) <= 64


@pytest.mark.parametrize(
    "data",
    ["", "nope", "[]", "3", "null", '"x"', "[" * 100_000, '{"a": NaN}', b"\xff", '{"a":' * 9000],
)
def test_what_is_no_json_object_is_not_a_frame(data):
    with pytest.raises(NotAFrame):
        JsonCodec().decode(data)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"\x90", b"\x81\x90\x01", "text"])
def test_what_is_no_msgpack_array_is_not_a_frame(data):
    with pytest.raises(NotAFrame):
        MsgpackCodec().decode(data)


@given(st.binary(max_size=64))
def test_random_bytes_raise_only_what_is_documented(data):
    for codec in CODECS:
        try:
            codec.decode(data)
        except (NotAFrame, BadFrame):
            pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
NAMES = st.sampled_from([*Generate.__struct_fields__, "seq", "ticket", "nonce", "token"])


@given(st.sampled_from(["generate", "cancel", "ping", "x"]), st.dictionaries(NAMES, JSON))
def test_random_fields_raise_only_what_is_documented(kind, fields):
    for codec, data in (
        (JsonCodec(), json.dumps({"type": kind, **fields}).encode("utf-8", "replace")),
        (MsgpackCodec(), _pack([2, *fields.values()])),
    ):
        try:
            codec.decode(data)
        except (NotAFrame, BadFrame):
            pass


def _pack(values):
    try:
        return msgspec.msgpack.encode(values)
    except (OverflowError, UnicodeEncodeError):
        return b"\x90"


@pytest.mark.parametrize(
    ("fields", "said", "frame_id"),
    [
        ({"id": "a", "temperature": "hot"}, "$.temperature", "a"),
        ({"id": "a", "temprature": 1}, "`$.temprature`: unknown field; did you mean", "a"),
        ({}, "`$.id`: missing", None),
        ({"id": ""}, "$.id", None),
        ({"id": "x" * 65}, "$.id", None),
        ({"id": "a", "files": [{"name": "a", "data": "%"}]}, "$.files[0].data", "a"),
        ({"id": "a", "files": [{"name": "a", "path": "/x"}]}, "`$.files[0].path`: unknown", "a"),
        ({"id": "a", "messages": [3]}, "$.messages[0]", "a"),
    ],
)
def test_a_bad_field_is_named_by_its_path(fields, said, frame_id):
    with pytest.raises(BadFrame) as caught:
        JsonCodec().decode(json.dumps({"type": "generate", **fields}))
    written = written_of(caught.value)
    assert said in written
    assert written.startswith("`$.")
    assert caught.value.frame_id == frame_id
    assert caught.value.code is ErrorCode.INVALID_REQUEST


def written_of(error):
    """Return what a client reads of a frame of its own that is bad."""
    session = Session()
    session.reject(error)
    ((failed,), _) = session.pop_events()
    (message,) = NativeDialect(JsonCodec()).encode(failed)
    return json.loads(message.data)["message"]


def test_msgpack_names_fields_and_not_places():
    with pytest.raises(BadFrame) as caught:
        MsgpackCodec().decode(msgspec.msgpack.encode([2, "a", 3]))
    assert written_of(caught.value) == "`$.prompt`: expected `str | null`, got `int`"


def test_a_message_about_several_fields_names_each_by_its_path():
    assert worded("give either {} or {}", ("a", "b")) == "give either `$.a` or `$.b`"
    assert worded("{} is text", ("a",)) == "`$.a`: {} is text"
    assert worded("{} is text", ()) == "{} is text"


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_an_event_is_one_message_and_a_message_one_request(codec):
    dialect = NativeDialect(codec)
    failed = Failed(id="a", seq=1, code=ErrorCode.OVERLOADED, message="m", retry_after=1.0)
    events = [frame for frame in SERVER if not isinstance(frame, Error | Ready)]
    for event, frame in [*zip(events, events, strict=True), (failed, SERVER[-2])]:
        (message,) = dialect.encode(event)
        assert (message.data, message.text) == (codec.encode(frame), codec.text)
    assert dialect.greet(SERVER[0])[0].data == codec.encode(SERVER[0])
    assert dialect.decode(codec.encode(CLIENT[0])) == (CLIENT[0],)


def test_a_token_is_shown_among_the_subprotocols():
    for secret in ("a", "ab", "abc", "§ü"):
        encoded = base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")
        assert secret_in(["mlx-gateway.v1.json", BEARER_PROTOCOL + encoded]) == secret
    assert secret_in(["mlx-gateway.v1.json"]) is None
    assert secret_in([f"{BEARER_PROTOCOL}!!"]) == ""
    assert secret_in([f"{BEARER_PROTOCOL}_w"]) == ""


def test_more_values_than_fields_are_refused():
    with pytest.raises(BadFrame, match="unknown field"):
        MsgpackCodec().decode(msgspec.msgpack.encode([3, "a", 1]))


@pytest.mark.parametrize("number", [0, 99, True, None, "generate", 16])
def test_an_unknown_or_a_servers_number_is_a_bad_frame(number):
    with pytest.raises(BadFrame, match=r"\$\.type"):
        MsgpackCodec().decode(msgspec.msgpack.encode([number]))


def test_json_is_the_codec_where_none_was_agreed():
    assert isinstance(codec_for(None), JsonCodec)
    assert isinstance(codec_for("mlx-gateway.v1.msgpack"), MsgpackCodec)


def test_several_frames_go_in_one_message_and_come_out_in_order():
    codec = codec_for(JOINED_PROTOCOL)
    frames = [Chunk(id="a", seq=1, text="x"), Pong(nonce="1"), Chunk(id="b", seq=7, text="é")]
    messages = [Message(codec.encode(frame), text=False) for frame in frames]
    for count in (1, 2, 3):
        joined = codec.join(messages[:count])
        assert [server_frame(one) for one in codec.frames_in(joined.data)] == frames[:count]
        assert list(map(asdict, codec.server_frames(joined.data))) == [
            asdict(frame) for frame in frames[:count]
        ]
    many = codec.join(messages * 9000)
    assert len(codec.frames_in(many.data)) == 27_000


@pytest.mark.parametrize("codec", [*CODECS, codec_for(JOINED_PROTOCOL)], ids=lambda one: one.name)
def test_a_client_gets_the_servers_frames_as_they_were(codec):
    for frame in SERVER:
        (got,) = codec.server_frames(codec.encode(frame))
        assert isinstance(got, type(frame))
        assert asdict(got) == asdict(frame)


@pytest.mark.parametrize("codec", [*CODECS[1:], codec_for(JOINED_PROTOCOL)])
def test_a_client_leaves_out_frames_of_types_to_come(codec):
    new, known = [99, "a", {}], [20, "a", 1, "x", None, None, 0, "a new field"]
    code = [23, "a", 4, "a_new_code", "m", True]
    many = [new, known, code] if codec.name == JOINED_PROTOCOL else None
    messages = [many] if many else [new, known, code]
    encoded = [msgspec.msgpack.encode(one) for one in messages]
    text, error = [frame for one in encoded for frame in codec.server_frames(one)]
    assert (text.text, error.code, error.retryable) == ("x", ErrorCode.INTERNAL, True)
    with pytest.raises(NotAFrame):
        codec.server_frames(msgspec.msgpack.encode([20, "a", 1, 5]))
    with pytest.raises(NotAFrame):
        codec.server_frames("[20]")


@pytest.mark.parametrize("wrong", [[[24], 5], [[24], []], []])
def test_what_is_no_array_of_frames_is_refused(wrong):
    data, codec = msgspec.msgpack.encode(wrong), codec_for(JOINED_PROTOCOL)
    for decode in (codec.frames_in, codec.server_frames):
        with pytest.raises(NotAFrame):
            decode(data)


# PROTOCOL.md says what the code does. ----------------------------------------------------------


def test_the_documents_examples_are_frames():
    examples = re.findall(r"```json\n(.*?)\n```", PROTOCOL, re.DOTALL)
    assert len(examples) >= 4
    for example in examples:
        fields = json.loads(example)
        if fields["type"] == "chunk":
            assert JsonCodec().encode(Chunk(**{k: v for k, v in fields.items() if k != "type"}))
        else:
            assert JsonCodec().decode(example)


ONE_OF = {"prompt", "messages"}  # of which each may be absent, and one is not


@pytest.mark.parametrize("kind", NUMBERS, ids=name_of)
def test_the_document_says_which_fields_a_frame_has_and_which_may_be_absent(kind):
    (row,) = re.findall(rf"^\| `{name_of(kind)}` \| (.*) \|$", PROTOCOL, re.MULTILINE)
    assert dict(re.findall(r"`(\w+)(\??)`", row)) == {
        field.name: "" if field.required or field.name in ONE_OF else "?"
        for field in msgspec.structs.fields(kind)
    }
    defaults = dict(re.findall(r"`(\w+)\?` = (\w+)", row))
    assert {name: json.loads(value) for name, value in defaults.items()} == {
        field.name: field.default
        for field in msgspec.structs.fields(kind)
        if name_of(kind) == "generate" and isinstance(field.default, bool)
    }


@pytest.mark.parametrize("kind", NUMBERS, ids=name_of)
def test_the_document_lists_every_frames_number_and_fields(kind):
    fields = ", ".join(f"`{name}`" for name in kind.__struct_fields__)
    assert f"| {NUMBERS[kind]} | `{name_of(kind)}` | {fields} |" in PROTOCOL


@pytest.mark.parametrize("code", ErrorCode)
def test_the_document_lists_every_error(code):
    row = re.search(rf"^\| `{code}` \|.*\| (yes|no) \|$", PROTOCOL, re.MULTILINE)
    assert row is not None
    assert (row[1] == "yes") is RETRYABLE[code]


@pytest.mark.parametrize("code", CloseCode)
def test_the_document_lists_every_close_code(code):
    assert f"| {code.value} |" in PROTOCOL
