import msgspec
import pytest

from gateway.dialects.openai.errors import Refused
from gateway.dialects.responses.turn import Turn

TOOL = {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}


def asked(**fields):
    turn = Turn("resp_1", "lane", fields.get("previous_response_id"))
    turn.read(fields)
    return turn


def head(turn):
    (created, _) = turn.answer("default", lambda: 7.0).start("")
    return msgspec.to_builtins(msgspec.json.decode(msgspec.json.encode(created)))["response"]


def test_a_request_has_the_whole_prompt_and_all_options():
    turn = asked(
        input="hi",
        instructions="Be brief.",
        model="m",
        tools=[TOOL],
        tool_choice="required",
        max_output_tokens=5,
    )
    request = turn.request(1000)
    assert (request.id, request.model, request.max_tokens) == ("resp_1", "m", 5)
    assert [message["content"] for message in request.messages] == ["Be brief.", "hi"]
    assert request.tools == [{"type": "function", "name": "f"}]
    assert request.tool_choice == "required"
    assert request.stream
    assert list(turn.paths) == ["instructions", "input"]
    assert turn.conversation.new == [{"role": "user", "content": "hi"}]


def test_an_earlier_item_may_be_referred_to():
    turn = asked(input=[{"type": "item_reference", "id": "msg_1"}])
    with pytest.raises(Refused, match="'msg_1' not found"):
        turn.request(1000)
    turn.find_item = {"msg_1": {"role": "user", "content": "hi"}}.get
    assert turn.request(1000).messages == [{"role": "user", "content": "hi"}]


def test_what_only_prepares_asks_for_one_token_at_the_end_of_its_prompt():
    request = asked(input="hi", generate=False, max_output_tokens=50).request(1000)
    assert (request.max_tokens, request.stream) == (1, False)
    assert asked(generate=False).request(1000) is None


def test_nothing_to_answer_is_refused():
    with pytest.raises(Refused, match="nothing to answer"):
        asked(input=[]).request(1000)


def test_a_response_says_what_was_asked():
    fields = {
        "model": "m",
        "instructions": "Be brief.",
        "previous_response_id": "resp_0",
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "top_p": 0.9,
        "truncation": "auto",
        "max_output_tokens": 5,
        "user": "u",
        "parallel_tool_calls": False,
        "store": False,
    }
    told = head(asked(**fields, tools=[TOOL, {"type": "x"}], text={"verbosity": "low"}))
    assert {name: told[name] for name in fields} == fields
    assert told["tools"] == [TOOL]
    assert told["tool_choice"] == "auto"
    assert told["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert told["reasoning"] == {"effort": None, "summary": None}
    assert (told["id"], told["object"], told["created_at"]) == ("resp_1", "response", 7.0)


def test_a_response_is_of_the_first_model_unless_another_is_asked():
    assert head(asked(input="x"))["model"] == "default"
    assert head(asked(input="x", model="m"))["model"] == "m"


def test_a_turn_that_is_refused_keeps_nothing_of_what_it_asked():
    turn = asked(input="x" * 1000, store=False)
    turn.refuse(Refused("full"))
    assert turn.create.input is None
    assert str(turn.refused) == "full"


def long(count, truncation="auto"):
    talk = [{"role": ("user", "assistant")[n % 2], "content": str(n)} for n in range(count)]
    return asked(input=talk, instructions="Be brief.", truncation=truncation)


def test_a_prompt_is_shortened_from_its_oldest_message_until_only_the_last_question_is_left():
    turn, prompts = long(9), []
    turn.request(1000)
    while turn.shorten():
        prompts.append([message["content"] for message in turn.request(1000).messages])
        assert turn.paths[1] == f"input[{prompts[-1][1]}]"
    assert prompts[0] == ["Be brief.", "2", "3", "4", "5", "6", "7", "8"]
    assert prompts[-1] == ["Be brief.", "8"]
    assert all(prompt[1] in "02468" for prompt in prompts)


def test_a_tool_loop_is_not_torn_apart():
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "1"}
    turn = asked(input=[{"content": "a", "role": "user"}, call, output], truncation="auto")
    turn.request(1000)
    assert not turn.shorten()


def test_a_prompt_is_not_shortened_unless_that_is_asked_for():
    turn = long(9, "disabled")
    turn.request(1000)
    assert not turn.shorten()
