import json

import pytest

from provider import MLXProvider
from provider.embedded import MODEL_PATH
from provider.formats.chat_template import ChatTemplate
from provider.inputs.messages import conversation
from provider.interface import (
    InvalidParameterError,
    InvalidRequestError,
    UnsupportedFeatureError,
)
from provider.models.loading import tokenizer_of
from tests.support.tiny_models import LLAMA, write_model


@pytest.fixture(scope="module")
def provider():
    made = MLXProvider({"temperature": 0.0})
    yield made
    made.close()


def roles(turns):
    return [(turn["role"], turn["content"]) for turn in turns]


def test_a_prompt_alone_is_one_user_turn():
    assert roles(conversation("Hi", None, None)) == [("user", "Hi")]


def test_the_system_prompt_comes_first():
    assert roles(conversation("Hi", "Be brief.", None))[0] == ("system", "Be brief.")


def test_a_system_prompt_goes_before_one_in_the_messages():
    messages = [{"role": "system", "content": "B"}, {"role": "user", "content": "Hi"}]
    assert roles(conversation("", "A", messages)) == [("system", "A\n\nB"), ("user", "Hi")]
    assert messages[0]["content"] == "B"


def test_a_prompt_follows_the_messages_unless_it_is_their_last():
    messages = [{"role": "user", "content": "Hi"}]
    assert roles(conversation("Hi", None, messages)) == [("user", "Hi")]
    assert roles(conversation("You", None, messages)) == [("user", "Hi"), ("user", "You")]


def test_files_stand_before_the_last_users_text():
    messages = [{"role": "user", "content": "Sum up"}, {"role": "assistant", "content": "Yes?"}]
    turns = conversation("", None, messages, "a.txt:\nx\n\n")
    assert roles(turns)[0] == ("user", "a.txt:\nx\n\nSum up")


def test_nothing_to_answer_is_an_error():
    with pytest.raises(InvalidParameterError, match="nothing to answer") as caught:
        conversation("", None, None)
    assert caught.value.parameter == "prompt"


@pytest.mark.parametrize(
    "call",
    [
        {"id": "1", "name": "add", "arguments": {"a": 1}},
        {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
    ],
)
def test_tool_calls_reach_the_template_in_one_form(call):
    messages = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    (turn,) = conversation("", None, messages)
    inner = {"name": "add", "arguments": {"a": 1}}
    assert turn["tool_calls"] == [{"type": "function", "id": "1", "function": inner}]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_earlier_thinking_reaches_the_template_by_every_name(name):
    call = {"id": "1", "name": "add", "arguments": {}}
    turn = {"role": "assistant", "content": "", "tool_calls": [call], name: "I add."}
    (told,) = conversation("", None, [turn])
    assert [told[n] for n in ("reasoning_content", "reasoning", "thinking")] == ["I add."] * 3
    (told,) = conversation("", None, [{**turn, "content": "Let me see."}])
    assert (told["reasoning_content"], "thinking" in told) == ("I add.", False)


def test_the_embedded_template_opens_the_assistants_turn():
    tokenizer = tokenizer_of(MODEL_PATH)
    template = ChatTemplate(tokenizer)
    tokens = template.tokens([{"role": "user", "content": "Hi"}], [])
    text = tokenizer.decode(tokens)
    assert text.index("Hi") < text.index("assistant")
    assert template.knows_tools


# As Qwen3 has it: a model that thinks, unless it is told not to.
THINKING = """{%- for m in messages -%}{{- m.role }}: {{ m.content }}\n{%- endfor -%}
{{- "effort " + effort | default("high") -}}
{%- if enable_thinking is defined and enable_thinking is false %} <think></think>{%- endif -%}"""


@pytest.mark.parametrize(
    ("variables", "ends"),
    [
        ({}, "effort high"),
        ({"enable_thinking": True}, "effort high"),
        ({"enable_thinking": False, "effort": "low"}, "effort low <think></think>"),
    ],
)
def test_what_is_not_said_is_as_the_template_has_it(variables, ends):
    tokenizer = tokenizer_of(MODEL_PATH)
    tokenizer.chat_template = THINKING
    tokens = ChatTemplate(tokenizer).tokens(roles_of("Hi"), [], variables=variables)
    assert tokenizer.decode(tokens).endswith(ends)


@pytest.mark.parametrize(
    ("variables", "lets"),
    [({}, True), ({"enable_thinking": True}, True), ({"enable_thinking": False}, False)],
)
def test_a_template_that_would_turn_the_thinking_off_has_it_on(variables, lets):
    thinking, embedded = tokenizer_of(MODEL_PATH), tokenizer_of(MODEL_PATH)
    thinking.chat_template = THINKING
    assert ChatTemplate(thinking).lets_think(roles_of("Hi"), [], variables) is lets
    assert not ChatTemplate(embedded).lets_think(roles_of("Hi"), [], {})


def test_a_variable_that_a_template_cannot_use_is_an_error_with_its_reason():
    tokenizer = tokenizer_of(MODEL_PATH)
    tokenizer.chat_template = THINKING
    with pytest.raises(InvalidRequestError, match="refuses these messages: "):
        ChatTemplate(tokenizer).tokens(roles_of("Hi"), [], variables={"effort": 3})


def roles_of(*said):
    return [{"role": "user", "content": text} for text in said]


class Refusing:
    """A tokenizer whose template refuses, as some do for a system role."""

    has_chat_template = True

    def apply_chat_template(self, messages, **options):
        import jinja2

        raise jinja2.TemplateError("System role not supported")


def test_a_template_that_refuses_gives_its_reason():
    with pytest.raises(InvalidRequestError, match="System role not supported"):
        ChatTemplate(Refusing()).tokens([], [], variables={"enable_thinking": False})


class Plain:
    """A tokenizer of a base model: no template."""

    has_chat_template = False

    def encode(self, text):
        return list(text.encode())


def test_a_model_without_a_template_reads_turns_with_their_roles():
    turns = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A"},
    ]
    template = ChatTemplate(Plain())
    tokens = template.tokens(turns[:2], [])
    assert bytes(tokens) == b"S\n\nUser: U\n\nAssistant:"
    going_on = template.tokens(turns, [], go_on=True)
    assert bytes(going_on) == b"S\n\nUser: U\n\nAssistant: A"


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
    form = {"type": "choice", "choices": ["A\nUser: B"]}  # holds what stops such a model
    formed = await provider.generate_async("Hi", response_format=form, max_tokens=40)
    assert formed.content == "A\nUser: B"
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
        with pytest.raises(InvalidParameterError, match="`raw` goes with"):
            await provider.generate_async("x", raw=True, **more)
    with pytest.raises(InvalidParameterError, match="`raw` goes with"):
        await provider.generate_async("", raw=True, messages=[{"role": "user", "content": "x"}])


