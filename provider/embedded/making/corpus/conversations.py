"""Conversations that change their subject: a story, then a count, then a name told at the start."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from provider.embedded.making.corpus import counting, recall, stories, talk, verses
from provider.embedded.making.corpus.document import Document
from provider.embedded.making.corpus.names import person_name

__all__ = ["document", "introduced", "verse"]


@dataclass
class _Told:
    """What a conversation has settled: names, the tone of the answers, facts to ask for."""

    user: str = ""
    own: str = ""
    before: str = ""
    after: str = ""
    facts: dict[str, recall.Fact] = field(default_factory=dict)  # by what they tell


Exchange = list[tuple[str, str]]  # questions with their answers, one after the other
Topic = Callable[[random.Random, _Told], Exchange]


def _story(rng: random.Random, told: _Told) -> Exchange:
    text, about, short = stories.request(rng)
    story, facts = stories.tell(rng, about, short=short)
    return _with(rng, (text, story), lambda: stories.follow_up(rng, about, facts))


def _count(rng: random.Random, told: _Told) -> Exchange:
    asked = counting.request(rng, longest=20)
    return _with(rng, (asked.text, asked.answer), lambda: counting.again(rng, asked)[:2])


def _with(
    rng: random.Random, first: tuple[str, str], then: Callable[[], tuple[str, str]]
) -> Exchange:
    return [first, then()] if rng.random() < 0.2 else [first]


def _haiku(rng: random.Random, told: _Told) -> Exchange:
    return [verses.haiku_request(rng)]


def _poem(rng: random.Random, told: _Told) -> Exchange:
    return [verses.poem_request(rng)]


def _joke(rng: random.Random, told: _Told) -> Exchange:
    return [talk.joke(rng)]


def _short(rng: random.Random, told: _Told) -> Exchange:
    return [talk.exchange(rng, told.own)]


def _unknown(rng: random.Random, told: _Told) -> Exchange:
    return [talk.unknown(rng)]


def _repeat(rng: random.Random, told: _Told) -> Exchange:
    return [recall.repeat(rng)]


def _name_of_user(rng: random.Random, told: _Told) -> Exchange:
    asked = rng.choice(recall.USER_NAME_ASKS)
    if told.user:
        return [(asked, f"Your name is {told.user}.")]
    return [(asked, recall.UNTOLD_NAME)]


def _introduction(rng: random.Random, told: _Told) -> Exchange:
    told.user = person_name(rng)
    if rng.random() < 0.25:
        return [recall.name_in_one_turn(rng, told.user)]
    return [recall.introduction(rng, told.user)]


NAMINGS = [
    "Your name is {n}.",
    "I will call you {n}.",
    "You are called {n} now.",
    "your name is {n}",
]


def _naming(rng: random.Random, told: _Told) -> Exchange:
    told.own = person_name(rng)
    return [(rng.choice(NAMINGS).format(n=told.own), f"My name is {told.own}.")]


def _own_name(rng: random.Random, told: _Told) -> Exchange:
    return [(rng.choice(talk.WHO), f"My name is {told.own}." if told.own else talk.NO_NAME)]


def _tone(rng: random.Random, told: _Told) -> Exchange:
    prompt, told.before, told.after = talk.tone_of(rng)
    return [(prompt, "I will do that.")]


def _fact(rng: random.Random, told: _Told) -> Exchange:
    fact = recall.fact(rng)
    told.facts[fact.what] = fact
    return [(fact.told, fact.said)]


def _ask_fact(rng: random.Random, told: _Told) -> Exchange:
    fact = rng.choice(list(told.facts.values()))
    return [(fact.asked, fact.answer)]


TOPICS: dict[Topic, float] = {
    _story: 0.22,
    _count: 0.20,
    _haiku: 0.08,
    _poem: 0.07,
    _joke: 0.08,
    _short: 0.12,
    _unknown: 0.09,
    _repeat: 0.05,
    _name_of_user: 0.05,
    _own_name: 0.02,
    _fact: 0.02,
}
BEGINNINGS: dict[Topic, float] = {
    _introduction: 0.3,
    _naming: 0.1,
    _tone: 0.25,
    _fact: 0.13,
    _short: 0.22,
}


def _drawn(rng: random.Random, topics: dict[Topic, float]) -> Topic:
    return rng.choices(list(topics), list(topics.values()))[0]


def _add(rng: random.Random, doc: Document, told: _Told, topic: Topic) -> None:
    for question, answer in topic(rng, told):
        doc.user(question).assistant(f"{told.before}{answer}{told.after}")


def document(rng: random.Random) -> Document:
    """Return a conversation of two to five topics, each unlike the one before."""
    doc, told, last = Document(), _Told(), None
    if rng.random() < 0.5:
        _add(rng, doc, told, _drawn(rng, BEGINNINGS))
    for _ in range(rng.choice([2, 2, 3, 3, 3, 4])):
        topic = _drawn(rng, TOPICS)
        if topic is not last or topic is _story:
            _add(rng, doc, told, topic)
        last = topic
    if (told.user or told.own or told.facts) and rng.random() < 0.7:
        _add(rng, doc, told, _told_before(rng, told))
    return doc.system(rng.choice(talk.PLAIN)) if rng.random() < 0.15 else doc


def _told_before(rng: random.Random, told: _Told) -> Topic:
    """Return a question about something that the conversation has settled."""
    settled = {_name_of_user: told.user, _own_name: told.own, _ask_fact: told.facts}
    return rng.choice([topic for topic, value in settled.items() if value])


def introduced(rng: random.Random) -> Document:
    """Return a short conversation about what was told or said, dense in names."""
    doc, told = Document(), _Told()
    for _ in range(rng.choice([1, 1, 2, 2, 3])):
        _add(
            rng,
            doc,
            told,
            _drawn(rng, {_introduction: 0.4, _naming: 0.1, _fact: 0.2, _repeat: 0.3}),
        )
        if rng.random() < 0.3:
            _add(rng, doc, told, rng.choice([_count, _joke, _haiku, _unknown, _short]))
        if rng.random() < 0.7 and (told.user or told.own or told.facts):
            _add(rng, doc, told, _told_before(rng, told))
    return doc


def verse(rng: random.Random) -> Document:
    """Return one or two verses."""
    doc, told = Document(), _Told()
    for topic in rng.choices([_haiku, _poem, _joke], [0.5, 0.4, 0.1], k=rng.choice([1, 2])):
        _add(rng, doc, told, topic)
    return doc
