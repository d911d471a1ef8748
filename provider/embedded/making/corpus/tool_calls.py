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
from provider.embedded.making.corpus.names import any_name, person_name
from provider.embedded.making.corpus.phrases import TIMELY, in_passing, told_to
from provider.embedded.making.corpus.words import THINGS, listed, made_up_word, place_name

__all__ = [
    "BOTH",
    "KINDS",
    "Kind",
    "Question",
    "document",
    "made_up_kind",
    "offer",
    "offers",
    "question",
]

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
    results: Callable[[random.Random, list[Any]], tuple[Any, str]]
    orders: tuple[str, ...] = ()  # asks that other words may stand around
    ends_in_text: bool = False  # so that words after a question would belong to an argument


def _city(rng: random.Random, test: bool) -> str:
    return place_name(rng, test=test) if rng.random() < 0.2 else any_name(rng, test=test)


def _person(rng: random.Random, test: bool) -> str:
    return person_name(rng, test=test)


def _word(rng: random.Random, test: bool) -> str:
    if test or rng.random() < 0.5:
        return made_up_word(rng, test=test, low=1, high=4)
    return any_name(rng) if rng.random() < 0.3 else rng.choice(THINGS)


def _text(rng: random.Random, test: bool) -> str:
    if test or rng.random() < 0.5:
        return _word(rng, test)
    return rng.choice(TEXTS)


def _small(rng: random.Random, test: bool) -> int:
    return rng.randint(2, 60)


def _large(rng: random.Random, test: bool) -> int:
    return rng.choice([rng.randint(2, 99), rng.randint(100, 999), rng.randint(1000, 9999)])


def _language(rng: random.Random, test: bool) -> str:
    return rng.choice(
        ["French", "German", "Spanish", "Italian", "Latin", "Greek", "Dutch", "Polish"]
    )


TEXTS = [
    "see you at noon",
    "I am late",
    "happy birthday",
    "call me back",
    "the door is open",
    "hello there",
    "good night",
    "we won the game",
    "bring the book",
    "all is well",
]
SKIES = ["sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear"]


def _weather(rng: random.Random, a: list[Any]) -> tuple[Any, str]:
    sky, degrees = rng.choice(SKIES), rng.randint(1, 38)
    if rng.random() < 0.15:
        return {rng.choice(SKY_KEYS): sky}, f"It is {sky} in {a[0]}."
    said = f"It is {sky} in {a[0]}, with {degrees} degrees."
    if rng.random() < 0.1:
        return f"{sky}, {degrees} degrees", said
    parts = [(rng.choice(SKY_KEYS), sky), (rng.choice(DEGREE_KEYS), degrees)]
    place = [("city", a[0])] if rng.random() < 0.15 else []
    return dict(place + (parts if rng.random() < 0.75 else parts[::-1])), said


SKY_KEYS = ["sky", "sky", "condition", "weather", "forecast", "description"]
DEGREE_KEYS = ["temperature", "temperature", "temp", "degrees", "temperature_c"]


def _time(rng: random.Random, a: list[Any]) -> tuple[Any, str]:
    clock = f"{rng.randint(10, 23)}:{rng.randint(10, 59)}"
    return {"time": clock}, f"It is {clock} in {a[0]}."


def _sum(rng: random.Random, a: list[Any]) -> tuple[Any, str]:
    return {"result": a[0] + a[1]}, f"The sum of {a[0]} and {a[1]} is {a[0] + a[1]}."


def _product(rng: random.Random, a: list[Any]) -> tuple[Any, str]:
    return {"result": a[0] * a[1]}, f"{a[0]} times {a[1]} is {a[0] * a[1]}."


def _timer(rng: random.Random, a: list[Any]) -> tuple[Any, str]:
    return {"ok": True}, f"The timer is set to {a[0]} minutes."


def _phone(rng: random.Random, a: list[Any]) -> tuple[Any, str]:
    phone = str(rng.randint(100000, 999999))
    return {"phone": phone}, f"The number of {a[0]} is {phone}."


def _music(rng: random.Random, a: list[Any]) -> tuple[Any, str]:
    return {"playing": a[0]}, f"Now playing {a[0]}."


