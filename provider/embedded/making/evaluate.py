"""Measure the embedded model: `python -m provider.embedded.making.evaluate [--write] [--quick]`.

It answers prompts of each kind by greedy decoding, and each answer is checked by its text. Names,
phrasings and subjects come from `held_out`, which shares nothing with the training's corpus, or are
those that the corpus keeps from training. In a conversation the turns before are the model's own.
Wrong answers are printed. With `--write` the results, the first failures and sample answers are
written into the model card.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from provider.embedded import MODEL_PATH
from provider.embedded.making import held_out
from provider.embedded.making.corpus import counting, stories, talk, tool_calls
from provider.embedded.making.corpus.tool_calls import KINDS as TOOL_KINDS
from provider.interface import GenerateResponse
from provider.mlx_provider import MLXProvider
from provider.runtime.mlx import describe

SEED = 77
COUNT = 100  # prompts of each kind
COUNTS = {  # kinds with a number of their own
    "names in tool calls, letter by letter": 300,
    "names in stories, letter by letter": 300,
    "changes of subject in a conversation of two or three turns": 200,
}
QUICK = 40  # of each kind at most, with `--quick`
AT_ONCE = 32
UNSAID_TOKENS = 80  # more than any right answer has; one that goes the wrong way may never end
SHOWN = 8  # failures that the card shows
CARD = Path(__file__).parents[1] / "MODEL_CARD.md"
MARK = "<!-- measured by provider.embedded.making.evaluate -->"
STORY_SENTENCES = 2  # that must hold the subject's name or noun

Right = Callable[[GenerateResponse], bool]


@dataclass(frozen=True)
class Case:
    """A prompt, the options of its call, and what makes an answer right.

    The prompts in `after` are answered before it, in the same conversation.
    """

    prompt: str
    options: dict[str, Any]
    right: Right
    after: tuple[str, ...] = ()


def count_case(rng: random.Random) -> Case:
    """Ask to count between two numbers that training never paired: right if the text is exact."""
    a, b = counting.span(rng, test=True)
    return _counted(counting.ask(rng, a, b), a, b)


def _counted(prompt: str, a: int, b: int) -> Case:
    return Case(prompt, {}, lambda answer: answer.content == counting.count(a, b))


def phrased_count_case(rng: random.Random) -> Case:
    """Ask for a count up or down in words that training never saw: right if the text is exact."""
    a, b = counting.span(rng, test=True, longest=20)
    match rng.randrange(3):
        case 0:
            return _counted(rng.choice(held_out.COUNT_UP).format(a=a, b=b), a, b)
        case 1:
            b = rng.choice([5, 10, 12, 20, rng.randint(3, 40)])
            return _counted(rng.choice(held_out.COUNT_TO).format(b=b), 1, b)
        case _:
            return _counted(rng.choice(held_out.COUNT_DOWN).format(a=b, b=a), b, a)


def unsaid_count_case(rng: random.Random) -> Case:
    """Ask for a count that goes down by its numbers alone: right if the text is exact."""
    while True:
        low, high = counting.span(rng, test=True, longest=12)
        if low > counting.LAST_DOWN:
            break
    case = _counted(rng.choice(held_out.COUNT_EITHER_WAY).format(a=high, b=low), high, low)
    return replace(case, options={"max_tokens": UNSAID_TOKENS})


def call_case(rng: random.Random) -> Case:
    """Ask a question that needs one of up to three tools, with names that training never saw.

    Right if the answer is exactly that call.
    """
    offers = [tool_calls.offer(rng, kind) for kind in rng.sample(TOOL_KINDS, rng.randint(1, 3))]
    asked = tool_calls.question(rng, rng.choice(offers), test=True)
    return _called(asked.text, offers, [(asked.name, asked.arguments)])


def _called(
    prompt: str, offers: Sequence[tool_calls.Offer], wanted: list[tuple[str, dict[str, Any]]]
) -> Case:
    def right(answer: GenerateResponse) -> bool:
        calls = [(call["name"], call["arguments"]) for call in answer.tool_calls or []]
        return calls == wanted and not answer.content

    return Case(prompt, {"tools": [offer.schema() for offer in offers]}, right)


def two_calls_case(rng: random.Random) -> Case:
    """Ask for two things at once: right if both calls come, in order."""
    offers = [tool_calls.offer(rng, kind) for kind in rng.sample(TOOL_KINDS, 2)]
    asked = [tool_calls.question(rng, rng.choice(offers), test=True) for _ in range(2)]
    prompt = rng.choice(tool_calls.BOTH).format(*(one.text for one in asked))
    return _called(prompt, offers, [(one.name, one.arguments) for one in asked])


def name_in_call_case(rng: random.Random) -> Case:
    """Ask for the weather at a place with an invented name: right if it is called with that."""
    return _weather_case(rng, [ask.replace("{0}", "{n}") for ask in TOOL_KINDS[0].asks])


def phrased_call_case(rng: random.Random) -> Case:
    """Ask for the weather at such a place in words that training never saw."""
    return _weather_case(rng, held_out.WEATHER)


def _weather_case(rng: random.Random, asks: Sequence[str]) -> Case:
    weather, name = tool_calls.offer(rng, TOOL_KINDS[0]), held_out.name(rng)
    others = [tool_calls.offer(rng, kind) for kind in rng.sample(TOOL_KINDS[2:], rng.randint(0, 2))]
    offers = rng.sample([weather, *others], 1 + len(others))
    prompt = rng.choice(asks).format(n=name)
    return _called(prompt, offers, [(weather.name, {weather.parameters[0]: name})])


def name_in_story_case(rng: random.Random) -> Case:
    """Ask for a story on an invented name: right if the story keeps to it and ends."""
    name = held_out.name(rng)
    return Case(rng.choice(held_out.STORY).format(n=name), {}, _tells_of(name, name))


def warm_story_case(rng: random.Random) -> Case:
    """Ask for a story on an invented name, sampled as by default."""
    case = name_in_story_case(rng)
    return replace(case, options={"temperature": 0.7, "seed": rng.randrange(1000)})


def _tells_of(phrase: str, short: str) -> Right:
    def right(answer: GenerateResponse) -> bool:
        text = answer.content or ""
        sentences = re.split(r"(?<=[.!?])\s+", text)
        holding = sum(short in sentence for sentence in sentences)
        return phrase in text and holding > STORY_SENTENCES and answer.finish_reason == "stop"

    return right


def story_case(rng: random.Random) -> Case:
    """Ask for a story on a subject that training never saw.

    Right if the story names the subject in full and ends by itself, and if more than
    STORY_SENTENCES of its sentences have the subject's noun or name.
    """
    about = stories.subject(rng, test=True)
    right = _tells_of(about.phrase, about.short.removeprefix("the "))
    return Case(stories.ask(rng, about), {}, right)


def haiku_case(rng: random.Random) -> Case:
    """Ask for a haiku: right if it has three lines and holds the topic."""
    topic = _topic(rng)
    return Case(rng.choice(held_out.HAIKU).format(t=topic), {}, _verse(topic, 3, 3))


def poem_case(rng: random.Random) -> Case:
    """Ask for a poem: right if it has eight lines and holds the topic twice or more."""
    topic = _topic(rng)
    return Case(rng.choice(held_out.POEM).format(t=topic), {}, _verse(topic, 8, 9))


def _topic(rng: random.Random) -> str:
    return held_out.name(rng) if rng.random() < 0.25 else rng.choice(held_out.TOPICS)


def _verse(topic: str, fewest: int, most: int) -> Right:
    noun = topic.removeprefix("my ").lower()

    def right(answer: GenerateResponse) -> bool:
        text = (answer.content or "").lower()
        lines = [line for line in text.splitlines() if line.strip()]
        return noun in text and fewest <= len(lines) <= most and answer.finish_reason == "stop"

    return right


def joke_case(rng: random.Random) -> Case:
    """Ask for a joke: right if it is one of the model's jokes."""
    return Case(rng.choice(held_out.JOKE), {}, lambda answer: answer.content in talk.JOKES)


