import pytest

from gateway.commands.failure import ExitStatus, Failure, address_given
from gateway.protocol.address import address_of


def test_every_way_to_end_has_a_status_of_its_own():
    assert len({status.value for status in ExitStatus}) == len(ExitStatus)
    assert ExitStatus.OK == 0
    assert all(0 <= status <= 255 for status in ExitStatus)


def test_what_a_signal_ended_is_as_a_shell_counts_it():
    assert (ExitStatus.INTERRUPTED, ExitStatus.TERMINATED) == (128 + 2, 128 + 15)


def test_a_failure_has_a_line_a_hint_and_a_status():
    failure = Failure("no gateway", "start one", ExitStatus.NO_GATEWAY)
    assert (str(failure), failure.hint, failure.status) == ("no gateway", "start one", 5)


def test_an_address_that_is_none_is_a_failure_of_use_without_its_token():
    assert address_given("localhost:8765") == address_of("localhost:8765")
    with pytest.raises(Failure, match="`ftp://localhost:8765/`") as caught:
        address_given("ftp://localhost:8765/#token=sesame")
    assert caught.value.status is ExitStatus.USAGE
    assert "sesame" not in str(caught.value)
