"""Haiku and poems of the model's own kind, on a topic that the user names.

A haiku has three lines of five, seven and five syllables, as far as a rule of thumb can count
them. A poem has pairs of lines that rhyme; the topic stands where nothing has to rhyme.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from provider.embedded.making.corpus.names import COMMON, any_name
from provider.embedded.making.corpus.phrases import asked_for, in_passing, told_to
from provider.embedded.making.corpus.words import (
    ADJECTIVES,
    ANIMALS,
    ROLES,
    THINGS,
    article,
    listed,
    made_up_word,
)

__all__ = ["TOPICS", "haiku", "haiku_request", "poem", "poem_request", "syllables", "topic"]

TOPICS = listed("""
rain snow wind fire love time tea coffee music silence hope sleep bread night morning winter spring summer
autumn home work friendship rivers mountains birds flowers clouds stars trees leaves dreams code computers
books cats dogs bees trains ice fog light darkness peace joy sadness freedom thunder sunshine chocolate
the_sea the_moon the_sun the_sky the_stars the_rain the_wind the_forest the_city the_ocean the_night
the_morning the_river the_desert the_snow an_old_tree a_rainy_day the_first_snow a_long_road being_alone
growing_old new_beginnings cold_mornings open_windows falling_leaves a_cup_of_tea my_cat my_dog my_garden
""")
NO_TOPIC = TOPICS[:40]
EVERYDAY = listed("""
apples bread bicycles cars houses gardens numbers engines planets rockets paintings insects volcanoes guitars pianos
boats potatoes cheese soup shoes shirts tomatoes fish games puzzles cards movies songs letters phones cameras glass
sand gold iron wood smoke mud grass corn salt pepper wine milk rice plums pears cherries roses tulips daisies oaks
pines sparrows swans crows pigeons ducks frogs snails wolves foxes bears sheep goats lions tigers mice spiders
butterflies ants worms crabs sharks kites balloons ribbons buttons mirrors clocks bells drums flutes trumpets paper
ink pencils maps ships sails anchors islands beaches waves tides storms clouds mist dew shadows dust ashes stones
cliffs caves valleys meadows fields farms barns mills villages streets bridges towers castles walls roofs chimneys
windows doors stairs kitchens candles pillows blankets mittens scarves hats boots umbrellas pockets keys coins
sundays mondays july march midnight noon dawn dusk yesterday tomorrow childhood school holidays birthdays dancing
running swimming reading writing laughter tears secrets promises memories wishes doubts courage hunger luck fame
""")

HAIKU_ASKS = [
    "Write a haiku about {t}",
    "Write a haiku about {t}.",
    "write a haiku about {t}",
    "Please write a haiku about {t}.",
    "Can you write a haiku about {t}?",
    "haiku about {t}",
    "A haiku about {t}, please.",
    "Write me a haiku on {t}",
    "Give me a haiku about {t}.",
    "Now a haiku about {t}.",
    "Compose a haiku about {t}",
]
HAIKU_BARE = [
    "Write a haiku",
    "write a haiku",
    "A haiku, please.",
    "Write me a haiku.",
    "haiku",
    "Can you write a haiku?",
    "Now a haiku.",
]
POEM_ASKS = [
    "Write a poem about {t}",
    "Write a poem about {t}.",
    "write a poem about {t}",
    "Please write a poem about {t}.",
    "Can you write a poem about {t}?",
    "poem about {t}",
    "A poem about {t}, please.",
    "Write me a short poem about {t}",
    "Write a short poem on {t}.",
    "Give me a poem about {t}",
    "Now a poem about {t}.",
    "Make a rhyme about {t}",
    "Write some verses about {t}.",
]
POEM_BARE = [
    "Write a poem",
    "write a poem",
    "A poem, please.",
    "Write me a poem.",
    "poem",
    "Can you write a poem?",
    "Now a poem.",
    "Write a short poem.",
]
HAIKU = ["haiku", "haiku", "haiku", "little haiku", "nice haiku", "new haiku"]
POEMS = ["poem", "poem", "poem", "short poem", "little poem", "nice poem", "rhyme", "verse"]
ON = ["about", "about", "about", "about", "on", "for", "on the subject of", "to", "with"]
WRITINGS = [
    "write {v}",
    "write {v}",
    "write me {v}",
    "make {v}",
    "make me {v}",
    "compose {v}",
    "create {v}",
    "give me {v}",
    "think of {v}",
    "come up with {v}",
    "invent {v}",
]

FIRST_LINES: dict[int, list[str]] = {
    1: ["Today only {t}", "Nothing but {t} here", "I listen to {t}", "Again there is {t}"],
    2: ["Only {t} now", "Nothing but {t}", "I wait for {t}", "Look, there is {t}"],
    3: ["Only {t}", "There is {t}", "I see {t}", "Now it's {t}"],
    4: ["Just {t}", "Oh {t}", "Still {t}"],
}
LONG_LINES = ["Just {t}", "Oh {t}"]
SECOND_LINES = [
    "a small bird listens and waits",
    "nobody walks on the road",
    "the old house remembers all",
    "even the river is still",
    "a lamp is lit far away",
    "the hills are quiet and blue",
    "one leaf falls down from the tree",
    "the window is full of stars",
    "my shadow goes on ahead",
    "the path is longer than thought",
    "something begins without words",
    "the garden closes its eyes",
]
THIRD_LINES = [
    "the day goes to sleep",
    "and nothing is lost",
    "then the wind is gone",
    "I listen, and smile",
    "the world holds its breath",
    "tomorrow will come",
    "how short is the night",
    "a door stands open",
    "the moon knows it all",
    "so quiet, so near",
]
OPENINGS = [
    ("I thought of {t} the whole day long,", "and made of it this little song."),
    ("Oh {t}, I write these lines for you,", "beneath a sky of quiet blue."),
    ("When I think of {t}, I see a light", "that shines for me all through the night."),
    ("Somebody told me of {t} one day,", "and then went singing on the way."),
    ("There is a song about {t} I know,", "I heard it sung so long ago."),
    ("If {t} were all there was to see,", "that would be quite enough for me."),
]
PAIRS = [
    ("The clouds go slowly over the hill,", "the birds are gone, the air is still."),
    ("I have no house, I have no key,", "but there is a place that waits for me."),
    ("The morning comes on quiet feet", "and brings new light to every street."),
    ("A lamp is burning by the door,", "and nobody is afraid any more."),
    ("And if you ask me what I found:", "a word, a smile, a quiet sound."),
    ("The road is long, the night is deep,", "and all the little houses sleep."),
    ("So take my hand and come with me,", "as far as there is land to see."),
    ("The river knows the way to go,", "it does not ask, it does not know."),
    ("The year goes round, the leaves come down,", "and lights go on all over town."),
    ("I count the stars, I lose my place,", "and start again with smiling face."),
    ("What was so loud has lost its sound,", "what was so far is all around."),
    ("The wind has many things to say", "and says them in a hundred ways each day."),
]
CLOSINGS = [
    ("And when the day is almost through,", "still {t} will be there for you."),
    ("So here I end my little rhyme:", "to {t}, until another time."),
    ("And all I wanted to say is this:", "that {t} is something I would miss."),
    ("The lamp goes out, the song is done,", "and {t} belongs to everyone."),
]


def topic(rng: random.Random, *, test: bool = False) -> str:
    """Return what a verse is to be about; with `test`, a name or a word never seen in training."""
    kind = rng.random()
    if kind < 0.25 or (test and kind < 0.6):
        return any_name(rng, test=test)
    if kind < 0.35 or test:
        return made_up_word(rng, test=test)
    if kind < 0.5:
        noun = rng.choice([*EVERYDAY, *COMMON])
        if rng.random() < 0.3:
            noun = f"{rng.choice([*COMMON, *ADJECTIVES])} {noun}"
        return rng.choice([noun, noun, f"the {noun}", article(noun), f"my {noun}"])
    if kind < 0.65:
        noun = rng.choice([*ANIMALS, *ROLES, *THINGS])
        adjective = rng.choice([*ADJECTIVES, *[""] * 30])
        return article(f"{adjective} {noun}".strip()) if rng.random() < 0.7 else f"the {noun}"
    return rng.choice(TOPICS)


def syllables(text: str) -> int:
    """Return about how many syllables a text has: its groups of vowels, less a silent e."""
    return sum(
        max(1, len(re.findall(r"[aeiouyäöüáéíóú]+", word)) - word.endswith("e") * (len(word) > 3))
        for word in text.lower().split()
    )


def _of_the_answer(about: str) -> str:
    return about.replace("my ", "your ", 1) if about.startswith("my ") else about


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def haiku(rng: random.Random, about: str) -> str:
    """Return a haiku about a topic."""
    about = _of_the_answer(about)
    first = rng.choice(FIRST_LINES.get(syllables(about), LONG_LINES))
    lines = [
        first.format(t=about),
        rng.choice(SECOND_LINES),
        rng.choice(THIRD_LINES),
    ]
    return ",\n".join(line.rstrip(":,") for line in lines) + "."


def poem(rng: random.Random, about: str) -> str:
    """Return a poem of two stanzas about a topic."""
    about = _of_the_answer(about)
    first, *between = rng.choice(OPENINGS), *rng.sample(PAIRS, 2)
    pairs = [first, *between, rng.choice(CLOSINGS)]
    lines = [_capital(line.format(t=about)) for pair in pairs for line in pair]
    return "\n".join(lines[:4]) + "\n\n" + "\n".join(lines[4:])


def _request(
    rng: random.Random,
    asks: list[str],
    bare: list[str],
    kinds: list[str],
    write: Callable[[random.Random, str], str],
    about: str,
) -> tuple[str, str]:
    if not about and rng.random() < 0.25:
        return rng.choice(bare), write(rng, rng.choice(NO_TOPIC))
    about = about or topic(rng)
    if rng.random() < 0.5:
        asked = in_passing(rng, rng.choice(asks).format(t=about))
    else:
        asked = _asked(rng, rng.choice(kinds), about)
    return asked, write(rng, about)


def _asked(rng: random.Random, kind: str, about: str) -> str:
    verse = f"{rng.choice(['a', 'a', 'a', 'one more', 'another'])} {kind} {rng.choice(ON)} {about}"
    if rng.random() < 0.5:
        return asked_for(rng, verse)
    return told_to(rng, rng.choice(WRITINGS).format(v=verse))


def haiku_request(rng: random.Random, about: str = "") -> tuple[str, str]:
    """Return a request for a haiku and the answer; mostly with a topic, or with this one."""
    return _request(rng, HAIKU_ASKS, HAIKU_BARE, HAIKU, haiku, about)


def poem_request(rng: random.Random, about: str = "") -> tuple[str, str]:
    """Return a request for a poem and the answer; mostly with a topic, or with this one."""
    return _request(rng, POEM_ASKS, POEM_BARE, POEMS, poem, about)
