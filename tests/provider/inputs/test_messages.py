"""A conversation as the messages that templates read."""

import json

import pytest

from provider.inputs.json_texts import MAX_CHARACTERS, MAX_VALUES, MAX_VALUES_TOGETHER
from provider.inputs.messages import MAX_SPACED, conversation
from provider.interface import InvalidParameterError


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


def test_files_go_before_the_last_users_text():
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


@pytest.mark.parametrize("arguments", ["{", "[" * 9999])
def test_arguments_that_cannot_be_read_stay_text(arguments):
    call = {"id": "1", "name": "add", "arguments": arguments}
    (turn,) = conversation("", None, [{"role": "assistant", "content": "", "tool_calls": [call]}])
    assert turn["tool_calls"][0]["function"]["arguments"] == arguments


@pytest.mark.parametrize("nested", [True, False])
def test_arguments_of_too_many_values_are_refused_by_their_path(nested):
    def said(count):
        inner = {"name": "add", "arguments": json.dumps({"a": [[]] * count})}
        call = {"id": "1", **({"function": inner} if nested else inner)}
        return {"role": "assistant", "content": "", "tool_calls": [call]}

    most = MAX_VALUES // 2 - 2
    with pytest.raises(InvalidParameterError, match=f"{MAX_VALUES} keys and values") as raised:
        conversation("", None, [said(1), said(most + 1)])
    inside = ".function" if nested else ""
    assert raised.value.parameter == f"messages[1].tool_calls[0]{inside}.arguments"
    with pytest.raises(InvalidParameterError, match=f"{MAX_VALUES_TOGETHER} of these") as raised:
        conversation("", None, [said(most)] * 5)
    assert raised.value.parameter == f"messages[4].tool_calls[0]{inside}.arguments"
    turn = conversation("", None, [said(most)] * 4)[-1]
    assert len(turn["tool_calls"][0]["function"]["arguments"]["a"]) == most


@pytest.mark.parametrize("written", [json.dumps, dict])
def test_arguments_that_have_a_very_long_text_are_refused(written):
    arguments = written({"text": "x" * MAX_CHARACTERS})
    call = {"id": "1", "name": "write", "arguments": arguments}
    with pytest.raises(InvalidParameterError, match=f"{MAX_CHARACTERS} characters"):
        conversation("", None, [{"role": "assistant", "content": "", "tool_calls": [call]}])


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_earlier_thinking_reaches_the_template_by_every_name(name):
    call = {"id": "1", "name": "add", "arguments": {}}
    turn = {"role": "assistant", "content": "", "tool_calls": [call], name: "I add."}
    (told,) = conversation("", None, [turn])
    assert [told[n] for n in ("reasoning_content", "reasoning", "thinking")] == ["I add."] * 3
    (told,) = conversation("", None, [{**turn, "content": "Let me see."}])
    assert (told["reasoning_content"], "thinking" in told) == ("I add.", False)


def test_a_system_prompt_goes_before_a_system_message_in_parts():
    parts = [{"type": "image", "data": b"x"}]
    [system, _] = conversation("Hi", "Be nice", [{"role": "system", "content": parts}])
    assert system["content"] == [{"type": "text", "text": "Be nice\n\n"}, *parts]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"a":1,"b":[1,2]}', '{"a": 1, "b": [1, 2]}'),
        ('[{"city":"Bern, \\"BE\\":x","t":17}]', '[{"city": "Bern, \\"BE\\":x", "t": 17}]'),
        (' {"a":1e400,"a":1.10,"b":12345678901234567890}\n', None),
        ('{"a": 1,"b":2}', '{"a": 1, "b": 2}'),
        ('{\n  "a": [\n    1,\n    2\n  ]\n}', '{\n  "a": [\n    1,\n    2\n  ]\n}'),
        ('{"\\\\":"\\\\","b":1}', '{"\\\\": "\\\\", "b": 1}'),
        ("a:1,b", "a:1,b"),
        ('"a:1,b"', '"a:1,b"'),
        ('{"a":1', '{"a":1'),
        ("{a:1,b:2}", "{a:1,b:2}"),
        ("[" * 100_000, "[" * 100_000),
        ("12:30,5", "12:30,5"),
        ("", ""),
    ],
)
def test_a_tools_result_in_compact_json_gets_blanks(content, told):
    told = ' {"a": 1e400, "a": 1.10, "b": 12345678901234567890}\n' if told is None else told
    for one, expected in (
        (content, told),
        ([{"type": "text", "text": content}], [{"type": "text", "text": told}]),
    ):
        message = {"role": "tool", "tool_call_id": "1", "content": one}
        assert conversation("", None, [message])[0]["content"] == expected
        assert message["content"] == one
        for role in ("user", "assistant", "system"):
            assert conversation("", None, [{**message, "role": role}])[0]["content"] == one


def test_results_with_too_many_values_together_stay_as_they_are():
    content = json.dumps([1] * (MAX_VALUES - 1), separators=(",", ":"))
    turns = conversation("", None, [{"role": "tool", "content": content}] * 5)
    assert [turn["content"] == content for turn in turns] == [False] * 4 + [True]
    content = content.replace("[", "[[],")
    (turn,) = conversation("", None, [{"role": "tool", "content": content}])
    assert turn["content"] == content


def test_a_very_long_result_stays_as_it_is():
    for size, spaced in ((MAX_SPACED // 8, True), (MAX_SPACED, False)):
        content = json.dumps(["x,y"] * size, separators=(",", ":"))
        (turn,) = conversation("", None, [{"role": "tool", "content": content}])
        assert turn["content"] == (json.dumps(["x,y"] * size) if spaced else content)
