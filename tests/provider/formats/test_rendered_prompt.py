"""The properties of a rendered prompt agree with separate renderings."""

from functools import cache

import pytest
from mlx_lm.chat_templates.deepseek_v32 import apply_chat_template
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import AddedToken, AutoTokenizer

from provider.embedded import MODEL_PATH
from provider.formats.chat_template import ChatTemplate
from provider.formats.harmony import TOKENS
from provider.formats.rendered_prompt import RenderedPrompt
from provider.formats.text_stream import ANSWER_STATE, REASONING_STATE
from provider.inputs.messages import conversation
from provider.inputs.tools import normalise_tools
from provider.models.loading import tokenizer_of
from tests.provider.formats.test_call_history import FAMILIES as TEMPLATES
from tests.provider.formats.test_chat_template import THINKING
from tests.provider.formats.test_harmony import TEMPLATE as HARMONY

# Like Qwen3's templates: thinking has a switch, some open it, and past thinking is dropped.
OPENING = """{%- for m in messages -%}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor -%}
{%- for t in tools or [] %}{{ t | tojson }}{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
<think>{% if enable_thinking is defined and enable_thinking is false %}</think>{% endif %}
{%- endif -%}"""
NEEDS_A_USER = """{%- if messages[-1].role == "system" -%}
{{ raise_exception("no user") }}{% endif -%}
{%- for m in messages -%}{{ m.role }}: {{ m.content }}
{% endfor -%}{% if add_generation_prompt %}assistant: {% endif %}"""


def embedded(template=None, *, added=(), **wrapping):
    tokenizer = AutoTokenizer.from_pretrained(MODEL_PATH)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in added])
    if template is not None:
        tokenizer.chat_template = template
    return TokenizerWrapper(tokenizer, **wrapping)


TOKENIZERS = {
    "embedded": lambda: tokenizer_of(MODEL_PATH),
    "thinking": lambda: embedded(THINKING),
    "opening": lambda: embedded(OPENING),
    "needs a user": lambda: embedded(NEEDS_A_USER),
    "harmony": lambda: embedded(HARMONY, added=TOKENS),
    "deepseek": lambda: embedded(chat_template=apply_chat_template),
    **{name: lambda text=text: embedded(text) for name, (text, _) in TEMPLATES.items()},
}
TOOLS = normalise_tools([{"name": "add", "parameters": {"type": "object", "properties": {}}}])
CALL = {"id": "call_0", "function": {"name": "add", "arguments": {"a": 1}}}
TALKS = {
    "one turn": [{"role": "user", "content": "Hi  there"}],
    "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    "calls": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is a <think> for?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_0", "content": "1"},
        {"role": "assistant", "content": "One, "},
    ],
    "begun": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>They say"},
    ],
}


# Each talk, and those that end with the assistant's message also continued.
GOING_ON = [
    (talk, go_on)
    for talk, turns in TALKS.items()
    for go_on in ([False, True] if turns[-1]["role"] == "assistant" else [False])
]


@cache
def style_of(tokenizer):
    return ChatTemplate(tokenizer)._call_style()


def applied(tokenizer, messages, *, answer=False, go_on=False, tokenize=True, variables):
    """Apply a template as transformers does, with calls in the form that it takes."""
    style = style_of(tokenizer)
    calls = any(message.get("tool_calls") for message in messages)
    plain = tokenizer._chat_template is None and "enable_thinking" not in variables
    render = tokenizer._tokenizer.apply_chat_template if plain else tokenizer.apply_chat_template
    found = render(
        style.applied_to(messages) if calls else messages,
        tools=TOOLS,
        add_generation_prompt=answer,
        tokenize=tokenize,
        **({"continue_final_message": True} if go_on else {}),
        **({"return_dict": False} if plain else {}),
        **variables,
    )
    return found if isinstance(found, str) else list(found)


