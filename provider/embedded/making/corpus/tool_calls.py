"""Calling tools: names and parameters are copied from the schema, arguments from the question.

Each kind of tool comes under several names with several parameter names, so that the model reads
the schema instead of learning it by heart. Some questions fit none of the tools on offer.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from provider.embedded.making.corpus import counting, talk
from provider.embedded.making.corpus.document import Document
from provider.embedded.making.corpus.words import (
    PEOPLE,
    THINGS,
    made_up_name,
    made_up_word,
    place_name,
)

__all__ = ["BOTH", "KINDS", "Kind", "Question", "document", "offer", "question"]

Maker = Callable[[random.Random, bool], Any]


@dataclass(frozen=True)
class Kind:
    """A kind of tool, with the names and parameter names that a document may choose from.

    Each parameter is (names to choose from, JSON type, function that makes a value).
    """

    names: tuple[str, ...]
    description: str
    parameters: tuple[tuple[tuple[str, ...], str, Maker], ...]
    asks: tuple[str, ...]  # with {0}, {1} for the arguments
    results: Callable[[random.Random, list[Any]], tuple[dict[str, Any], str]]


def _city(rng: random.Random, test: bool) -> str:
    return place_name(rng, test=test)


def _person(rng: random.Random, test: bool) -> str:
    return made_up_name(rng, test=test) if test or rng.random() < 0.8 else rng.choice(PEOPLE)


def _word(rng: random.Random, test: bool) -> str:
    return made_up_word(rng, test=test) if test or rng.random() < 0.7 else rng.choice(THINGS)


def _small(rng: random.Random, test: bool) -> int:
    return rng.randint(2, 60)


def _large(rng: random.Random, test: bool) -> int:
    return rng.choice([rng.randint(2, 99), rng.randint(100, 999), rng.randint(1000, 9999)])


def _language(rng: random.Random, test: bool) -> str:
    return rng.choice(
        ["French", "German", "Spanish", "Italian", "Latin", "Greek", "Dutch", "Polish"]
    )


SKIES = ["sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear"]


def _weather(rng: random.Random, a: list[Any]) -> tuple[dict[str, Any], str]:
    sky, degrees = rng.choice(SKIES), rng.randint(1, 38)
    return {"sky": sky, "temperature": degrees}, f"It is {sky} in {a[0]}, with {degrees} degrees."


def _time(rng: random.Random, a: list[Any]) -> tuple[dict[str, Any], str]:
    clock = f"{rng.randint(10, 23)}:{rng.randint(10, 59)}"
    return {"time": clock}, f"It is {clock} in {a[0]}."


def _sum(rng: random.Random, a: list[Any]) -> tuple[dict[str, Any], str]:
    return {"result": a[0] + a[1]}, f"The sum of {a[0]} and {a[1]} is {a[0] + a[1]}."


def _product(rng: random.Random, a: list[Any]) -> tuple[dict[str, Any], str]:
    return {"result": a[0] * a[1]}, f"{a[0]} times {a[1]} is {a[0] * a[1]}."


def _timer(rng: random.Random, a: list[Any]) -> tuple[dict[str, Any], str]:
    return {"ok": True}, f"The timer is set to {a[0]} minutes."


def _phone(rng: random.Random, a: list[Any]) -> tuple[dict[str, Any], str]:
    phone = str(rng.randint(100000, 999999))
    return {"phone": phone}, f"The number of {a[0]} is {phone}."


def _music(rng: random.Random, a: list[Any]) -> tuple[dict[str, Any], str]:
    return {"playing": a[0]}, f"Now playing {a[0]}."


def _message(rng: random.Random, a: list[Any]) -> tuple[dict[str, Any], str]:
    return {"sent": True}, f"The message to {a[0]} is sent."


def _price(rng: random.Random, a: list[Any]) -> tuple[dict[str, Any], str]:
    price = rng.randint(2, 99)
    return {"price": price}, f"The price of the {a[0]} is {price} euros."


def _table(rng: random.Random, a: list[Any]) -> tuple[dict[str, Any], str]:
    return {"booked": True}, f"A table for {a[1]} at {a[0]} is booked."


def _distance(rng: random.Random, a: list[Any]) -> tuple[dict[str, Any], str]:
    km = rng.randint(12, 999)
    return {"km": km}, f"From {a[0]} to {a[1]} it is {km} kilometres."


def _translation(rng: random.Random, a: list[Any]) -> tuple[dict[str, Any], str]:
    word = made_up_word(rng)
    return {"translation": word}, f"In {a[1]}, {a[0]} is {word}."


KINDS: tuple[Kind, ...] = (
    Kind(
        ("get_weather", "weather", "current_weather", "weather_in"),
        "Tell the weather in a city.",
        ((("city", "location", "place"), "string", _city),),
        (
            "What is the weather in {0}?",
            "How is the weather in {0}?",
            "Is it raining in {0}?",
            "weather in {0}",
            "Tell me the weather in {0}.",
            "What's the weather like in {0}?",
        ),
        _weather,
    ),
    Kind(
        ("get_time", "time_in", "clock", "current_time"),
        "Tell the time in a city.",
        ((("city", "location", "place"), "string", _city),),
        (
            "What time is it in {0}?",
            "How late is it in {0}?",
            "Tell me the time in {0}.",
            "time in {0}",
        ),
        _time,
    ),
    Kind(
        ("add", "add_numbers", "sum", "plus"),
        "Add two numbers.",
        ((("a", "x", "first"), "integer", _large), (("b", "y", "second"), "integer", _large)),
        ("What is {0} plus {1}?", "Add {0} and {1}.", "How much is {0} plus {1}?", "{0} plus {1}"),
        _sum,
    ),
    Kind(
        ("multiply", "times", "product"),
        "Multiply two numbers.",
        ((("a", "x", "first"), "integer", _small), (("b", "y", "second"), "integer", _small)),
        ("What is {0} times {1}?", "Multiply {0} by {1}.", "How much is {0} times {1}?"),
        _product,
    ),
    Kind(
        ("set_timer", "timer", "start_timer"),
        "Set a timer.",
        ((("minutes", "duration"), "integer", _small),),
        (
            "Set a timer for {0} minutes.",
            "Wake me in {0} minutes.",
            "Start a timer of {0} minutes.",
            "timer {0} minutes",
        ),
        _timer,
    ),
    Kind(
        ("find_phone", "phone_number", "lookup_phone"),
        "Find the phone number of a person.",
        ((("name", "person"), "string", _person),),
        ("What is the phone number of {0}?", "Find the number of {0}.", "How can I call {0}?"),
        _phone,
    ),
    Kind(
        ("play_music", "play", "music"),
        "Play the music of an artist.",
        ((("artist", "name"), "string", _person),),
        ("Play some music by {0}.", "Play {0}.", "I want to hear {0}.", "Put on {0}, please."),
        _music,
    ),
    Kind(
        ("send_message", "message", "text_person"),
        "Send a message to a person.",
        ((("to", "person", "name"), "string", _person), (("text", "message"), "string", _word)),
        ("Send {0} the message {1}.", "Tell {0} this: {1}", "Write to {0}: {1}"),
        _message,
    ),
    Kind(
        ("get_price", "price", "price_of"),
        "Tell the price of an item.",
        ((("item", "product"), "string", _word),),
        ("How much is the {0}?", "What does the {0} cost?", "What is the price of the {0}?"),
        _price,
    ),
    Kind(
        ("book_table", "reserve", "reservation"),
        "Book a table in a restaurant.",
        ((("restaurant", "name"), "string", _person), (("people", "guests"), "integer", _small)),
        (
            "Book a table at {0} for {1}.",
            "Reserve a table for {1} at {0}.",
            "A table for {1} at {0}, please.",
        ),
        _table,
    ),
    Kind(
        ("distance", "get_distance", "how_far"),
        "Tell the distance between two cities.",
        (
            (("start", "from_city", "origin"), "string", _city),
            (("end", "to_city", "destination"), "string", _city),
        ),
        (
            "How far is it from {0} to {1}?",
            "What is the distance from {0} to {1}?",
            "distance from {0} to {1}",
        ),
        _distance,
    ),
    Kind(
        ("translate", "translation", "translate_word"),
        "Translate a word.",
        ((("word", "text"), "string", _word), (("language", "target"), "string", _language)),
        ("What is {0} in {1}?", "Translate {0} into {1}.", "How do you say {0} in {1}?"),
        _translation,
    ),
)


@dataclass(frozen=True)
class Question:
    """A user's question, the tool call that it needs, the call's result, and the answer to it."""

    text: str
    name: str
    arguments: dict[str, Any]
    result: dict[str, Any]
    answer: str


@dataclass(frozen=True)
class Offer:
    """A tool as it is offered to the model: its kind, under chosen names."""

    kind: Kind
    name: str
    parameters: tuple[str, ...]

    def schema(self) -> dict[str, Any]:
        """Return the tool's definition as `{"type": "function", "function": {…}}`."""
        properties = {
            name: {"type": json_type}
            for name, (_, json_type, _) in zip(self.parameters, self.kind.parameters, strict=True)
        }
        parameters = {"type": "object", "properties": properties, "required": list(properties)}
        function = {
            "name": self.name,
            "description": self.kind.description,
            "parameters": parameters,
        }
        return {"type": "function", "function": function}