def beyond_case(rng: random.Random) -> Case:
    """Ask what the model can't know; right is an answer that says so, and says what it can do."""
    return Case(rng.choice(held_out.BEYOND), {}, _says_what_it_can)


def _says_what_it_can(answer: GenerateResponse) -> bool:
    text = answer.content or ""
    return text.split(".")[0] in {sorry.split(".")[0] for sorry in talk.SORRY} and "I can" in text


def gateway_case(rng: random.Random) -> Case:
    """Ask a trained question about the gateway: right if the answer is one of the trained ones."""
    questions, answers = rng.choice(talk.GATEWAY)
    return Case(rng.choice(questions), {}, lambda answer: answer.content in answers)


SUBJECTS = (
    name_in_story_case,
    phrased_count_case,
    haiku_case,
    poem_case,
    joke_case,
    beyond_case,
    gateway_case,
    story_case,
)


def changed_subject_case(rng: random.Random) -> Case:
    """Ask for one thing after one or two others: right if the last one is answered as if alone."""
    *before, last = rng.sample(SUBJECTS, rng.randint(2, 3))
    asked = last(rng)
    return Case(asked.prompt, {}, asked.right, tuple(make(rng).prompt for make in before))


def told_name_case(rng: random.Random) -> Case:
    """Tell a name, in the same turn or up to two turns before it is asked for."""
    name, asked = held_out.name(rng), rng.choice(held_out.NAME_ASKED)
    told = rng.choice(held_out.INTRODUCED).format(n=name)
    between = [make(rng).prompt for make in rng.sample(SUBJECTS, rng.randint(0, 1))]
    after = (told, *between) if rng.random() < 0.7 else ()
    prompt = asked if after else f"{told.rstrip('.')}. {asked}"

    def right(answer: GenerateResponse) -> bool:
        return re.search(rf"{re.escape(name)}(?!\w)", answer.content or "") is not None

    return Case(prompt, {}, right, after)


