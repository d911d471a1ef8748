"""What the user says next, on a pipe and on a terminal that isn't the program's own.

Editing, pastes and Ctrl-C are in test_cli.py, on terminals of their own.
"""

import io
import os
import pty

import pytest
from rich.console import Console

from gateway.commands.prompt import ENDING, Prompt


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
