"""Answers on a terminal with Markdown, and as plain text."""

import io
import os
import pty
import termios

import pytest
from rich.console import Console

from gateway.client.tool_loop import ToolResult
from gateway.commands.screens import MarkdownScreen, PlainScreen, _Tail
from gateway.protocol.frames import ToolCall
from tests.support.terminal import CODES

CALL = ToolCall(id="a", seq=4, index=0, call_id="c", name="add", arguments="{}", complete=True)
BROKEN = ToolCall(
    id="a", seq=1, index=0, call_id="c", complete=True, error="malformed", text="<call>[x]"
)


@pytest.fixture
def plain():
    notes = Console(file=io.StringIO(), highlight=False)
    return PlainScreen(notes), notes.file


def test_only_the_answer_goes_to_standard_output(plain, capsys):
    screen, notes = plain
    screen.thinking("hm")
    screen.text("Two ")
    screen.text("**words**\x1b[2J")
    screen.call(CALL)
    screen.result(ToolResult(CALL, "5"))
    screen.status("not shown")
    screen.end()
    assert capsys.readouterr().out == "Two **words**\x1b[2J\n\n"
    assert notes.getvalue() == "hm\nadd {}\n  → 5\n"


def test_a_call_that_cannot_be_read_is_shown_as_it_was_written(plain):
    screen, notes = plain
    screen.call(BROKEN)
    assert "malformed tool call: <call>[x]" in notes.getvalue()


@pytest.fixture
def keys():
    """A terminal whose keys are typed."""
    parent, child = pty.openpty()
    with os.fdopen(child) as typed:
        yield typed
    os.close(parent)


@pytest.fixture
def drawn(keys):
    """A screen with Markdown, and what it has written to a terminal of 40 columns."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=40, height=10, highlight=False)
    return MarkdownScreen(console, keys), file


def echoes(keys):
    return bool(termios.tcgetattr(keys)[3] & termios.ECHO)


def kept(file):
    """Return what stays on the screen: lines that no later movement has erased."""
    lines = []
    for line in file.getvalue().split("\n"):
        for _ in range(line.count("\x1b[1A")):
            lines and lines.pop()
        lines.append(CODES.sub("", line.rpartition("\r")[2]).rstrip())
    return [line for line in lines if line]


def test_words_are_not_cut_and_marks_are_not_shown(drawn):
    screen, file = drawn
    said = "A **bold** story of a fox that ran over the hills and far away.\n\nEnd."
    for word in said.split(" "):
        screen.text(f"{word} ")
        screen.status("5 tokens")
    screen.end()
    assert kept(file) == ["A bold story of a fox that ran over the", "hills and far away.", "End."]


def test_an_open_block_is_drawn_with_the_status_below_it(drawn):
    screen, file = drawn
    screen.text("Half a")
    screen.status("2 tokens")
    assert kept(file)[-2:] == ["Half a", "2 tokens"]
    screen.text(" line")
    screen.status("3 tokens")
    assert kept(file) == ["Half a line", "3 tokens"]
    screen.end()
    assert kept(file) == ["Half a line"]


def test_a_block_taller_than_the_screen_shows_its_end_and_is_printed_whole(drawn):
    screen, file = drawn
    rows = [f"row {number}" for number in range(30)]
    screen.text("```\n" + "\n".join(rows))
    screen.status("many")
    assert "row 29" in file.getvalue()
    assert "row 2 " not in file.getvalue()
    screen.end()
    assert [line.strip() for line in kept(file)] == rows


def test_thinking_and_calls_are_above_the_answer(drawn):
    screen, file = drawn
    screen.thinking("First this.\nThen")
    screen.thinking(" that.")
    screen.call(CALL)
    screen.result(ToolResult(CALL, "5\x1b[2J"))
    screen.text("Five.")
    screen.end()
    assert kept(file) == ["First this.", "Then that.", "add {}", "  → 5[2J", "Five."]
    assert "\x1b[2J" not in file.getvalue()


def test_keys_are_echoed_but_not_while_an_answer_is_drawn(drawn, keys):
    screen, _ = drawn
    assert echoes(keys)
    screen.status("waiting")
    assert not echoes(keys)
    screen.call(CALL)
    assert echoes(keys)  # its user may be asked for the result
    screen.status("waiting")
    assert echoes(keys)
    screen.result(ToolResult(CALL, "5"))
    screen.status("waiting")
    assert not echoes(keys)
    screen.end()
    assert echoes(keys)


def test_the_last_rows_are_those_that_fit():
    console = Console(file=io.StringIO(), width=20, height=5)
    console.print(_Tail("1\n2\n3"), end="")
    assert console.file.getvalue().split() == ["2", "3"]
