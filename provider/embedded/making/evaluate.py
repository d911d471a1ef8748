"""Measure the embedded model: `python -m provider.embedded.making.evaluate [--write]`.

It answers prompts of each kind by greedy decoding, and each answer is checked by its text. The
names, cities, words, pairs of numbers and subjects are ones that training never saw. With `--write`
the results and sample answers are written into the model card.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provider.embedded import MODEL_PATH
from provider.embedded.making.corpus import counting, stories, talk, tool_calls
from provider.interface import GenerateResponse
from provider.mlx_provider import MLXProvider
from provider.runtime.mlx import describe

SEED = 77
COUNT = 200  # prompts of each kind
AT_ONCE = 32
CARD = Path(__file__).parents[1] / "MODEL_CARD.md"
MARK = "<!-- measured by provider.embedded.making.evaluate -->"
STORY_SENTENCES = 2  # that must hold the subject's name or noun


@dataclass(frozen=True)
class Case:
    """A prompt, the options of its call, and what makes an answer right."""

    prompt: str
    options: dict[str, Any]
    right: Callable[[GenerateResponse], bool]


def count_case(rng: random.Random) -> Case:
    """Ask to count between two numbers that training never paired: right if the text is exact."""
    a, b = counting.span(rng, test=True)
    return Case(counting.ask(rng, a, b), {}, lambda answer: answer.content == counting.count(a, b))


def call_case(rng: random.Random) -> Case:
    """Ask a question that needs one of up to three tools, with names that training never saw.

    Right if the answer is exactly that call.
    """
    offers = [
        tool_calls.offer(rng, kind) for kind in rng.sample(tool_calls.KINDS, rng.randint(1, 3))
    ]
    asked = tool_calls.question(rng, rng.choice(offers), test=True)

    def right(answer: GenerateResponse) -> bool:
        calls = [(call["name"], call["arguments"]) for call in answer.tool_calls or []]
        return calls == [(asked.name, asked.arguments)] and not answer.content

    return Case(asked.text, {"tools": [offer.schema() for offer in offers]}, right)


def two_calls_case(rng: random.Random) -> Case:
    """Ask for two things at once: right if both calls come, in order."""
    offers = [tool_calls.offer(rng, kind) for kind in rng.sample(tool_calls.KINDS, 2)]
    asked = [tool_calls.question(rng, rng.choice(offers), test=True) for _ in range(2)]
    wanted = [(one.name, one.arguments) for one in asked]

    def right(answer: GenerateResponse) -> bool:
        return [(c["name"], c["arguments"]) for c in answer.tool_calls or []] == wanted

    prompt = rng.choice(tool_calls.BOTH).format(*(one.text for one in asked))
    return Case(prompt, {"tools": [offer.schema() for offer in offers]}, right)


def story_case(rng: random.Random) -> Case:
    """Ask for a story on a subject that training never saw.

    Right if the story names the subject in full and ends by itself, and if more than
    STORY_SENTENCES of its sentences have the subject's noun or name.
    """
    about = stories.subject(rng, test=True)
    noun = about.short.removeprefix("the ")

    def right(answer: GenerateResponse) -> bool:
        text = answer.content or ""
        sentences = re.split(r"(?<=[.!?])\s+", text)
        holding = sum(noun in sentence for sentence in sentences)
        return about.phrase in text and holding > STORY_SENTENCES and answer.finish_reason == "stop"

    return Case(stories.ask(rng, about), {}, right)


def gateway_case(rng: random.Random) -> Case:
    """Ask a trained question about the gateway: right if the answer is one of the trained ones."""
    questions, answers = rng.choice(talk.GATEWAY)
    return Case(rng.choice(questions), {}, lambda answer: answer.content in answers)


KINDS: dict[str, Callable[[random.Random], Case]] = {
    "tool calls right to the letter": call_case,
    "two tool calls in one answer, both right": two_calls_case,
    "counts without a mistake": count_case,
    "stories that hold the named subject": story_case,
    "answers about the gateway": gateway_case,
}

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
    ("What is the weather in Zanvorik?", {"tools": ["get_weather"]}),
    ("Send Bralume the message trokey.", {"tools": ["send_message", "get_weather"]}),
    ("What is 734 plus 58?", {"tools": ["add", "multiply"]}),
    ("What is 7 plus 12?\nWhat is 30 plus 9?", {"tools": ["add"]}),
    (
        "Where did you stop?",
        {
            "messages": [
                {"role": "user", "content": "Count from 5 to 9"},
                {"role": "assistant", "content": "5, 6, 7, 8, 9."},
            ]
        },
    ),
    (
        "And from 10 to 14?",
        {
            "messages": [
                {"role": "user", "content": "Count from 5 to 9"},
                {"role": "assistant", "content": "5, 6, 7, 8, 9."},
            ]
        },
    ),
    ("Which port is it?", {"system_prompt": "Be cheerful."}),
    ("Thanks!", {}),
]


async def share_right(provider: MLXProvider, cases: list[Case]) -> tuple[float, list[str]]:
    """Return the share of right answers, and the wrong ones as text."""
    gate = asyncio.Semaphore(AT_ONCE)
    wrong: list[str] = []

    async def judge(case: Case) -> bool:
        async with gate:
            answer = await _whole(provider, case.prompt, case.options)
        right = case.right(answer)
        if not right:
            wrong.append(f"{case.prompt} -> {answer.content} {answer.tool_calls}")
        return right

    results = await asyncio.gather(*(judge(case) for case in cases))
    return sum(results) / len(results), wrong


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


async def measured_share(provider: MLXProvider, name: str, count: int) -> float:
    """Measure a kind on `count` held-out prompts, and print it with a few wrong answers."""
    rng = random.Random(SEED)
    share, wrong = await share_right(provider, [KINDS[name](rng) for _ in range(count)])
    print(f"{name}: {share:.1%}", *wrong[:3], sep="\n    ", flush=True)  # noqa: T201
    return share


async def measure() -> str:
    """Run everything and return the card's measured part."""
    provider = MLXProvider()
    begin = time.perf_counter()
    await provider.load()
    loading = time.perf_counter() - begin
    measured = {name: await measured_share(provider, name, COUNT) for name in KINDS}
    rate = await speed(provider)
    exchanges = [await sample(provider, prompt, options) for prompt, options in SAMPLES]
    await provider.aclose()
    return card_part(measured, loading, rate, exchanges)


def card_part(
    measured: Mapping[str, float], loading: float, rate: float, exchanges: Sequence[str]
) -> str:
    """Return the measured part of the card: shares by kind, seconds, tokens a second, samples."""
    return "\n".join(
        [
            _training(),
            "",
            f"Greedy, on {COUNT} held-out prompts of each kind:",
            "",
            "| what | share |",
            "|---|---|",
            *(f"| {name} | {share:.1%} |" for name, share in measured.items()),
            "",
            f"On {describe()}: loaded in {loading:.2f} s, {rate:.0f} tokens a second alone.",
            "",
            "## Twenty samples, as they came",
            "",
            "\n\n".join(exchanges),
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
    options = parser.parse_args()
    text = asyncio.run(measure())
    print(text)  # noqa: T201
    if options.write:
        write_into(CARD, text)


if __name__ == "__main__":
    main()
