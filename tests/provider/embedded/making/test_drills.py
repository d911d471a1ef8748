"""Drills: counts that only their numbers give a direction, and what each of their tokens weighs."""

import itertools
import random
import re
from collections import Counter

import pytest
from tokenizers import Tokenizer

from provider.embedded import MODEL_PATH
from provider.embedded.making import held_out as evaluation
from provider.embedded.making.corpus import Document, counting
from provider.embedded.making.corpus.words import held_out
from provider.embedded.making.drills import (
    FOLLOWING,
    ORDERS,
    TELLING,
    WHOLE,
    Drill,
    Row,
    ask,
    batches,
    pair,
    row,
)
from provider.embedded.making.tokenizer import END, START, render

MANY = 4000
TEMPLATE = MODEL_PATH / "chat_template.jinja"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(MODEL_PATH / "tokenizer.json"))


@pytest.fixture(scope="module")
def pairs():
    rng = random.Random(3)
    return [pair(rng) for _ in range(MANY)]


def share(pairs, which):
    return sum(which(*sorted(ends)) for ends in pairs) / len(pairs)


def down(pairs):
    return sum(a > b for a, b in pairs) / len(pairs)


def test_either_direction_comes_equally_often_near_and_far(pairs):
    near = [(a, b) for a, b in pairs if abs(a - b) <= 4]
    crossing = [(a, b) for a, b in pairs if min(a, b) < 100 <= max(a, b)]
    assert 0.47 < down(pairs) < 0.53
    assert 0.45 < down(near) < 0.55
    assert 0.40 < down(crossing) < 0.60


def test_no_pair_is_one_that_the_evaluation_keeps(pairs):
    assert not [ends for ends in pairs if held_out("{} to {}".format(*sorted(ends)))]
    assert not [ends for ends in pairs if min(ends) < 0 or ends[0] == ends[1]]


def test_pairs_of_every_kind_come_and_near_ones_in_one_ten_often(pairs):
    assert share(pairs, lambda a, b: 2 <= b - a <= 4 and a // 10 == b // 10) > 0.15
    assert share(pairs, lambda a, b: a < 100 <= b) > 0.05
    assert share(pairs, lambda a, b: a >= 100) > 0.10
    assert share(pairs, lambda a, b: a >= 1000) > 0.02
    assert share(pairs, lambda a, b: b - a > WHOLE) > 0.10
    assert share(pairs, lambda a, b: a // 100 < b // 100 > 1) > 0.01


def test_most_requests_are_said_alike_for_both_directions_and_name_both_numbers():
    rng, ways = random.Random(4), Counter()
    for a, b in [(63, 58), (58, 63)] * (MANY // 2):
        text = ask(rng, a, b)
        assert {"58", "63"} <= set(re.findall(r"\d+", text)), text
        ways["said" if re.search(r"down|back|revers|descend|up\b|forward", text) else "not"] += 1
    assert 0.80 < ways["not"] / MANY < 0.95


@pytest.mark.parametrize("word", ["until", "through"])
def test_other_words_for_to_are_drilled_in_both_directions(word):
    rng = random.Random(5)
    for a, b in [(63, 58), (58, 63)]:
        assert sum(word in ask(rng, a, b) for _ in range(MANY)) > MANY / 50


def test_no_phrase_is_one_that_the_evaluation_keeps_for_itself():
    kept = {phrase.lower() for phrase in evaluation.COUNT_UP + evaluation.COUNT_DOWN}
    trained = {phrase.lower() for phrase in counting.ASKS}
    assert {phrase.lower() for phrase in ORDERS} & kept <= trained


@pytest.mark.parametrize(
    ("a", "b", "answer"),
    [
        (63, 58, "63, 62, 61, 60, 59, 58."),
        (98, 101, "98, 99, 100, 101."),
        (0, 90, "0, 1, 2"),
        (90, 0, "90, 89, 88"),
    ],
)
def test_an_answer_is_the_corpus_own_and_a_long_one_only_its_beginning(a, b, answer):
    drill = Drill("", a, b)
    assert drill.answer == answer
    assert drill.answer == counting.count(a, b)[: len(answer)]
    assert drill.whole == answer.endswith(".")


def test_a_row_has_the_tokens_of_the_document_as_the_corpus_writes_it(tokenizer):
    document = Document().user("Count from 63 to 58").assistant("63, 62, 61, 60, 59, 58.")
    written = render(TEMPLATE, document)
    made = row(tokenizer, TEMPLATE, Drill("Count from 63 to 58", 63, 58))
    assert tokenizer.decode(made.tokens, skip_special_tokens=False) + "\n" == written
    assert made.tokens == tokenizer.encode(written, add_special_tokens=False).ids[:-1]


def test_a_long_count_has_no_end_to_learn(tokenizer):
    made = row(tokenizer, TEMPLATE, Drill("Count from 90 to 3", 90, 3))
    text = tokenizer.decode(made.tokens, skip_special_tokens=False)
    assert text == f"{START}user\nCount from 90 to 3{END}\n{START}assistant\n90, 89, 88"


@pytest.mark.parametrize(
    ("a", "b", "before", "telling"),
    [
        (63, 58, "63, ", "62"),
        (58, 63, "58, ", "59"),
        (0, 5, "0, ", "1"),
        (5, 0, "5, ", "4"),
        (103, 96, "103, 1", "02"),
        (101, 98, "101, 1", "00"),
        (100, 97, "100, ", "99"),
        (100, 103, "100, ", "1"),
        (99, 102, "99, ", "1"),
        (2000, 1996, "2000, ", "19"),
    ],
)
def test_the_token_that_tells_the_direction_weighs_more_than_the_others(
    tokenizer, a, b, before, telling
):
    made = row(tokenizer, TEMPLATE, Drill(f"Count from {a} to {b}", a, b))
    weighty = [place for place, weight in enumerate(made.weights) if weight == TELLING]
    assert [tokenizer.id_to_token(made.tokens[place]) for place in weighty] == [telling]
    answer = tokenizer.encode(f"{counting.count(a, b)}{END}", add_special_tokens=False).ids
    asked = len(made.tokens) - len(answer)
    assert made.tokens[asked:] == answer
    assert set(made.weights[:asked]) == {0}
    assert Counter(made.weights[asked:]) == {TELLING: 1, FOLLOWING: len(answer) - 1}
    assert tokenizer.decode(made.tokens[asked : weighty[0]]) == before


def test_a_row_is_filled_up_with_what_weighs_nothing():
    assert Row([7, 8], [0.0, 1.0]).padded(4) == Row([7, 8, 0, 0], [0.0, 1.0, 0.0, 0.0])


def test_batches_are_of_one_length_each_and_the_same_for_a_seed(tokenizer):
    def some(seed):
        return list(itertools.islice(batches(tokenizer, TEMPLATE, seed, 6), 12))

    first = some(1)
    assert first == some(1) != some(2)
    sizes = [{len(row.tokens) for row in rows} for rows in first]
    assert all(len(size) == 1 for size in sizes)
    assert all(len(row.weights) == len(row.tokens) for rows in first for row in rows)
    assert all(row.weights.count(TELLING) == 1 for rows in first for row in rows)
    assert [len(rows) for rows in first] == [6] * 12
    assert len(set.union(*sizes)) > 4
