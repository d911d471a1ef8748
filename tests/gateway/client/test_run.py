"""One run by itself: frames in, and what can be read of it."""

import asyncio
from contextlib import aclosing

import pytest

from gateway.client.errors import ConnectionLostError, GatewayError
from gateway.client.run import Run
from gateway.protocol.codes import ErrorCode
from gateway.protocol.frames import (
    Chunk,
    Done,
    Error,
    Generate,
    Loading,
    Progress,
    Queued,
    Started,
    Timing,
    ToolCall,
    Usage,
)
from tests.support.timeouts import TIMEOUT


class Connection:
    """What a run asks of its client, written down."""

    def __init__(self):
        self.asked = []

    async def start(self, run):
        self.asked.append("start")

    async def cancel(self, run):
        self.asked.append("cancel")

    async def acknowledge(self, run, frame):
        self.asked.append(getattr(frame, "seq", None))


STARTED = Started(id="a", seq=0, model="m", prompt_tokens=1, cached_tokens=0, ticket="t")


def done(seq, **fields):
    return Done(id="a", seq=seq, finish_reason="stop", usage=Usage(), timing=Timing(), **fields)


def heard(*frames):
    run = Run(Connection(), Generate(id="a", prompt="hi"))
    for frame in frames:
        run.receive(frame)
    return run


async def test_what_comes_is_put_together_by_channel_and_choice():
    run = heard(
        Queued(id="a", position=1),
        STARTED,
        Progress(id="a", done=1, total=2),
        Chunk(id="a", seq=1, text="hm", channel="reasoning"),
        Chunk(id="a", seq=2, text="on"),
        Chunk(id="a", seq=3, text="other", choice=1),
        Chunk(id="a", seq=4, text="e"),
        done(5),
    )
    assert [chunk.text async for chunk in run] == ["hm", "on", "other", "e"]
    assert (run.text, run.reasoning, run.others) == ("one", "hm", {1: "other"})
    assert (run.queued.position, run.progress.total, run.ticket) == (1, 2, "t")
    assert run.done.finish_reason == "stop"
    assert run._client.asked == ["start", 0, 1, 2, 3, 4, 5]


def test_a_frame_that_came_before_is_ignored():
    chunk = Chunk(id="a", seq=1, text="x")
    run = heard(STARTED, chunk, chunk, STARTED)
    assert (run.text, run.last, run._frames.qsize()) == ("x", 1, 2)


def test_frames_that_no_window_bounds_do_not_wait_to_be_read():
    kinds = (
        Queued(id="a", position=9),
        Loading(id="a", model="m"),
        Progress(id="a", done=1, total=2),
    )
    run = heard(*[frame for _ in range(1000) for frame in kinds], Queued(id="a", position=1))
    assert run._frames.qsize() == 0
    assert (run.queued.position, run.loading.model, run.progress.done) == (1, "m", 1)


def test_nothing_follows_the_end():
    run = heard(STARTED, done(1), Chunk(id="a", seq=2, text="late"))
    run.fail(ConnectionLostError("late"))
    assert (run.text, run.over, run._frames.qsize()) == ("", True, 2)


def test_parts_of_a_call_are_joined():
    part = {"id": "a", "index": 0, "call_id": "c"}
    run = heard(
        ToolCall(seq=1, name="add", **part),
        ToolCall(seq=2, arguments='{"a"', **part),
        ToolCall(seq=3, arguments=": 1}", complete=True, **part),
        ToolCall(id="a", seq=4, index=1, call_id="d", complete=True, error="cut_off", text="<"),
    )
    (call,) = run.tool_calls
    assert (call.name, call.arguments) == ("add", '{"a": 1}')
    assert [broken.text for broken in run.broken_calls] == ["<"]


async def test_a_whole_answer_is_read_of_its_done():
    calls = [{"id": "c", "name": "add", "arguments": {"a": 1}}]
    choices = [{"text": "one"}, {"text": "two"}]
    run = heard(STARTED, done(1, text="one", reasoning="hm", tool_calls=calls, choices=choices))
    await run.result()
    assert (run.text, run.reasoning, run.others) == ("one", "hm", {1: "two"})
    assert run.tool_calls[0].arguments == '{"a":1}'


async def test_an_error_is_raised_where_it_is_read():
    error = Error(id="a", seq=1, code=ErrorCode.OVERLOADED, message="full", retryable=True)
    run = heard(STARTED, error)
    with pytest.raises(GatewayError, match="full"):
        await run.result()
    assert run.over


@pytest.mark.parametrize("received", [True, False])
async def test_a_failed_run_raises_its_error_each_time_it_is_read(received):
    run = heard(STARTED, Chunk(id="a", seq=1, text="x"))
    if received:
        code = ErrorCode.OVERLOADED
        run.receive(Error(id="a", seq=2, code=code, message="full", retryable=True))
    else:
        run.fail(ConnectionLostError("full"))
    async with asyncio.timeout(TIMEOUT):
        for _ in range(3):
            with pytest.raises(GatewayError, match="full"):
                await run.result()
    assert run.text == "x"


async def test_two_that_wait_for_the_end_both_get_it():
    ended, failed = heard(STARTED), heard(STARTED)
    ends = [asyncio.ensure_future(run.result()) for run in (ended, ended, failed, failed)]
    while not all(run.started for run in (ended, failed)):
        await asyncio.sleep(0)
    ended.receive(done(1, tool_calls=[{"id": "c", "name": "add", "arguments": {}}]))
    failed.fail(ConnectionLostError("gone"))
    async with asyncio.timeout(TIMEOUT):
        *good, first, second = await asyncio.gather(*ends, return_exceptions=True)
    assert good == [ended.done] * 2
    assert isinstance(first, ConnectionLostError)
    assert isinstance(second, ConnectionLostError)
    assert len(ended.tool_calls) == 1


async def test_leaving_the_iteration_cancels_what_still_runs_and_nothing_else():
    run = heard(STARTED, Chunk(id="a", seq=1, text="x"))
    async with aclosing(run.frames()) as frames:
        async for _ in frames:
            break
    assert run._client.asked[-1] == "cancel"
    ended = heard(STARTED, Chunk(id="a", seq=1, text="x"), done(2))
    async with aclosing(ended.frames()) as frames:
        async for _ in frames:
            break
    assert "cancel" not in ended._client.asked
