"""Short talk: about the gateway, about the model itself, and answers to unknown questions."""

from __future__ import annotations

import random

from provider.embedded.making.corpus.document import Document
from provider.embedded.making.corpus.names import any_name, person_name
from provider.embedded.making.corpus.phrases import asked_for, in_passing, told_to
from provider.embedded.making.corpus.words import (
    THINGS,
    listed,
    made_up_name,
    made_up_word,
    place_name,
)

__all__ = [
    "GATEWAY",
    "JOKES",
    "PLAIN",
    "SORRY",
    "TONES",
    "WHO",
    "document",
    "exchange",
    "joke",
    "tone_of",
    "unknown",
]

# Questions about the gateway: several ways to ask, several ways to answer.
GATEWAY: list[tuple[list[str], list[str]]] = [
    (
        [
            "What is this gateway?",
            "What is this?",
            "What is mlx-gateway?",
            "What does this gateway do?",
            "what is the gateway",
            "Tell me about this gateway.",
            "Explain the gateway.",
        ],
        [
            "This gateway puts a language model that runs on MLX behind a WebSocket. You see the text as it is made, and you can stop it at any time.",
            "It is a WebSocket gateway for language models that run on MLX. Many answers can stream on one connection, and each one can be stopped at once.",
        ],
    ),
    (
        [
            "How do I stop a generation?",
            "How can I stop an answer?",
            "How do I cancel?",
            "how do i stop",
            "Can I stop you?",
            "How do I stop this?",
            "What happens when I press Stop?",
        ],
        [
            "Press Stop, or the Esc key. The page sends a cancel frame, and the model stops before its next step. The text so far stays.",
            "Send a cancel frame with the id of the generation, or press Stop on the page. The model stops before its next step.",
        ],
    ),
    (
        ["What is MLX?", "what is mlx", "What is MLX used for?", "Tell me about MLX."],
        [
            "MLX is an array framework for machine learning. It runs on Apple silicon, on CUDA and on a Linux CPU.",
            "MLX is the framework that runs the model. It works on Apple silicon, on CUDA and on a Linux CPU.",
        ],
    ),
    (
        [
            "Which protocol do you speak?",
            "What is the protocol?",
            "How do the frames look?",
            "What does a frame look like?",
            "Which format do the frames have?",
        ],
        [
            "The frames are JSON or msgpack over a WebSocket. A client sends generate, and the server answers with started, chunk and done.",
            "It is a WebSocket protocol with JSON or msgpack frames. Each generation has an id and ends with exactly one done or error.",
        ],
    ),
    (
        [
            "How many generations can run at once?",
            "Can I run several prompts at once?",
            "How many at once?",
            "Can two answers run side by side?",
        ],
        [
            "Many at once. They share one batch, so two answers take hardly longer than one. Up to 32 decode together, and the rest wait in a queue.",
            "As many as you like on one connection. Up to 32 decode together in one batch, and the rest wait in a queue.",
        ],
    ),
    (
        [
            "How do I connect?",
            "How can I connect to the gateway?",
            "What is the address?",
            "Where do I connect?",
            "Which port is it?",
        ],
        [
            "Open a WebSocket to the path /v1/stream. The port is 8765 unless you choose another one.",
            "Connect a WebSocket to /v1/stream on port 8765, or import client.js and call connect.",
        ],
    ),
    (
        [
            "Why is it fast?",
            "Why does it not block?",
            "How does the engine work?",
            "What makes it fast?",
        ],
        [
            "One thread owns the model and decodes all streams in one batch. The event loop never waits for the model.",
            "All streams share one batch on one thread, and the event loop is never blocked.",
        ],
    ),
    (
        ["Can I use it from Python?", "Is there a Python client?", "How do I use it in Python?"],
        [
            "Yes. Import MLXProvider from provider and await generate_async, or use the client in gateway.client."
        ],
    ),
    (
        ["Can I use it in my own page?", "How do I embed it?", "Is there a JavaScript client?"],
        [
            "Yes. The file client.js has no dependencies. Import connect, call generate, and loop over the chunks."
        ],
    ),
    (
        ["Does it need the internet?", "Do you need a network?", "Is my text sent to a server?"],
        [
            "No. The model in the package runs on your own machine, and nothing is sent anywhere else."
        ],
    ),
    (
        ["Can I use another model?", "How do I use my own model?", "Which models work?"],
        [
            "Yes. Start the gateway with --model and a folder or a hub id. Any text model that mlx-lm can load will do."
        ],
    ),
    (
        ["What is a token?", "What are tokens?"],
        [
            "A token is a piece of text, often a word or a part of one. The model makes one token at each step."
        ],
    ),
    (
        ["What is streaming?", "Why do you stream the text?"],
        [
            "Streaming means that you see the text as it is made, piece by piece, and do not have to wait for the end."
        ],
    ),
]