def _message(rng: random.Random, a: list[Any]) -> tuple[Any, str]:
    return {"sent": True}, f"The message to {a[0]} is sent."


def _price(rng: random.Random, a: list[Any]) -> tuple[Any, str]:
    price = rng.randint(2, 99)
    return {"price": price}, f"The price of the {a[0]} is {price} euros."


def _table(rng: random.Random, a: list[Any]) -> tuple[Any, str]:
    return {"booked": True}, f"A table for {a[1]} at {a[0]} is booked."


def _distance(rng: random.Random, a: list[Any]) -> tuple[Any, str]:
    km = rng.randint(12, 999)
    return {"km": km}, f"From {a[0]} to {a[1]} it is {km} kilometres."


def _translation(rng: random.Random, a: list[Any]) -> tuple[Any, str]:
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
            "What's the weather in {0}?",
            "what is the weather in {0}",
            "Weather {0}",
            "How warm is it in {0}?",
            "Will it rain in {0} today?",
            "What is the weather like in {0} today?",
            "Check the weather in {0}, please.",
            "Do I need an umbrella in {0}?",
            "weather for {0}",
            "What is the weather forecast for {0}?",
            "Get me the forecast for {0}.",
            "{0} weather",
            "{0} forecast",
            "What will the weather be in {0}?",
            "I am travelling to {0}. How is the weather?",
            "I live in {0}. Will it rain?",
            "I'm in {0}, what's the weather?",
            "We are going to {0}. What is the weather there?",
            "Is it sunny in {0}?",
            "temperature in {0}",
            "What is the temperature of {0}?",
            "Can you look up the weather at {0}?",
            "I want to know the weather in {0}.",
            "{0}: what is the weather?",
        ),
        _weather,
        (
            "check the weather in {0}",
            "check how the weather is in {0}",
            "look up the weather for {0}",
            "find the weather in {0}",
            "get the weather for {0}",
            "tell me the weather in {0}",
            "tell me how warm it is in {0}",
            "tell me if it rains in {0}",
            "show me the weather in {0}",
            "give me the weather for {0}",
            "give me the forecast for {0}",
            "say what the weather is like in {0}",
            "see what the weather is at {0}",
            "find out whether it is cold in {0}",
        ),
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
            "What's the time in {0}?",
            "what time is it in {0}",
            "{0} time",
            "What is the local time in {0}?",
            "I'm flying to {0}. How late is it there?",
            "time for {0}",
            "My friend lives in {0}. What time is it there?",
            "{0}: what time is it?",
        ),
        _time,
        (
            "tell me the time in {0}",
            "tell me what time it is in {0}",
            "check the time in {0}",
            "look up the local time of {0}",
            "find out how late it is in {0}",
        ),
    ),
    Kind(
        ("add", "add_numbers", "sum", "plus"),
        "Add two numbers.",
        ((("a", "x", "first"), "integer", _large), (("b", "y", "second"), "integer", _large)),
        (
            "What is {0} plus {1}?",
            "Add {0} and {1}.",
            "How much is {0} plus {1}?",
            "{0} plus {1}",
            "What is {0} + {1}?",
            "{0} + {1}",
            "What's {0} plus {1}?",
            "add {0} and {1}",
        ),
        _sum,
    ),
    Kind(
        ("multiply", "times", "product"),
        "Multiply two numbers.",
        ((("a", "x", "first"), "integer", _small), (("b", "y", "second"), "integer", _small)),
        (
            "What is {0} times {1}?",
            "Multiply {0} by {1}.",
            "How much is {0} times {1}?",
            "What is {0} * {1}?",
            "{0} times {1}",
        ),
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
        (
            "What is the phone number of {0}?",
            "Find the number of {0}.",
            "How can I call {0}?",
            "phone number of {0}",
            "I need to reach {0}",
            "{0}, phone number?",
            "I lost the number of {0}. Can you find it?",
            "Look {0} up in the phone book.",
        ),
        _phone,
        ("find the phone number of {0}", "tell me the number of {0}", "look up the phone of {0}"),
    ),
    Kind(
        ("play_music", "play", "music"),
        "Play the music of an artist.",
        ((("artist", "name"), "string", _person),),
        (
            "Play some music by {0}.",
            "Play {0}.",
            "I want to hear {0}.",
            "Put on {0}, please.",
            "Can you play {0}?",
            "play {0}",
            "Something by {0}, please.",
            "{0}, please. Some music.",
            "I like {0}. Play it.",
        ),
        _music,
        ("play {0}", "play something by {0}", "put on some music by {0}", "find me a song by {0}"),
    ),
    Kind(
        ("send_message", "message", "text_person"),
        "Send a message to a person.",
        ((("to", "person", "name"), "string", _person), (("text", "message"), "string", _text)),
        ("Send {0} the message {1}.", "Tell {0} this: {1}", "Write to {0}: {1}"),
        _message,
        ends_in_text=True,
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

WEATHER = KINDS[0]

VERBS = listed("""
open close find start stop show read delete call order buy lock move check clean count save print send update
create rename hide mute water feed charge repair follow visit invite greet paint turn_on turn_off look_up search
""")
NOUNS = listed("""
door window file note song light ticket room report user account page list table lamp robot plant car order
parcel meeting event task contact recipe book film station street house team project server machine camera
""")
PARAMETERS = ["name", "id", "target", "query", "title", "value", "which", "key", "text"]


def _done(rng: random.Random, a: list[Any]) -> tuple[Any, str]:
    return rng.choice([{"ok": True}, {"status": "done"}, {"success": True}, "done"]), "Done."


def _found(rng: random.Random, a: list[Any]) -> tuple[Any, str]:
    value = rng.choice([any_name(rng), made_up_word(rng), str(rng.randint(2, 9999))])
    return {rng.choice(["result", "result", "value", "answer"]): value}, f"The result is {value}."


def made_up_kind(rng: random.Random) -> Kind:
    """Return a kind of tool that is made up on the spot, so that a schema has to be read."""
    words, noun = rng.choice(VERBS), rng.choice(NOUNS)
    verb = words.replace(" ", "_")
    camel = verb.split("_")[0] + noun.capitalize()
    parameter = (rng.choice([*PARAMETERS, noun, f"{noun}_name"]),)
    return Kind(
        (rng.choice([f"{verb}_{noun}", f"{verb}_{noun}", camel, f"{noun}_{verb}", verb]),),
        f"{words.capitalize()} a {noun}.",
        ((parameter, "string", _named),),
        (
            f"{words.capitalize()} the {noun} {{0}}.",
            f"{words} the {noun} {{0}}",
            f"Please {words} the {noun} {{0}}.",
            f"Can you {words} the {noun} {{0}}?",
            f"{words.capitalize()} {{0}}.",
            f"I want to {words} the {noun} called {{0}}.",
        ),
        rng.choice([_done, _found]),
    )


def _named(rng: random.Random, test: bool) -> str:
    return any_name(rng, test=test) if rng.random() < 0.6 else _word(rng, test)


@dataclass(frozen=True)
class Question:
    """A user's question, the tool call that it needs, the call's result, and the answer to it."""

    text: str
    name: str
    arguments: dict[str, Any]
    result: Any
    answer: str


EXTRAS: tuple[tuple[str, dict[str, Any]], ...] = (  # parameters that need no argument
    ("unit", {"type": "string", "enum": ["celsius", "fahrenheit"]}),
    ("lang", {"type": "string"}),
    ("limit", {"type": "integer"}),
    ("verbose", {"type": "boolean"}),
)


@dataclass(frozen=True)
class Offer:
    """A tool as it is offered to the model: its kind, under chosen names.

    With `described`, each parameter has a description; `extra` is one that nothing has to fill.
    """

    kind: Kind
    name: str
    parameters: tuple[str, ...]
    described: bool = False
    extra: tuple[str, dict[str, Any]] | None = None

    def schema(self) -> dict[str, Any]:
        """Return the tool's definition as `{"type": "function", "function": {…}}`."""
        properties: dict[str, dict[str, Any]] = {
            name: {"type": json_type}
            for name, (_, json_type, _) in zip(self.parameters, self.kind.parameters, strict=True)
        }
        if self.described:
            for name, parameter in properties.items():
                parameter["description"] = f"The {name.replace('_', ' ')}"
        required = list(properties)
        if self.extra:
            properties[self.extra[0]] = self.extra[1]
        parameters = {"type": "object", "properties": properties, "required": required}
        function = {
            "name": self.name,
            "description": self.kind.description,
            "parameters": parameters,
        }
        return {"type": "function", "function": function}


def offer(rng: random.Random, kind: Kind) -> Offer:
    """Return a tool of this kind under a random choice of its names."""
    names = tuple(rng.choice(p[0]) for p in kind.parameters)
    described, extra = rng.random() < 0.2, rng.choice(EXTRAS) if rng.random() < 0.1 else None
    return Offer(kind, rng.choice(kind.names), names, described, extra)


def offers(rng: random.Random) -> list[Offer]:
    """Return one to four tools under different names, some of them made up on the spot."""
    count = rng.choice([1, 1, 1, 2, 2, 3, 4])
    kinds = [
        made_up_kind(rng) if rng.random() < 0.25 else kind for kind in rng.sample(KINDS, count)
    ]
    if rng.random() < 0.25 and WEATHER not in kinds:  # what is asked for most
        kinds[0] = WEATHER
    made = {tool.name: tool for tool in (offer(rng, kind) for kind in kinds)}
    return list(made.values())


def question(rng: random.Random, tool: Offer, *, test: bool = False) -> Question:
    """Return a question that needs this tool; with `test`, its names are never in training."""
    values = [make(rng, test) for _, _, make in tool.kind.parameters]
    result, answer = tool.kind.results(rng, values)
    return Question(
        _worded(rng, tool.kind, values),
        tool.name,
        dict(zip(tool.parameters, values, strict=True)),
        result,
        answer,
    )


def _worded(rng: random.Random, kind: Kind, values: list[Any]) -> str:
    if kind.orders and rng.random() < 0.3:
        return told_to(rng, rng.choice(kind.orders).format(*values))
    text = rng.choice(kind.asks).format(*values)
    return text if kind.ends_in_text else in_passing(rng, text, TIMELY)


BOTH = ["{0}\n{1}", "{0}\nAnd this: {1}", "Two things.\n{0}\n{1}", "1. {0}\n2. {1}"]


FAILURES = ["not found", "timeout", "no access", "unknown name", "not available"]


def document(rng: random.Random) -> Document:
    """Return a conversation with tools on offer: several calls, or a question that fits none."""
    tools = offers(rng)
    doc = Document(tools=[tool.schema() for tool in tools])
    if rng.random() < 0.12:
        doc.system(rng.choice(talk.PLAIN))
    if rng.random() < 0.1:
        return _thinking(rng, doc, rng.choice(tools))
    for _ in range(rng.randint(2, 5)):
        kind = rng.random()
        if kind < 0.82:
            how_many = 2 if rng.random() < 0.2 else 1
            if not _asked(rng, doc, [question(rng, rng.choice(tools)) for _ in range(how_many)]):
                break
        elif kind < 0.88:
            asked = counting.request(rng, longest=10)
            doc.user(asked.text).assistant(asked.answer)
        elif kind < 0.92:
            said, answer = talk.joke(rng)
            doc.user(said).assistant(answer)
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
    if rng.random() < 0.25:
        return False
    compact, answers = rng.random() < 0.5, []
    for one in questions:
        result, answer = one.result, one.answer
        if rng.random() < 0.05:
            why = rng.choice(FAILURES)
            result, answer = {"error": why}, f"That did not work: {why}."
        doc.result(result, compact=compact)
        answers.append(answer)
    doc.assistant(" ".join(answers))
    return True


def _thinking(rng: random.Random, doc: Document, tool: Offer) -> Document:
    asked = question(rng, tool)
    doc.thinking = True
    doc.user(asked.text).call((asked.name, asked.arguments))
    doc.messages[-1]["content"] = (
        f"<think>The tool {asked.name} fits this question. I call it.</think>"
    )
    return doc
