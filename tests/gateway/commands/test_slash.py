"""What is done in a chat beside talking."""

import io
import json
import os

import pytest
from rich.console import Console

from gateway.commands.slash import COMMANDS, Conversation, is_command, obey
from tests.support.terminal import Terminal


@pytest.fixture
def talk():
    """A conversation of one turn, and a function that obeys a line and returns what was said."""
    turns = [{"role": "user", "content": "Foxes?"}, {"role": "assistant", "content": "Yes."}]
    conversation = Conversation({"system_prompt": None}, ["small", "large"], turns)

    def say(line):
        notes = Console(file=io.StringIO(), highlight=False, width=200)
        assert obey(line, conversation, notes)
        return notes.file.getvalue().rstrip("\n")

    return conversation, say


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("/help", True),
        ("/model large", True),
        ("/nonsense", True),
        ("/etc/hosts has what?", False),
        (" /help", False),
        ("a / b", False),
        ("/", False),
    ],
)
def test_a_command_is_a_slash_and_a_word(line, is_one):
    assert is_command(line) is is_one


def test_help_lists_every_command(talk):
    _, say = talk
    assert all(name in say("/help") for name in COMMANDS)


@pytest.mark.parametrize("width", [40, 50, 60, 69, 70, 80, 200])
def test_help_wraps_beside_the_names_and_never_between_letters(width):
    notes = Console(file=io.StringIO(), highlight=False, width=width)
    assert obey("/help", Conversation({}), notes)
    lines = notes.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert [line for line in lines if line != line.rstrip()] == []
    begun = [line for line in lines if not line.startswith(" " * 3)]
    assert len(begun) == len(COMMANDS) + 3
    assert {line[:18].rstrip() for line in lines if line not in begun} <= {""}
    words = " ".join(line[18:] for line in lines).split()
    assert words == " ".join(one[18:] for one in in_one_line_each()).split()


def in_one_line_each():
    notes = Console(file=io.StringIO(), highlight=False, width=1000)
    obey("/help", Conversation({}), notes)
    return notes.file.getvalue().splitlines()


def test_an_unknown_command_is_said(talk):
    assert "no command /nonsense" in talk[1]("/nonsense")


def test_a_new_conversation_has_no_turns(talk):
    conversation, say = talk
    assert say("/new") == "a new conversation; 2 messages are forgotten"
    assert conversation.turns == []
    assert say("/new") == "nothing was said"
    conversation.turns.append({"role": "user", "content": "Foxes?"})
    assert say("/new") == "a new conversation; 1 message is forgotten"


def test_the_system_prompt_is_shown_and_set(talk):
    conversation, say = talk
    assert "no system prompt" in say("/system")
    say("/system  Be brief. ")
    assert conversation.fields["system_prompt"] == say("/system") == "Be brief."


def test_another_model_answers_if_it_is_served(talk):
    conversation, say = talk
    assert say("/model") == "* small\n  large"
    assert "not served; the gateway has small, large" in say("/model huge")
    say("/model large")
    assert conversation.fields["model"] == "large"
    assert say("/model") == "  small\n* large"


def test_a_conversation_is_saved_and_loaded(talk, tmp_path):
    conversation, say = talk
    say("/system Be brief.")
    file = tmp_path / "kept.json"
    assert say(f"/save {file}").startswith(f"saved to {file}; `/load")
    before = [*conversation.turns]
    say("/new")
    assert "nothing was said yet" in say("/save")
    say("/system Be long.")
    assert say(f"/load {file}") == "2 messages are back"
    assert conversation.turns == before
    del conversation.turns[1:]
    say(f"/save {file}")
    assert say(f"/load {file}") == "1 message is back"
    assert conversation.fields["system_prompt"] == "Be brief."
    assert say(f"/save {file}").startswith("saved")  # its own file may be written again


