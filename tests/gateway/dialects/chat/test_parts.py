from gateway.dialects.chat.parts import again, is_tool, name_of_tool, steps_of

STEP = {"type": "step-start"}
TEXT = {"type": "text", "text": "a"}


def test_steps_are_told_apart_and_know_their_place():
    assert list(steps_of([TEXT, STEP, STEP, TEXT, TEXT])) == [(0, [TEXT]), (3, [TEXT, TEXT])]
    assert list(steps_of([])) == []


def test_a_tool_part_names_its_tool():
    static, dynamic = {"type": "tool-a-b"}, {"type": "dynamic-tool", "toolName": "c"}
    assert [name_of_tool(part) for part in (static, dynamic)] == ["a-b", "c"]
    assert [is_tool(part) for part in (static, dynamic, TEXT)] == [True, True, False]


def test_the_parts_of_a_message_are_told_again():
    call = {"toolCallId": "1", "input": {"a": 1}}
    parts = [
        STEP,
        TEXT,
        {"type": "data-x", "data": 1},
        {**call, "type": "tool-f", "state": "output-available", "output": 5},
        {**call, "type": "dynamic-tool", "toolName": "g", "state": "output-error"},
        {**call, "type": "tool-h", "state": "output-denied"},
        {**call, "type": "tool-i", "state": "input-available"},
    ]
    chunks = list(again(parts))
    assert [chunk["type"] for chunk in chunks] == [
        "start-step",
        *("text-start", "text-delta", "text-end"),
        "data-x",
        *("tool-input-start", "tool-input-delta", "tool-output-available"),
        *("tool-input-start", "tool-input-delta", "tool-output-error"),
        *("tool-input-start", "tool-input-delta", "tool-output-denied"),
        *("tool-input-start", "tool-input-delta"),
    ]
    assert [one["toolName"] for one in chunks if "toolName" in one] == ["f", "g", "h", "i"]
    assert [one.get("dynamic") for one in chunks if one["type"] == "tool-output-error"] == [True]
