"""A chat template is applied with its variables, or refuses with a reason."""

import pytest

from provider.embedded import MODEL_PATH
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