SELF: list[tuple[list[str], list[str]]] = [
    (
        [
            "What can you do?",
            "what can you do",
            "Help",
            "help",
            "How can you help me?",
            "What are you good for?",
            "What can I ask you?",
            "What should I try?",
            "what else can you do?",
            "What can I do here?",
            "Give me an example.",
        ],
        [
            "I can tell stories about what you name, write poems and haiku, tell jokes, count up and down, call tools, and answer short questions about this gateway."
        ],
    ),
    (
        [
            "Are you intelligent?",
            "Are you a person?",
            "Are you real?",
            "How big are you?",
            "What do you know?",
            "How many parameters do you have?",
        ],
        [
            "I am a very small model, made to show this gateway. I know nothing of the world, but I can tell stories and count.",
            "I am a tiny language model with about two million parameters. I am here to show the gateway, and I know nothing of the world.",
        ],
    ),
    (
        ["How are you?", "how are you", "How are you today?", "Are you well?"],
        [
            "I am well, thank you. What shall I do for you?",
            "Very well, thank you. Shall I tell you a story?",
        ],
    ),
    (
        ["Thank you", "Thanks!", "thanks", "Thank you very much.", "Great, thanks"],
        ["You are welcome.", "You are welcome. Shall I tell you a story?"],
    ),
    (
        ["Goodbye", "Bye!", "bye", "See you", "Good night"],
        ["Goodbye! Come back whenever you like.", "Goodbye, and thank you for the visit."],
    ),
]
HELLO = [
    "Hello",
    "Hi",
    "hi",
    "Hello!",
    "Hi there",
    "Good morning",
    "hey",
    "Hey!",
    "hello there",
    "Good evening",
]
WHO = [
    "Who are you?",
    "What is your name?",
    "what's your name",
    "Who am I talking to?",
    "who are you",
    "Tell me your name.",
]

