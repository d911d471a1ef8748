"""Events are plain data: they can be compared, cannot be changed, and cross processes."""

import pickle
from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest

from provider import events
from provider.events import (
    AnswerTokens,
    CallDelta,
    GenerationStarted,
    GenerationTiming,
    ModelLoading,
    PrefillProgress,
    QueuePosition,
    TextDelta,
    TokenLogprob,
    TokenLogprobs,
    ToolCallDelta,
)

LOGPROBS = TokenLogprobs(({"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []},))
BROKEN = ToolCallDelta(0, "call_1", error="cut_off", text="<tool_call>{")
EVENTS = [
    AnswerTokens(0, (5, 6)),
    QueuePosition(1),
    ModelLoading("m", 0, 10),
    GenerationStarted("m", 10, 3),
    PrefillProgress(5, 10),
    ToolCallDelta(0, "call_1", "double", '{"number"'),
    LOGPROBS,
    GenerationTiming(1.0, 2.0, 3.0, 4.0, 5.0, LOGPROBS, (BROKEN,)),
    TokenLogprob(-0.5, ((97, -0.5),)),
    TextDelta("a"),
    CallDelta(BROKEN),
]


def test_every_event_has_a_sample():
    assert {type(event).__name__ for event in EVENTS} == set(events.__all__) - {"Delta"}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_crosses_processes_as_it_is(event):
    again = pickle.loads(pickle.dumps(event))
    assert again == event
    assert type(again) is type(event)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_cannot_be_changed(event):
    names = [one.name for one in fields(event)] if is_dataclass(event) else event._fields
    for name in names:
        with pytest.raises((FrozenInstanceError, AttributeError)):
            setattr(event, name, None)


def test_a_delta_is_the_text_of_one_token_unless_it_says_otherwise():
    assert TextDelta("a") == TextDelta("a", reasoning=False, tokens=1, logprobs=())
    assert CallDelta(BROKEN).tokens == 1


def test_a_part_of_a_call_has_only_new_fields():
    part = ToolCallDelta(0, "call_1", arguments="{}")
    assert (part.name, part.complete, part.error, part.text) == (None, False, None, None)
