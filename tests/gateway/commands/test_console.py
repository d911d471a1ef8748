import pytest

from gateway.commands import console
from gateway.commands.failure import ExitStatus, Failure


@pytest.fixture(autouse=True)
def fresh():
    console.errors.cache_clear()
    yield
    console.errors.cache_clear()


def test_a_failure_is_a_line_and_a_hint_on_standard_error(capsys):
    end = console.tell(Failure("no [gateway]", "start one", ExitStatus.NO_GATEWAY))
    assert end.exit_code == ExitStatus.NO_GATEWAY
    assert capsys.readouterr() == ("", "error: no [gateway]\n\nhint: start one\n")


def test_a_long_line_is_not_broken(capsys):
    console.errors().print("word " * 60)
    assert capsys.readouterr().err.count("\n") == 1
