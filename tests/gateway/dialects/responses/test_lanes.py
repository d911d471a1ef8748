from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.openai.errors import Refused
from gateway.dialects.responses.lanes import MAX_LANES, MAX_WAITING, Lanes, lane_of


def one(own, stream_id=None):
    return SimpleNamespace(id=own, stream_id=stream_id)


def begun(lanes):
    found = []
    while (first := lanes.next()) is not None:
        found.append(first.id)
    return found


def test_a_lane_runs_one_after_the_other_and_lanes_beside_each_other():
    lanes = Lanes()
    first = one("a")
    for turn in (first, one("b"), one("c", "x"), one("d", "x"), one("e", "y")):
        lanes.add(turn)
    assert begun(lanes) == ["a", "c", "e"]
    lanes.end(first)
    lanes.end(first)
    assert begun(lanes) == ["b"]


def test_so_many_run_at_once_and_no_more():
    lanes = Lanes(2)
    turns = [one(str(n), f"lane{n}") for n in range(4)]
    for turn in turns:
        lanes.add(turn)
    assert begun(lanes) == ["0", "1"]
    lanes.end(turns[1])
    assert begun(lanes) == ["2"]


@pytest.mark.parametrize("stream_id", ["", "a b", "x" * 257, "ü", 3, ["a"]])
def test_a_lane_has_a_plain_name(stream_id):
    with pytest.raises(Refused) as refused:
        lane_of(stream_id)
    assert refused.value.error.code == "invalid_stream_id"


def test_lanes_are_few():
    lanes = Lanes()
    for n in range(MAX_LANES):
        lanes.add(one(str(n), lane_of(f"lane{n}")))
    lanes.check_room("lane0")
    lanes.check_room(lane_of(None))
    with pytest.raises(Refused) as refused:
        lanes.check_room("other")
    assert refused.value.error.code == "websocket_stream_limit_reached"


def test_few_wait():
    lanes = Lanes()
    for n in range(MAX_WAITING):
        lanes.check_room()
        lanes.add(one(str(n)))
    with pytest.raises(Refused) as refused:
        lanes.check_room()
    assert refused.value.status == 429


def test_what_runs_is_found_by_its_id_or_its_lane():
    lanes = Lanes()
    a, b, c = one("a"), one("b", "x"), one("c", "x")
    for turn in (a, b, c):
        lanes.add(turn)
    begun(lanes)
    assert lanes.running(None, None) is a
    assert lanes.running(None, "x") is b
    assert lanes.running("b", None) is b
    assert lanes.running("c", None) is lanes.running(None, "y") is None
    assert lanes.withdraw("b") is None
    assert lanes.withdraw("c") is c
    assert lanes.waiting == []


@given(st.lists(st.sampled_from([None, "x", "y"]), max_size=12), st.integers(1, 3), st.randoms())
@settings(max_examples=50)
def test_each_begins_once_and_in_the_order_of_its_lane(names, most, random):
    lanes, running, order = Lanes(most), [], []
    waiting = [one(str(n), name) for n, name in enumerate(names)]
    while waiting or running:
        if waiting and random.random() < 0.5:
            lanes.add(waiting.pop(0))
        elif running:
            lanes.end(running.pop(random.randrange(len(running))))
        while (first := lanes.next()) is not None:
            running.append(first)
            order.append(first)
        assert len(running) <= most
    assert sorted(int(turn.id) for turn in order) == list(range(len(names)))
    for name in (None, "x", "y"):
        of_lane = [int(turn.id) for turn in order if turn.stream_id == name]
        assert of_lane == sorted(of_lane)
