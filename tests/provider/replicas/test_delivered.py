"""An answer that is made again goes on where the caller is."""

import random

import pytest

from provider.interface import (
    ChoiceResponse,
    GenerateResponse,
    GenerationStarted,
    PrefillProgress,
    TokenLogprobs,
    ToolCallDelta,
)
from provider.replicas.delivered import Delivered, DifferentAnswerError


def text(content, choice=0):
    return ChoiceResponse(content=content, choice=choice)


def thought(content):
    return GenerateResponse("", reasoning_trace=content)


def event(raw):
    return GenerateResponse(raw_response=raw)


def part(arguments=None, call_id="c", index=0, **more):
    return event(ToolCallDelta(index, call_id, arguments=arguments, **more))


def through(delivered, *responses):
    new = [delivered.new_in(response) for response in responses]
    return [one for one in new if one is not None]


def joined(responses, choice=0):
    return "".join(one.content for one in responses if getattr(one, "choice", 0) == choice)


def test_what_the_caller_has_is_left_out():
    delivered = Delivered(again=True)
    first = through(delivered, text("one "), text("two t"))
    delivered.rewind()
    rest = through(delivered, text("one two"), text(" thr"), text("ee"))
    assert joined(first + rest) == "one two three"
    assert joined(rest) == "hree"


def test_it_goes_on_exactly_however_the_texts_are_cut():
    chance = random.Random(3)
    for _ in range(200):
        whole = {c: "".join(chance.choice("ab\u00e9") for _ in range(30)) for c in (0, 1)}
        delivered, got = Delivered(again=True), []
        for life in range(4):
            at, end = {0: 0, 1: 0}, 30 if life == 3 else chance.randrange(30)
            while min(at.values()) < end:
                choice = min(at, key=at.get)
                more = chance.randrange(1, 6)
                piece = whole[choice][at[choice] :][:more]
                got += through(delivered, text(piece, choice))
                at[choice] += more
            delivered.rewind()
        assert {c: joined(got, c) for c in (0, 1)} == whole


def test_another_answer_is_noticed():
    delivered = Delivered(again=True)
    through(delivered, text("one two"))
    delivered.rewind()
    with pytest.raises(DifferentAnswerError):
        through(delivered, text("one 2"))
    delivered.rewind()
    end = GenerateResponse(content="", finish_reason="stop")
    with pytest.raises(DifferentAnswerError):  # it is shorter
        through(delivered, text("one"), end)


def test_the_beginning_is_told_once():
    delivered = Delivered(again=True)
    started = event(GenerationStarted("m", 3, 0))
    progress = event(PrefillProgress(1, 3))
    assert through(delivered, progress, started, progress) == [progress, started, progress]
    assert not delivered.began
    delivered.rewind()
    assert through(delivered, started, event(PrefillProgress(3, 3))) == []


def test_channels_are_compared_each_by_itself():
    delivered = Delivered(again=True)
    through(delivered, thought("hm"), text("a"))
    delivered.rewind()
    rest = through(delivered, thought("hm"), thought(" yes"), text("ab"))
    assert [(one.reasoning_trace, one.content) for one in rest] == [(" yes", ""), (None, "b")]


def test_log_probabilities_go_with_their_tokens():
    def drawn(*names):
        content = "".join(names)
        entries = tuple({"token": name, "logprob": -1.0} for name in names)
        return GenerateResponse(content, TokenLogprobs(entries))

    delivered = Delivered(again=True)
    through(delivered, drawn("a"), drawn("b"))
    delivered.rewind()
    (rest,) = through(delivered, drawn("a", "b", "c"))
    assert (rest.content, [one["token"] for one in rest.raw_response.tokens]) == ("c", ["c"])


@pytest.mark.parametrize("tokens", [("t1", "t2"), ("t1",)])
def test_those_of_a_part_of_a_character_are_not_given_again_with_its_text(tokens):
    def drawn(content, *names):
        return GenerateResponse(content, TokenLogprobs(tuple({"token": name} for name in names)))

    delivered = Delivered(again=True)
    through(delivered, drawn("", "t1"))
    delivered.rewind()
    (rest,) = through(delivered, drawn("\u00e9", *tokens))
    given = rest.raw_response.tokens if rest.raw_response else ()
    assert (rest.content, [one["token"] for one in given]) == ("\u00e9", [*tokens[1:]])


def test_a_call_keeps_its_first_id_and_gets_each_part_once():
    delivered = Delivered(again=True)
    first = through(delivered, part(name="f"), part('{"a"'))
    delivered.rewind()
    calls = [{"id": "other", "name": "f", "arguments": {"a": 1}}]
    end = GenerateResponse(content="", finish_reason="tool_calls", tool_calls=calls)
    rest = through(
        delivered,
        part(call_id="other", name="f"),
        part('{"a":1', "other"),
        part("}", "other", complete=True),
        end,
    )
    parts = [one.raw_response for one in first + rest[:-1]]
    assert [one.name for one in parts] == ["f", None, None, None]
    assert "".join(one.arguments or "" for one in parts) == '{"a":1}'
    assert {one.id for one in parts} == {"c"}
    assert [one.complete for one in parts] == [False, False, False, True]
    assert rest[-1].tool_calls[0]["id"] == "c"


def test_an_answer_without_a_call_that_the_caller_has_is_another_answer():
    delivered = Delivered(again=True)
    through(delivered, part(name="f"), part('{"a"'))
    delivered.rewind()
    with pytest.raises(DifferentAnswerError):
        through(delivered, GenerateResponse(content="", finish_reason="stop"))


def test_an_answer_by_chance_can_only_begin_again_before_it_has_begun():
    delivered = Delivered(again=False)
    through(delivered, event(GenerationStarted("m", 3, 0)))
    assert delivered.may_begin_again
    assert joined(through(delivered, text("a"))) == "a"
    assert not delivered.may_begin_again
