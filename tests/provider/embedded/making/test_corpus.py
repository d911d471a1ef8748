"""The corpus: the same for a seed, true to what it says, and silent about what is held out."""

import itertools
import json
import random
import re

import pytest

from provider.embedded.making.corpus import Document, counting, documents, stories, talk, tool_calls
from provider.embedded.making.corpus.words import held_out, made_up_name, made_up_word

SOME = 400


def some(seed=1):
    return list(itertools.islice(documents(seed), SOME))


def text_of(document: Document) -> str:
    return json.dumps([document.messages, document.tools], ensure_ascii=False)


def test_a_seed_gives_the_same_documents_and_another_gives_others():
    assert [text_of(d) for d in some(1)] == [text_of(d) for d in some(1)]
    assert {text_of(d) for d in some(1)}.isdisjoint(text_of(d) for d in some(2) if d.tools)


def test_every_document_is_a_conversation_that_ends_with_an_answer():
    for document in some():
        roles = [message["role"] for message in document.messages]
        assert "system" not in roles[1:]
        assert roles[-1] == "assistant"
        turns = [role for role in roles if role != "system"]
        for before, after in itertools.pairwise(turns):
            assert (before, after) in {
                ("user", "assistant"),
                ("assistant", "user"),
                ("assistant", "tool"),
                ("tool", "tool"),
                ("tool", "assistant"),
            }


def test_a_call_fits_a_tool_that_is_offered_and_repeats_what_was_asked():
    rng = random.Random(3)
    for _ in range(SOME):
        document = tool_calls.document(rng)
        offered = {tool["function"]["name"]: tool["function"] for tool in document.tools}
        asked = ""
        for message in document.messages:
            if message["role"] == "user":
                asked = message["content"]
            for call in message.get("tool_calls", []):
                function = call["function"]
                properties = offered[function["name"]]["parameters"]["properties"]
                assert set(function["arguments"]) == set(properties)
                for value in function["arguments"].values():
                    assert str(value) in asked


def test_results_answer_every_call_of_the_turn():
    rng = random.Random(4)
    several = 0
    for _ in range(SOME):
        messages = tool_calls.document(rng).messages
        for at, message in enumerate(messages[:-1]):
            calls = message.get("tool_calls", [])
            results = list(itertools.takewhile(lambda m: m["role"] == "tool", messages[at + 1 :]))
            assert not calls or len(results) == len(calls)
            several += len(calls) > 1
    assert several


def test_counts_are_right():
    rng = random.Random(5)
    for _ in range(SOME):
        a, b = counting.span(rng)
        numbers = [int(n) for n in re.findall(r"\d+", counting.count(a, b))]
        assert numbers == list(range(a, b + 1))


@pytest.mark.parametrize("make", [made_up_word, made_up_name])
def test_held_out_words_are_never_made_for_training(make):
    rng = random.Random(6)
    trained = {make(rng).lower() for _ in range(SOME)}
    held = {make(rng, test=True).lower() for _ in range(SOME)}
    assert all(held_out(word) for word in held)
    assert trained.isdisjoint(held)


def test_held_out_spans_and_subjects_are_never_trained_on():
    rng = random.Random(7)
    for test in (False, True):
        for _ in range(SOME):
            a, b = counting.span(rng, test=test)
            assert held_out(f"{a} to {b}") == test
            assert held_out(stories.subject(rng, test=test).phrase) == test


def test_a_story_holds_its_subject_and_leaves_no_gap():
    rng = random.Random(8)
    for _ in range(SOME):
        about = stories.subject(rng)
        story, _ = stories.tell(rng, about)
        assert about.phrase in story
        assert not re.search(r"[{}]|  | ,", story)
        assert not re.search(r"\bin (in|on|at|by|near)\b", story)


def test_a_name_given_by_the_system_prompt_is_the_name_told():
    rng = random.Random(9)
    told = 0
    for _ in range(SOME):
        messages = talk.document(rng).messages
        for question, answer in itertools.pairwise(messages):
            if question["content"] in talk.WHO and messages[0]["role"] == "system":
                name = re.search(r"My name is (\w+)", answer["content"])
                if name:
                    assert name[1] in messages[0]["content"]
                    told += 1
    assert told
