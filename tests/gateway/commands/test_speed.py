import pytest

from gateway.commands.speed import rate


@pytest.mark.parametrize(
    ("speed", "said"), [(0.42, "0.4 "), (9.46, "9.5 "), (9.6, "10 "), (41.7, "42 ")]
)
def test_a_slow_answer_has_a_speed_too(speed, said):
    assert rate(speed) == f"{said}tokens/s"
