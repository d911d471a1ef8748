"""The evaluation's own names and phrasings, which training has never seen."""

import itertools
import json
import random

import pytest

from provider.embedded.making import held_out
from provider.embedded.making.corpus import counting, documents, recall, talk

MANY = 2000


def test_names_are_of_one_two_or_three_words_and_many_have_accents():
    rng = random.Random(1)
    names = [held_out.name(rng) for _ in range(MANY)]
    assert len(set(names)) > 0.95 * MANY
    for words in (1, 2, 3):
        assert sum(len(name.split()) == words for name in names) > MANY / 20
    assert MANY / 3 < sum(not name.isascii() for name in names) < MANY
    assert all(json.dumps(name, ensure_ascii=False) == f'"{name}"' for name in names)


def test_the_corpus_has_none_of_the_names():
    rng = random.Random(2)
    texts = [
        json.dumps([document.messages, document.tools], ensure_ascii=False)
        for document in itertools.islice(documents(3), 1000)
    ]
    whole = "\n".join(texts)
    names = [name for name in (held_out.name(rng) for _ in range(MANY)) if len(name) > 6]
    assert not [name for name in names if name in whole]


@pytest.mark.parametrize(
    ("own", "trained", "shared"),
    [
        (held_out.COUNT_UP, counting.ASKS + counting.UP, 3),
        (held_out.COUNT_TO, counting.TO, 2),
        (held_out.COUNT_DOWN, counting.DOWN, 2),
        (held_out.COUNT_EITHER_WAY, counting.ASKS, 2),
        (held_out.INTRODUCED, recall.INTRODUCTIONS, 1),
        (held_out.NAME_ASKED, recall.USER_NAME_ASKS, 3),
        (held_out.JOKE, talk.JOKE_ASKS, 1),
        (held_out.BEYOND, talk.UNKNOWN, 0),
    ],
)
def test_most_phrasings_are_its_own(own, trained, shared):
    assert len(set(own)) == len(own)
    assert len(set(own) & set(trained)) <= shared
