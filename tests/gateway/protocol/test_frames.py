from typing import get_args

import msgspec
import pytest

from gateway.protocol.frames import (
    CLIENT_FRAMES,
    FIRST_OF_SERVER,
    NUMBERS,
    Cancel,
    Chunk,
    ClientFrame,
    Generate,
    ServerFrame,
    name_of,
)


def test_every_frame_has_a_number_of_its_own_and_a_name_of_its_own():
    kinds = {*get_args(ClientFrame), *get_args(ServerFrame)}
    assert set(NUMBERS) == kinds
    assert len(set(NUMBERS.values())) == len({name_of(kind) for kind in kinds}) == len(kinds)
    assert set(CLIENT_FRAMES) == set(get_args(ClientFrame))


@pytest.mark.parametrize("kind", NUMBERS, ids=name_of)
def test_a_number_says_who_sends_a_frame(kind):
    assert (NUMBERS[kind] >= FIRST_OF_SERVER) is (kind in get_args(ServerFrame))


@pytest.mark.parametrize("kind", NUMBERS, ids=name_of)
def test_frames_are_frozen_and_only_a_clients_refuse_unknown_fields(kind):
    config = kind.__struct_config__
    assert config.frozen
    assert config.omit_defaults
    assert config.forbid_unknown_fields is (kind in CLIENT_FRAMES)


# Fields of a frame never change places: an older client reads them by their numbers.
FIRST = {
    "generate": ("id", "prompt", "messages", "system_prompt", "files", "tools", "tool_choice"),
    "chunk": ("id", "seq", "text", "channel"),
    "done": ("id", "seq", "finish_reason", "usage", "timing"),
    "error": ("id", "seq", "code", "message", "retryable", "retry_after"),
}


@pytest.mark.parametrize("name", FIRST)
def test_fields_stay_where_they_are(name):
    (kind,) = [one for one in NUMBERS if name_of(one) == name]
    assert kind.__struct_fields__[: len(FIRST[name])] == FIRST[name]


@pytest.mark.parametrize("frame_id", ["", "x" * 65, 3, None])
def test_an_id_has_from_1_to_64_characters(frame_id):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"type": "cancel", "id": frame_id}, Cancel)
    assert msgspec.convert({"type": "cancel", "id": "x" * 64}, Cancel).id == "x" * 64


def test_what_is_not_said_is_not_sent():
    assert msgspec.to_builtins(Generate(id="a", prompt="hi")) == {
        "type": "generate",
        "id": "a",
        "prompt": "hi",
    }
    assert msgspec.to_builtins(Chunk(id="a", seq=0, text="")) == {
        "type": "chunk",
        "id": "a",
        "seq": 0,
        "text": "",
    }
