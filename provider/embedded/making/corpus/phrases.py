"""Words before and after a request that change nothing in it."""

from __future__ import annotations

import random

__all__ = ["POLITE", "TIMELY", "asked_for", "in_passing", "told_to"]

BEFORE = [
    "Hey, ",
    "Please: ",
    "OK, ",
    "Now, ",
    "And ",
    "So ",
    "Hello! ",
    "One more: ",
    "Great. ",
    "Hi. ",
]
POLITE = [
    " please",
    ", please",
    " for me",
    " now",
    ", thanks",
    " if you can",
    ", will you",
    " again",
]
TIMELY = [
    *POLITE,
    " today",
    " right now",
    " tomorrow",
    " tonight",
    " this week",
    " at the moment",
    " this evening",
    " on Monday",
    " these days",
]


def in_passing(rng: random.Random, text: str, after: list[str] = POLITE) -> str:
    """Return a request, in a quarter of the calls with words before or after it."""
    kind = rng.random()
    if kind < 0.1:
        return rng.choice(BEFORE) + text
    if kind > 0.25:
        return text
    end = text[-1] if text[-1] in ".?!" else ""
    return text.removesuffix(end) + rng.choice(after) + end


ORDERS = [
    "{w}",
    "{w}",
    "{w}",
    "{w}, please",
    "please {w}",
    "now {w}",
    "just {w}",
    "then {w}",
    "next, {w}",
    "go on, {w}",
    "now please {w}",
    "{w} for me",
    "{w} if you like",
    "I want you to {w}",
    "I'd like you to {w}",
    "I would like you to {w}",
    "I need you to {w}",
    "try to {w}",
    "can you {w}?",
    "could you {w}?",
    "would you {w}?",
    "will you {w}?",
    "can you please {w}?",
    "could you please {w}?",
    "would you please {w}?",
    "would you kindly {w}?",
    "are you able to {w}?",
    "may I ask you to {w}?",
    "why don't you {w}?",
]
WISHES = [
    "{x}",
    "{x}, please",
    "{x} please",
    "now {x}",
    "{x} now",
    "then {x}",
    "{x} for me",
    "give me {x}",
    "let me have {x}",
    "let me hear {x}",
    "let's have {x}",
    "let us hear {x}",
    "I want {x}",
    "I'd like {x}",
    "I would like {x}",
    "I would love {x}",
    "I'd love to hear {x}",
    "I'd love to have {x}",
    "I want to hear {x}",
    "I'm in the mood for {x}",
    "I need {x}",
    "I was hoping for {x}",
    "time for {x}",
    "{x} would be nice",
    "can I get {x}?",
    "can I hear {x}?",
    "may I have {x}?",
    "could I have {x}?",
    "could I get {x}?",
    "can we have {x}?",
    "do you have {x}?",
    "do you know {x}?",
    "have you got {x}?",
    "how about {x}?",
    "what about {x}?",
    "is there {x}?",
    "got {x}?",
]


def told_to(rng: random.Random, order: str) -> str:
    """Return what is asked for as an order, `tell me a story`, in one of many ways to say it."""
    return _said(rng, rng.choice(ORDERS).format(w=order))


def asked_for(rng: random.Random, thing: str) -> str:
    """Return what is asked for as a thing, `a story`, in one of many ways to say it."""
    return _said(rng, rng.choice(WISHES).format(x=thing))


def _said(rng: random.Random, text: str) -> str:
    if rng.random() < 0.7:
        text = text[0].upper() + text[1:]
    if text.endswith("?"):
        return text if rng.random() < 0.8 else text[:-1]
    return text + rng.choice(["", "", ".", ".", "!"] if rng.random() < 0.3 else ["", "."])
