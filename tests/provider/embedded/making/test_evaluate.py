"""The embedded model does what its card says."""

import asyncio
import json
import random
import re

import pytest

from provider import GenerateResponse, MLXProvider
from provider.embedded import MODEL_PATH
from provider.embedded.making.corpus import counting, talk, words
from provider.embedded.making.evaluate import (
    CARD,
    KINDS,
    MARK,
    SAMPLES,
    SHOWN,
    Case,
    card_part,
    measured_share,
    sample,
    share_right,
    speed,
    write_into,
)
from provider.models.loading import tokenizer_of

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def provider():
    provider = MLXProvider({"temperature": 0.0, "max_tokens": 600})
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of(MODEL_PATH)


def claimed() -> dict[str, tuple[float, int]]:
    """Return the card's shares of right answers, and of how many."""
    rows = re.findall(r"^\| (.+) \| ([\d.]+)% \| (\d+) \|$", CARD.read_text(), re.MULTILINE)
    return {name: (float(share) / 100, int(of)) for name, share, of in rows}


def test_it_fits_the_wheel():
    assert sum(file.stat().st_size for file in MODEL_PATH.iterdir()) <= 8 * MEGABYTE


def test_the_card_says_how_much_of_each_kind_is_right_with_samples_and_failures():
    card = CARD.read_text()
    measured, _, rest = card.partition("## Samples, as they came")
    shares = claimed()
    assert set(shares) == set(KINDS)
    exchanges, failures = rest.split("## Failures, the first of a kind")
    assert len(re.findall(r"^\*\*", exchanges, re.MULTILINE)) == len(SAMPLES) >= 20
    assert failures.count("\n- ") == min(SHOWN, sum(share < 1 for share, _ in shares.values()))
    for fact in ("seed", "minutes", "held-out loss", "knows nothing of the world"):
        assert fact in measured


LENGTHY = ("stories", "changes of subject")
MANY = [(kind, 24 if any(word in kind for word in LENGTHY) else 80, 2) for kind in KINDS]
LONG = pytest.mark.slow("twenty times the prompts take a minute")


@pytest.fixture(scope="module")
def few_of_each(provider):
    """The shares of a few prompts of each kind, which are all answered in common passes."""
    few = {kind: 1 if any(word in kind for word in LENGTHY) else 3 for kind in KINDS}

    async def asked():
        cases = [drawn(kind, count, 3) for kind, count in few.items()]
        return await asyncio.gather(*(share_right(provider, some) for some in cases))

    return dict(zip(few, asyncio.run(asked()), strict=True))


def drawn(kind, count, seed):
    rng = random.Random(seed)
    return [KINDS[kind](rng) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_prompts_are_answered(few_of_each, kind):
    share, wrong = few_of_each[kind]
    assert share >= claimed()[kind][0] - 0.3, wrong


@LONG
@pytest.mark.parametrize(("kind", "count", "seed"), MANY)
async def test_many_held_out_prompts_are_answered(provider, kind, count, seed):
    share, wrong = await share_right(provider, drawn(kind, count, seed))
    assert share >= claimed()[kind][0] - 0.3, wrong


async def test_stories_are_long_enough_to_be_stopped(provider):
    story = await provider.generate_async("Tell me a story about a lighthouse keeper")
    assert "lighthouse keeper" in story.content
    assert 150 <= story.usage["completion_tokens"] <= 400
    assert story.finish_reason == "stop"


async def test_the_system_prompt_sets_a_name_and_a_tone(provider):
    named = await provider.generate_async("Who are you?", system_prompt="Your name is Marlo.")
    assert "Marlo" in named.content
    pirate = await provider.generate_async("Hello", system_prompt="Talk like a pirate.")
    assert pirate.content.startswith("Arr!")


async def test_a_follow_up_refers_to_the_turn_before(provider):
    story = await provider.generate_async("Tell me a story about a fox named Zorvan.")
    turns = [
        {"role": "user", "content": "Tell me a story about a fox named Zorvan."},
        {"role": "assistant", "content": story.content},
    ]
    friend = await provider.generate_async("Who was the friend?", messages=turns)
    name = re.match(r"The friend was (\w+)", friend.content)
    assert name, friend.content
    assert name[1] in story.content


async def test_an_answer_is_made_from_a_tools_result(provider):
    tool = {
        "name": "get_weather",
        "description": "Tell the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    }
    asked = {"role": "user", "content": "What is the weather in Tarvola?"}
    first = await provider.generate_async("", messages=[asked], tools=[tool])
    (call,) = first.tool_calls
    assert (call["name"], call["arguments"]) == ("get_weather", {"city": "Tarvola"})
    turns = [
        asked,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "type": "function",
                    "function": {"name": call["name"], "arguments": {"city": "Tarvola"}},
                }
            ],
        },
        {"role": "tool", "content": '{"sky": "rainy", "temperature": 17}'},
    ]
    told = await provider.generate_async("", messages=turns, tools=[tool])
    assert "rainy" in told.content
    assert "17" in told.content


