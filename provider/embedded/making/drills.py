"""Drills in counting without a word for the direction, which `train.py --drills` adds to its steps.

"Count from 63 to 58" goes down, and nothing but its two numbers says so. Which way, is told by one
token of the answer; all after it follow from the one before. Among the tokens of the corpus that
one is so rare that it isn't learnt. Here every row is one count, up as often as down, in the form
that the corpus gives it, and the loss of that token weighs TELLING, of the answer's others FOLLOWING.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from provider.embedded.making.corpus import Document, counting
from provider.embedded.making.corpus.phrases import told_to
from provider.embedded.making.corpus.words import held_out
from provider.embedded.making.tokenizer import END, render

__all__ = ["FOLLOWING", "TELLING", "WHOLE", "Drill", "Row", "ask", "batches", "pair", "row"]

TELLING = 1.0
FOLLOWING = 0.15
WHOLE = 25  # the ends' distance in a count that is written to its end
SHORT = 3  # numbers of a longer one
SORTED = 8  # batches whose rows are sorted by length together

BARE = ["Count from {a} to {b}", "count from {a} to {b}"]
ORDERS = [
    "count from {a} to {b}",
    "begin with {a} and count to {b}",
    "start at {a} and count to {b}",
    "count {a} to {b}",
    "count from {a} until {b}",
    "count from {a} through {b}",
    "count {a} through {b}",
]


@dataclass(frozen=True)
class Drill:
    """A request in words to count from `a` to `b`."""

    text: str
    a: int
    b: int

    @property
    def whole(self) -> bool:
        """Whether the answer goes to its end; a long one stops early, and its end isn't learnt."""
        return abs(self.a - self.b) <= WHOLE

    @property
    def answer(self) -> str:
        """The numbers as the corpus writes them, or the first SHORT of them without a full stop."""
        if self.whole:
            return counting.count(self.a, self.b)
        return counting.count(self.a, self.a + self.step * (SHORT - 1)).removesuffix(".")

    @property
    def step(self) -> int:
        """1 where it goes up, -1 where it goes down."""
        return 1 if self.a < self.b else -1


@dataclass(frozen=True)
class Row:
    """Tokens of a question and its answer, and how much the loss of each weighs."""

    tokens: list[int]
    weights: list[float]

    def padded(self, size: int) -> Row:
        """Return the row with `size` tokens; those at its end weigh nothing."""
        more = size - len(self.tokens)
        return Row(self.tokens + [0] * more, self.weights + [0.0] * more)


def _in_one_ten(rng: random.Random) -> tuple[int, int]:
    a, apart = rng.randint(0, 12) * 10 + rng.randint(0, 7), rng.randint(2, 4)
    return a, min(a + apart, a // 10 * 10 + 9)


def _near(rng: random.Random) -> tuple[int, int]:
    a = rng.randint(0, rng.choice([20, 99, 99, 99, 99, 130]))
    return a, a + rng.randint(1, 12)


def _far(rng: random.Random) -> tuple[int, int]:
    high = rng.choice([20, 99, 99, 99, 99, 130])
    return rng.randint(0, high), rng.randint(0, high)


def _across_a_hundred(rng: random.Random) -> tuple[int, int]:
    hundred = rng.choice([100, 100, 100, rng.randint(2, 20) * 100])
    return hundred - rng.randint(1, 12), hundred + rng.randint(0, 12)


def _of_three_digits_or_four(rng: random.Random) -> tuple[int, int]:
    a = rng.choice([rng.randint(100, 140), rng.randint(100, 999), rng.randint(1000, 2100)])
    return a, a + rng.choice([rng.randint(2, 12), rng.randint(2, 40)])


# Near pairs within one ten go wrong the longest: nothing but the last digits tells which is more.
PAIRS: dict[Callable[[random.Random], tuple[int, int]], float] = {
    _in_one_ten: 0.20,
    _near: 0.36,
    _far: 0.30,
    _across_a_hundred: 0.06,
    _of_three_digits_or_four: 0.08,
}


def pair(rng: random.Random) -> tuple[int, int]:
    """Return two different numbers, either order equally often, that aren't held out."""
    while True:
        make = rng.choices(list(PAIRS), list(PAIRS.values()))[0]
        low, high = sorted(make(rng))
        if low < high and not held_out(f"{low} to {high}"):
            return (low, high) if rng.random() < 0.5 else (high, low)


def ask(rng: random.Random, a: int, b: int) -> str:
    """Return a request that doesn't say which way; in 15 of 100, one as the corpus writes it."""
    kind = rng.random()
    if kind < 0.40:
        return rng.choice(BARE).format(a=a, b=b)
    if kind < 0.65:
        return counting.write(rng, rng.choice(counting.ASKS), a, b)
    if kind < 0.85:
        return told_to(rng, rng.choice(ORDERS).format(a=a, b=b))
    return counting.ask(rng, a, b)


def row(tokenizer: Tokenizer, template: Path, drill: Drill) -> Row:
    """Return a drill as the chat template writes it, with the weights of its tokens."""

    def tokens(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    document = Document().user(drill.text).assistant(drill.answer)
    asked = tokens(render(template, document).removesuffix(f"{drill.answer}{END}\n"))
    answer = tokens(drill.answer + END if drill.whole else drill.answer)
    weights = [FOLLOWING] * len(answer)
    weights[_telling(answer, tokens(_other_way(drill)))] = TELLING
    return Row(asked + answer, [0.0] * len(asked) + weights)


def _other_way(drill: Drill) -> str:
    """Return how the answer would begin in the other direction; below 0, any other number does."""
    wrong = drill.a - drill.step
    return f"{drill.a}, {wrong if wrong >= 0 else drill.a + 2}"


def _telling(answer: list[int], other: list[int]) -> int:
    return next(place for place, token in enumerate(other) if answer[place] != token)


def batches(tokenizer: Tokenizer, template: Path, seed: int, count: int) -> Iterator[list[Row]]:
    """Yield batches of `count` rows, padded to the longest of them, of like length; endless."""
    rng = random.Random(seed)
    while True:
        drills = [Drill(ask(rng, *ends), *ends) for ends in _pairs(rng, count * SORTED)]
        rows = [row(tokenizer, template, drill) for drill in drills]
        rows.sort(key=lambda row: len(row.tokens))
        groups = [rows[place : place + count] for place in range(0, len(rows), count)]
        rng.shuffle(groups)
        for group in groups:
            yield [row.padded(len(group[-1].tokens)) for row in group]


def _pairs(rng: random.Random, count: int) -> list[tuple[int, int]]:
    return [pair(rng) for _ in range(count)]
