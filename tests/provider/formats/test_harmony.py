"""The format of gpt-oss, on a tiny random model with its special tokens."""

import json

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AddedToken, AutoTokenizer

from provider import MLXProvider
from provider.embedded import MODEL_PATH
from provider.events import CallDelta, TextDelta
from provider.formats.families import FAMILIES, model_format, with_own_reading
from provider.formats.harmony import TOKENS, parse_tool_call
from provider.formats.text_stream import TextFormat, TextStream, initial_state
from provider.models.loading import tokenizer_of
from tests.provider.formats.test_text_stream import BYTES, outcome
from tests.support.tiny_models import LLAMA, write_model

TEMPLATE = """{%- for m in messages -%}
<|start|>{{ m.role }}{% if m.role == "assistant" %}<|channel|>final{% endif -%}
<|message|>{{ m.content }}{{ "<|return|>" if m.role == "assistant" else "<|end|>" }}
{%- endfor -%}
{%- for t in tools or [] %}{{ t | tojson }}{% endfor -%}
{%- if add_generation_prompt %}<|start|>assistant{% endif -%}"""
THOUGHT = "<|channel|>analysis<|message|>I plan.<|end|><|start|>assistant"
ADD = {
    "name": "add",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["a"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in (*TOKENS, "<|constrain|>")])
    tokenizer.chat_template = TEMPLATE
    path = tmp_path_factory.mktemp("harmony")
    write_model(path, {**LLAMA, "vocab_size": len(tokenizer)})
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (path / file).unlink(missing_ok=True)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return tokenizer_of(folder)


@pytest.fixture(scope="module")
def provider(folder):
    made = MLXProvider({"model": str(folder), "max_tokens": 400})
    yield made
    made.close()


def run(tokenizer, text, prompt="<|start|>assistant", **options):
    """Return a stream's reasoning, answer and call deltas for a text."""
    before = tokenizer.encode(prompt)
    state = initial_state(tokenizer, before)
    stream = TextStream(TextFormat(tokenizer), state=state, after=before[-1], tools=[ADD])
    found = []
    for token in tokenizer.encode(text, add_special_tokens=False):
        found += stream.add(token)
    found += stream.finish(**options)
    texts = [one for one in found if isinstance(one, TextDelta)]
    thoughts = "".join(one.text for one in texts if one.reasoning)
    said = "".join(one.text for one in texts if not one.reasoning)
    return stream, thoughts, said, [one.call for one in found if isinstance(one, CallDelta)]


def test_a_vocabulary_says_whether_it_is_harmony(tokenizer):
    embedded = tokenizer_of(MODEL_PATH)
    assert model_format(tokenizer) is FAMILIES["harmony"]
    assert model_format(embedded) is FAMILIES["json_tools"]
    assert with_own_reading(embedded) is embedded
    ends = {tokenizer.convert_tokens_to_ids(end) for end in ("<|return|>", "<|call|>")}
    assert ends <= tokenizer.eos_token_ids


def test_channels_are_separated_and_headers_dropped(tokenizer):
    stream, thoughts, said, calls = run(tokenizer, f"{THOUGHT}<|channel|>final<|message|>Yes < no.")
    assert (thoughts, said, calls) == ("I plan.", "Yes < no.", [])
    assert stream.reasoning_tokens > 0


@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>commentary to=functions.add <|constrain|>json<|message|>",
        "<|channel|>commentary to=functions.add<|constrain|>json<|message|>",
        "<|channel|>analysis to=functions.add code<|message|>",
        " to=functions.add<|channel|>commentary json<|message|>",
        "<|channel|>commentary to=add<|message|>",
    ],
)
def test_a_call_is_shown_while_it_is_written(tokenizer, header):
    preamble = "<|channel|>commentary<|message|>I add.<|end|><|start|>assistant"
    text = f'{THOUGHT}{preamble}{header}{{"a": 12}}'
    stream, thoughts, said, calls = run(tokenizer, text)
    assert (thoughts, said) == ("I plan.", "I add.")
    assert stream.calls == [{"id": calls[0].id, "name": "add", "arguments": {"a": 12}}]
    assert (calls[0].name, calls[-1].complete) == ("add", True)
    assert len(calls) > 3
    assert "".join(call.arguments or "" for call in calls) == '{"a": 12}'


def test_a_call_that_is_cut_off_is_reported(tokenizer):
    text = '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": '
    stream, _, said, calls = run(tokenizer, text, cut=True)
    assert (stream.calls, said, calls[-1].error) == ([], "", "cut_off")
    assert calls[-1].text.endswith('{"a": ')


PIECES = [
    *TOKENS,
    THOUGHT,
    "<|channel|>final<|message|>",
    "<|channel|>commentary to=functions.add <|constrain|>json<|message|>",
    "to=",
    '{"a": 12}',
    "<",
    "é🦊",
    "Hi there",
]


@given(st.lists(st.sampled_from(PIECES), max_size=10), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_split_into_tokens_gives_the_same(tokenizer, parts, stopping):
    text, text_format = "".join(parts), TextFormat(tokenizer)
    options = {
        "text_format": text_format,
        "state": "header",
        "stop": ["the"] if stopping else [],
        "tools": [ADD],
    }
    whole = outcome(tokenizer.encode(text, add_special_tokens=False), **options)
    assert outcome([BYTES[byte] for byte in text.encode()], **options) == whole


@pytest.mark.parametrize("text", ["functions.add", "python<|message|>print(3)", ""])
def test_text_without_a_call_in_json_is_no_call(text):
    with pytest.raises(ValueError, match="no call of a function"):
        parse_tool_call(text)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("<|start|>assistant<|channel|>final<|message|>Once", " upon"),
        ("Once", " upon"),
        ("<|start|>assistant", ""),
    ],
)
def test_the_prompt_determines_the_state_in_which_the_answer_begins(tokenizer, prompt, said):
    assert run(tokenizer, " upon", prompt)[1:3] == ("", said)


async def test_a_continued_answer_is_shown(provider):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Once"}]
    response = await provider.generate_async(
        "", messages=messages, continue_final_message=True, max_tokens=10, seed=2
    )
    assert response.content
    assert response.usage["reasoning_tokens"] == 0


@pytest.mark.parametrize("seed", range(4))
async def test_thinking_comes_first_and_the_answer_has_its_form(provider, seed):
    response = await provider.generate_async(
        "Hi",
        response_format={"type": "json_schema", "schema": ADD["parameters"]},
        max_reasoning_tokens=12,
        temperature=1.0,
        seed=seed,
    )
    assert response.finish_reason == "stop"
    jsonschema.validate(json.loads(response.content), ADD["parameters"])
    assert response.usage["reasoning_tokens"] <= 12


async def test_after_its_budget_thinking_ends_and_the_answer_follows(provider):
    response = await provider.generate_async(
        "Hi", max_reasoning_tokens=0, max_tokens=20, temperature=0.0
    )
    assert response.content
    assert response.reasoning_trace is None


@pytest.mark.parametrize("seed", range(4))
async def test_a_required_call_comes(provider, seed):
    response = await provider.generate_async(
        "Hi", tools=[ADD], tool_choice="required", temperature=1.0, seed=seed
    )
    (call,) = response.tool_calls
    assert (call["name"], response.finish_reason, response.content) == ("add", "tool_calls", "")
    jsonschema.validate(call["arguments"], ADD["parameters"])
