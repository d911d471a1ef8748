"""A chat template is applied with its variables, or refuses with a reason."""

import tracemalloc

import pytest

from provider.embedded import MODEL_PATH
from provider.formats import chat_template as module
from provider.formats.chat_template import ChatTemplate
from provider.interface import (
    InvalidRequestError,
)
from provider.models.loading import tokenizer_of


def test_the_embedded_template_opens_the_assistants_turn():
    tokenizer = tokenizer_of(MODEL_PATH)
    template = ChatTemplate(tokenizer)
    tokens = template.tokens([{"role": "user", "content": "Hi"}], [])
    text = tokenizer.decode(tokens)
    assert text.index("Hi") < text.index("assistant")
    assert template.knows_tools


# Like Qwen3's template: the model thinks unless `enable_thinking` is false.
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
def test_the_template_has_defaults_for_variables_that_are_not_given(variables, ends):
    tokenizer = tokenizer_of(MODEL_PATH)
    tokenizer.chat_template = THINKING
    tokens = ChatTemplate(tokenizer).tokens(roles_of("Hi"), [], variables=variables)
    assert tokenizer.decode(tokens).endswith(ends)


def test_a_variable_that_a_template_cannot_use_is_an_error_with_its_reason():
    tokenizer = tokenizer_of(MODEL_PATH)
    tokenizer.chat_template = THINKING
    with pytest.raises(InvalidRequestError, match="refuses these messages: "):
        ChatTemplate(tokenizer).tokens(roles_of("Hi"), [], variables={"effort": 3})


@pytest.mark.parametrize("written", ["{% for a in range(99999) %}x{% endfor %}", "{% nonsense %}"])
def test_a_template_is_compiled_beforehand_and_not_rendered(monkeypatch, written):
    monkeypatch.setattr("jinja2.runtime.LoopContext.__next__", lambda _: pytest.fail("rendered"))
    tokenizer = tokenizer_of(MODEL_PATH)
    tokenizer.chat_template = written
    ChatTemplate(tokenizer).warm_up()


def roles_of(*said):
    return [{"role": "user", "content": text} for text in said]


def test_a_template_that_refuses_gives_its_reason():
    tokenizer = tokenizer_of(MODEL_PATH)
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(InvalidRequestError, match="System role not supported"):
        ChatTemplate(tokenizer).tokens(roles_of("Hi"), [], variables={"enable_thinking": False})


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


def templated(source):
    """Return a tokenizer with this template."""
    tokenizer = tokenizer_of(MODEL_PATH)
    tokenizer.chat_template = source
    return tokenizer


def test_the_text_of_a_prompt_encodes_to_its_tokens():
    template = ChatTemplate(tokenizer_of(MODEL_PATH))
    turns = roles_of("Hi", "naïve 日本語 <|im_end|>")
    assert template.encodes_text
    assert template.encode(template.text(turns, [])) == template.tokens(turns, [])


def test_a_prompt_ends_with_the_last_message_or_leaves_it_open():
    template = ChatTemplate(tokenizer_of(MODEL_PATH))
    turns = [*roles_of("Hi"), {"role": "assistant", "content": "One, two"}]
    ended = template.text(turns, [], answer=False)
    assert ended.endswith("One, two<|im_end|>\n")
    assert template.text(turns, []).startswith(ended)
    assert template.text(turns, [], go_on=True) == ended.removesuffix("<|im_end|>\n")


@pytest.mark.parametrize(
    ("source", "variables", "switch"),
    [
        (THINKING, {}, True),
        (THINKING, {"enable_thinking": False}, False),
        (THINKING.replace(" and enable_thinking is false", ""), {"enable_thinking": True}, False),
        (THINKING, {"effort": 3}, False),
        ("{{ messages[0].content }}", {}, False),
        ("{{ 'thinking' }}", {}, False),
    ],
)
def test_thinking_can_be_switched_off_where_the_prompt_is_another_without_it(
    source, variables, switch
):
    template = ChatTemplate(templated(source))
    assert template.has_thinking_switch([], variables) is switch


