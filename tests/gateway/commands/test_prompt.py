"""What the user says next: on a pipe, and on terminals, the program's own and another."""

import io
import os
import pty
from itertools import pairwise

import pytest
from rich.console import Console

from gateway.commands.prompt import ENDING, Prompt
from tests.gateway.commands.conftest import lines_of
from tests.support.terminal import Terminal


@pytest.fixture
def notes():
    return Console(file=io.StringIO(), highlight=False)


def test_each_line_of_a_pipe_is_a_message_and_the_end_is_none(notes):
    prompt = Prompt(io.StringIO("one\n\ntwo"), notes)
    assert [prompt.read() for _ in range(4)] == ["one", "", "two", None]
    assert notes.file.getvalue() == ""


def test_a_terminal_is_prompted_and_ctrl_d_is_the_end(notes):
    parent, child = pty.openpty()
    os.write(parent, b"one\n\x04")
    with os.fdopen(child) as typed:
        prompt = Prompt(typed, notes)
        assert prompt.read() == "one"
        assert prompt.read() is None
    os.close(parent)
    assert notes.file.getvalue() == "you > you > \n"


class Pressed(Prompt):
    """A prompt at which keys were pressed: None for Ctrl-C, on a line that holds `line`."""

    def __init__(self, notes, *keys):
        super().__init__(io.StringIO(), notes)
        self._interactive, self.keys, self.line = True, [*keys], ""

    def _read(self):
        self.line, end = self.keys.pop(0)
        if end is not None:
            raise end
        return self.line

    def _line(self):
        return self.line


CTRL_C = KeyboardInterrupt()


def test_ctrl_c_clears_a_line_and_ends_the_chat_on_the_second_empty_one(notes):
    prompt = Pressed(notes, ("", CTRL_C), ("half", CTRL_C), ("", CTRL_C), ("", CTRL_C))
    assert prompt.read() is None
    assert prompt.keys == []
    assert notes.file.getvalue().count("/save FILE") == ENDING.count("/save FILE") * 2


def test_a_line_after_ctrl_c_is_a_message(notes):
    prompt = Pressed(notes, ("", CTRL_C), ("Foxes?", None), ("", CTRL_C), ("", EOFError()))
    assert prompt.read() == "Foxes?"
    assert prompt.read() is None


def test_a_word_is_completed_at_its_begin(notes):
    prompt = Prompt(io.StringIO(), notes, ["/save", "/system"])
    assert [prompt._completed("/s", number) for number in range(3)] == ["/save ", "/system ", None]
    assert prompt._completed("", 0) is None


def test_a_paste_is_one_message_and_an_answer_is_shown_as_markdown(scripted):
    terminal = Terminal("chat", "--url", scripted, "--max-tokens", "20")
    at = terminal.wait_for("you >")
    terminal.type("\x1b[200~Two **bold** lines\nof a fox\x1b[201~")
    at = terminal.wait_for("of a fox", at)
    terminal.type("\r")
    at = terminal.wait_for("20 tokens", at)
    terminal.wait_for("you >", at)
    terminal.type("\x04")
    assert terminal.close() == 0
    lines = lines_of(terminal)
    assert ("You said: Two bold lines", "of a fox") in pairwise(lines)
    assert "\x1b[1mbold" in terminal.screen


def test_ctrl_c_at_the_prompt_clears_and_twice_ends_and_says_how_to_save(scripted):
    terminal = Terminal("chat", "--url", scripted, "--max-tokens", "3")
    at = terminal.wait_for("you >")
    terminal.type("half a line")
    at = terminal.wait_for("half a line", at)
    terminal.press_ctrl_c()
    at = terminal.wait_for("you >", at)
    assert "again ends" not in terminal.text
    terminal.type("Foxes?\r")
    at = terminal.wait_for("you >", terminal.wait_for("3 tokens", at))
    assert "You said: Foxes?" in terminal.text
    terminal.press_ctrl_c()
    at = terminal.wait_for("Ctrl-C again ends the chat; `/save FILE` keeps it", at)
    terminal.wait_for("you >", at)
    terminal.press_ctrl_c()
    assert terminal.close() == 0


def test_tab_completes_a_command(scripted):
    terminal = Terminal("chat", "--url", scripted)
    at = terminal.wait_for("you >")
    terminal.type("/sys\tBe brief.\r")
    at = terminal.wait_for("the system prompt is changed", at)
    at = terminal.wait_for("you >", at)
    terminal.type("/quit\r")
    assert terminal.close() == 0
