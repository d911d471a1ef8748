"""Counting up and down, in the ways that people ask for it, and questions about it afterwards."""

from __future__ import annotations

import random
from dataclasses import dataclass

from provider.embedded.making.corpus.document import Document
from provider.embedded.making.corpus.phrases import asked_for, in_passing, told_to
from provider.embedded.making.corpus.words import held_out, listed

__all__ = [
    "Count",
    "again",
    "ask",
    "count",
    "count_of",
    "document",
    "drill",
    "plan",
    "request",
    "span",
    "write",
]

HIGHEST = 150
LONGEST = 40
LAST_DOWN = 1  # a count that ends here or lower goes down, whatever the words say
WORDS = listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)

ASKS = [
    "Count from {a} to {b}",
    "Count from {a} to {b}.",
    "Please count from {a} to {b}.",
    "Can you count from {a} to {b}?",
    "count from {a} to {b}",
    "Say the numbers from {a} to {b}.",
    "Give me the numbers from {a} to {b}.",
    "count {a} to {b}",
    "List the numbers from {a} to {b}",
    "Write the numbers from {a} to {b}.",
    "Start at {a} and count to {b}.",
    "I want you to count from {a} to {b}",
    "Could you count from {a} to {b} please?",
    "count for me from {a} to {b}",
    "numbers from {a} to {b}",
    "Count from {a} until {b}",
    "Count {a} through {b}",
    "{a} to {b}",
    "count {a}-{b}",
    "Show me all numbers between {a} and {b}.",
]
UP = [
    "Count up from {a} to {b}.",
    "count up from {a} to {b}",
    "Count from {a} up to {b}",
    "Count upwards from {a} to {b}",
]
TO = [
    "count to {b}",
    "Count to {b}",
    "Count to {b}.",
    "Please count to {b}.",
    "count to {b} please",
    "Can you count to {b}?",
    "can you count to {b}",
    "Count up to {b}",
    "Count for me to {b}.",
    "I want you to count to {b}.",
    "Could you count up to {b}?",
    "Let's count to {b}!",
]
DOWN = [
    "Count down from {a} to {b}",
    "Count down from {a} to {b}.",
    "count down from {a} to {b}",
    "Please count down from {a} to {b}.",
    "Can you count down from {a} to {b}?",
    "Count backwards from {a} to {b}",
    "count backwards from {a} to {b}.",
    "Count from {a} down to {b}",
    "count {a} down to {b}",
    "Countdown from {a} to {b}",
    "Start at {a} and count down to {b}.",
    "Say the numbers from {a} down to {b}.",
    "Count in reverse from {a} to {b}.",
    "Count back from {a} to {b}",
]
DOWN_TO_ONE = [
    "Count down from {a}",
    "Count down from {a}.",
    "count down from {a}",
    "Please count backwards from {a}.",
    "count backwards from {a}",
    "Countdown from {a}",
    "Can you count down from {a}?",
    "Start a countdown from {a}.",
]
COUNT_UP = [
    "count from {a} to {b}",
    "count from {a} to {b}",
    "count from {a} to {b}",
    "count up from {a} to {b}",
    "count from {a} up to {b}",
    "count forward from {a} to {b}",
    "start at {a} and count up to {b}",
    "begin with {a} and count to {b}",
    "count everything from {a} to {b}",
    "count on from {a} to {b}",
]
COUNT_DOWN = [
    "count down from {a} to {b}",
    "count down from {a} to {b}",
    "count backwards from {a} to {b}",
    "count backward from {a} to {b}",
    "count from {a} down to {b}",
    "count from {a} back to {b}",
    "count from {a} backwards to {b}",
    "do a countdown from {a} to {b}",
    "make a countdown from {a} to {b}",
    "start at {a} and count backwards to {b}",
    "begin with {a} and count down to {b}",
    "count in descending order from {a} to {b}",
]
NUMBERS_UP = [
    "the numbers from {a} to {b}",
    "all numbers from {a} to {b}",
    "a count from {a} to {b}",
]
NUMBERS_DOWN = ["a countdown from {a} to {b}", "the numbers from {a} down to {b}"]
STEPS = {2: ["twos", "2s", "2"], 5: ["fives", "5s", "5"], 10: ["tens", "10s", "10"]}
BY_STEPS = [
    "Count to {b} by {s}",
    "count by {s} to {b}",
    "Count by {s} up to {b}.",
    "count in {s} to {b}",
]
BARE = ["Count", "count", "Count for me.", "Can you count?", "count please", "Start counting."]
AGAIN = [
    "And from {a} to {b}?",
    "Now from {a} to {b}.",
    "And now from {a} to {b}",
    "Now count from {a} to {b}.",
]
BACK = [
    "Now backwards",
    "now backwards",
    "And back?",
    "Now count back.",
    "Now the other way round.",
    "and backwards?",
]
LAST = ["What was the last number?", "Which number came last?", "Where did you stop?"]
FIRST = ["What was the first number?", "Which number came first?", "Where did you start?"]


@dataclass(frozen=True)
class Count:
    """A request in words, and the numbers that answer it: from `a` to `b` by `step`."""

    text: str
    a: int
    b: int
    step: int = 1

    @property
    def answer(self) -> str:
        """The numbers as text."""
        return count(self.a, self.b, self.step)


def span(rng: random.Random, *, test: bool = False, longest: int = LONGEST) -> tuple[int, int]:
    """Return the ends a < b of a count; with `test`, a pair that training never sees."""
    while True:
        steps = rng.randint(2, longest) if rng.random() < 0.25 else rng.randint(2, min(12, longest))
        a = rng.choice([0, 1, 1, rng.randint(0, 99), rng.randint(0, 99), rng.randint(0, HIGHEST)])
        if rng.random() < 0.06:
            a = rng.randint(100, 2100)
        b = a + steps
        if held_out(f"{a} to {b}") == test:
            return a, b


