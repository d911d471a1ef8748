"""What the terminal shows; conversations in a terminal of their own are in test_cli.py."""

import pytest

from gateway.commands.chat import _Answer, _footer, chat_with
from gateway.protocol.frames import Chunk, Done, Timing, ToolCall, Usage


def done(reason, tokens=12, **timing):
    return Done(
        id="a",
        seq=1,
        finish_reason=reason,
        usage=Usage(completion_tokens=tokens),
        timing=Timing(**timing),
    )


@pytest.mark.parametrize(
    ("frame", "stopped", "said"),
    [
        (done("stop"), False, "12 tokens"),
        (done("stop", tokens_per_second=41.7, first_token=80.2), False, "12 tokens · 42 "),
        (done("length"), False, "12 tokens · "),
        (done("cancelled"), True, "12 tokens · stopped by you"),
        (done("cancelled"), False, "12 tokens · stopped by the gateway"),
    ],
)
def test_the_line_below_an_answer_says_what_it_took_and_who_stopped_it(frame, stopped, said):
    assert _footer(frame, stopped=stopped).startswith(said)


class Said:
    """An answer that was said already."""

    run = None
    stopped = False

    def __init__(self, *frames):
        self.frames = frames

    async def __aiter__(self):
        for frame in self.frames:
            yield frame


async def test_only_the_answer_goes_to_standard_output(capsys):
    answer = Said(
        Chunk(id="a", seq=1, text="hm", channel="reasoning"),
        Chunk(id="a", seq=2, text="Two "),
        Chunk(id="a", seq=3, text="words"),
        ToolCall(id="a", seq=4, index=0, call_id="c", name="add", arguments="{}", complete=True),
    )
    await _Answer(answer).print()
    captured = capsys.readouterr()
    assert captured.out == "Two words\n\n"
    assert "hm" in captured.err
    assert "add" in captured.err


async def test_a_call_that_cannot_be_read_is_shown_as_it_was_written(capsys):
    broken = ToolCall(
        id="a", seq=1, index=0, call_id="c", complete=True, error="malformed", text="<call>[x]"
    )
    await _Answer(Said(broken)).print()
    assert "<call>[x]" in capsys.readouterr().err


def test_a_gateway_that_is_not_there_is_an_oserror():
    with pytest.raises(OSError, match="9"):
        chat_with("http://127.0.0.1:9/", None, {})
