"""Messages are checked: roles, texts, images as data, tool calls."""

import base64

import pytest

from provider.interface import InvalidParameterError, Message
from provider.message_types import checked_messages, image_part, is_image_part


def test_images_come_as_bytes_base64_or_a_data_url():
    text = base64.b64encode(b"x").decode()
    for given, data in (
        ({"type": "image", "data": b"x"}, b"x"),
        ({"type": "image", "data": text}, text),
        ({"type": "input_image", "image_url": f"data:image/png;base64,{text}"}, text),
        ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text}"}}, text),
    ):
        assert is_image_part(given)
        assert image_part("p", given) == {"type": "image", "data": data}
    assert not is_image_part({"type": "text", "text": "image"})


def test_base64_is_not_decoded_here():
    text = "A" * 1000 + "!" * 1000
    assert image_part("p", {"type": "image", "data": text}) == {"type": "image", "data": text}


@pytest.mark.parametrize(
    "given",
    [
        "/etc/passwd",
        "http://example.org/a.png",
        "file:///etc/passwd",
        "data:text/html;base64,AAAA",
        "data:image/png,AAAA",
        "not base64!",
        "",
        None,
        3,
    ],
)
def test_paths_and_urls_of_images_are_refused(given):
    with pytest.raises(InvalidParameterError, match="must be an image as data") as caught:
        image_part("messages[0].content[1]", {"type": "image_url", "image_url": {"url": given}})
    assert caught.value.parameter == "messages[0].content[1]"


@pytest.mark.parametrize(
    ("messages", "path"),
    [
        (["hi"], "messages[0]"),
        ([{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}], "messages[1].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "assistant", "content": "a", "thinking": [1]}], "messages[0].thinking"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image"}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
    ],
)
def test_a_bad_message_is_named_by_its_path(messages, path):
    with pytest.raises(InvalidParameterError) as caught:
        checked_messages("messages", messages)
    assert caught.value.parameter == path


def test_text_parts_are_joined_and_message_objects_taken():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    given = [{"role": "user", "content": parts}, Message("assistant", "c")]
    assert [m["content"] for m in checked_messages("messages", given)] == ["ab", "c"]


def test_an_assistant_that_only_calls_tools_needs_no_content():
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "a", "arguments": {}}]}
    assert checked_messages("messages", [call])[0]["content"] == ""


@pytest.mark.parametrize(
    ("calls", "path"),
    [
        (5, "tool_calls"),
        ("abc", "tool_calls"),
        ({"a": 1}, "tool_calls"),
        ([5], "tool_calls[0]"),
        ([None], "tool_calls[0]"),
        ([{}], "tool_calls[0].name"),
        ([{"function": "abc"}], "tool_calls[0].function"),
        ([{"function": {"name": None}}], "tool_calls[0].function.name"),
        ([{"name": "f", "arguments": [1]}], "tool_calls[0].arguments"),
    ],
)
def test_a_bad_tool_call_in_a_message_is_named_by_its_path(calls, path):
    for content in ("", [{"type": "text", "text": "a"}], [{"type": "image", "data": b"x"}]):
        message = {"role": "assistant", "content": content, "tool_calls": calls}
        with pytest.raises(InvalidParameterError) as caught:
            checked_messages("messages", [message])
        assert caught.value.parameter == f"messages[0].{path}"
