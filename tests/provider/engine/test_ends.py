"""What a run's reader is told at last."""

import logging

import pytest

from provider.engine.ends import failure_of, finished
from provider.engine.inbox import SyncInbox
from provider.engine.messages import RunRequest
from provider.engine.run import Run
from provider.interface import GenerationError
from provider.options import GenerationOptions


class Text:
    """The text of a run that has called tools, or none."""

    def __init__(self, *calls):
        self.calls = list(calls)
        self.reasoning_tokens = 2
        self.broken = []


def run_of(text):
    run = Run(3, "m", RunRequest([1, 2], GenerationOptions()), SyncInbox(), text=text)
    run.tokens = 5
    return run


@pytest.mark.parametrize("reason", ["stop", "length"])
def test_the_reason_is_that_of_the_tokens(reason):
    end = finished(run_of(Text()), reason, 1.0)
    assert end.finish_reason == reason
    assert end.usage["total_tokens"] == 7
    assert end.usage["reasoning_tokens"] == 2


def test_a_run_that_stops_after_calls_ends_with_them():
    call = {"name": "add"}
    assert finished(run_of(Text(call)), "stop", 1.0).finish_reason == "tool_calls"
    assert finished(run_of(Text(call)), "stop", 1.0).tool_calls == [call]


def test_an_answer_that_was_cut_says_so_whatever_it_called():
    assert finished(run_of(Text({"name": "add"})), "length", 1.0).finish_reason == "length"


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return caught


def test_an_unexpected_error_is_logged_whole_and_told_by_its_kind(caplog):
    error = raised(ValueError("a secret of the machine"))
    told = failure_of(run_of(Text()), error)
    assert isinstance(told, GenerationError)
    assert told.original_exception is error
    assert "ValueError" in str(told)
    assert "secret" not in str(told)
    assert "a secret of the machine" in caplog.text
    assert error.__traceback__ is None


def test_what_the_engine_says_itself_is_told_as_it_is(caplog):
    caplog.set_level(logging.ERROR)
    error = raised(GenerationError("the provider was closed"))
    assert failure_of(run_of(Text()), error) is error
    assert error.__traceback__ is None
    assert not caplog.records