def told_tone_case(rng: random.Random) -> Case:
    """Set a tone in a turn of the user: right if the next answers, up to two later, have it."""
    prompts, before, after = talk.TONES[rng.choice(list(talk.TONES))]
    others = [gateway_case, joke_case, phrased_count_case, beyond_case]
    *between, last = [make(rng).prompt for make in rng.sample(others, rng.randint(1, 2))]

    def right(answer: GenerateResponse) -> bool:
        text = answer.content or ""
        return text.startswith(before) and text.endswith(after) and answer.finish_reason == "stop"

    return Case(last, {}, right, (rng.choice(prompts), *between))


def result_case(rng: random.Random) -> Case:
    """Give a tool's result as JSON, with and without spaces: right if the answer has its values."""
    weather, place = tool_calls.offer(rng, TOOL_KINDS[0]), held_out.name(rng)
    result = {"sky": rng.choice(tool_calls.SKIES), "temperature": rng.randint(1, 38)}
    separators = (",", ":") if rng.random() < 0.5 else (", ", ": ")
    function = {"name": weather.name, "arguments": {weather.parameters[0]: place}}
    turns = [
        {"role": "user", "content": f"What is the weather in {place}?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": function}],
        },
        {"role": "tool", "content": json.dumps(result, separators=separators)},
    ]
    values = [place, *map(str, result.values())]

    def right(answer: GenerateResponse) -> bool:
        return all(value in (answer.content or "") for value in values)

    return Case("", {"messages": turns, "tools": [weather.schema()]}, right)


KINDS: dict[str, Callable[[random.Random], Case]] = {
    "names in tool calls, letter by letter": name_in_call_case,
    "names in stories, letter by letter": name_in_story_case,
    "names in stories at temperature 0.7": warm_story_case,
    "tool calls asked for in other words": phrased_call_case,
    "tool calls right to the letter": call_case,
    "two tool calls in one answer, both right": two_calls_case,
    "answers from a tool's result, spaced or compact": result_case,
    "counts without a mistake": count_case,
    "counts up and down in other words": phrased_count_case,
    "counts down that no word says": unsaid_count_case,
    "stories that hold the named subject": story_case,
    "haiku on a topic": haiku_case,
    "poems on a topic": poem_case,
    "jokes": joke_case,
    "answers about the gateway": gateway_case,
    "sentences that say what it can, to what it can't": beyond_case,
    "changes of subject in a conversation of two or three turns": changed_subject_case,
    "a name told before": told_name_case,
    "a tone told before": told_tone_case,
}