@pytest.mark.parametrize("more", [{}, {"continue_final_message": True}])
async def test_a_user_who_speaks_of_thinking_opens_none(provider, more):
    messages = [{"role": "user", "content": "Count from 3 to 9. What is a <think> for?"}]
    if more:
        messages.append({"role": "assistant", "content": "3, 4, 5"})
    for form in ({}, {"response_format": {"type": "regex", "regex": "[a-z ,0-9]{1,9}"}}):
        answer = await provider.generate_async("", messages=messages, **more, **form)
        assert answer.content
        assert answer.reasoning_trace is None
        assert answer.usage["reasoning_tokens"] == 0


async def test_thinking_that_a_message_has_begun_goes_on(provider):
    messages = [
        {"role": "user", "content": "Tell me a story about a fox"},
        {"role": "assistant", "content": "<think>They want"},
    ]
    answer = await provider.generate_async(
        "", messages=messages, continue_final_message=True, max_reasoning_tokens=5
    )
    assert answer.reasoning_trace
    assert answer.content


@pytest.mark.parametrize(
    ("said", "cut"), [("Count from 3 to 9", ", 6"), ("Tell me a story about a fox", " a fox")]
)
async def test_an_assistants_message_is_gone_on_with(provider, said, cut):
    whole = (await provider.generate_async(said)).content
    begun = whole[: whole.index(cut)]
    messages = [
        {"role": "user", "content": said},
        {"role": "assistant", "content": begun},
    ]
    rest = await provider.generate_async(
        "", messages=messages, continue_final_message=True, temperature=0.0
    )
    assert begun + rest.content == whole
    with pytest.raises(InvalidParameterError, match="needs a last message of the assistant"):
        await provider.generate_async("", messages=messages[:1], continue_final_message=True)


def test_a_system_prompt_goes_before_a_system_message_in_parts():
    parts = [{"type": "image", "data": b"x"}]
    [system, _] = conversation("Hi", "Be nice", [{"role": "system", "content": parts}])
    assert system["content"] == [{"type": "text", "text": "Be nice\n\n"}, *parts]