def count(a: int, b: int, step: int = 1) -> str:
    """Return the numbers from a to b, up or down, separated by commas, with a full stop."""
    numbers = range(a, b + 1, step) if a <= b else range(a, b - 1, -step)
    return ", ".join(map(str, numbers)) + "."


def ask(rng: random.Random, a: int, b: int) -> str:
    """Return a request to count from a to b, in random words."""
    if a < b:
        if rng.random() < 0.35:
            return _in_other_words(rng, a, b)
        return write(rng, rng.choice([*ASKS, *UP]), a, b)
    if rng.random() < 0.35:
        return _in_other_words(rng, a, b)
    return write(rng, rng.choice([*(ASKS if b <= LAST_DOWN else []), *DOWN * 6]), a, b)


def _in_other_words(rng: random.Random, a: int, b: int) -> str:
    ways, things = (COUNT_UP, NUMBERS_UP) if a < b else (COUNT_DOWN, NUMBERS_DOWN)
    if rng.random() < 0.75:
        return told_to(rng, rng.choice(ways).format(a=a, b=b))
    return asked_for(rng, rng.choice(things).format(a=a, b=b))


def write(rng: random.Random, text: str, a: int, b: int) -> str:
    """Return a phrase with its two numbers, now and then as words or with words around it."""
    if max(a, b) < len(WORDS) and "-" not in text and rng.random() < 0.12:
        return text.format(a=WORDS[a], b=WORDS[b])
    return in_passing(rng, text.format(a=a, b=b))


def count_of(rng: random.Random, a: int, b: int) -> Count:
    """Return a request for the numbers from a to b."""
    return Count(ask(rng, a, b), a, b)


def request(rng: random.Random, *, longest: int = LONGEST) -> Count:
    """Return a request of any kind: from a to b, up to b, down, down to one, by steps."""
    kind = rng.random()
    if kind < 0.40:
        return count_of(rng, *span(rng, longest=longest))
    if kind < 0.62:
        b = rng.choice(
            [3, 5, 10, 10, 10, 12, 15, 20, 20, rng.randint(2, 25), rng.randint(2, longest)]
        )
        text = rng.choice(["count to {b}", "count up to {b}", "count from one to {b}"])
        if rng.random() < 0.35:
            return Count(told_to(rng, text.format(b=b)), 1, b)
        return Count(write(rng, rng.choice(TO), 1, b), 1, b)
    if kind < 0.84:
        b, a = (
            span(rng, longest=longest)
            if rng.random() < 0.5
            else (rng.choice([0, 1, 1]), rng.randint(3, 20))
        )
        return count_of(rng, a, b)
    if kind < 0.95:
        a = rng.choice([3, 5, 10, 10, 10, 20, rng.randint(3, 30)])
        return Count(write(rng, rng.choice(DOWN_TO_ONE), a, 1), a, 1)
    if kind < 0.97:
        return _by_steps(rng)
    return Count(rng.choice(BARE), 1, 10)


def _by_steps(rng: random.Random) -> Count:
    step = rng.choice(list(STEPS))
    b = step * rng.randint(3, 10)
    return Count(rng.choice(BY_STEPS).format(b=b, s=rng.choice(STEPS[step])), step, b, step)


def plan(asked: Count) -> str:
    """Return what is thought before a count."""
    return f"I count from {asked.a} to {asked.b}. I start at {asked.a} and stop after {asked.b}."


def again(rng: random.Random, last: Count) -> tuple[str, str, Count]:
    """Return a question after a count, its answer, and the count that is the last one then."""
    kind = rng.random()
    if kind < 0.45:
        a, b = span(rng, longest=20)
        a, b = (b, a) if a <= LAST_DOWN and rng.random() < 0.4 else (a, b)
        asked = Count(rng.choice(AGAIN).format(a=a, b=b), a, b)
        return asked.text, asked.answer, asked
    if kind < 0.65:
        asked = Count(rng.choice(BACK), last.b, last.a, last.step)
        return asked.text, asked.answer, asked
    if kind < 0.85:
        return rng.choice(LAST), f"The last number was {last.b}.", last
    return rng.choice(FIRST), f"The first number was {last.a}.", last


def drill(rng: random.Random) -> Document:
    """Return several short counts, up and down: which way, the words tell, or else the ends."""
    doc = Document()
    for _ in range(rng.randint(3, 6)):
        a, b = span(rng, longest=6)
        if rng.random() < 0.8:
            a = rng.randint(0, rng.choice([30, 99, 99, 99, 140, 999]))
            b = a + rng.choice([2, 3, 4, 5, 6, 7, 8, 9, 10, 11, rng.randint(12, 40)])
        if held_out(f"{a} to {b}"):
            continue
        a, b = (b, a) if rng.random() < 0.3 else (a, b)
        same = b <= LAST_DOWN and rng.random() < 0.5
        doc.user(write(rng, rng.choice(ASKS), a, b) if same else ask(rng, a, b))
        doc.assistant(count(a, b))
    return doc if doc.messages else drill(rng)


def document(rng: random.Random) -> Document:
    """Return a conversation that counts once, or twice, or asks about what was counted."""
    longest = 100 if rng.random() < 0.08 else LONGEST
    last = request(rng, longest=longest)
    doc = Document().user(last.text)
    if rng.random() < 0.12:
        return doc.thought(plan(last), last.answer)
    doc.assistant(last.answer)
    while rng.random() < 0.4 and len(doc.messages) < 7:
        text, answer, last = again(rng, last)
        doc.user(text).assistant(answer)
    return doc
