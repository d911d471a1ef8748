"""One answer: what is shown of it, what it is at, and what it took."""

import asyncio
from types import SimpleNamespace

import pytest

from gateway.client.run import Run
from gateway.client.tool_loop import ToolResult
from gateway.commands.answer import Answer, footer, stage
from gateway.protocol.frames import (
    Chunk,
    Done,
    Generate,
    Loading,
    Progress,
    Queued,
    Started,
    Timing,
    ToolCall,
    Usage,
)


def done(reason, tokens=12, usage=None, **timing):
    return Done(
        id="a",
        seq=1,
        finish_reason=reason,
        usage=usage or Usage(completion_tokens=tokens),
        timing=Timing(**timing),
    )


@pytest.mark.parametrize(
    ("frame", "stopped", "said"),
    [
        (done("stop"), False, "12 tokens"),
        (done("stop", tokens_per_second=41.7, first_token=80.2), False, "12 tokens · 42 "),
        (done("stop", queue=2500), False, "12 tokens · 2.5 s in the queue"),
        (done("stop", queue=3), False, "12 tokens"),
        (done("length"), False, "12 tokens · cut off"),
        (done("cancelled"), True, "12 tokens · stopped by you"),
        (done("cancelled"), False, "12 tokens · stopped by the gateway"),
        (
            done("stop", usage=Usage(completion_tokens=1, prompt_tokens=1612, cached_tokens=540)),
            False,
            "1 token · prompt 1,612 (540 cached)",
        ),
    ],
)
def test_the_line_below_an_answer_says_what_it_took_and_who_stopped_it(frame, stopped, said):
    assert footer(frame, stopped=stopped).startswith(said)


STARTED = Started(id="a", seq=0, model="m", prompt_tokens=2048, cached_tokens=540)


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ((), "waiting"),
        ((Loading(id="a", model="m", done=30, total=40),), "loading m, 75 %"),
        ((Loading(id="a", model="m", warming_up=True),), "warming up m"),
        ((Queued(id="a", position=3),), "in the queue: 2 before this one"),
        ((STARTED,), "reading the prompt: 540 of 2,048 tokens (540 cached)"),
        (
            (Started(id="a", seq=0, model="m", prompt_tokens=1, cached_tokens=0),),
            "reading the prompt: 0 of 1 token",
        ),
        ((STARTED, Progress(id="a", done=812, total=2048)), "reading the prompt: 812 of 2,048"),
    ],
)
def test_the_line_of_status_says_what_the_answer_waits_for(frames, said):
    run = Run(SimpleNamespace(), Generate(id="a", prompt="x"))
    for frame in frames:
        run.receive(frame)
        run._use(frame)
    told = SimpleNamespace(run=run, stopped=False)
    assert stage(told, 0, 0.0).startswith(said)
    assert stage(told, 31, 2.0) == "31 tokens · about 15 tokens/s · Ctrl-C stops"
    assert stage(told, 1, 2.0) == "1 token · Ctrl-C stops"  # it has taken no time
    assert stage(SimpleNamespace(run=run, stopped=True), 30, 2.0) == "stopping"


class Said:
    """An answer that was said already."""

    run = None
    stopped = False

    def __init__(self, *frames):
        self.frames = frames

    async def __aiter__(self):
        for frame in self.frames:
            await asyncio.sleep(0)
            yield frame


class Screen:
    """What is shown, by kind."""

    def __init__(self):
        self.shown = []

    def __getattr__(self, kind):
        return lambda *what: self.shown.append((kind, *what))


CALL = ToolCall(id="a", seq=4, index=0, call_id="c", name="add", arguments="{}", complete=True)


async def test_each_kind_of_frame_has_a_place_on_the_screen():
    screen = Screen()
    answer = Said(
        Chunk(id="a", seq=1, text="hm", channel="reasoning"),
        Chunk(id="a", seq=2, text="Two "),
        CALL,
        result := ToolResult(CALL, "5"),
    )
    await Answer(answer, screen).show()
    assert screen.shown == [
        ("thinking", "hm"),
        ("text", "Two "),
        ("call", CALL),
        ("result", result),
        ("end",),
    ]


async def test_the_screen_is_told_how_the_answer_goes_and_ends_with_it():
    class Slow(Said):
        async def __aiter__(self):
            while not any(kind == "status" for kind, *_ in screen.shown):
                await asyncio.sleep(0.01)
            raise RuntimeError("lost")
            yield

    screen = Screen()
    with pytest.raises(RuntimeError):
        await Answer(Slow(), screen).show()
    assert screen.shown[0] == ("status", "waiting · Ctrl-C stops")
    assert screen.shown[-1] == ("end",)