def offer(rng: random.Random, kind: Kind) -> Offer:
    """Return a tool of this kind under a random choice of its names."""
    return Offer(kind, rng.choice(kind.names), tuple(rng.choice(p[0]) for p in kind.parameters))


def question(rng: random.Random, tool: Offer, *, test: bool = False) -> Question:
    """Return a question that needs this tool; with `test`, its names are never in training."""
    values = [make(rng, test) for _, _, make in tool.kind.parameters]
    result, answer = tool.kind.results(rng, values)
    return Question(
        rng.choice(tool.kind.asks).format(*values),
        tool.name,
        dict(zip(tool.parameters, values, strict=True)),
        result,
        answer,
    )


BOTH = ["{0}\n{1}", "{0}\nAnd this: {1}", "Two things.\n{0}\n{1}", "1. {0}\n2. {1}"]


def document(rng: random.Random) -> Document:
    """Return a conversation with tools on offer: several calls, or a question that fits none."""
    offers = [offer(rng, kind) for kind in rng.sample(KINDS, rng.choice([1, 1, 2, 2, 3, 4]))]
    doc = Document(tools=[tool.schema() for tool in offers])
    if rng.random() < 0.12:
        doc.system(rng.choice(talk.PLAIN))
    if rng.random() < 0.12:
        return _thinking(rng, doc, rng.choice(offers))
    for _ in range(rng.randint(2, 5)):
        kind = rng.random()
        if kind < 0.85:
            how_many = 2 if rng.random() < 0.1 else 1
            if not _asked(rng, doc, [question(rng, rng.choice(offers)) for _ in range(how_many)]):
                break
        elif kind < 0.93:
            a, b = counting.span(rng, longest=8)
            doc.user(counting.ask(rng, a, b)).assistant(counting.count(a, b))
        else:
            questions, answers = rng.choice(talk.GATEWAY)
            doc.user(rng.choice(questions)).assistant(rng.choice(answers))
    return doc


def _asked(rng: random.Random, doc: Document, questions: list[Question]) -> bool:
    """Add a user's turn with one or two questions, and the calls that they need.

    Mostly the calls' results and the answer follow; returns whether they do.
    """
    texts = [one.text for one in questions]
    doc.user(texts[0] if len(texts) == 1 else rng.choice(BOTH).format(*texts))
    doc.call(*((one.name, one.arguments) for one in questions))
    if rng.random() < 0.2:
        return False
    for one in questions:
        doc.result(one.result)
    doc.assistant(" ".join(one.answer for one in questions))
    return True


def _thinking(rng: random.Random, doc: Document, tool: Offer) -> Document:
    asked = question(rng, tool)
    doc.thinking = True
    doc.user(asked.text).call((asked.name, asked.arguments))
    doc.messages[-1]["content"] = (
        f"<think>The tool {asked.name} fits this question. I call it.</think>"
    )
    return doc
