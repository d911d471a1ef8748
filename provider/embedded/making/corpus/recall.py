"""What the user tells of themselves or says word for word, to be told again later."""

from __future__ import annotations

import random
from dataclasses import dataclass

from provider.embedded.making.corpus.names import any_name
from provider.embedded.making.corpus.words import ANIMALS, THINGS, listed, made_up_word

__all__ = [
    "UNTOLD_NAME",
    "USER_NAME_ASKS",
    "Fact",
    "fact",
    "introduction",
    "name_in_one_turn",
    "repeat",
]

INTRODUCTIONS = [
    "My name is {n}.",
    "my name is {n}",
    "I am {n}.",
    "I'm {n}.",
    "i'm {n}",
    "Hello, I am {n}.",
    "Hi, I'm {n}!",
    "Hi, my name is {n}.",
    "Call me {n}.",
    "You can call me {n}",
    "Hey, {n} here.",
    "My name's {n}.",
    "This is {n} speaking.",
    "Please remember that my name is {n}.",
    "I am called {n}",
    "People call me {n}.",
    "Just call me {n}",
    "They call me {n}.",
    "Everybody calls me {n}.",
    "You could call me {n}.",
    "Feel free to call me {n}.",
    "Please call me {n}",
    "I go by {n}.",
    "The name is {n}.",
    "Hello! My name is {n}, nice to meet you.",
    "Good evening, I am {n}.",
]
GREETINGS = ["Hello {n}! What shall I do for you?", "Nice to meet you, {n}."]
USER_NAME_ASKS = [
    "What's my name?",
    "What is my name?",
    "what's my name",
    "what is my name?",
    "Who am I?",
    "Do you know my name?",
    "Do you remember my name?",
    "Can you tell me my name?",
    "What am I called?",
    "Tell me my name.",
    "Say my name.",
]
USER_NAME = "Your name is {n}."
UNTOLD_NAME = "You have not told me your name."
FACTS = {  # what is told, to what kind of value
    "favourite colour": "colour",
    "favorite color": "colour",
    "favourite animal": "animal",
    "dog's name": "name",
    "cat's name": "name",
    "friend's name": "name",
    "sister's name": "name",
    "home town": "name",
    "city": "name",
    "street": "name",
    "company": "name",
    "boat's name": "name",
    "lucky number": "number",
    "age": "number",
    "house number": "number",
    "password": "word",
    "secret word": "word",
    "favourite word": "word",
    "favourite thing": "thing",
}
COLOURS = listed("red blue green yellow orange purple pink black white brown grey silver golden")
TELL_FACT = [
    "My {f} is {v}.",
    "my {f} is {v}",
    "Remember: my {f} is {v}.",
    "My {f} is {v}, by the way.",
]
TOLD_FACT = ["I will remember that.", "Good to know: your {f} is {v}."]
ASK_FACT = [
    "What is my {f}?",
    "what is my {f}",
    "What's my {f}?",
    "Do you remember my {f}?",
    "Tell me my {f}.",
]
REPEATS = [
    "Say {v}",
    "Repeat after me: {v}",
    "Say: {v}",
    "Repeat: {v}",
    "say {v}",
    "Please say {v}",
    "Echo {v}",
]
TOGETHER = ["{a} {b}", "{a} {b}", "{a}\n{b}", "{a} And now: {b}"]


def introduction(rng: random.Random, name: str) -> tuple[str, str]:
    """Return how a user tells their name, and the greeting that it gets."""
    return rng.choice(INTRODUCTIONS).format(n=name), rng.choice(GREETINGS).format(n=name)


def name_in_one_turn(rng: random.Random, name: str) -> tuple[str, str]:
    """Return a turn that tells the name and asks for it, and the answer."""
    told = rng.choice(INTRODUCTIONS).format(n=name)
    end = "" if told[-1] in ".!" else "."
    asked = rng.choice(TOGETHER).format(a=told + end, b=rng.choice(USER_NAME_ASKS))
    return asked, USER_NAME.format(n=name)


def _value(rng: random.Random, kind: str) -> str:
    match kind:
        case "colour":
            return rng.choice(COLOURS)
        case "animal":
            return f"the {rng.choice(ANIMALS)}"
        case "thing":
            return f"the {rng.choice(THINGS)}"
        case "number":
            return str(rng.choice([rng.randint(2, 99), rng.randint(100, 9999)]))
        case "word":
            return made_up_word(rng, low=1, high=4)
        case _:
            return any_name(rng)


@dataclass(frozen=True)
class Fact:
    """Something that the user tells, with what is said to it, and how it is asked for later."""

    what: str
    told: str
    said: str
    asked: str
    answer: str


def fact(rng: random.Random) -> Fact:
    """Return something that a user may tell of themselves."""
    what = rng.choice(list(FACTS))
    given = {"f": what, "v": _value(rng, FACTS[what])}
    texts = (rng.choice(TELL_FACT), rng.choice(TOLD_FACT), rng.choice(ASK_FACT), "Your {f} is {v}.")
    return Fact(what, *(text.format(**given) for text in texts))


def repeat(rng: random.Random) -> tuple[str, str]:
    """Return a request to say something word for word, and the answer."""
    said = " ".join(
        any_name(rng) if rng.random() < 0.6 else made_up_word(rng, low=1, high=3)
        for _ in range(rng.choice([1, 1, 2, 2, 3, 4]))
    )
    return rng.choice(REPEATS).format(v=said), said
