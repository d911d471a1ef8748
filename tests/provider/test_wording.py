"""Numbers of things, in words."""

import pytest

from provider.wording import counted


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 tokens"), (1, "1 token"), (2, "2 tokens"), (2048, "2,048 tokens")]
)
def test_one_thing_is_in_the_singular(number, said):
    assert counted(number, "token") == said


@pytest.mark.parametrize(("number", "said"), [(1, "1 socket is"), (2, "2 sockets are")])
def test_what_they_are_is_said_in_the_same_number(number, said):
    assert counted(number, "socket", are=True) == said
