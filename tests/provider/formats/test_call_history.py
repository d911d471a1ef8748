"""Templates of several families get the calls of earlier turns in the form that they take."""

import json

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper

from provider.embedded import MODEL_PATH
from provider.formats.chat_template import ChatTemplate
from provider.inputs.messages import conversation
from provider.interface import InvalidRequestError
from provider.models.loading import tokenizer_of

QWEN = """{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% endif %}
{%- for tool_call in message.tool_calls or [] %}
{%- if tool_call.function %}{% set tool_call = tool_call.function %}{% endif %}
<tool_call>{"name": "{{ tool_call.name }}", "arguments":
{%- if tool_call.arguments is string %} {{ tool_call.arguments }}
{%- else %} {{ tool_call.arguments | tojson }}{% endif %}}</tool_call>
{%- endfor %}<|im_end|>{% endfor %}"""
LLAMA = """{%- for message in messages %}<|{{ message.role }}|>
{%- if 'tool_calls' in message %}
{%- if not message.tool_calls|length == 1 %}
{{- raise_exception("This model only supports single tool-calls at once!") }}
{%- endif %}
{%- set tool_call = message.tool_calls[0].function %}
{"name": "{{ tool_call.name }}", "parameters": {{ tool_call.arguments | tojson }}}
{%- else %}{{ message.content | trim }}{% endif %}{% endfor %}"""
MISTRAL = """{%- for message in messages %}
{%- if message.tool_calls is defined and message.tool_calls is not none %}[TOOL_CALLS][
{%- for tool_call in message.tool_calls %}
{%- set out = tool_call.function | tojson %}{{ out[:-1] }}
{%- if not tool_call.id is defined or tool_call.id | length != 9 %}
{{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
{%- endif %}, "id": "{{ tool_call.id }}"}
{%- endfor %}]</s>
{%- elif message.role == 'tool' %}
{%- if not message.tool_call_id is defined or message.tool_call_id | length != 9 %}
{{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
{%- endif %}[TOOL_RESULTS]{"content": "{{ message.content }}", "call_id":
{{- ' "' + message.tool_call_id + '"' }}}[/TOOL_RESULTS]
{%- else %}[{{ message.role }}] {{ message.content }}{% endif %}{% endfor %}"""
DEEPSEEK = """{%- for message in messages %}
{%- if message['role'] == 'assistant' and message['tool_calls'] %}
{%- for tool in message['tool_calls'] %}
{{- '<|call|>' + tool['type'] + '<|sep|>' + tool['function']['name'] + '\n```json\n' +
tool['function']['arguments'] + '\n```<|end|>' }}
{%- endfor %}
{%- else %}<|{{ message.role }}|>{{ message['content'] }}{% endif %}{% endfor %}"""
GEMMA = """{%- for message in messages %}
{%- if message.role == 'tool' and not message.name %}
{{- raise_exception("Invalid tool response: 'name' must be provided.") }}{% endif %}
{%- for tool_call in message.tool_calls or [] %}call:{{ tool_call.function.name }}{
{%- for key, value in tool_call.function.arguments.items() %}{{ key }}:<escape>{{ value }}<escape>
{%- endfor %}}{% endfor %}<{{ message.role }}>{{ message.content }}{% endfor %}"""
HARMONY = """{%- set last = namespace(name=none) %}{% for message in messages %}
{%- if message.role == 'assistant' and message.tool_calls %}
{%- set tool_call = message.tool_calls[0].function %}{% set last.name = tool_call.name %}
{{- '<|start|>assistant to=functions.' + tool_call.name + '<|message|>' }}
{{- tool_call.arguments | tojson }}<|call|>
{%- elif message.role == 'tool' %}<|start|>functions.{{ last.name }} to=assistant<|message|>
{{- message.content | tojson }}<|end|>
{%- else %}<|start|>{{ message.role }}<|message|>{{ message.content }}<|end|>{% endif %}
{%- endfor %}"""
FAMILIES = {
    "qwen": (QWEN, '"arguments": {"city": "Tarvola"}'),
    "llama": (LLAMA, '"parameters": {"city": "Tarvola"}'),
    "mistral": (MISTRAL, '"arguments": {"city": "Tarvola"}'),
    "deepseek": (DEEPSEEK, '```json\n{"city": "Tarvola"}\n```'),
    "gemma": (GEMMA, "{city:<escape>Tarvola<escape>}"),
    "harmony": (HARMONY, '<|message|>{"city": "Tarvola"}<|call|>'),
}


def template_of(text):
    tokenizer = tokenizer_of(MODEL_PATH)._tokenizer
    tokenizer.chat_template = text
    return ChatTemplate(TokenizerWrapper(tokenizer))


def round_trip(arguments):
    call = {"id": "call_0", "function": {"name": "get_weather", "arguments": arguments}}
    messages = [
        {"role": "user", "content": "What is the weather?", "tool_calls": None},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_0", "content": "rain"},
        {"role": "assistant", "content": "It rains.", "tool_calls": []},
        {"role": "user", "content": "And tomorrow?"},
    ]
    return conversation("", None, messages)


@pytest.mark.parametrize("arguments", [{"city": "Tarvola"}, '{"city": "Tarvola"}'])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_template_gets_earlier_calls_and_results_in_its_own_form(family, arguments):
    template, written = FAMILIES[family]
    text = template_of(template).text(
        round_trip(arguments), [], variables={"enable_thinking": False}
    )
    assert text.count("get_weather") >= 1
    assert written in text
    assert "rain" in text
    assert "It rains." in text


def test_a_call_and_its_result_keep_one_id_where_ids_are_short():
    text = template_of(MISTRAL).text(round_trip({}), [], variables={"enable_thinking": False})
    call = json.loads(text[text.index("[{") : text.index("</s>")])[0]
    assert len(call["id"]) == 9
    assert f'"call_id": "{call["id"]}"' in text


def test_an_id_that_is_short_already_is_kept():
    messages = round_trip({})
    messages[1]["tool_calls"][0]["id"] = messages[2]["tool_call_id"] = "aB3dE6gH9"
    text = template_of(MISTRAL).text(messages, [], variables={"enable_thinking": False})
    assert text.count("aB3dE6gH9") == 2


def test_a_template_that_refuses_a_conversation_still_gives_its_reason():
    messages = round_trip({})
    messages[1]["tool_calls"] *= 2
    with pytest.raises(InvalidRequestError, match="only supports single tool-calls at once"):
        template_of(LLAMA).text(messages, [], variables={"enable_thinking": False})


def test_deepseeks_own_renderer_reads_calls():
    from mlx_lm.chat_templates.deepseek_v32 import apply_chat_template

    tokenizer = tokenizer_of(MODEL_PATH)._tokenizer
    template = ChatTemplate(TokenizerWrapper(tokenizer, chat_template=apply_chat_template))
    text = template.text(round_trip({"city": "Tarvola"}), [], variables={"enable_thinking": False})
    assert 'invoke name="get_weather"' in text
    assert ">Tarvola<" in text


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_thinking_is_turned_off_by_either_name(name):
    switch = f"{{% if {name} is defined and {name} is false %}}<think></think>{{% endif %}}"
    template = template_of(switch)
    messages = [{"role": "user", "content": "?"}]
    assert template.text(messages, [], variables={"enable_thinking": False}) == "<think></think>"
    assert template.text(messages, [], variables={"enable_thinking": True}) == ""
