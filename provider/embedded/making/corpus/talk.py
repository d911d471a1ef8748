"""Short talk: about the gateway, about the model itself, and answers to unknown questions."""

from __future__ import annotations

import random

from provider.embedded.making.corpus.document import Document
from provider.embedded.making.corpus.words import PEOPLE, made_up_name, made_up_word, place_name

__all__ = ["GATEWAY", "document"]

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
        ],
        [
            "I can tell stories about what you name, count from one number to another, call tools, and answer short questions about this gateway."
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
    "What is the capital of {city}?",
    "Who was {name}?",
    "What is {n} times {n}?",
    "Write a poem about {w}.",
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
    "a joke",
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
    "I don't know about that. I am a small model: I can tell stories, count, call tools, and talk about this gateway.",
    "That is beyond me. I can tell you a story, count for you, or answer a question about this gateway.",
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
PLAIN = ["You are a helpful assistant.", "Be brief.", "Answer the user.", "You are an assistant."]


def _fill(rng: random.Random, text: str) -> str:
    return text.format(
        city=place_name(rng), name=made_up_name(rng), w=made_up_word(rng), n=rng.randint(2, 99)
    )


def _exchange(rng: random.Random, name: str) -> tuple[str, str]:
    kind = rng.random()
    if kind < 0.45:
        questions, answers = rng.choice(GATEWAY)
    elif kind < 0.6:
        questions, answers = rng.choice(SELF)
    elif kind < 0.68:
        greeting = (
            f"Hello! I am {name}. What shall I do for you?"
            if name
            else "Hello! What shall I do for you?"
        )
        questions, answers = HELLO, [greeting]
    elif kind < 0.8:
        own = (
            f"My name is {name}."
            if name
            else "I am the small model of this gateway. I have no name of my own."
        )
        questions, answers = WHO, [own]
    elif kind < 0.9:
        return _fill(rng, rng.choice(UNKNOWN)), rng.choice(SORRY)
    else:
        return rng.choice(ABOUT_WORLD).format(x=rng.choice(WORLD)), rng.choice(SORRY)
    return rng.choice(questions), rng.choice(answers)


def document(rng: random.Random) -> Document:
    """Return a few short exchanges, under a system prompt that sets a name or a tone, or none."""
    doc, name, before, after = Document(), "", "", ""
    kind = rng.random()
    if kind < 0.35:
        name = made_up_name(rng) if rng.random() < 0.8 else rng.choice(PEOPLE)
        system = rng.choice(NAMED).format(n=name)
    elif kind < 0.55:
        prompts, before, after = TONES[rng.choice(list(TONES))]
        system = rng.choice(prompts)
    else:
        system = rng.choice([*PLAIN, ""])
    for _ in range(rng.randint(1, 4)):
        question, answer = _exchange(rng, name)
        doc.user(question).assistant(f"{before}{answer}{after}")
    if name and rng.random() < 0.3:  # names are copied: ask for them often
        doc.user(rng.choice(WHO)).assistant(f"My name is {name}.")
    if not name and not before and rng.random() < 0.15:
        doc = Document().user(question)
        doc.thinking = True
        return doc.assistant(
            f"<think>This is a short question. I answer it in a sentence or two.</think>{answer}"
        )
    return doc.system(system) if system else doc
