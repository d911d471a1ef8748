"""The corpus: the same for a seed, true to what it says, and silent about what is held out."""

import itertools
import json
import random
import re

import pytest

from provider.embedded.making.corpus import (
    Document,
    conversations,
    counting,
    documents,
    recall,
    stories,
    talk,
    tool_calls,
    verses,
)
from provider.embedded.making.corpus.names import any_name, person_name
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
    unfilled = 0
    for _ in range(SOME):
        document = tool_calls.document(rng)
        offered = {tool["function"]["name"]: tool["function"] for tool in document.tools}
        assert len(offered) == len(document.tools)
        asked = ""
        for message in document.messages:
            if message["role"] == "user":
                asked = message["content"]
            for call in message.get("tool_calls", []):
                function = call["function"]
                parameters = offered[function["name"]]["parameters"]
                assert set(function["arguments"]) == set(parameters["required"])
                assert set(parameters["required"]) <= set(parameters["properties"])
                unfilled += len(parameters["properties"]) > len(parameters["required"])
                for value in function["arguments"].values():
                    assert str(value) in asked
    assert unfilled


def test_a_tool_that_is_made_up_is_described_by_its_name():
    rng = random.Random(10)
    kinds = [tool_calls.made_up_kind(rng) for _ in range(SOME)]
    assert len({kind.names for kind in kinds}) > SOME / 2
    for kind in kinds:
        asked = tool_calls.question(rng, tool_calls.offer(rng, kind))
        (value,) = asked.arguments.values()
        assert value in asked.text
        assert kind.description.split()[0].lower() in asked.name.lower()


def test_results_are_json_with_and_without_spaces_or_text():
    rng = random.Random(11)
    results = [
        message["content"]
        for _ in range(SOME)
        for message in tool_calls.document(rng).messages
        if message["role"] == "tool"
    ]
    assert any('":"' in result for result in results)
    assert any('": "' in result for result in results)
    assert any(not result.startswith("{") for result in results)
    for result in results:
        assert not result.startswith("{") or json.loads(result)


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
        assert a < b
        numbers = [int(n) for n in re.findall(r"\d+", counting.count(a, b))]
        assert numbers == list(range(a, b + 1))


def test_a_request_is_answered_by_the_numbers_it_names():
    rng = random.Random(12)
    directions = set()
    for _ in range(3 * SOME):
        asked = counting.request(rng)
        numbers = [int(n) for n in re.findall(r"\d+", asked.answer)]
        assert (numbers[0], numbers[-1]) == (asked.a, asked.b)
        gaps = {after - before for before, after in itertools.pairwise(numbers)}
        assert gaps in ({asked.step}, {-asked.step})
        directions |= gaps
        low = asked.text.lower()
        named = low.replace("-", " ").split()
        said = {str(asked.a), str(asked.b)} | {
            word for n, word in enumerate(counting.WORDS) if n in {asked.a, asked.b}
        }
        assert said & {word.strip(".,?!") for word in named} or asked.text in counting.BARE
    assert {1, -1, 2, 5, 10} <= directions


def test_a_drill_counts_down_where_the_words_say_so_or_the_end_is_one_or_less():
    rng = random.Random(22)
    ways: dict[str, set[bool]] = {}
    for _ in range(SOME):
        messages = counting.drill(rng).messages
        for question, answer in zip(messages[::2], messages[1::2], strict=True):
            first, *_, last = (int(n) for n in re.findall(r"\d+", answer["content"]))
            assert answer["content"] == counting.count(first, last)
            words = re.sub(r"\d+", "", question["content"])
            if last > counting.LAST_DOWN:
                assert first < last or re.search("down|back|reverse|descend", words.lower())
            ways.setdefault(words, set()).add(first < last)
    assert sum(len(found) == 2 for found in ways.values()) > len(counting.ASKS) / 4


def test_a_count_may_be_taken_back():
    rng = random.Random(13)
    last = counting.Count("Count from 3 to 6", 3, 6)
    told = {text: answer for text, answer, _ in (counting.again(rng, last) for _ in range(SOME))}
    assert {told[text] for text in told if text in counting.BACK} == {"6, 5, 4, 3."}
    assert {told[text] for text in told if text in counting.LAST} == {"The last number was 6."}


