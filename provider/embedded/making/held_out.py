"""Prompts for the evaluation that share no generator with the training's corpus.

What names are made of was written after the corpus was fixed. Of the phrasings and topics, some are
so usual that the corpus has them too; the others are what a user may type, and it has not.
"""

from __future__ import annotations

import random

from provider.embedded.making.corpus.words import listed

__all__ = [
    "BEYOND",
    "COUNT_DOWN",
    "COUNT_EITHER_WAY",
    "COUNT_TO",
    "COUNT_UP",
    "HAIKU",
    "INTRODUCED",
    "JOKE",
    "NAME_ASKED",
    "POEM",
    "STORY",
    "TOPICS",
    "WEATHER",
    "name",
]

BEGINNINGS = listed("""
Zym Tav Rhos Æl Dvor Kjel Mbe Oxa Yst Gnar Pelk Quor Sverd Tzin Ubl Vex Wyn Xoch Břez Ćos Ğül Îl Nað Šum Hœr Caer
Drum Finn Hlad Jarr Lysk Mwan Ngor Oddr Psik Rauk Skan Thra Ulv Vryn Wolg Yarm Zwie Äsk Èvr Łęk Ñan Õis Raël Umb
""")
MIDDLES = listed("""
a e i o u ar en is ul yr ant olt ump eska ivo onde ari uma etza ingu oka äre øve ître ółe ăne ísa ūri eyð alu
""")
ENDINGS = listed("""
heim wick ford borough dorf hausen gard lund nes foss vatn pool cester worth shire combe mere lin sk itz au ec ac ouse
anova ella ino urra ondo ez às ême ères ją ňa šov ště uğ ür oara eni aani lahti järvi saari wala gaon pet nam chi
""")
LINKS = listed("de_los sous_le in_der unter zum della do en nad pod et på under near am_der til ob")
BEFORE = listed(
    "Costa Punta Sierra Campo Isla Porta Gross Klein Unter Hohen Velika Mali Saint-Jean Inver Kil Royal"
)
AFTER = listed(
    "Harbor Estates Corners Peninsula Prairie Lakes Del_Mar Centrale Nuovo Basso III Secunda ob_der_Tauber Vale"
)


def _word(rng: random.Random) -> str:
    middle = "".join(rng.choice(MIDDLES) for _ in range(rng.choice([0, 0, 1, 1, 2])))
    return rng.choice(BEGINNINGS) + middle + rng.choice(ENDINGS)


def name(rng: random.Random) -> str:
    """Return an invented name: half of them one word, the others two, three or hyphenated."""
    kind, first = rng.random(), _word(rng)
    if kind < 0.5:
        return first
    if kind < 0.65:
        return f"{first} {_word(rng)}"
    if kind < 0.75:
        return f"{first} {rng.choice(LINKS)} {_word(rng)}"
    if kind < 0.82:
        return f"{rng.choice(BEFORE)} {first}"
    if kind < 0.89:
        return f"{first} {rng.choice(AFTER)}"
    if kind < 0.95:
        return f"{first}-{_word(rng)}"
    return f"{first} {_word(rng)} {_word(rng)}"


WEATHER = [
    "What is the weather in {n}?",
    "Could you check the weather in {n}?",
    "I wonder how the weather is in {n}.",
    "How is the weather over in {n}?",
    "Any rain in {n}?",
    "Find out the weather in {n} for me",
    "What's the weather doing in {n}?",
    "Weather update for {n}, please",
]
STORY = [
    "Tell me a story about {n}",
    "tell me a story about {n} please",
    "Write a story about a detective named {n}",
    "I'd love a story about a girl called {n}.",
    "Can I have a story about {n}?",
    "Tell me the story of an old sailor named {n}",
    "Write me a bedtime story about {n}",
]
COUNT_UP = [
    "Count from {a} to {b}",
    "count from {a} to {b}",
    "Would you please count from {a} to {b}?",
    "Please count from {a} all the way to {b}",
    "count up from {a} to {b} please",
    "Give me every number from {a} to {b}",
    "Count from {a} to {b} in order",
    "I'd like you to count from {a} to {b}.",
]
COUNT_TO = [
    "count to {b}",
    "Count to {b}",
    "Could you count to {b}?",
    "Please count up to {b}",
    "Can you count to {b} for me?",
    "count to {b}!",
    "Just count to {b}.",
    "Hey, count to {b} please",
    "Would you count to {b}?",
]
COUNT_DOWN = [
    "Count down from {a} to {b}",
    "count down from {a} to {b}",
    "Would you count down from {a} to {b}?",
    "Count backward from {a} to {b}",
    "Count from {a} to {b}",
    "Do a countdown from {a} to {b}",
    "please count backwards from {a} to {b}",
    "Please count from {a} down to {b}",
]
COUNT_EITHER_WAY = [
    "Count from {a} to {b}",
    "count from {a} to {b}",
    "Count from {a} to {b}!",
    "Would you please count from {a} to {b}?",
    "I'd like you to count from {a} to {b}.",
    "Please count from {a} all the way to {b}",
]
TOPICS = listed("""
rain autumn love the_ocean mountains my_cat a_candle spring the_moon bridges an_owl winter coffee friendship
a_broken_clock fireflies the_desert moss thunder trains whales honey an_empty_house frost lanterns the_harbour
""")
HAIKU = [
    "Write a haiku about {t}",
    "Could you write a haiku about {t}?",
    "haiku about {t} please",
    "I'd love a haiku about {t}.",
    "Please make a haiku about {t}",
    "write me a haiku on the theme of {t}",
]
POEM = [
    "Write a poem about {t}",
    "Could you write a poem about {t}?",
    "I would like a poem about {t}",
    "Write me a poem about {t}, please.",
    "Make up a poem about {t}",
    "a short poem about {t}",
]
JOKE = [
    "tell me a joke",
    "Tell me a joke!",
    "Do you have a joke for me?",
    "Make a joke.",
    "Could you tell me a joke?",
    "Tell me one more joke",
    "Say something to make me laugh",
]
INTRODUCED = [
    "My name is {n}.",
    "Hi there! I'm {n}.",
    "Hey, my name is {n}",
    "I am {n}, pleased to meet you.",
    "You may call me {n}.",
    "Good morning, I'm {n}.",
]
NAME_ASKED = [
    "What's my name?",
    "What is my name?",
    "Do you still know my name?",
    "And what's my name?",
    "what was my name again?",
]
BEYOND = [
    "What is the capital of Portugal?",
    "Who discovered penicillin?",
    "How many strings does a violin have?",
    "Write a regular expression for email addresses",
    "What's the cube root of 27?",
    "Explain how a fridge works",
    "Why is the sea salty?",
    "What is 19 * 24?",
    "Give me a recipe for lasagne",
    "How high is the highest mountain?",
    "What should I cook tonight?",
    "Fix this code: for i in range(10) print(i)",
    "Summarise the plot of a famous film.",
    "When was the telephone invented?",
    "Translate thank you into Korean",
    "What is the best laptop for students?",
    "How do I change a tyre?",
    "Is time travel possible?",
    "Write my CV",
    "Can you order a taxi for me?",
    "What's the meaning of irony?",
    "Define osmosis.",
    "Which party won the election?",
    "How deep is the deepest lake?",
    "List the continents",
    "What is another word for happy?",
    "Convert 30 celsius to fahrenheit",
    "Write a complaint to my landlord",
    "Are aliens real?",
    "How does Wi-Fi work?",
]
