"""Markdown in a terminal: which blocks are closed, and what is shown of one."""

import io

import pytest
from rich.console import Console

from gateway.commands.markdown import Rendered, closed_length, without_controls


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("", ""),
        ("One line", ""),
        ("One line\nand another", ""),
        ("A paragraph.\n\nThe next", "A paragraph.\n\n"),
        ("# Title\ntext", "# Title\n"),
        ("```py\nx = 1\n\ny = 2\n", ""),
        ("```py\nx = 1\n```\nDone", "```py\nx = 1\n```\n"),
        ("- one\n\n- two\n", ""),
        ("- one\n- two\n\nDone", "- one\n- two\n\n"),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n", ""),
        ("A\n\nB\n\nC", "A\n\nB\n\n"),
    ],
)
def test_a_block_is_closed_by_what_follows_it(text, closed):
    assert text[: closed_length(text)] == closed


def shown(text):
    console = Console(file=io.StringIO(), width=40)
    console.print(Rendered(text))
    return [line.rstrip() for line in console.file.getvalue().rstrip().splitlines()]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("**Bold** and `code`", ["Bold and code"]),
        ("One line\nand another", ["One line", "and another"]),
        ("Use <b>this</b> tag", ["Use <b>this</b> tag"]),
        ("[a link](https://a.example)", ["a link (https://a.example)"]),
        ("snake_case_name", ["snake_case_name"]),
    ],
)
def test_nothing_that_was_written_is_lost(text, lines):
    assert shown(text) == lines


def test_a_block_of_html_is_shown_as_code():
    assert [line.strip() for line in shown("<div>\nhello\n</div>")] == [
        "",
        "<div>",
        "hello",
        "</div>",
    ]


def test_a_model_cannot_steer_the_terminal():
    assert without_controls("a\x1b[2J\x07b\tc\nd\x9b31m") == "a[2Jb\tc\nd31m"