def test_loading_asks_before_it_replaces_what_was_not_saved(talk, tmp_path):
    conversation, say = talk
    file, other = tmp_path / "kept.json", tmp_path / "other.json"
    say(f"/save {file}")
    other.write_bytes(file.read_bytes())
    assert say(f"/load {file}") == "2 messages are back"  # all of it was saved
    conversation.turns.append({"role": "user", "content": "Bears?"})
    asked = "1 message is not saved: /save keeps it, and the same line again forgets it"
    assert say(f"/load {file}") == asked
    conversation.turns.append({"role": "assistant", "content": "No."})
    asked = asked.replace("1 message is", "2 messages are").replace(" it", " them")
    for one in (file, other, file):  # another line, or more to lose, is asked about again
        assert say(f"/load {one}").replace("\n", " ") == asked
    assert len(conversation.turns) == 4
    assert say(f"/load {file}") == "2 messages are back; 2 that were not saved are forgotten"
    assert len(conversation.turns) == 2
    say("/new")
    conversation.turns.append({"role": "user", "content": "Bears?"})
    assert say(f"/load {file}").startswith("1 message is not saved")
    assert say(f"/load {file}") == "2 messages are back; 1 that was not saved is forgotten"


def test_a_file_of_others_is_not_written_over(talk, tmp_path):
    file = tmp_path / "kept.json"
    file.write_text("mine")
    assert "is there already" in talk[1](f"/save {file}")
    assert file.read_text() == "mine"


def test_a_file_without_a_name_gets_one_that_is_not_taken(talk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    conversation, say = talk
    for count in (1, 2, 3):
        assert say("/save").startswith("saved to chat-")
        conversation.saved.clear()  # as another chat has none
        assert len([*tmp_path.glob("chat-*.json")]) == count


def test_a_new_conversation_leaves_the_file_of_the_one_before(talk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    conversation, say = talk
    other = [{"role": "user", "content": "Bears?"}]
    for saving in ("/save", "/save kept.json"):
        say("/new")
        conversation.turns[:] = [{"role": "user", "content": "Foxes?"}]
        assert say(saving).startswith("saved to ")
        before = {file: file.read_text() for file in tmp_path.iterdir()}
        say("/new")
        conversation.turns[:] = other
        say(saving)
        assert before == {file: file.read_text() for file in before}


def test_a_conversation_that_was_loaded_leaves_the_files_of_the_one_before(talk, tmp_path):
    _, say = talk
    first, second = (tmp_path / f"{name}.json" for name in ("first", "second"))
    second.write_text(json.dumps({"messages": [{"role": "user", "content": "Bears?"}]}))
    say(f"/save {first}")
    before = first.read_text()
    say(f"/load {second}")
    assert "is there already" in say(f"/save {first}")
    assert first.read_text() == before
    assert say(f"/save {second}").startswith("saved")  # which it goes on with


def test_ctrl_c_ends_a_command_that_waits_and_not_the_chat(scripted, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    terminal = Terminal("chat", "--url", scripted)
    at = terminal.wait_for("you >")
    terminal.type(f"/load {tmp_path / 'pipe'}\r")
    at = terminal.wait_for("\n", terminal.wait_for("pipe", at))
    terminal.press_ctrl_c()
    at = terminal.wait_for("you >", terminal.wait_for("stopped", at))
    terminal.type("/quit\r")
    assert terminal.close() == 0


@pytest.mark.parametrize("text", [None, "{", "[]", '{"messages": 3}', json.dumps({"a": 1})])
def test_what_cannot_be_loaded_changes_nothing(talk, tmp_path, text):
    conversation, say = talk
    file = tmp_path / "other.json"
    if text is not None:
        file.write_text(text)
    said = say(f"/load {file}")
    assert str(file) in said
    assert len(conversation.turns) == 2
    assert "takes a file" in say("/load")


def test_a_name_that_no_file_can_have_is_said(talk):
    _, say = talk
    for command in ("/save", "/load"):
        assert say(f"{command} a\0b.json") == "a\0b.json: embedded null byte"


def test_quitting_ends_the_chat():
    assert not obey("/quit", Conversation({}), Console(file=io.StringIO()))
