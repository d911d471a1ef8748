"""What is said of a hostile soak."""

import os
import sys
import time

import pytest

from tests.bench.attack.gateways import Used, seconds_of
from tests.bench.attack.soak import shown, slowness, used_by


def test_the_tokens_of_polite_clients_are_shared_out_to_attacks():
    began = [(10.0, "pings"), (12.0, "maps"), (13.0, "pings")]
    got = [(9.0, 50.0), (10.0, 10.0), (11.9, 10.0), (12.5, 2.0), (13.5, 20.0)]
    assert slowness(got, began, 15.0, 10.0) == {"pings": (1.0, 4.0), "maps": (0.2, 1.0)}


def test_processor_time_is_shared_out_to_attacks():
    began = [(10.0, "pings"), (12.0, "maps"), (13.0, "pings")]
    used = [Used(*[n] * 5) for n in (1.0, 2.0, 4.0, 4.5)]
    found = used_by(began, used)
    assert (found["pings"].loop, found["maps"].attacker) == (1.5, 2.0)
    assert shown(found["maps"], 4.0).startswith("loop 0.50, engine 0.50")


@pytest.mark.skipif(sys.platform != "linux", reason="processor time is read from /proc")
def test_the_processor_time_of_a_process_and_of_a_thread_is_read_and_is_0_once_it_has_ended():
    while time.process_time() < 0.02:
        sum(range(10_000))
    own = os.getpid()
    assert 0 < seconds_of(f"{own}/task/{own}") <= seconds_of(own)
    assert seconds_of("no such process") == 0.0