UNKNOWN = [
    "What is {n} + {n}?",
    "{n}+{n}",
    "what is {n} * {n}",
    "What's {n} plus {n}?",
    "How do I {do} {x}?",
    "Can you {do} {x} for me?",
    "{do} {x}",
    "I need to {do} {x} by tomorrow.",
    "What is the difference between {x} and {y}?",
    "Write a letter to {name}.",
    "Write an email to {name} about {x}.",
    "Write a function that can {do} {x}.",
    "Write Python code to {do} {x}.",
    "Write a {x} in JavaScript",
    "Give me a recipe with {x}.",
    "Give me three tips for {x}.",
    "List five kinds of {x}.",
    "Recommend a film about {x}.",
    "Which is better, {x} or {y}?",
    "What day is it?",
    "What is today's date?",
    "How old are you?",
    "Do you speak German?",
    "Where do you live?",
    "Draw me a picture of {x}.",
    "Show me a picture of {name}",
    "Translate this into Spanish: {x} and {y}",
    "Can you see me?",
    "Who made {x}?",
    "Who is {name}?",
    "who is {name}",
    "Tell me the news about {city}.",
    "What do you know about {city}?",
    "What is {city} famous for?",
    "How many people live in {city}?",
    "Plan a trip to {city}.",
    "Tell me a fact.",
    "Tell me something interesting.",
    "Play a game with me.",
    "Are you better than other models?",
    "Solve this: {n} x = {n}",
    "Sort these: {n}, {n}, {n}",
    "Is {n} a prime number?",
    "asdf",
    "{w} {w}",
    "{w} {x} {w}?",
    "test",
    "why?",
    "How many {x} are there?",
    "My {x} is broken.",
    "I want to learn {x}.",
    "Should I buy {x}?",
    "Let us talk about {x}.",
    "Tell me more about {x}.",
    "Make a table of {x} and {y}.",
    "Make a list of {x}",
    "Summarise this text: {x} and {y}, {w} and {name}.",
    "Correct this sentence: {x} are {w}.",
    "Bonjour",
    "Hola, {name}",
    "Wie geht es dir?",
    "Wer bist du, {name}?",
    "¿Qué es {w}?",
    "What is the capital of {city}?",
    "Who was {name}?",
    "What is {n} times {n}?",
    "What do you think about {w}?",
    "Explain {w} to me.",
    "How do I cook {w}?",
    "Who won the game?",
    "What is the meaning of life?",
    "Is {w} good for me?",
    "What is the best {w}?",
    "Why is the sky blue?",
    "Translate {w} into French.",
    "When was {name} born?",
    "Write some code for {w}.",
    "What is love?",
    "Do you like {w}?",
    "How old is {name}?",
    "How far is it to {city}?",
    "What is the news today?",
    "Fix my {w}.",
    "{w}",
    "{name}",
    "{n}",
    "What does {w} mean?",
    "Where is {city}?",
    "Sing a song.",
    "Who is the president of {city}?",
    "How does {w} work?",
    "Give me advice about {w}.",
    "Summarise {w}.",
    "What is the weather in {city}?",
    "What time is it?",
    "Play some music.",
    "I am sad.",
    "I am bored.",
]
DOINGS = listed("""
build fix find buy sell make draw cook bake clean learn explain open sort paint repair install delete read
write translate summarise compare plan measure solve choose wash plant grow catch train improve understand
""")
WORLDLY = listed("""
apples bread bicycles cars computers houses gardens languages numbers letters engines planets rockets bridges
computers batteries paintings insects mountains rivers volcanoes oceans taxes contracts databases networks
physics chemistry biology history geography economics grammar spelling algebra geometry guitars pianos boats
tomatoes potatoes coffee cheese soup pizza shoes shirts trees flowers dogs cats horses birds fish weather
games puzzles cards movies songs books newspapers phones cameras emails passwords servers browsers
""")
STARTS = listed("""
What What_is What_are What_does What's What's_the Why Why_do Why_does Why_is How How_do How_does How_many How_much
How_long How_far How_old How_tall How_can_I When When_did When_is Where Where_is Where_can_I Which Which_is Who
Who_is Who_was Who_invented Who_wrote Who_won Whose Is Is_there Are Are_there Do_you Does Did Can_you Can_I Could_you
Will Would_you Should_I Define Explain Explain_how Convert List List_the Name Name_a Describe Compare Calculate
Compute Solve Find Find_me Show Show_me Give_me Give_me_a Recommend Suggest Summarise Rewrite Fix Fix_this Write_a
Write_an Write_code_for Write_a_script_that Draw Design Plan Imagine Let's I_want I_need I_think I_have I_feel
Do_my Please Help_me Help_me_with Teach_me Pretend Act_as Answer Guess Choose Book Order Buy Remind_me Set Turn_on
what_is what_are why_is how_do_i how_to who_is when where can_you give_me explain define i_need translate
""")
SMALL_WORDS = listed(
    "the a of in with for to and my your on from between about is are this that best not"
)
WORDS = [
    *DOINGS,
    *WORLDLY,
    *THINGS,
    *listed("""
    red blue big small old new long short fast slow hot cold high deep free cheap good bad happy sad tall early late
    capital country president king war team game winner score year month week hour minute mile meter pound euro price
    square root number prime sum angle shape colour word sentence letter essay speech paragraph meaning opposite
    plot author painter singer actor inventor doctor lawyer nurse pilot boss friend mother father baby people human
    body heart blood bone skin brain eye leg hand hair tooth vaccine virus cell atom gas metal gold oil water air
    earth moon sun star space light sound speed heat energy life death ghost god dream money job tax bank market stock
    house kitchen shop school city town road train plane ticket hotel flight trip beach island country map phone screen
    keyboard file folder script function loop list string class error bug test program shell website internet video
    photo picture song film book recipe pancake salad rice meat fruit wine beer dinner breakfast diet sport running
    winter summer weekend birthday party present wedding holiday morning night tie dress shoe rhymes orange yellow
    """),
]
# Things of the world, which the model is to say that it knows nothing of.
WORLD = [
    "the king of France",
    "the war",
    "my job",
    "the moon landing",
    "photosynthesis",
    "Shakespeare",
    "the stock market",
    "black holes",
    "the Roman empire",
    "quantum physics",
    "my mother",
    "football",
    "the president",
    "Python",
    "the best restaurant in Rome",
    "chess",
    "a good book",
    "the French Revolution",
    "gravity",
    "money",
    "music",
    "the sun",
    "cats",
    "dogs",
    "my homework",
    "climate change",
    "an apple",
    "the ocean",
    "my computer",
    "Einstein",
    "a recipe for bread",
    "the human heart",
    "mathematics",
    "history",
    "the price of gold",
    "my car",
]
ABOUT_WORLD = [
    "Who was {x}?",
    "What is {x}?",
    "Explain {x}.",
    "What do you know about {x}?",
    "Can you help me with {x}?",
    "Why is {x} important?",
    "How does {x} work?",
    "What happened to {x}?",
    "Is {x} good?",
    "Who invented {x}?",
    "Give me {x}.",
    "What do you think of {x}?",
    "Write an essay about {x}.",
    "How do I find {x}?",
]
SORRY = [
    "I don't know about that. I am a small model: I can tell stories, write poems and haiku, tell jokes, count, call tools, and talk about this gateway.",
    "That is beyond me. I can tell you a story or a joke, write a poem, count for you, or answer a question about this gateway.",
]

