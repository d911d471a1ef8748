"""What the user says next: on a pipe, and on terminals, the program's own and another."""

import io
import os
import pty
import sys
from ctypes.util import find_library
from itertools import pairwise

import pytest
from rich.console import Console

from gateway.commands.prompt import CONTINUED, ENDING, Prompt, bindings, whole
from tests.gateway.commands.conftest import lines_of
from tests.support.programs import ROOT, interpreter
from tests.support.terminal import Terminal
from tests.support.timeouts import TIMEOUT


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

    def __init__(self, notes, *keys, editor=None):
        super().__init__(io.StringIO(), notes)
        self._interactive, self._editor, self.keys, self.line = True, editor, [*keys], ""

    def _read(self):
        self.line, end = self.keys.pop(0)
        if end is not None:
            raise end
        return self.line

    def _line(self):
        return self.line if self._editor is None else super()._line()


class Editor:
    """An editor that holds a line until a key is pressed, as libedit does."""

    def __init__(self, kind, *held):
        self.__doc__ = f"line editing using {kind} readline"
        self.held = [*held]

    def get_line_buffer(self):
        return self.held.pop(0)


CTRL_C = KeyboardInterrupt()


def test_ctrl_c_clears_a_line_and_ends_the_chat_on_the_second_empty_one(notes):
    prompt = Pressed(notes, ("", CTRL_C), ("half", CTRL_C), ("", CTRL_C), ("", CTRL_C))
    assert prompt.read() is None
    assert prompt.keys == []
    assert notes.file.getvalue().count("/save FILE") == ENDING.count("/save FILE") * 2


def test_ctrl_c_on_an_empty_line_of_libedit_ends_the_chat_too(notes):
    editor = Editor("libedit", "one", "half", "half", "half", "half", "half")
    prompt = Pressed(notes, ("half", CTRL_C), ("", CTRL_C), ("", CTRL_C), editor=editor)
    assert prompt.read() is None
    assert (prompt.keys, editor.held) == ([], [])
    assert notes.file.getvalue().count("/save FILE") == ENDING.count("/save FILE")


def test_a_line_after_ctrl_c_is_a_message(notes):
    prompt = Pressed(notes, ("", CTRL_C), ("Foxes?", None), ("", CTRL_C), ("", EOFError()))
    assert prompt.read() == "Foxes?"
    assert prompt.read() is None


def test_a_word_is_completed_at_its_begin(notes):
    prompt = Prompt(io.StringIO(), notes, ["/save", "/system"])
    assert [prompt._completed("/s", number) for number in range(3)] == ["/save ", "/system ", None]
    assert prompt._completed("", 0) is None


def test_each_editor_is_told_its_keys_in_its_own_language():
    assert "tab: complete" in bindings(Editor("GNU"))
    assert "bind ^I rl_complete" in bindings(Editor("libedit"))


def test_a_line_that_is_continued_or_pasted_is_one_message():
    rest = [f"two{CONTINUED}", "three", "four"]
    more = [True, False]
    assert whole(f"one{CONTINUED}", lambda: rest.pop(0), lambda: more.pop(0)) == (
        "one\ntwo\nthree\nfour"
    )
    assert (rest, more) == ([], [])


LIBEDIT = find_library("edit")
EDITED = """
import ctypes, sys
from types import SimpleNamespace
from gateway.commands.prompt import bindings, whole
library = ctypes.CDLL(sys.argv[1])
library.readline.restype = ctypes.c_char_p
library.rl_initialize()
library.rl_bind_key(9, ctypes.cast(library.rl_insert, ctypes.c_void_p))  # as Python's module does
for one in bindings(SimpleNamespace(__doc__="libedit")):
    library.rl_parse_and_bind(one.encode())
read = lambda: library.readline(b"> ").decode()
print(ascii(whole(read(), read, lambda: False)), flush=True)
"""


@pytest.mark.skipif(LIBEDIT is None, reason="libedit is not installed")
@pytest.mark.parametrize(
    ("keys", "said"), [("fo\t\r", "foxes.txt "), ("one\x1b\rtwo\x1b\nthree\r", "one\ntwo\nthree")]
)
def test_libedit_completes_by_tab_and_goes_on_by_alt_enter(tmp_path, keys, said):
    (tmp_path / "foxes.txt").touch()
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", EDITED, LIBEDIT]
    edited = interpreter(command, [child] * 3, env=environment, cwd=tmp_path)
    os.close(child)
    shown = b""
    while b"> " not in shown:
        shown += os.read(parent, 4096)
    os.write(parent, keys.encode())
    while b"'" not in shown:
        shown += os.read(parent, 4096)
    while not shown.endswith(b"\n"):
        shown += os.read(parent, 4096)
    assert edited.wait(TIMEOUT) == 0
    os.close(parent)
    assert shown.decode().splitlines()[-1] == ascii(said)


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
