import re

import pytest

from gateway.dialects.base import FrameLimits, Opening, RouteLimits
from gateway.dialects.kept_runs import KeptRun, KeptRuns, Reading
from gateway.dialects.readings import Readings, ResumingDialect, Stream
from gateway.protocol.codes import BadFrame, ErrorCode
from gateway.protocol.events import Failed
from gateway.protocol.frames import Cancel, Chunk, Pong, Ready, Resume, Started

READY = Ready(protocol="p", server="s", epoch="e", connection="c", models=["m"], limits={})
SELF, OTHER = object(), object()
BEGIN = Started(id="g", seq=0, model="m", prompt_tokens=1, cached_tokens=0)


def failed(code):
    return Failed(id="g", code=code, message="m")


def reading(reader=SELF, **more):
    kept = KeptRuns()
    run = KeptRun("a", "c", "g", "ticket", reader)
    kept.add(run)
    readings = Readings(SELF, kept)
    stream = Stream(Reading(more.pop("own", "g"), run, **more))
    readings.add(stream)
    return readings, stream, kept, run


def test_an_event_finds_its_stream_and_moves_its_number_on():
    readings, stream, _, run = reading()
    assert readings.of(Chunk(id="x", seq=1, text="a")) is None
    assert readings.of(Pong(nonce=1)) is None
    assert readings.of(BEGIN) is stream
    assert stream.begun
    assert readings.of(Chunk(id="g", seq=7, text="a")) is stream
    assert (stream.reading.seen, run.newest) == (7, 7)


def test_what_another_connection_has_taken_over_is_followed():
    readings, stream, _, run = reading()
    assert not readings.goes_on(stream)
    readings.of(BEGIN)
    run.reader = OTHER
    assert readings.goes_on(stream)
    (request,) = readings.next_requests()
    own = stream.reading.id
    assert request == Resume(id=own, ticket="ticket", after=0, follow=True)
    assert readings.of(Chunk(id=own, seq=1, text="a")) is stream
    assert readings.next_requests() == []


def test_a_follower_takes_over_after_all_events_that_came_together():
    readings, stream, _, run = reading(OTHER, own="f", follows=True)
    run.reader = None
    for number in (4, 5):
        assert readings.of(Chunk(id="f", seq=number, text="a")) is stream
    assert readings.next_requests() == [
        Resume(id="g", ticket="ticket", after=5),
        Cancel(id="f"),
    ]
    assert readings.of(Chunk(id="g", seq=6, text="a")) is stream


def test_what_is_about_to_be_lost_is_followed_and_not_taken_back():
    readings, lost, _, run = reading()
    readings.of(BEGIN)
    run.reader = OTHER
    again, request = readings.begin("a", "c")
    assert request.follow
    readings.add(Stream(again))
    run.reader = None
    readings.of(Chunk(id=again.id, seq=1, text="a"))
    assert readings.next_requests() == []
    assert readings.goes_on(lost)
    assert readings.next_requests() == [Resume(id="g", ticket="ticket", after=0)]


def test_what_has_ended_can_be_read_again_unless_it_is_forgotten():
    for forget in (True, False):
        readings, stream, kept, run = reading()
        readings.end(stream, forget=forget)
        assert readings.all == []
        assert run.ended
        assert len(kept) == (0 if forget else 1)


def test_what_failed_is_forgotten_or_left_to_others():
    for forget in (True, False):
        readings, stream, kept, run = reading()
        readings.fail(stream, forget=forget)
        assert readings.all == []
        assert len(kept) == (0 if forget else 1)
        assert run.reader is None


def test_what_is_stopped_is_not_resumed():
    readings, stream, kept, _ = reading()
    assert readings.stop(stream) == [Cancel(id="g")]
    assert stream.stopped
    assert len(kept) == 0


def test_nobody_is_told_of_what_is_stopped_without_a_stream():
    readings, stream, kept, _ = reading(OTHER, own="f", follows=True)
    assert not readings.stopped_unread(BEGIN)
    assert readings.stop(stream)[-1] == Cancel(id="g")
    assert readings.stopped_unread(BEGIN)
    assert readings.stopped_unread(failed(ErrorCode.NOT_RESUMABLE))
    assert not readings.stopped_unread(BEGIN)
    assert not readings.stopped_unread(Pong(nonce=1))
    assert len(kept) == 0


def test_what_can_not_be_stopped_is_kept_unless_another_has_its_name():
    for other in (None, KeptRun("a", "c", "h", "ticket", OTHER)):
        readings, _, kept, run = reading(OTHER)
        assert readings.stop_unread(run) == [
            Resume(id="g", ticket="ticket", after=0),
            Cancel(id="g"),
        ]
        if other is not None:
            kept.add(other)
        assert readings.stopped_unread(failed(ErrorCode.RATE_LIMITED))
        assert kept.find("a", "c") is (other or run)
        assert (run.reader, run.ended) == (None, False)


def test_a_connection_that_ends_leaves_its_answers():
    readings, _, kept, run = reading()
    readings.close()
    assert run.reader is None
    assert len(kept) == 1


def test_an_answer_that_has_ended_does_not_keep_its_reader():
    readings, stream, kept, run = reading()
    readings.end(stream, forget=False)
    assert run.reader is SELF  # which follows it, if it reads it once more
    readings.close()
    assert run.reader is None
    assert len(kept) == 1


class Silent(ResumingDialect[Stream]):
    early_id = re.compile('"own": "(.)"')


def test_a_language_that_resumes_speaks_second_and_leaves_its_answers():
    kept, limits = KeptRuns(), RouteLimits(FrameLimits(values=2))
    dialect = Silent(Opening(client="a"), limits, kept)
    assert dialect.greet(READY) == ()
    with pytest.raises(BadFrame) as raised:
        list(dialect.check('{"own": "x"}'))
    assert raised.value.frame_id == "x"
    run = KeptRun("a", "c", "g", "ticket", dialect)
    kept.add(run)
    dialect._readings.add(Stream(Reading("g", run)))
    assert dialect.next_requests() == []
    dialect.close()
    assert run.reader is None