def expected(tokenizer, messages, *, go_on, variables):
    """Return tokens, boundaries, whether the answer begins in thinking, and whether it may think.

    Each is rendered by itself.
    """
    options = {"variables": variables}
    tokens = applied(tokenizer, messages, answer=not go_on, go_on=go_on, **options)
    boundaries = []
    beginnings = [messages[:1]] if messages[0]["role"] == "system" else []
    for beginning in [*beginnings, messages]:
        try:
            part = applied(tokenizer, beginning, **options)
        except Exception:  # noqa: BLE001 - templates raise anything
            continue
        if len(part) < len(tokens) and part == tokens[: len(part)]:
            boundaries.append(len(part))
    text = applied(tokenizer, messages, answer=not go_on, go_on=go_on, tokenize=False, **options)
    try:
        before = messages[:-1] if go_on else messages
        earlier = applied(tokenizer, before, tokenize=False, **options)
    except Exception:  # noqa: BLE001 - templates raise anything
        earlier = ""
    same = 0
    while same < len(earlier) and text[: same + 1] == earlier[: same + 1]:
        same += 1
    begun = text[same:]
    thinks = begun.rfind("<think>") > begun.rfind("</think>")
    told = variables.get("enable_thinking")
    lets = bool(told)
    if told is None:
        usual = applied(tokenizer, messages, answer=True, tokenize=False, **options)
        off = {"variables": {**variables, "enable_thinking": False}}
        lets = usual != applied(tokenizer, messages, answer=True, tokenize=False, **off)
    return tokens, boundaries, thinks, lets


@cache
def tokenizer_named(name):
    return TOKENIZERS[name]()


def refused(work):
    try:
        return False, work()
    except Exception:  # noqa: BLE001 - templates raise anything
        return True, None


@pytest.mark.parametrize("variables", [{}, {"enable_thinking": True}, {"enable_thinking": False}])
@pytest.mark.parametrize(("talk", "go_on"), GOING_ON)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_rendered_prompt_agrees_with_separate_renderings(name, talk, go_on, variables):
    tokenizer = tokenizer_named(name)
    messages = conversation("", None, TALKS[talk])
    prompt = RenderedPrompt(
        ChatTemplate(tokenizer), messages, TOOLS, variables=variables, go_on=go_on
    )
    bad, right = refused(lambda: expected(tokenizer, messages, go_on=go_on, variables=variables))
    if bad:
        assert refused(lambda: prompt.tokens)[0]
        return
    tokens, boundaries, thinks, lets = right
    assert list(prompt.tokens) == tokens
    assert list(prompt.boundaries) == boundaries
    if not tokenizer.response_initial_state and tokenizer.has_thinking:
        assert prompt.state == (REASONING_STATE if thinks else ANSWER_STATE)
    assert prompt.lets_think is lets


# How often a template is rendered. ---------------------------------------------------------------


def counted(template):
    """Return a tokenizer and a list that grows by one with each rendering."""
    tokenizer = embedded(template)
    renderings = []
    render = tokenizer._tokenizer.apply_chat_template

    def counting(*given, **options):
        renderings.append(given)
        return render(*given, **options)

    tokenizer._tokenizer.apply_chat_template = counting
    return tokenizer, renderings


@pytest.mark.parametrize(
    ("template", "talk", "options", "asked", "most"),
    [
        (None, "system", {}, ("tokens", "state"), 1),
        (None, "system", {"tools": TOOLS}, ("tokens", "state"), 1),
        (THINKING, "system", {}, ("tokens", "state"), 1),
        (OPENING, "system", {}, ("tokens", "state"), 2),
        (OPENING, "system", {}, ("tokens", "state", "boundaries"), 3),
        (None, "system", {}, ("tokens", "state", "boundaries"), 3),
        ("{{ messages[-1].content }}", "system", {}, ("tokens", "state", "lets_think"), 1),
        (THINKING, "system", {}, ("tokens", "state", "lets_think"), 1),
        (THINKING, "one turn", {}, ("tokens", "state", "boundaries", "lets_think"), 2),
        (THINKING, "begun", {"go_on": True}, ("tokens",), 1),
        (THINKING, "begun", {"go_on": True}, ("tokens", "state"), 2),
        (THINKING, "begun", {"go_on": True}, ("tokens", "lets_think"), 1),
        (THINKING, "begun", {"go_on": True}, ("tokens", "state", "boundaries"), 2),
    ],
)
def test_a_template_is_rendered_once_for_its_tokens_and_three_times_at_most(
    template, talk, options, asked, most
):
    tokenizer, renderings = counted(template)
    asker = ChatTemplate(tokenizer)
    asker.has_thinking_switch((), {})  # found once a model
    renderings.clear()
    prompt = RenderedPrompt(asker, TALKS[talk], **options)
    for name in (*asked, *asked):
        getattr(prompt, name)
    assert len(renderings) == most


