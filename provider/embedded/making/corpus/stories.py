"""Stories on a subject that the user names: each moves on, and says nothing twice.

A story is a walk through beats (opening, wish, way, friend, trouble, turn, ending). Each beat draws
sentences without repeating one, and fills them from what the story has already settled: the
subject, the friend, the place, the thing that is looked for.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from provider.embedded.making.corpus.document import Document
from provider.embedded.making.corpus.names import any_name, person_name
from provider.embedded.making.corpus.phrases import asked_for, in_passing, told_to
from provider.embedded.making.corpus.words import (
    ADJECTIVES,
    ANIMALS,
    PEOPLE,
    PLACES,
    ROLES,
    THINGS,
    held_out,
    listed,
    made_up_word,
)

__all__ = ["Subject", "ask", "document", "follow_up", "plan", "request", "subject", "tell"]


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
    if kind < 0.20:
        name = any_name(rng, test=test)
        return Subject(name, name)
    if kind < 0.28:
        thing = rng.choice(THINGS)
        adjective = rng.choice(ADJECTIVES + [""] * 15)
        noun = f"{adjective} {thing}".strip()
        return Subject(_a(noun), f"the {thing}", alive=False)
    if kind < 0.40:
        noun = made_up_word(rng, test=test, low=1 if rng.random() < 0.3 else 2)
        adjective = rng.choice(ADJECTIVES + [""] * 20)
        return Subject(_a(f"{adjective} {noun}".strip()), f"the {noun}", rng.random() < 0.6)
    noun = rng.choice(BEINGS)
    adjective = rng.choice(ADJECTIVES + [""] * 25)
    phrase = _a(f"{adjective} {noun}".strip())
    if kind < 0.78:
        name = person_name(rng, test=test)
        return Subject(phrase + rng.choice([" named ", " called "]) + name, name)
    if kind < 0.86:
        return Subject(f"{phrase} {rng.choice(RELATIVES)}", f"the {noun}")
    if kind < 0.88:
        place = rng.choice(SIGHTS)
        return Subject(place, place, alive=False)
    return Subject(phrase, f"the {noun}")


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


MORE_BEINGS = listed("""
boy girl woman man princess prince giant witch ghost pirate detective thief poet dancer hunter monk giraffe
elephant monkey parrot tiger kitten puppy goat sheep cow pig chicken duck eagle spider butterfly worm fish
shark crab lizard snake camel donkey panda koala zebra unicorn monster vampire mermaid fairy elf dwarf troll
phoenix soldier merchant inventor scientist engineer programmer judge mayor student grandmother grandfather
sister brother traveller stranger explorer firefighter beekeeper violinist juggler gnome
""")
BEINGS = [*ANIMALS, *ROLES, *MORE_BEINGS]
PLURAL_BEINGS = [noun for noun in BEINGS if noun[-1] not in "shfxynd"]
SIGHTS = [
    "the sea",
    "the moon",
    "the sun",
    "the wind",
    "the rain",
    "the forest",
    "the city",
    "the night",
]
RELATIVES = [
    "who learns to paint",
    "who wants to fly",
    "who is afraid of water",
    "that can talk",
    "who lives in the woods",
    "who lost the way",
    "on a boat",
    "in space",
    "in the rain",
    "with a red hat",
    "who never sleeps",
    "and a lost key",
    "who found a map",
    "that dreams of the sea",
    "who counts the stars",
    "with a secret",
    "in a strange land",
    "who cannot swim",
    "from the north",
    "that lives by the sea",
]


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
    "Write a short story about {s}",
    "tell me a short story about {s}",
    "Now tell me a story about {s}",
    "Now a story about {s}, please.",
    "Can you write a story about {s}?",
    "Tell a story about {s}",
    "I want to hear a story about {s}",
    "Could you tell me a story about {s}?",
    "Story about {s}.",
    "Give me a story about {s}.",
    "a short story about {s}",
]
NOUNS = [
    "story",
    "story",
    "story",
    "tale",
    "fairy tale",
    "bedtime story",
    "nice story",
    "good story",
    "new story",
    "long story",
    "short story",
    "funny story",
    "little story",
    "story for children",
]
TELLINGS = [
    "tell me {s}",
    "tell {s}",
    "write me {s}",
    "write {s}",
    "make up {s}",
    "invent {s}",
    "tell us {s}",
    "give me {s}",
    "think of {s}",
    "read me {s}",
    "come up with {s}",
]
BARE = [
    "Tell me a story",
    "Tell me a story.",
    "tell me a story",
    "Can you tell me a story?",
    "A story, please.",
    "Please tell me a story.",
    "Write a story.",
    "story",
    "Tell me a bedtime story",
    "Once upon a time",
    "Tell me something.",
]
ANOTHER_BARE = [
    "Another one",
    "another one please",
    "Tell me another story.",
    "Another story!",
    "One more story, please.",
]
PLURALS = [
    "Tell me a story about {s}s",
    "a story about {s}s",
    "Write a story about {s}s.",
    "story about {s}s",
]
MY = ["Tell me a story about my {s}", "a story about my {s}", "Write a story about my {s}."]


def ask(rng: random.Random, about: Subject) -> str:
    """Return a request for a story about a subject, in random words."""
    if rng.random() < 0.5:
        return in_passing(rng, rng.choice(ASKS).format(s=about.phrase))
    article, noun = (
        rng.choice(["a", "a", "a", "a", "one more", "another", "the"]),
        rng.choice(NOUNS),
    )
    tale = f"{article} {noun} {rng.choice(['about', 'about', 'about', 'of', 'on'])} {about.phrase}"
    if rng.random() < 0.5:
        return asked_for(rng, tale)
    return told_to(rng, rng.choice(TELLINGS).format(s=tale))


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
    name = rng.choice(PEOPLE) if rng.random() < 0.5 else person_name(rng)
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


def tell(rng: random.Random, about: Subject, *, short: bool = False) -> tuple[str, dict[str, str]]:
    """Return a story of five paragraphs, or three, and its people, places and things by name."""
    facts = _settle(rng, about)
    openings, talks = (OPENING, TALK) if about.alive else (OPENING_THING, TALK_THING)
    brief = [
        [(openings, 1), (WISH, 1)],
        [(MEETING, 1), (talks, 1), (TROUBLE, 1)],
        [(TURN, 1), (FOUND, 1), (ENDING, 1)],
    ]
    whole = [
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
        for paragraph in (brief if short else whole)
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
    "Now tell me one about {s}",
    "And one about {s}",
    "The same about {s}, please.",
    "What about {s}?",
    "And a story about {s}?",
]
THANKS = ["Thank you!", "Thanks, that was nice.", "I liked it.", "That was a good story."]
WELCOME = [
    "I am glad you liked it.",
    "You are welcome. Shall I tell you another one?",
    "Thank you. I like telling stories.",
]


def request(rng: random.Random) -> tuple[str, Subject, bool]:
    """Return a request for a story, what the story is about, and whether it is to be short."""
    kind = rng.random()
    if kind < 0.12:
        return rng.choice(BARE), subject(rng), False
    if kind < 0.17:
        noun = rng.choice(PLURAL_BEINGS)
        return rng.choice(PLURALS).format(s=noun), Subject(_a(noun), f"the {noun}"), False
    if kind < 0.20:
        noun = rng.choice(ANIMALS)
        return rng.choice(MY).format(s=noun), Subject(_a(noun), f"the {noun}"), False
    about = subject(rng)
    text = ask(rng, about)
    return text, about, "short" in text


def follow_up(rng: random.Random, about: Subject, facts: dict[str, str]) -> tuple[str, str]:
    """Return a question about a story that was told, and its answer."""
    match rng.randrange(5):
        case 0:
            return rng.choice(WHO), f"The friend was {facts['f']}, {facts['friend']}."
        case 1:
            return rng.choice(ABOUT), f"The story was about {about.phrase}."
        case 2:
            return rng.choice(WHERE), f"It began {facts['place']}."
        case 3:
            return rng.choice(WHAT), f"They were looking for {facts['goal']}."
        case _:
            return rng.choice(THANKS), rng.choice(WELCOME)


def plan(about: Subject, facts: dict[str, str]) -> str:
    """Return what is thought before a story."""
    return f"The user wants a story about {about.phrase}. The friend will be {facts['f']}, and they look for {facts['goal']}."


def document(rng: random.Random) -> Document:
    """Return a conversation with a story, and perhaps questions about it or another one."""
    text, about, short = request(rng)
    story, facts = tell(rng, about, short=short)
    doc = Document().user(text)
    if rng.random() < 0.12:
        return doc.thought(plan(about, facts), story)
    doc.assistant(story)
    while rng.random() < 0.4 and len(doc.messages) < 8:
        question, answer = follow_up(rng, about, facts)
        doc.user(question).assistant(answer)
    if rng.random() < 0.3:
        about = subject(rng)
        asked = rng.choice(ANOTHER).format(s=about.phrase) if rng.random() < 0.7 else ""
        doc.user(asked or rng.choice(ANOTHER_BARE)).assistant(tell(rng, about)[0])
    return doc