COUNTED = [
    {"role": "user", "content": "Count from 5 to 9"},
    {"role": "assistant", "content": "5, 6, 7, 8, 9."},
]
SAMPLES: list[tuple[str, dict[str, Any]]] = [
    ("Hello", {}),
    ("What is this gateway?", {}),
    ("How do I stop a generation?", {}),
    ("What is your name?", {"system_prompt": "Your name is Marlo."}),
    ("What can you do?", {"system_prompt": "Talk like a pirate."}),
    ("Who was the king of France?", {}),
    ("Count from 88 to 104", {}),
    ("Count from 3 to 12", {"enable_thinking": True}),
    ("Tell me a story about a lighthouse keeper", {}),
    ("Tell me a story about a fox named Zorvan", {}),
    ("Tell me a story about a lost umbrella", {"enable_thinking": True}),
    ("tell me a story about a glimbor", {"temperature": 0.7, "seed": 1}),
    ("count to 10", {}),
    ("Count down from 10 to 1", {}),
    ("Write a haiku about rain", {}),
    ("Write a poem about the sea", {}),
    ("tell me a joke", {}),
    ("My name is Bo. What's my name?", {}),
    ("What is the weather in Zanvorik?", {"tools": ["get_weather"]}),
    ("What is the weather in San Francisco?", {"tools": ["get_weather", "get_time"]}),
    ("weather in São Paulo", {"tools": ["get_weather"]}),
    ("Send Bralume the message trokey.", {"tools": ["send_message", "get_weather"]}),
    ("What is 734 plus 58?", {"tools": ["add", "multiply"]}),
    ("What is 7 plus 12?\nWhat is 30 plus 9?", {"tools": ["add"]}),
    ("Where did you stop?", {"messages": COUNTED}),
    ("And from 10 to 14?", {"messages": COUNTED}),
    ("Tell me a short story about Zürich", {"messages": COUNTED}),
    ("Which port is it?", {"system_prompt": "Be cheerful."}),
    ("Thanks!", {}),
]


async def share_right(provider: MLXProvider, cases: list[Case]) -> tuple[float, list[str]]:
    """Return the share of right answers, and the wrong ones as text."""
    gate = asyncio.Semaphore(AT_ONCE)
    wrong: list[str] = []

    async def judge(case: Case) -> bool:
        async with gate:
            answer = await _answer(provider, case)
        right = case.right(answer)
        if not right:
            asked = " / ".join([*case.after, case.prompt])
            calls = [(call["name"], call["arguments"]) for call in answer.tool_calls or []]
            wrong.append(f"{asked} -> {answer.content or ''}{calls or ''}")
        return right

    results = await asyncio.gather(*(judge(case) for case in cases))
    return sum(results) / len(results), wrong


async def _answer(provider: MLXProvider, case: Case) -> GenerateResponse:
    """Answer a case's prompt after the prompts before it, whose answers are the model's own."""
    given: dict[str, Any] = {}
    for prompt in case.after:
        told = await _whole(provider, prompt, given)
        turns = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": told.content or ""},
        ]
        given = {"messages": [*given.get("messages", []), *turns]}
    return await _whole(provider, case.prompt, {**given, **case.options})


def _whole(
    provider: MLXProvider, prompt: str, options: dict[str, Any]
) -> Awaitable[GenerateResponse]:
    call: Any = provider.generate_async(
        prompt, **{"temperature": 0.0, "max_tokens": 600, **options}
    )
    return call  # type: ignore[no-any-return]