@pytest.mark.parametrize(("go_on", "talk"), [(False, "system"), (True, "begun")])
def test_no_text_is_rendered_twice(go_on, talk):
    tokenizer, renderings = counted(THINKING)
    template = ChatTemplate(tokenizer)
    template.has_thinking_switch((), {})  # found once a model
    renderings.clear()
    prompt = RenderedPrompt(template, TALKS[talk], go_on=go_on)
    for name in ("tokens", "state", "boundaries", "lets_think", "answer_begins") * 2:
        getattr(prompt, name)
    assert len(renderings) <= 3


def test_the_switch_for_thinking_is_found_once_per_model_and_variables():
    tokenizer, renderings = counted(THINKING)
    template = ChatTemplate(tokenizer)
    for _ in range(3):
        assert template.has_thinking_switch((), {})
    assert len(renderings) == 2
    for number in range(200):
        template.has_thinking_switch((), {"topic": number})
    assert len(template._switches) == 64


# What each property means. -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "lets"),
    [({}, True), ({"enable_thinking": True}, True), ({"enable_thinking": False}, False)],
)
def test_thinking_is_on_if_the_template_can_turn_it_off(variables, lets):
    prompt = RenderedPrompt(ChatTemplate(embedded(THINKING)), TALKS["system"], variables=variables)
    assert prompt.lets_think is lets
    assert not RenderedPrompt(ChatTemplate(tokenizer_of(MODEL_PATH)), TALKS["system"]).lets_think


def test_the_answer_begins_after_the_earlier_turns():
    prompt = RenderedPrompt(ChatTemplate(embedded(OPENING)), TALKS["system"])
    assert prompt.text[prompt.answer_begins :] == "<|im_start|>assistant\n<think>"
    assert prompt.state == REASONING_STATE
    going_on = RenderedPrompt(ChatTemplate(embedded(OPENING)), TALKS["begun"], go_on=True)
    assert going_on.text[going_on.answer_begins :].endswith("assistant\n<think>They say")


def test_boundaries_are_where_the_system_prompt_and_the_last_turn_end():
    tokenizer = embedded(OPENING)
    prompt = RenderedPrompt(ChatTemplate(tokenizer), TALKS["system"])
    system, turns = (tokenizer.decode(prompt.tokens[:n]) for n in prompt.boundaries)
    assert system.endswith("Be brief.<|im_end|>\n")
    assert turns.endswith("Hi<|im_end|>\n")


def test_a_prefix_that_the_template_refuses_has_no_boundary():
    tokenizer = embedded(NEEDS_A_USER)
    prompt = RenderedPrompt(ChatTemplate(tokenizer), TALKS["system"])
    (turns,) = prompt.boundaries
    assert tokenizer.decode(prompt.tokens[:turns]).endswith("Hi\n")


def test_a_raw_prompt_is_its_own_text():
    tokenizer = tokenizer_of(MODEL_PATH)
    prompt = RenderedPrompt(ChatTemplate(tokenizer), [], raw="Once <think>upon")
    assert prompt.tokens == tokenizer.encode("Once <think>upon")
    assert (prompt.text, list(prompt.boundaries)) == ("Once <think>upon", [])
    assert prompt.state == REASONING_STATE
    assert not prompt.lets_think


def test_a_tokenizer_with_its_own_renderer_is_used_as_it_is():
    tokenizer = embedded(OPENING)

    class OwnWay(type(tokenizer._tokenizer)):
        def apply_chat_template(self, messages, *, tokenize=True, **options):
            return [7, 8, 9] if tokenize else "text"

    tokenizer._tokenizer.__class__ = OwnWay
    assert list(RenderedPrompt(ChatTemplate(tokenizer), TALKS["system"]).tokens) == [7, 8, 9]
