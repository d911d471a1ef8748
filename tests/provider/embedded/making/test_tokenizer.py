"""The embedded tokenizer and its chat template, as mlx-lm loads them."""

import itertools
import json
import shutil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from provider.embedded import MODEL_PATH
from provider.embedded.making import tokenizer as making
from provider.embedded.making.corpus import documents
from provider.embedded.making.tokenizer import END, SPECIAL, START, train_tokenizer
from provider.models.loading import tokenizer_of

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rom"}}}
USER = {"role": "user", "content": "Hello"}


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of(MODEL_PATH)


@pytest.fixture(scope="module")
def render(tokenizer):
    def write(messages, **options):
        options = {"add_generation_prompt": True, "enable_thinking": False, **options}
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)

    return write


@given(st.text())
@example("naïve 日本語 🙂\u200d\x00\r\n\t  two  spaces ")
@example("Ünder 12345 6 a1B2")
def test_any_text_survives_the_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_a_name_is_the_same_tokens_wherever_it_stands(tokenizer):
    def tokens(text):
        return tokenizer.encode(text, add_special_tokens=False)

    name = tokens("Zanvorik")
    for text in ("in Zanvorik", '"Zanvorik"', "(Zanvorik"):
        assert tokens(text)[-len(name) - 1 :][: len(name) + 1].count(name[0])
        joined = ",".join(map(str, tokens(text)))
        assert ",".join(map(str, name)) in joined


def test_the_markers_are_one_token_each(tokenizer):
    for marker in SPECIAL:
        assert len(tokenizer.encode(marker, add_special_tokens=False)) == 1


def test_the_end_of_a_turn_ends_generation(tokenizer):
    assert tokenizer.eos_token_ids == {tokenizer.convert_tokens_to_ids(END)}


def test_mlx_lm_finds_tool_calling_and_thinking_by_itself(tokenizer):
    assert tokenizer.has_tool_calling
    assert (tokenizer.tool_call_start, tokenizer.tool_call_end) == ("<tool_call>", "</tool_call>")
    assert tokenizer.has_thinking
    assert (tokenizer.think_start, tokenizer.think_end) == ("<think>", "</think>")
    called = tokenizer.tool_parser('{"name": "get_weather", "arguments": {"city": "Rom"}}', None)
    assert called == {"name": "get_weather", "arguments": {"city": "Rom"}}


def test_roles_are_written_in_turn(render):
    system = {"role": "system", "content": "Be brief."}
    assert render([system, USER]) == (
        f"{START}system\nBe brief.{END}\n{START}user\nHello{END}\n{START}assistant\n"
    )


def test_tools_stand_in_the_system_turn(render):
    system = {"role": "system", "content": "Be brief."}
    first, _, rest = render([system, USER], tools=[TOOL]).partition(END)
    assert first.startswith(f"{START}system\nBe brief.\n\nTools:\n")
    assert json.loads(first.splitlines()[-1]) == TOOL["function"]
    assert rest.startswith(f"\n{START}user")
    flat = render([USER], tools=[TOOL["function"]])
    assert flat == render([USER], tools=[TOOL])


def test_calls_and_results_are_turns(render):
    turns = [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
        {"role": "tool", "content": "sunny"},
    ]
    text = render(turns, tools=[TOOL])
    call = '<tool_call>{"name": "get_weather", "arguments": {"city": "Rom"}}</tool_call>'
    assert f"{START}assistant\n{call}{call}{END}\n{START}tool\nsunny{END}\n" in text


def test_thinking_is_opened_by_the_prompt_only_when_asked_for(render):
    assert render([USER], enable_thinking=True).endswith("assistant\n<think>")
    assert render([USER], enable_thinking=False).endswith("assistant\n")


def test_a_content_of_parts_is_its_text(render):
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert render([{"role": "user", "content": parts}]) == render([USER])


def test_a_conversation_begins_with_the_tokens_of_its_beginning(tokenizer):
    turns = [USER, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "More"}]

    def tokens(messages, **options):
        return list(tokenizer.apply_chat_template(messages, enable_thinking=False, **options))

    whole = tokens(turns, add_generation_prompt=True)
    asked = tokens(turns[:1], add_generation_prompt=True)
    answered = tokens(turns[:2], add_generation_prompt=False)
    assert whole[: len(asked)] == asked
    assert whole[: len(answered)] == answered


TEMPLATE = MODEL_PATH / "chat_template.jinja"


def test_a_document_is_written_as_the_prompts_of_the_model_are(tokenizer):
    for document in itertools.islice(documents(3), 20):
        tools = document.tools or None
        served = tokenizer.apply_chat_template(
            document.messages, tools=tools, tokenize=False, add_generation_prompt=False
        )
        assert making.render(TEMPLATE, document) == served


def test_it_learns_no_merge_across_a_marker_and_every_pair_of_digits():
    *texts, digits = making._texts(TEMPLATE, seed=1, count=20)
    assert len(texts) == 20
    assert not any(marker in text for text in texts for marker in SPECIAL)
    assert all("assistant\n" in text for text in texts)
    assert {f"{number:02d}" for number in range(100)} <= set(digits.split())


def test_a_tokenizer_is_learned_from_the_corpus_and_loses_nothing(tmp_path):
    shutil.copy(MODEL_PATH / "chat_template.jinja", tmp_path)
    train_tokenizer(tmp_path, seed=1, count=50)
    learned = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for marker in SPECIAL:
        assert len(learned.encode(marker).ids) == 1
    text = "Count from 17 to 1999,\n\tnaïve 日本語 🙂"
    assert learned.decode(learned.encode(text).ids) == text
    assert learned.encode("4217").tokens == ["42", "17"]
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["eos_token"], config["model_max_length"]) == (END, 8192)
