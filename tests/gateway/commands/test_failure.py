from gateway.commands.failure import ExitStatus, Failure


def test_every_way_to_end_has_a_status_of_its_own():
    assert len({status.value for status in ExitStatus}) == len(ExitStatus)
    assert ExitStatus.OK == 0
    assert all(0 <= status <= 255 for status in ExitStatus)


def test_what_a_signal_ended_is_as_a_shell_counts_it():
    assert (ExitStatus.INTERRUPTED, ExitStatus.TERMINATED) == (128 + 2, 128 + 15)


def test_a_failure_has_a_line_a_hint_and_a_status():
    failure = Failure("no gateway", "start one", ExitStatus.NO_GATEWAY)
    assert (str(failure), failure.hint, failure.status) == ("no gateway", "start one", 5)