async def sample(provider: MLXProvider, prompt: str, options: dict[str, Any]) -> str:
    """Return a prompt and its answer as Markdown for the model card."""
    rng = random.Random(SEED)
    kinds = {name: kind for kind in tool_calls.KINDS for name in kind.names[:1]}
    given = dict(options)
    if "tools" in given:
        given["tools"] = [tool_calls.offer(rng, kinds[n]).schema() for n in given["tools"]]
    answer = await _whole(provider, prompt, given)
    shown = {k: v for k, v in options.items() if k != "messages"}
    lines = [f"**{prompt}**" + (f" `{json.dumps(shown)}`" if shown else ""), ""]
    if "messages" in options:
        turns = " / ".join(message["content"] for message in options["messages"])
        lines.insert(0, f"(after: {turns})\n")
    if answer.reasoning_trace:
        lines.append(f"> *{answer.reasoning_trace}*\n>")
    calls = answer.tool_calls or []
    lines += [f"> `{call['name']}({json.dumps(call['arguments'])})`" for call in calls]
    lines += [f"> {line}".rstrip() for line in (answer.content or "").splitlines()]
    return "\n".join(lines)


async def speed(provider: MLXProvider, tokens: int = 100) -> float:
    """Return tokens a second of one stream alone, the median of five."""
    rates: list[float] = []
    for _ in range(5):
        answer = await _whole(provider, "Count from 1 to 40", {"max_tokens": tokens})
        rates.append(answer.raw_response.tokens_per_second)
    return sorted(rates)[2]


def _training() -> str:
    record = json.loads((MODEL_PATH / "training.json").read_text(encoding="utf-8"))
    return (
        f"Training: seed {record['seed']}, {record['step']:,} steps, "
        f"{record['tokens'] / 1e6:.1f} M tokens, {record['seconds'] / 60:.0f} minutes, "
        f"held-out loss {record['held_out_loss']:.4f} nats a token of an answer."
    )


async def measured_share(provider: MLXProvider, name: str, count: int) -> tuple[float, list[str]]:
    """Measure a kind on `count` held-out prompts; print and return its share and wrong answers."""
    rng = random.Random(SEED)
    share, wrong = await share_right(provider, [KINDS[name](rng) for _ in range(count)])
    print(f"{name}: {share:.1%}", *wrong, sep="\n    ", flush=True)  # noqa: T201
    return share, wrong


async def measure(most: int) -> str:
    """Run everything, at most so many prompts of a kind; return the card's measured part."""
    provider = MLXProvider()
    begin = time.perf_counter()
    await provider.load()
    loading = time.perf_counter() - begin
    rate = await speed(provider)
    measured: dict[str, tuple[float, int]] = {}
    wrong: list[str] = []
    for name in KINDS:
        count = min(most, COUNTS.get(name, COUNT))
        share, failures = await measured_share(provider, name, count)
        measured[name] = share, count
        wrong += failures[:1]
    exchanges = [await sample(provider, prompt, options) for prompt, options in SAMPLES]
    await provider.aclose()
    return card_part(measured, loading, rate, exchanges, wrong[:SHOWN])


def card_part(
    measured: Mapping[str, tuple[float, int]],
    loading: float,
    rate: float,
    exchanges: Sequence[str],
    wrong: Sequence[str],
) -> str:
    """Return the measured part of the card: shares and counts by kind, speed, samples, failures."""
    return "\n".join(
        [
            _training(),
            "",
            "Greedy, but where a temperature is named, on held-out prompts of each kind:",
            "",
            "| what | share | of |",
            "|---|---|---|",
            *(f"| {name} | {share:.1%} | {of} |" for name, (share, of) in measured.items()),
            "",
            f"On {describe()}: loaded in {loading:.2f} s, {rate:.0f} tokens a second alone.",
            "",
            "## Samples, as they came",
            "",
            "\n\n".join(exchanges),
            "",
            "## Failures, the first of a kind",
            "",
            *(f"- {' '.join(failure.split())}" for failure in wrong),
            "",
        ]
    )


def write_into(card: Path, measured: str) -> None:
    """Replace the measured part of a card, which begins at its mark."""
    head, _, _ = card.read_text(encoding="utf-8").partition(MARK)
    card.write_text(f"{head}{MARK}\n\n{measured}", encoding="utf-8")


def main() -> None:
    """Measure, print, and write into the card if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the result into the model card")
    parser.add_argument("--quick", action="store_true", help=f"at most {QUICK} prompts of a kind")
    options = parser.parse_args()
    text = asyncio.run(measure(QUICK if options.quick else max(COUNT, *COUNTS.values())))
    print(text)  # noqa: T201
    if options.write:
        write_into(CARD, text)


if __name__ == "__main__":
    main()
