import pytest

from gateway.commands import console
from gateway.commands.failure import ExitStatus, Failure


@pytest.fixture(autouse=True)
def fresh():
    console.errors.cache_clear()
    yield
    console.errors.cache_clear()


def test_a_failure_is_a_line_and_a_hint_on_standard_error(capsys):
    end = console.tell(Failure("no [gateway] a:b:c", "start one", ExitStatus.NO_GATEWAY))
    assert end.exit_code == ExitStatus.NO_GATEWAY
    assert capsys.readouterr() == ("", "error: no [gateway] a:b:c\n\nhint: start one\n")


def test_a_long_line_is_broken_on_a_terminal_alone_and_between_words(capsys, monkeypatch):
    console.errors().print("words " * 60)
    assert capsys.readouterr().err.count("\n") == 1
    console.errors.cache_clear()
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "40")
    console.errors().print("words " * 60)
    lines = capsys.readouterr().err.rstrip().splitlines()
    assert len(lines) > 1
    assert {word for line in lines for word in line.split()} == {"words"}