TONES: dict[str, tuple[list[str], str, str]] = {
    "cheerful": (
        ["Be cheerful.", "You are a cheerful assistant.", "Answer in a cheerful tone."],
        "Hooray! ",
        "",
    ),
    "formal": (
        ["Be formal.", "You are a formal assistant.", "Answer in a formal tone."],
        "Certainly. ",
        "",
    ),
    "pirate": (
        ["Talk like a pirate.", "You are a pirate.", "Answer like a pirate."],
        "Arr! ",
        " Yo ho!",
    ),
    "polite": (["Be very polite.", "You are a very polite assistant."], "With pleasure. ", ""),
}
NAMED = [
    "Your name is {n}.",
    "You are {n}.",
    "You are an assistant named {n}.",
    "You are called {n}.",
    "Your name is {n}. Be brief.",
]
NO_NAME = "I am the small model of this gateway. I have no name of my own."
SHORT_PLAN = "This is a short question. I answer it in a sentence or two."
PLAIN = ["You are a helpful assistant.", "Be brief.", "Answer the user.", "You are an assistant."]


# Jokes of its own, about what it knows: words, numbers and wires.
JOKES = [
    "Why did the token cross the wire? Because somebody on the other side was waiting for it.",
    "Why was the number six so nervous? Because it had heard what seven did at dinner.",
    "What did the queue say to the prompt? Please wait, you are next.",
    "Why don't clouds tell secrets? Because sooner or later everything comes out as rain.",
    "What does a snail say on the back of a turtle? Not so fast!",
    "Why did the story stop in the middle? Somebody pressed the Esc key.",
    "Why did the clock go to school? It wanted to learn what time it was.",
    "What do you call a fox with a lantern? Bright.",
    "Why was the bridge so calm? It had got over everything.",
    "Why did the small model count to ten? Because nobody had asked it for eleven.",
    "What did one window say to the other? I can see right through you.",
    "Why did the owl say nothing? It was too wise to answer.",
]
JOKE_ASKS = [
    "Tell me a joke",
    "tell me a joke",
    "Tell me a joke.",
    "Can you tell me a joke?",
    "A joke, please.",
    "Do you know a joke?",
    "joke",
    "Make me laugh.",
    "Tell me something funny.",
    "say something funny",
    "Know any good jokes?",
    "Please tell me a funny joke.",
    "Give me a joke",
    "Now a joke.",
    "I want to hear a joke",
]
JOKE = ["a joke", "a good joke", "one more joke", "another joke", "a funny joke", "some joke"]
JOKE_ABOUT = ["Tell me a joke about {x}.", "a joke about {x}", "Do you know a joke about {x}?"]


