import pytest

from gateway.commands.counts import counted, rate


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 tokens"), (1, "1 token"), (2, "2 tokens"), (2048, "2,048 tokens")]
)
def test_one_thing_is_in_the_singular(number, said):
    assert counted(number, "token") == said


@pytest.mark.parametrize(
    ("speed", "said"), [(0.42, "0.4 "), (9.46, "9.5 "), (9.6, "10 "), (41.7, "42 ")]
)
def test_a_slow_answer_has_a_speed_too(speed, said):
    assert rate(speed) == f"{said}tokens/s"
