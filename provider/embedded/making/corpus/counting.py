"""Counting from a to b, and questions about it afterwards."""

from __future__ import annotations

import random

from provider.embedded.making.corpus.document import Document
from provider.embedded.making.corpus.words import held_out

__all__ = ["ask", "count", "document", "span"]

HIGHEST = 150
LONGEST = 40

ASKS = [
    "Count from {a} to {b}",
    "Count from {a} to {b}.",
    "Please count from {a} to {b}.",
    "Can you count from {a} to {b}?",
    "count from {a} to {b}",
    "Count up from {a} to {b}.",
    "Say the numbers from {a} to {b}.",
    "Give me the numbers from {a} to {b}.",
    "count {a} to {b}",
    "List the numbers from {a} to {b}",
]
AGAIN = [
    "And from {a} to {b}?",
    "Now from {a} to {b}.",
    "And now from {a} to {b}",
    "Now count from {a} to {b}.",
]
LAST = ["What was the last number?", "Which number came last?", "Where did you stop?"]
FIRST = ["What was the first number?", "Which number came first?", "Where did you start?"]


def span(rng: random.Random, *, test: bool = False, longest: int = LONGEST) -> tuple[int, int]:
    """Return the ends a and b of a count; with `test`, a pair that training never sees."""
    while True:
        steps = rng.randint(2, longest) if rng.random() < 0.7 else rng.randint(2, 12)
        a = rng.choice([0, 1, 1, rng.randint(0, 99), rng.randint(0, 99), rng.randint(0, HIGHEST)])
        b = min(a + steps, HIGHEST)
        if b > a and held_out(f"{a} to {b}") == test:
            return a, b


def count(a: int, b: int) -> str:
    """Return the numbers from a to b as text, separated by commas, with a full stop."""
    return ", ".join(str(n) for n in range(a, b + 1)) + "."


def ask(rng: random.Random, a: int, b: int) -> str:
    """Return a request to count from a to b, in random words."""
    return rng.choice(ASKS).format(a=a, b=b)


def _plan(a: int, b: int) -> str:
    return f"I count from {a} to {b}. I start at {a} and stop after {b}."


def document(rng: random.Random) -> Document:
    """Return a conversation that counts once, or twice, or asks about what was counted."""
    a, b = span(rng)
    doc = Document().user(ask(rng, a, b))
    if rng.random() < 0.15:
        doc.thinking = True
        return doc.assistant(f"<think>{_plan(a, b)}</think>{count(a, b)}")
    doc.assistant(count(a, b))
    while rng.random() < 0.4 and len(doc.messages) < 7:
        if rng.random() < 0.5:
            a, b = span(rng, longest=20)
            doc.user(rng.choice(AGAIN).format(a=a, b=b)).assistant(count(a, b))
        elif rng.random() < 0.4:
            doc.user(rng.choice(LAST)).assistant(f"The last number was {b}.")
        else:
            doc.user(rng.choice(FIRST)).assistant(f"The first number was {a}.")
    return doc
