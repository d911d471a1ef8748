"""The words that the corpus is made of, and many made-up ones.

Made-up names teach a small model to copy, because it can't know them by heart. One in eight of
them, chosen by a hash of the name, is held out: training never sees it, the evaluation uses
nothing else.
"""

from __future__ import annotations

import hashlib
import random

__all__ = [
    "ADJECTIVES",
    "ANIMALS",
    "CITIES",
    "PEOPLE",
    "PLACES",
    "ROLES",
    "THINGS",
    "article",
    "held_out",
    "listed",
    "made_up_name",
    "made_up_word",
    "number",
    "place_name",
]

HOLD_OUT_ONE_IN = 8


def listed(text: str) -> list[str]:
    """Return the words of a text, in which an underscore stands for a space."""
    return [word.replace("_", " ") for word in text.split()]


ONSETS = [
    "b",
    "c",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "w",
    "y",
    "z",
    "br",
    "ch",
    "cl",
    "dr",
    "fl",
    "gr",
    "kl",
    "kr",
    "pl",
    "pr",
    "sh",
    "st",
    "th",
    "tr",
]
VOWELS = ["a", "e", "i", "o", "u", "a", "e", "i", "o", "ai", "ea", "ou"]
CODAS = ["n", "r", "l", "s", "m", "t", "k", "x", "th", "nd", "rk", "lm", "ss"] + [""] * 12

PEOPLE = [
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Ella",
    "Finn",
    "Grace",
    "Henry",
    "Iris",
    "Jack",
    "Kate",
    "Leo",
    "Maya",
    "Noah",
    "Olga",
    "Paul",
    "Rosa",
    "Sam",
    "Tara",
    "Victor",
    "Wendy",
    "Yara",
    "Zoe",
    "Alma",
    "Bruno",
    "Dora",
    "Emil",
    "Freya",
    "Hugo",
    "Ines",
]
CITIES = [
    "Paris",
    "London",
    "Rome",
    "Berlin",
    "Madrid",
    "Oslo",
    "Vienna",
    "Tokyo",
    "Cairo",
    "Lima",
    "Boston",
    "Dublin",
    "Prague",
    "Athens",
    "Lisbon",
    "Delhi",
    "Sydney",
    "Toronto",
    "Chicago",
    "Seoul",
    "Zurich",
    "Helsinki",
    "Warsaw",
    "Nairobi",
]
ANIMALS = [
    "fox",
    "bear",
    "owl",
    "rabbit",
    "mouse",
    "cat",
    "dog",
    "horse",
    "whale",
    "turtle",
    "crow",
    "wolf",
    "deer",
    "hedgehog",
    "frog",
    "goose",
    "lion",
    "otter",
    "penguin",
    "squirrel",
    "badger",
    "dragon",
    "bee",
    "ant",
    "snail",
    "seal",
]
ROLES = [
    "baker",
    "sailor",
    "painter",
    "gardener",
    "teacher",
    "clockmaker",
    "farmer",
    "fisherman",
    "nurse",
    "pilot",
    "king",
    "queen",
    "shepherd",
    "miller",
    "musician",
    "tailor",
    "doctor",
    "knight",
    "robot",
    "librarian",
    "captain",
    "cook",
    "child",
    "wizard",
    "postman",
    "carpenter",
    "singer",
    "astronaut",
    "lighthouse keeper",
    "train driver",
    "bridge builder",
]
THINGS = [
    "key",
    "clock",
    "boat",
    "lamp",
    "kite",
    "bell",
    "map",
    "violin",
    "hat",
    "book",
    "drum",
    "star",
    "cloud",
    "stone",
    "tree",
    "letter",
    "bridge",
    "window",
    "garden",
    "teapot",
    "candle",
    "mirror",
    "chair",
    "umbrella",
    "train",
    "tower",
    "river",
    "shoe",
    "coin",
    "door",
    "wagon",
]
ADJECTIVES = [
    "brave",
    "small",
    "old",
    "young",
    "clever",
    "shy",
    "lonely",
    "happy",
    "quiet",
    "curious",
    "tired",
    "kind",
    "proud",
    "silver",
    "golden",
    "lost",
    "little",
    "tall",
    "gentle",
    "lazy",
    "hungry",
    "wise",
    "strange",
    "red",
    "blue",
    "green",
    "patient",
    "cheerful",
    "forgetful",
]
PLACES = [  # with their prepositions
    "in a quiet village",
    "in a valley full of mist",
    "in a town by the sea",
    "at the edge of a dark forest",
    "in a narrow street",
    "on a small island",
    "at the foot of a high mountain",
    "in a city with a hundred bridges",
    "near a green meadow",
    "in a house at the end of the road",
    "by an old harbour",
    "in a land of long winters",
]


def held_out(text: str) -> bool:
    """Return whether a text is kept for evaluation, so that training must never see it."""
    return hashlib.sha256(text.lower().encode()).digest()[0] % HOLD_OUT_ONE_IN == 0


def _syllables(rng: random.Random, low: int, high: int) -> str:
    parts = [rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.randint(low, high))]
    if rng.random() < 0.2:
        parts[0] = rng.choice("aeiou")
    return "".join(parts) + rng.choice(CODAS)


def made_up_word(rng: random.Random, *, test: bool = False, low: int = 2, high: int = 3) -> str:
    """Return a lower-case word without a meaning; with `test`, one that training never sees."""
    while True:
        word = _syllables(rng, low, high)
        if held_out(word) == test:
            return word


def made_up_name(rng: random.Random, *, test: bool = False) -> str:
    """Return a made-up name with a capital letter; with `test`, one that training never sees."""
    return made_up_word(rng, test=test, low=2, high=4).capitalize()


def place_name(rng: random.Random, *, test: bool = False) -> str:
    """Return the name of a city, mostly made up; with `test`, one that training never sees."""
    if test or rng.random() < 0.75:
        return made_up_name(rng, test=test)
    return rng.choice([city for city in CITIES if not held_out(city)])


def number(rng: random.Random, high: int, *, low: int = 1) -> int:
    """Return a number from `low` to `high`; in half of the calls at most an eighth of `high`."""
    return rng.randint(low, high) if rng.random() < 0.5 else rng.randint(low, max(low, high // 8))


def article(noun: str) -> str:
    """Return the noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
