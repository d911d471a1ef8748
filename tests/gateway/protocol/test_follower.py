import time

import pytest

from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Refusal
from gateway.protocol.follower import Follower
from gateway.protocol.frames import Chunk, Done, Generate, Resume
from gateway.protocol.generation import AT_ONCE, Generation, NotResumable
from provider.interface import GenerateResponse

KEEP = 1 << 20


def generation(keep_bytes=KEEP, **fields):
    frame = Generate(id="a", prompt="hi", resumable=True, **fields)
    return Generation(frame, time.monotonic(), ticket="t", keep_bytes=keep_bytes)


def follower(of, after=-1, **fields):
    of.followed = True
    return Follower(of, Resume(id="b", ticket="t", after=after, follow=True, **fields))


def say(one, *texts):
    """Let the first reader get texts, a frame each; return its frames."""
    frames = []
    for text in texts:
        one.respond(GenerateResponse(content=text), 0.0)
        frames += one.pop_events()
    return frames


def texts(frames):
    return [frame.text for frame in frames if isinstance(frame, Chunk)]


def numbers(frames):
    return [frame.seq for frame in frames]


def test_a_follower_gets_the_same_frames_under_its_own_id():
    one = generation()
    first = say(one, "a", "b")
    reader = follower(one)
    first += say(one, "c")
    one.ended(0.0)
    first += one.pop_events()
    read = reader.pop_events()
    assert {frame.id for frame in read} == {"b"}
    assert (numbers(read), texts(read)) == (numbers(first), texts(first))
    assert [type(frame) for frame in read] == [type(frame) for frame in first]
    assert (reader.over, reader.sendable, reader.pop_events()) == (True, False, [])


@pytest.mark.parametrize("after", [-1, 0, 2, 3])
def test_a_follower_begins_after_the_number_that_it_names(after):
    one = generation()
    first = say(one, "a", "b", "c")
    assert numbers(follower(one, after).pop_events()) == [n for n in numbers(first) if n > after]


@pytest.mark.parametrize(("after", "said"), [(4, "no frame 4"), (-1, "frame 0 is no longer kept")])
def test_what_is_not_kept_cannot_be_followed(after, said):
    one = generation(keep_bytes=2 if after < 0 else KEEP)
    say(one, "a", "b", "c")
    with pytest.raises(NotResumable, match=said):
        follower(one, after)


def test_what_the_first_reader_has_acknowledged_is_kept_for_a_follower():
    one = generation()
    say(one, "a", "b")
    reader = follower(one)
    one.ack(2)
    assert texts(reader.pop_events()) == ["a", "b"]
    one.followed = False
    one.ack(2)
    with pytest.raises(NotResumable):
        follower(one)


def test_a_slow_follower_holds_up_nothing_and_ends_where_it_fell_behind():
    one = generation(keep_bytes=4096)
    reader = follower(one)
    assert texts(say(one, *["x" * 100] * 100)) == ["x" * 100] * 100
    assert not one.holds_enough
    [error] = reader.pop_events()
    assert (error.id, error.code, error.seq) == ("b", ErrorCode.SLOW_CLIENT, None)
    assert reader.over


def test_a_followers_window_is_its_own():
    one = generation(window=100)
    reader = follower(one, window=2)
    say(one, "a", "b", "c")
    assert numbers(reader.pop_events()) == [0, 1]
    assert not reader.sendable
    reader.ack(99)
    assert numbers(reader.pop_events()) == [2, 3]
    assert not one.window_closed


def test_a_follower_takes_a_bounded_number_of_frames_at_once():
    one = generation()
    say(one, *["x"] * (2 * AT_ONCE))
    reader = follower(one)
    assert len(reader.pop_events()) == AT_ONCE
    assert reader.sendable


def test_a_follower_that_leaves_gets_a_done_of_its_own_and_the_generation_goes_on():
    one = generation()
    say(one, "a")
    reader = follower(one, after=0)
    reader.leave()
    [done] = reader.pop_events()
    assert isinstance(done, Done)
    assert (done.id, done.seq, done.finish_reason) == ("b", 1, "cancelled")
    assert (reader.over, one.live) == (True, True)
    assert texts(say(one, "b")) == ["b"]


def test_a_loss_is_told_through_a_closed_window():
    one = generation()
    say(one, "a", "b")
    reader = follower(one, window=1)
    reader.pop_events()
    reader.lose(Refusal(ErrorCode.NOT_RESUMABLE, "gone"))
    [error] = reader.pop_events()
    assert (error.message, error.seq, reader.over) == ("gone", None, True)


def test_a_follower_reads_on_without_the_first_reader_who_gets_the_same_numbers_later():
    one = generation()
    say(one, "a")
    reader = follower(one)
    for text in ("b", "c"):
        one.respond(GenerateResponse(content=text), 0.0)
        one.number()
    read = reader.pop_events()
    assert texts(read) == ["a", "b", "c"]
    one.ended(0.0)
    assert not one.over
    one.replay(1)
    rest = one.pop_events()
    assert (numbers(rest), texts(rest)) == ([2, 3, 4], ["b", "c"])
    assert one.over
    assert numbers(reader.pop_events()) == [4]


def test_frames_that_the_first_reader_has_not_had_are_not_dropped_when_it_comes_back():
    one = generation(keep_bytes=2048, window=2)
    say(one, "a")
    reader = follower(one)
    for n in range(8):
        one.respond(GenerateResponse(content=str(n) * 100), 0.0)
        one.number()
    assert len(reader.pop_events()) == 10
    one.replay(1)
    read = []
    while frames := one.pop_events():
        read += frames
        one.ack(frames[-1].seq)
    assert numbers(read) == list(range(2, 10))
