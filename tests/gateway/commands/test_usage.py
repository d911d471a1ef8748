"""Wrong words on the command line, each said in one line with a hint."""

import pytest

from gateway.commands.failure import ExitStatus
from tests.gateway.commands.test_cli import run

WRONG = [
    (
        ("serve", "--porrt", "1"),
        "`--porrt`: no such option of `mlx-gateway serve`",
        "did you mean `--port` or `--host`? `mlx-gateway serve -h` shows what it takes",
    ),
    (
        ("serve", "--colour", "red"),
        "`--colour`: no such option of `mlx-gateway serve`",
        "`mlx-gateway serve -h` shows what it takes",
    ),
    (("srve",), "no such command `srve`", "did you mean `serve`? `mlx-gateway -h` shows what"),
    (("token", "new"), "missing argument `NAME`", "`mlx-gateway token new -h` shows what it takes"),
    (("models", "one"), "got unexpected extra argument (one)", "`mlx-gateway models -h` shows"),
    (("serve", "--port"), "option `--port` requires an argument", "`mlx-gateway -h` shows"),
]


@pytest.mark.parametrize(("words", "said", "hint"), WRONG)
def test_wrong_words_are_one_line_and_a_hint(words, said, hint):
    done = run(*words)
    assert (done.returncode, done.stdout) == (ExitStatus.USAGE, "")
    first, blank, second, *rest = done.stderr.splitlines()
    assert (first, blank, rest) == (f"error: {said}", "", [])
    assert second.startswith(f"hint: {hint}")


def test_without_words_the_help_is_shown():
    done = run()
    assert done.returncode == ExitStatus.USAGE
    assert "mlx-gateway serve --open" in done.stdout
    assert done.stderr == ""