def test_a_model_without_a_template_has_no_thinking_switch():
    assert not ChatTemplate(Plain()).has_thinking_switch([], {})


def test_the_switch_is_looked_for_once_for_each_set_of_variables():
    source = THINKING + "{%- if effort == 'low' %}{{ raise_exception('no') }}{% endif -%}"
    template = ChatTemplate(templated(source))
    assert template.has_thinking_switch([], {"effort": "high"})
    template.tokenizer.chat_template = "another, which mentions thinking"
    assert template.has_thinking_switch([], {"effort": "high"})
    for number in range(module.MAX_SWITCHES):
        assert not template.has_thinking_switch([], {"effort": f"{number}"})
    assert not template.has_thinking_switch([], {"effort": "high"}), "forgotten, as the oldest"


def test_variables_are_not_kept_with_what_is_known_of_them():
    template = ChatTemplate(templated(THINKING))
    tracemalloc.start()
    try:
        for number in range(16):
            assert template.has_thinking_switch([], {"effort": f"{number}" + "x" * 1_000_000})
        assert tracemalloc.get_traced_memory()[0] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_templates_reason_is_not_quoted_without_end():
    template = ChatTemplate(templated("{{ raise_exception(messages[0].content) }}"))
    with pytest.raises(InvalidRequestError, match="refuses these messages: xxxxx") as raised:
        template.text(roles_of("x" * 100_000), [])
    assert len(str(raised.value)) < 1000


def test_thinking_goes_by_the_name_that_the_template_reads():
    template = ChatTemplate(templated("{{ 'on' if thinking else 'off' }}"))
    assert template.text(roles_of("Hi"), [], variables={"enable_thinking": True}) == "on"
    assert template.text(roles_of("Hi"), [], variables={"enable_thinking": False}) == "off"
    assert template.text(roles_of("Hi"), []) == "off"


# Like Mistral's: arguments must be text.
CALLS = """{%- for m in messages -%}[{{ m.role }}: {{ m.content }}
{%- for call in m.tool_calls or [] %} {{ call.function.name }}({{ call.function.arguments + "" }})
{%- endfor -%}]{%- endfor -%}"""


def test_calls_of_earlier_turns_are_given_as_the_template_takes_them():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"city": "Rom"}}}
    turns = [
        *roles_of("Hi"),
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "sunny", "tool_call_id": "1"},
    ]
    template = ChatTemplate(templated(CALLS))
    for _ in range(2):
        text = template.text(turns, [])
        assert text == '[user: Hi][assistant:  f({"city": "Rom"})][tool: sunny]'


class OwnRenderer:
    """A tokenizer whose model has a renderer instead of a template."""

    has_chat_template, has_tool_calling, chat_template = True, False, None

    def __init__(self):
        self._tokenizer, self._chat_template = None, self.apply_chat_template

    def apply_chat_template(self, messages, *, tokenize, **variables):
        text = "".join(f"[{message['content']}]" for message in messages)
        return self.encode(text) if tokenize else text

    def encode(self, text, add_special_tokens=True):
        return [*([0] if add_special_tokens else []), *text.encode()]


def test_a_renderer_of_the_model_writes_the_prompt_which_is_encoded_as_it_is():
    template = ChatTemplate(OwnRenderer())
    assert template.encodes_text
    assert bytes(template.tokens(roles_of("a", "b"), [])) == b"[a][b]"
    assert template.raw("a") == [0, ord("a")]
    assert not template.has_thinking_switch([], {}), "it writes the same prompt"
    assert not template.knows_tools


class OwnTokens(OwnRenderer):
    """A tokenizer of a class with a rendering of its own, which gives tokens."""

    class Inner:
        def apply_chat_template(self, messages, *, tokenize, return_dict, **variables):
            assert not return_dict
            return [len(message["content"]) for message in messages]

    def __init__(self):
        self._tokenizer, self._chat_template = self.Inner(), None


def test_tokens_that_are_not_those_of_a_text_are_taken_from_the_tokenizer():
    template = ChatTemplate(OwnTokens())
    assert not template.encodes_text
    assert template.tokens(roles_of("a", "bcd"), []) == [1, 3]