@pytest.mark.parametrize("make", [made_up_word, made_up_name, any_name, person_name])
def test_held_out_words_are_never_made_for_training(make):
    rng = random.Random(6)
    trained = {make(rng).lower() for _ in range(SOME)}
    held = {make(rng, test=True).lower() for _ in range(SOME)}
    assert all(held_out(word) for word in held)
    assert trained.isdisjoint(held)


def test_names_are_of_every_make_and_stand_in_json_as_they_are():
    rng = random.Random(14)
    names = [any_name(rng) for _ in range(20 * SOME)]
    assert all(name == name.strip() and "  " not in name for name in names)
    assert all(json.dumps(name, ensure_ascii=False) == f'"{name}"' for name in names)
    for kind in (r" ", r" .* ", r"-", r"'", r"\d", r"^[a-z]", r"[à-ž]", r"[^\u0000-\u024f]"):
        assert sum(bool(re.search(kind, name)) for name in names) > SOME / 20, kind
    used = {byte for name in names for byte in name.encode()}
    assert set(range(0x80, 0xC0)) <= used  # each byte that goes on a letter with an accent


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
                name = re.search(r"My name is (.+)\.$", answer["content"])
                if name:
                    assert name[1] in messages[0]["content"]
                    told += 1
    assert told


@pytest.mark.parametrize(
    ("ask", "lines"), [(verses.haiku_request, 3), (verses.poem_request, 8)], ids=["haiku", "poem"]
)
def test_a_verse_has_its_lines_and_its_topic(ask, lines):
    rng = random.Random(15)
    for _ in range(SOME):
        about = verses.topic(rng)
        question, answer = ask(rng, about)
        assert about in question
        assert about.removeprefix("my ").lower() in answer.lower()
        assert len([line for line in answer.splitlines() if line]) == lines
        assert answer.endswith(".")
        assert not re.search(r"[{}]|  | ,", answer)


def test_the_lines_of_a_haiku_have_about_seven_and_five_syllables():
    assert verses.syllables("An old silent pond") == 5
    for line in verses.SECOND_LINES:
        assert abs(verses.syllables(line) - 7) <= 1, line
    for line in verses.THIRD_LINES:
        assert abs(verses.syllables(line) - 5) <= 1, line


def test_a_haiku_without_a_topic_chooses_one():
    rng = random.Random(16)
    asked = dict(verses.haiku_request(rng) for _ in range(SOME))
    assert any(question in verses.HAIKU_BARE for question in asked)


def test_what_is_said_word_for_word_is_what_was_asked_for():
    rng = random.Random(17)
    for _ in range(SOME):
        question, answer = recall.repeat(rng)
        assert question.endswith(answer)


def test_a_fact_is_told_again_as_it_was_told():
    rng = random.Random(18)
    for _ in range(SOME):
        fact = recall.fact(rng)
        value = fact.answer.removeprefix(f"Your {fact.what} is ").removesuffix(".")
        assert value in fact.told
        assert fact.what in fact.asked


def test_a_name_is_told_again_only_if_it_was_told():
    rng = random.Random(19)
    known = unknown = 0
    for _ in range(SOME):
        messages = conversations.document(rng).messages
        before = ""
        for question, answer in itertools.pairwise(messages):
            if question["role"] == "user" and question["content"] in recall.USER_NAME_ASKS:
                name = re.search(r"Your name is (.+?)\.(?: Yo ho!)?$", answer["content"])
                assert name or recall.UNTOLD_NAME in answer["content"]
                assert not name or name[1] in before
                known, unknown = known + bool(name), unknown + (not name)
            before += question["content"]
    assert known
    assert unknown


def test_a_tone_that_the_user_sets_stays():
    rng = random.Random(20)
    pirates = talk.TONES["pirate"][0]
    found = 0
    for _ in range(5 * SOME):
        messages = conversations.document(rng).messages
        for at, message in enumerate(messages):
            if message["role"] == "user" and message["content"] in pirates:
                answers = [m["content"] for m in messages[at:] if m["role"] == "assistant"]
                assert all(answer.startswith("Arr! ") for answer in answers)
                found += 1
    assert found


def test_conversations_change_their_subject():
    rng = random.Random(21)
    lengths = [len(conversations.document(rng).messages) for _ in range(SOME)]
    assert sum(length >= 6 for length in lengths) > SOME / 3
    for make in (conversations.introduced, conversations.verse):
        assert all(make(rng).messages[-1]["role"] == "assistant" for _ in range(20))