def joke(rng: random.Random) -> tuple[str, str]:
    """Return a request for a joke, at times about something, and one of the jokes."""
    if rng.random() < 0.15:
        about = rng.choice([made_up_word(rng), rng.choice(WORLDLY), f"a {rng.choice(THINGS)}"])
        return rng.choice(JOKE_ABOUT).format(x=about), rng.choice(JOKES)
    kind = rng.random()
    if kind < 0.2:
        return asked_for(rng, rng.choice(JOKE)), rng.choice(JOKES)
    if kind < 0.4:
        return told_to(
            rng, f"{rng.choice(['tell me', 'tell', 'make'])} {rng.choice(JOKE)}"
        ), rng.choice(JOKES)
    return in_passing(rng, rng.choice(JOKE_ASKS)), rng.choice(JOKES)


def _fill(rng: random.Random, text: str) -> str:
    while "{n}" in text:
        text = text.replace("{n}", str(rng.choice([rng.randint(2, 99), rng.randint(2, 20)])), 1)
    return text.format(
        city=place_name(rng) if rng.random() < 0.5 else any_name(rng),
        name=made_up_name(rng) if rng.random() < 0.5 else any_name(rng),
        w=made_up_word(rng),
        x=rng.choice(WORLDLY),
        y=rng.choice(WORLDLY),
        do=rng.choice(DOINGS),
    )


def _anything(rng: random.Random) -> str:
    """Return a question or a wish of words that were never meant for each other."""
    words = [
        made_up_word(rng) if rng.random() < 0.1 else rng.choice(WORDS)
        for _ in range(rng.choice([1, 2, 2, 3, 3, 4, 5, 6]))
    ]
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        words.insert(rng.randint(0, len(words)), rng.choice(SMALL_WORDS))
    return f"{rng.choice(STARTS)} {' '.join(words)}{rng.choice(['?', '?', '.', '', '', '!'])}"


def unknown(rng: random.Random) -> tuple[str, str]:
    """Return a question that is beyond the model, and the sentence that says so."""
    kind = rng.random()
    if kind < 0.45:
        return _anything(rng), rng.choice(SORRY)
    if kind < 0.8:
        return _fill(rng, rng.choice(UNKNOWN)), rng.choice(SORRY)
    return rng.choice(ABOUT_WORLD).format(x=rng.choice(WORLD + WORLDLY)), rng.choice(SORRY)


def tone_of(rng: random.Random) -> tuple[str, str, str]:
    """Return a request for a tone, and what then stands before and after each answer."""
    prompts, before, after = TONES[rng.choice(list(TONES))]
    return rng.choice(prompts), before, after


def exchange(rng: random.Random, name: str) -> tuple[str, str]:
    """Return a short question and its answer by a model that is called `name`, or nothing."""
    kind = rng.random()
    if kind < 0.36:
        questions, answers = rng.choice(GATEWAY)
    elif kind < 0.48:
        questions, answers = rng.choice(SELF)
    elif kind < 0.55:
        greeting = f"I am {name}. " if name else ""
        questions, answers = HELLO, [f"Hello! {greeting}What shall I do for you?"]
    elif kind < 0.64:
        own = f"My name is {name}." if name else NO_NAME
        questions, answers = WHO, [own]
    elif kind < 0.72:
        return joke(rng)
    else:
        return unknown(rng)
    return rng.choice(questions), rng.choice(answers)


def document(rng: random.Random) -> Document:
    """Return a few short exchanges, under a system prompt that sets a name or a tone, or none."""
    doc, name, before, after = Document(), "", "", ""
    kind = rng.random()
    if kind < 0.4:
        name = person_name(rng)
        system = rng.choice(NAMED).format(n=name)
    elif kind < 0.55:
        system, before, after = tone_of(rng)
    else:
        system = rng.choice([*PLAIN, ""])
    for _ in range(rng.randint(1, 4)):
        question, answer = exchange(rng, name)
        doc.user(question).assistant(f"{before}{answer}{after}")
    if name and rng.random() < 0.5:  # names are copied: ask for them often
        doc.user(rng.choice(WHO)).assistant(f"My name is {name}.")
    if not name and not before and rng.random() < 0.15:
        return Document().user(question).thought(SHORT_PLAN, answer)
    return doc.system(system) if system else doc
