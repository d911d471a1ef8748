"""Stories on a subject that the user names: each moves on, and says nothing twice.

A story is a walk through beats (opening, wish, way, friend, trouble, turn, ending). Each beat draws
sentences without repeating one, and fills them from what the story has already settled: the
subject, the friend, the place, the thing that is looked for.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from provider.embedded.making.corpus.document import Document
from provider.embedded.making.corpus.words import (
    ADJECTIVES,
    ANIMALS,
    PEOPLE,
    PLACES,
    ROLES,
    THINGS,
    held_out,
    made_up_name,
    made_up_word,
)

__all__ = ["Subject", "ask", "document", "subject", "tell"]


@dataclass(frozen=True)
class Subject:
    """What a story is about.

    `phrase` names it in the request and at its first mention in the story, `short` after that.
    """

    phrase: str  # "a brave fox named Zorvan", "Zorvan", "a lost key"
    short: str  # "Zorvan", "the fox", "the key"
    alive: bool = True


def subject(rng: random.Random, *, test: bool = False) -> Subject:
    """Return a subject; with `test`, one that training never sees."""
    while True:
        found = _subject(rng, test)
        if held_out(found.phrase) == test:
            return found


def _subject(rng: random.Random, test: bool) -> Subject:
    kind = rng.random()
    if kind < 0.12:
        name = made_up_name(rng, test=test)
        return Subject(name, name)
    if kind < 0.22:
        thing = rng.choice(THINGS)
        adjective = rng.choice(ADJECTIVES + [""] * 15)
        noun = f"{adjective} {thing}".strip()
        return Subject(_a(noun), f"the {thing}", alive=False)
    if kind < 0.40:
        noun = made_up_word(rng, test=test)
        adjective = rng.choice(ADJECTIVES + [""] * 20)
        return Subject(_a(f"{adjective} {noun}".strip()), f"the {noun}", rng.random() < 0.6)
    noun = rng.choice(ANIMALS + ROLES)
    adjective = rng.choice(ADJECTIVES + [""] * 25)
    phrase = _a(f"{adjective} {noun}".strip())
    if kind < 0.75:
        name = made_up_name(rng, test=test) if rng.random() < 0.7 else rng.choice(PEOPLE)
        named = rng.choice([" named ", " called "])
        return Subject(phrase + named + name, name)
    return Subject(phrase, f"the {noun}")


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


ASKS = [
    "Tell me a story about {s}",
    "Tell me a story about {s}.",
    "tell me a story about {s}",
    "Please tell me a story about {s}.",
    "Can you tell me a story about {s}?",
    "A story about {s}, please.",
    "Write a story about {s}.",
    "Write me a story about {s}",
    "Tell a long story about {s}.",
    "I would like a story about {s}.",
    "story about {s}",
    "Do you know a story about {s}?",
    "Make up a story about {s}",
    "Tell me about {s}",
]


def ask(rng: random.Random, about: Subject) -> str:
    """Return a request for a story about a subject, in random words."""
    return rng.choice(ASKS).format(s=about.phrase)


TIMES = [
    "Once upon a time",
    "Long ago",
    "One spring",
    "Many years ago",
    "One winter",
    "Not so long ago",
]
FRIENDS = [
    "a kind {x}",
    "an old {x}",
    "a clever {x}",
    "a talking {x}",
    "a young {x}",
    "a tired {x}",
]
GOALS = [
    "a lost song",
    "the blue lantern",
    "the way to the sea",
    "a cure for the long winter",
    "the oldest tree in the world",
    "a bell that rings by itself",
    "the end of the rainbow",
    "a place where nobody is lonely",
    "the map of the stars",
    "a seed that never sleeps",
]
GIFTS = [
    "a small lamp",
    "a piece of bread",
    "a long rope",
    "a silver whistle",
    "a warm coat",
    "a red ribbon",
]

OPENING = [
    "{time}, {place}, there lived {s}.",
    "{time} there was {s}, and the story begins {place}.",
    "{Place}, {time_low}, everybody knew {s}.",
    "This is a story about {s}. It begins {place}.",
]
OPENING_THING = [
    "{time}, {place}, there was {s}.",
    "{time} somebody found {s} {place}.",
    "This is a story about {s}. It begins {place}.",
    "{Place}, {time_low}, people told each other about {s}.",
]
DAYS = [
    "Every morning {r} looked at the sky and wondered what the day would bring.",
    "Most days were quiet, and {r} liked them that way.",
    "People who passed by always had a kind word for {r}.",
    "At night the wind told stories, and {r} listened to every one of them.",
    "Nobody guessed that {r} had a secret wish.",
    "The days went by slowly, like clouds over the hills.",
    "There was always something to do, and never anything to fear.",
]
WISH = [
    "But {r} had one great wish: to find {goal}.",
    "One evening a stranger came and spoke of {goal}, and {r} could think of nothing else.",
    "One day a letter came. It said that only {r} could find {goal}.",
    "Then, one rainy morning, {r} heard about {goal} for the first time.",
    "In a dream, {r} saw {goal}, bright and far away.",
]
LEAVING = [
    "So {r} left before the sun was up, with {gift} and not much else.",
    "The next morning {r} set out with {gift} and a little hope.",
    "Without a word, {r} took {gift} and went down the road.",
    "It was hard to say goodbye, but {r} took {gift} and did not look back.",
]
WAY = [
    "The road went up and down, through fields and over stones.",
    "For three days it rained, and the path turned into a stream.",
    "On the first night the stars were so bright that it was hard to sleep.",
    "There were wild berries by the road, and they tasted of summer.",
    "Behind every hill there was another hill, higher than the last.",
    "A cold fog came down, and for a while nothing could be seen at all.",
    "The forest grew thick, and the birds stopped singing.",
    "At a crossroads the signs pointed in all directions at once.",
    "Slowly the land changed, and the trees became small and bent.",
]
MEETING = [
    "Near an old bridge, {r} met {friend}, whose name was {f}.",
    "In the middle of the woods, {friend} was sitting on a stone. The name of this stranger was {f}.",
    "Then, under a tall tree, there was {friend} called {f}.",
    "On the second day, {friend} came along the road. It was {f}.",
]
TALK = [
    '"Where are you going?" asked {f}. "To find {goal}," said {r}.',
    '"You look tired," said {f}. "Let us walk together for a while."',
    '"I know this land," said {f}, "and I know how dangerous it is."',
    '"Nobody has ever come back from there," said {f}, "but I will go with you."',
    '"I have waited for somebody like you," said {f} with a smile.',
]
TALK_THING = [
    '"I have never seen anything like this," said {f}, and looked at {r}.',
    '"This must be {r} that the old people spoke of," said {f}.',
    '"We should take it to the sea," said {f}, "and see what happens."',
]
TOGETHER = [
    "From then on {f} and {r} went on side by side.",
    "So there were two of them now, {r} and {f}, and the road seemed shorter.",
    "{f} knew many songs, and {r} soon knew them too.",
]
TROUBLE = [
    "But on the third day they came to a river that was too wide to cross.",
    "Then a storm came over the mountains, with thunder and hail.",
    "That night somebody took everything they had, except {the_gift}.",
    "At the gate of an old castle a giant stood in the way and would not move.",
    "Suddenly the ground opened, and {f} fell into a deep hole.",
    "In the dark they lost each other, and {r} was alone again.",
]
TURN = [
    "{R} thought for a long time, and then remembered {the_gift}.",
    "Then {r} did something that nobody had ever tried before.",
    "{R} was afraid, but a friend is worth more than fear.",
    "It was {f} who had the best idea, and it was {r} who made it work.",
    "With the help of {the_gift}, and a lot of patience, it worked in the end.",
    "{R} waited until the moon was high, and then everything was suddenly clear.",
]
FOUND = [
    "And there it was, behind the last hill: {goal}.",
    "When the sun came up, they saw {goal}, and it was more beautiful than anybody had said.",
    "At the end of the road they found {goal}, just as the dream had promised.",
    "Nobody had told them that {goal} would be so small, or so bright.",
]
AFTER = [
    "They stayed there for a whole day and did not say a word.",
    "{F} laughed, and then cried a little, and then laughed again.",
    "{R} had never been so happy.",
    "They took nothing with them, because they knew that they could come back.",
]
HOME = [
    "The way home was short, as ways home always are.",
    "In autumn they were home again, and everybody wanted to hear the story.",
    "When they came home, the lamps were lit in every window.",
    "Many people came to meet them, and there was music until the morning.",
]
ENDING = [
    "And even today the people there still talk about {r}.",
    "{R} and {f} stayed friends for the rest of their lives.",
    "From that day on, {r} was never lonely again.",
    "And that is how {r} found out that the best part of a journey is the friend you find.",
    "The end of this story is the beginning of another one, but {r} will tell that one day.",
]


def _settle(rng: random.Random, about: Subject) -> dict[str, str]:
    """Return the people, places and things of a story by name, which fill all its sentences."""
    name = rng.choice(PEOPLE) if rng.random() < 0.5 else made_up_name(rng)
    time = rng.choice(TIMES)
    low = time[0].lower() + time[1:]
    gift = rng.choice(GIFTS)
    place = rng.choice(PLACES)
    return {
        "s": about.phrase,
        "r": about.short,
        "R": about.short[0].upper() + about.short[1:],
        "f": name,
        "F": name,
        "friend": rng.choice(FRIENDS).format(x=rng.choice(ANIMALS + ROLES)),
        "place": place,
        "Place": place[0].upper() + place[1:],
        "goal": rng.choice(GOALS),
        "gift": gift,
        "the_gift": "the " + gift.split(" ", 1)[1],
        "time": time,
        "time_low": low,
    }


def tell(rng: random.Random, about: Subject) -> tuple[str, dict[str, str]]:
    """Return a story of three or four paragraphs, and its people, places and things by name."""
    facts = _settle(rng, about)
    openings, talks = (OPENING, TALK) if about.alive else (OPENING_THING, TALK_THING)
    paragraphs = [
        [(openings, 1), (DAYS, rng.randint(1, 2))],
        [(WISH, 1), (LEAVING, 1), (WAY, rng.randint(1, 3))],
        [(MEETING, 1), (talks, rng.randint(1, 2)), (TOGETHER, rng.randint(0, 1))],
        [(TROUBLE, 1), (TURN, rng.randint(1, 2)), (FOUND, 1)],
        [(AFTER, rng.randint(0, 1)), (HOME, rng.randint(0, 1)), (ENDING, rng.randint(1, 2))],
    ]
    text = "\n\n".join(
        " ".join(
            sentence.format(**facts)
            for beat, how_many in paragraph
            for sentence in rng.sample(beat, how_many)
        )
        for paragraph in paragraphs
    )
    return text, facts


WHO = [
    "Who was the friend?",
    "What was the name of the friend?",
    "Who helped?",
    "who was the friend",
]
ABOUT = ["What was the story about?", "What was the subject?", "Who was the story about?"]
WHERE = ["Where did it begin?", "Where does the story begin?", "Where did the story take place?"]
WHAT = ["What did they find?", "What were they looking for?", "What did they find in the end?"]
ANOTHER = [
    "Another one, about {s}.",
    "Now one about {s}.",
    "Tell me another one, about {s}.",
    "And a story about {s}?",
]
THANKS = ["Thank you!", "Thanks, that was nice.", "I liked it.", "That was a good story."]
WELCOME = [
    "I am glad you liked it.",
    "You are welcome. Shall I tell you another one?",
    "Thank you. I like telling stories.",
]


def _follow_up(rng: random.Random, doc: Document, about: Subject, facts: dict[str, str]) -> None:
    match rng.randrange(5):
        case 0:
            doc.user(rng.choice(WHO)).assistant(f"The friend was {facts['f']}, {facts['friend']}.")
        case 1:
            doc.user(rng.choice(ABOUT)).assistant(f"The story was about {about.phrase}.")
        case 2:
            doc.user(rng.choice(WHERE)).assistant(f"It began {facts['place']}.")
        case 3:
            doc.user(rng.choice(WHAT)).assistant(f"They were looking for {facts['goal']}.")
        case _:
            doc.user(rng.choice(THANKS)).assistant(rng.choice(WELCOME))


def document(rng: random.Random) -> Document:
    """Return a conversation with a story, and perhaps questions about it or another one."""
    about = subject(rng)
    story, facts = tell(rng, about)
    doc = Document().user(ask(rng, about))
    if rng.random() < 0.15:
        plan = f"The user wants a story about {about.phrase}. The friend will be {facts['f']}, and they look for {facts['goal']}."
        doc.thinking = True
        return doc.assistant(f"<think>{plan}</think>{story}")
    doc.assistant(story)
    while rng.random() < 0.45 and len(doc.messages) < 8:
        _follow_up(rng, doc, about, facts)
    if rng.random() < 0.08:
        about = subject(rng)
        doc.user(rng.choice(ANOTHER).format(s=about.phrase)).assistant(tell(rng, about)[0])
    return doc
