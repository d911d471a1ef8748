"""Requests are built from calls: the prompt, the answer's first state, refusals."""

import json
import re

import pytest
from mlx_lm.chat_templates.muse_spark import RESPONSE_FORMAT
from mlx_lm.tokenizer_utils import TokenizerWrapper

from provider import MLXProvider
from provider.constraints.compiler import GrammarCompiler
from provider.embedded import MODEL_PATH
from provider.formats.chat_template import ChatTemplate
from provider.formats.pieces import at_once
from provider.interface import (
    ContextWindowExceededError,
    FileData,
    InvalidParameterError,
    UnsupportedFeatureError,
)
from provider.models.loading import tokenizer_of
from provider.models.request_builder import Call, RequestBuilder, _names
from provider.options import parse_options
from tests.provider.constraints.test_answer import TOOLS
from tests.support.tiny_models import LLAMA, write_model


@pytest.fixture(scope="module")
def provider():
    made = MLXProvider({"temperature": 0.0})
    yield made
    made.close()


def test_an_answer_that_begins_with_headers_has_no_constraint():
    headed = TokenizerWrapper(tokenizer_of(MODEL_PATH)._tokenizer, response_format=RESPONSE_FORMAT)
    headed.chat_template = "{{ messages[0].content }}<|start|>assistant"
    preparation = RequestBuilder(
        ChatTemplate(headed), None, 1536, GrammarCompiler(headed, 1536), False
    )
    options = parse_options({"response_format": {"type": "json_object"}}, {})
    with pytest.raises(UnsupportedFeatureError, match="headers, which no constraint allows"):
        at_once(preparation.building(Call("Hi", None, [], [], options)))


async def test_a_model_without_a_template_answers_with_a_warning(tmp_path, caplog):
    folder = write_model(tmp_path / "plain", LLAMA)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    provider = MLXProvider({"model": str(folder), "max_tokens": 5})
    with caplog.at_level("WARNING"):
        answer = await provider.generate_async("Hi")
    assert "`plain` has no chat template" in caplog.text
    assert answer.usage["prompt_tokens"] == len(
        tokenizer_of(folder).encode("User: Hi\n\nAssistant:")
    )
    constraint = {"type": "choice", "choices": ["A\nUser: B"]}  # holds what stops such a model
    constrained = await provider.generate_async("Hi", response_format=constraint, max_tokens=40)
    assert constrained.content == "A\nUser: B"
    with pytest.raises(UnsupportedFeatureError):
        await provider.generate_async("Hi", tools=[{"name": "f"}])
    await provider.aclose()


async def test_a_raw_prompt_goes_to_the_model_as_it_is(provider):
    prompt = tokenizer_of(MODEL_PATH).apply_chat_template(
        [{"role": "user", "content": "Count from 3 to 9"}],
        add_generation_prompt=True,
        enable_thinking=False,
        tokenize=False,
    )
    raw = await provider.generate_async(prompt, raw=True)
    asked = await provider.generate_async("Count from 3 to 9")
    assert raw.content == asked.content
    assert raw.usage["prompt_tokens"] == asked.usage["prompt_tokens"]
    for more in ({"system_prompt": "x"}, {"tools": [{"name": "f"}]}):
        with pytest.raises(InvalidParameterError, match="`raw` takes a"):
            await provider.generate_async("x", raw=True, **more)
    with pytest.raises(InvalidParameterError, match="`raw` takes a"):
        await provider.generate_async("", raw=True, messages=[{"role": "user", "content": "x"}])


@pytest.mark.parametrize("more", [{}, {"continue_final_message": True}])
async def test_a_marker_in_a_users_text_does_not_open_thinking(provider, more):
    messages = [{"role": "user", "content": "Count from 3 to 9. What is a <think> for?"}]
    if more:
        messages.append({"role": "assistant", "content": "3, 4, 5"})
    more = {**more, "max_tokens": 40}
    for constraint in ({}, {"response_format": {"type": "regex", "regex": "[a-z ,0-9]{1,9}"}}):
        answer = await provider.generate_async("", messages=messages, **more, **constraint)
        assert answer.content
        assert answer.reasoning_trace is None
        assert answer.usage["reasoning_tokens"] == 0


async def test_thinking_that_a_message_has_opened_continues(provider):
    messages = [
        {"role": "user", "content": "Tell me a story about a fox"},
        {"role": "assistant", "content": "<think>They want"},
    ]
    answer = await provider.generate_async(
        "", messages=messages, continue_final_message=True, max_reasoning_tokens=5, max_tokens=30
    )
    assert answer.reasoning_trace
    assert answer.content