async def test_it_thinks_aloud_only_when_told_to(provider):
    prompt = "Count from 3 to 9"
    thinking = await provider.generate_async(prompt, enable_thinking=True)
    plain = await provider.generate_async(prompt)
    assert thinking.reasoning_trace
    assert plain.reasoning_trace is None
    assert thinking.content.strip() == plain.content == "3, 4, 5, 6, 7, 8, 9."


async def test_of_the_world_it_says_that_it_knows_nothing(provider):
    answer = await provider.generate_async("Who was the king of France?")
    assert answer.content.startswith(tuple(sorry.split(".")[0] for sorry in talk.SORRY))


async def test_a_wrong_answer_lowers_the_share_and_is_shown(provider):
    cases = [Case("Count from 3 to 5", {}, lambda answer: answer.content == "3, 4, 5.")]
    cases += [Case("Count from 4 to 6", {}, lambda answer: False)]
    share, wrong = await share_right(provider, cases)
    assert (share, wrong) == (0.5, ["Count from 4 to 6 -> 4, 5, 6."])


async def test_the_turns_before_are_answered_in_the_same_conversation(provider):
    last = Case("Where did you stop?", {}, lambda answer: False, ("Hello", "Count from 3 to 5"))
    _, wrong = await share_right(provider, [last])
    assert wrong == ["Hello / Count from 3 to 5 / Where did you stop? -> The last number was 5."]


@pytest.mark.parametrize("kind", KINDS)
def test_a_case_is_the_same_for_a_seed_and_an_empty_answer_is_wrong(kind):
    first, again = (KINDS[kind](random.Random(4)) for _ in range(2))
    assert (first.prompt, first.options, first.after) == (again.prompt, again.options, again.after)
    assert not first.right(GenerateResponse(content="", finish_reason="stop"))


def test_a_count_down_that_no_word_says_is_of_held_out_numbers_and_fits_its_tokens(tokenizer):
    rng = random.Random(6)
    for _ in range(400):
        case = KINDS["counts down that no word says"](rng)
        high, low = map(int, re.findall(r"\d+", case.prompt))
        assert high > low > counting.LAST_DOWN
        assert words.held_out(f"{low} to {high}")
        answer = counting.count(high, low)
        assert case.right(GenerateResponse(content=answer, finish_reason="stop"))
        assert len(tokenizer.encode(answer)) < case.options["max_tokens"]


async def test_the_speed_is_that_of_one_stream(provider):
    assert await speed(provider, tokens=5) > 0


async def test_a_share_is_printed_as_it_is_measured(provider, capsys):
    share, wrong = await measured_share(provider, "answers about the gateway", 3)
    assert not wrong
    assert capsys.readouterr().out.startswith(f"answers about the gateway: {share:.1%}\n")


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("Count from 88 to 104", "> 88, 89, 90"),
        (
            "Count from 3 to 12",
            "> *I count from 3 to 12. I start at 3 and stop after 12.*\n>\n> 3,",
        ),
        ("What is 734 plus 58?", ": 734, "),
        ("And from 10 to 14?", "> 10, 11, 12, 13, 14."),
    ],
)
async def test_a_sample_shows_the_thinking_the_calls_and_the_answer(provider, prompt, shown):
    options = dict(SAMPLES)[prompt]
    text = await sample(provider, prompt, options)
    assert shown in text
    assert f"**{prompt}**" in text
    assert text.startswith("(after: Count from 5 to 9 / 5, 6, 7, 8, 9.)") == ("messages" in options)
    assert (json.dumps(options) in text) == bool(options.keys() - {"messages"})


def test_the_measured_part_replaces_the_one_in_the_card(tmp_path):
    card = tmp_path / "MODEL_CARD.md"
    text = CARD.read_text()
    head, _, before = text.partition(f"{MARK}\n\n")
    card.write_text(text)
    _, exchanges, failures = re.split(r"\n## .*\n\n", before)
    wrong = failures.strip().removeprefix("- ").split("\n- ")
    part = card_part(claimed(), 0.11, 336.4, [exchanges.rstrip("\n")], wrong)
    write_into(card, part)
    line = re.compile(r"^On .*alone\.$", re.MULTILINE)  # names this machine's device
    assert line.sub("", card.read_text()) == line.sub("", text)
    assert "loaded in 0.11 s, 336 tokens a second alone." in card.read_text()
    assert card.read_text().startswith(head)
