import pytest

from gateway.dialects.data_urls import MAX_BYTES
from gateway.dialects.prompt import Call, Prompt, Turn, result_text
from gateway.dialects.refusals import Refused


def test_a_call_without_a_result_is_left_out():
    prompt = Prompt()
    calls = [Call("1", "f", "{}", "5"), Call("2", "g", "{}")]
    prompt.add_answer("p", "I look.", "hm", calls)
    prompt.add_answer("q", "", "hm", calls[1:])
    answer, result = prompt.messages
    assert [call["id"] for call in answer["tool_calls"]] == ["1"]
    assert (answer["content"], answer["reasoning_content"]) == ("I look.", "hm")
    assert result == {"role": "tool", "content": "5", "tool_call_id": "1", "name": "f"}
    assert prompt.paths == ["p", "p"]


def test_images_are_parts_of_a_turn_and_other_files_are_beside():
    prompt, turn = Prompt(), Turn("messages[0]")
    turn.add_text("a")
    turn.add_text("b")
    prompt.add_file(turn, "data:text/plain,x", "", "", "url")
    assert turn.content == "a\nb"
    prompt.add_file(turn, "data:image/png;base64,aGk=", "image/png", "a.png", "url")
    assert [part["type"] for part in turn.content] == ["text", "text", "image_url"]
    (file,) = prompt.files
    assert (file.name, file.mime, file.data) == ("file.txt", "text/plain", b"x")
    with pytest.raises(Refused, match="`url`: must be a data URL"):
        prompt.add_file(turn, "https://a.example", "image/png", "", "url")


def test_an_image_is_not_decoded_and_files_have_a_bound_together():
    prompt, turn = Prompt(), Turn("messages[0]")
    for _ in range(3):
        prompt.add_file(turn, f"data:image/png;base64,{'%' * MAX_BYTES}", "", "", "url")
    prompt.add_file(turn, f"data:,{'x' * MAX_BYTES}", "text/plain", "", "url")
    assert (len(turn.parts), len(prompt.files)) == (3, 1)
    with pytest.raises(Refused, match=rf"`messages\[0\].url`: .* {MAX_BYTES} bytes together"):
        prompt.add_file(turn, "data:,x", "text/plain", "", "messages[0].url")


def test_a_result_is_text_as_it_is_or_json():
    assert result_text("ä") == "ä"
    assert result_text({"a": "ä"}) == '{"a": "ä"}'
    assert result_text(None) == "null"