@pytest.mark.parametrize(
    ("said", "cut"), [("Count from 3 to 9", ", 6"), ("Tell me a story about a fox", " a fox")]
)
async def test_an_assistants_message_is_continued(provider, said, cut):
    whole = (await provider.generate_async(said, max_tokens=50)).content
    begun = whole[: whole.index(cut)]
    messages = [
        {"role": "user", "content": said},
        {"role": "assistant", "content": begun},
    ]
    rest = await provider.generate_async(
        "", messages=messages, continue_final_message=True, max_tokens=50
    )
    assert (begun + rest.content).startswith(whole)
    with pytest.raises(InvalidParameterError, match="needs the last message to be the assistant"):
        await provider.generate_async("", messages=messages[:1], continue_final_message=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tool_choice": "always"}, '"auto", "none", "required"'),
        (
            {"tool_choice": {"name": "sub"}},
            "no tool is named `sub`; tools are `get_weather`, `add`",
        ),
        ({"tool_choice": {"name": "x" * 1000}}, f"no tool is named `{'x' * 63}`; tools are"),
        ({"tool_choice": "required", "tools": []}, "there are no `tools`"),
        (
            {"tool_choice": "required", "response_format": {"type": "json_object"}},
            "a required call",
        ),
        (
            {
                "tool_choice": "required",
                "tools": [{"name": "f", "parameters": {"properties": {"a": {"type": "nope"}}}}],
            },
            "Invalid type",
        ),
    ],
)
async def test_an_impossible_tool_choice_is_an_error_at_once(provider, options, said):
    with pytest.raises(InvalidParameterError, match=re.escape(said)):
        await provider.generate_async("x", **{"tools": TOOLS, **options})


async def test_a_prompt_that_is_longer_than_its_caller_allows_is_refused(provider):
    length = (await provider.generate_async("Hi", max_tokens=1)).usage["prompt_tokens"]
    await provider.generate_async("Hi", max_tokens=1, max_input_tokens=length)
    with pytest.raises(ContextWindowExceededError) as refused:
        await provider.generate_async("Hi", max_input_tokens=length - 1)
    assert (refused.value.context_window, refused.value.content_length) == (length - 1, length)


@pytest.fixture(scope="module")
def builder():
    tokenizer = tokenizer_of(MODEL_PATH)
    compiler = GrammarCompiler(tokenizer, 1536)
    return RequestBuilder(ChatTemplate(tokenizer), 8192, 1536, compiler, keep_boundaries=True)


def steps_until_refused(builder, text, **options):
    """Return after how many steps a prompt is refused, and why."""
    call, count = Call(text, None, [], [], parse_options(options, {})), 0
    try:
        for _ in builder.building(call):
            count += 1
    except ContextWindowExceededError as error:
        return count, error
    raise AssertionError("not refused")


@pytest.mark.parametrize("raw", [False, True])
def test_a_prompt_that_cannot_fit_is_refused_before_it_is_tokenized(builder, raw):
    steps, error = steps_until_refused(builder, "word " * 520_000, raw=raw)
    assert steps <= 2
    assert error.content_length >= 8192
    assert "at least" in str(error)
    steps, error = steps_until_refused(builder, "word " * 10_000, raw=raw, max_input_tokens=3000)
    assert steps <= 2
    assert (error.context_window, "and 3000 are allowed" in str(error)) == (3000, True)


def test_a_prompt_is_tokenized_only_as_far_as_it_may_be_long(builder):
    text = "a b c d e f\n" * 7000  # about one token in two bytes; the bound by bytes is one in 13
    steps, error = steps_until_refused(builder, text)
    assert steps <= 3  # of six pieces
    assert 8192 <= error.content_length < 20_000


def test_a_long_prompt_is_built_in_steps_and_is_the_same(builder):
    text = "word " * 6000
    options = parse_options({}, {})
    steps = list(builder.building(Call(text, "Be brief.", [], [], options)))
    assert len(steps) > 4
    (request,) = at_once(builder.building(Call(text, "Be brief.", [], [], options)))
    template = builder.template
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    assert request.prompt == template.tokens(messages, [])
    assert request.boundaries


def test_errors_about_images_name_the_field_with_the_image():
    part, data = {"type": "image", "data": b"one"}, b"two"
    messages = [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]
    options = parse_options({"messages": messages}, {})
    call = Call("", None, [FileData("a.png", None, data)], [], options)
    (message,) = options.messages
    images = [message["content"][1]["data"], data, b"three"]
    names = ["`messages[0].content[1]`", "`files[0]`", "image 3"]
    assert _names(images, call) == names
