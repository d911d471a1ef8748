"""The process that tries out grammars: what it is given, how it is limited, how it ends."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from provider.constraints import trial, trial_process
from provider.constraints.compiler import constraint_of
from provider.constraints.trial_process import TrialProcess

FINE = constraint_of({"type": "regex", "regex": "[ab]"}).grammar
REMAINDERS = {"type": "integer", "allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}
ENDLESS = constraint_of({"type": "json_schema", "schema": REMAINDERS}).grammar


@pytest.fixture
def process():
    made = TrialProcess()
    made.start()
    yield made
    made.stop()


def test_it_says_how_many_grammars_pass_and_goes_on_after_one_that_does_not(process):
    pid = process.pid
    assert process.try_out([FINE, FINE], 1) == (2, trial.PASSES)
    assert process.try_out([FINE, ENDLESS, FINE], 0.05) == (1, trial.UNFINISHED)
    assert process.try_out([FINE], 1) == (1, trial.PASSES)
    assert process.pid == pid


def test_killing_it_ends_a_trial_and_what_tries_it_and_it_can_be_started_again(process):
    pid = process.pid
    killer = threading.Timer(0.1, process.kill)
    killer.start()
    assert process.try_out([ENDLESS], 3600) == (0, trial.KILLED)
    killer.join()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:  # its child may not have been reaped yet
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    else:
        raise AssertionError("its child lives on")
    process.start()
    assert process.try_out([FINE], 1) == (1, trial.PASSES)


@pytest.mark.skipif(sys.platform != "linux", reason="a process's environment is read from /proc")
def test_it_has_nothing_of_the_environment_that_it_does_not_need(monkeypatch):
    monkeypatch.setenv("MLX_GATEWAY_TOKENS", "secret")
    monkeypatch.setenv("LANG", "C")
    process = TrialProcess()
    process.start()
    given = Path(f"/proc/{process.pid}/environ").read_bytes()
    process.stop()
    assert b"LANG=C" in given
    assert b"secret" not in given
    assert {name.partition(b"=")[0].decode() for name in given.split(b"\0") if name} <= {
        *trial_process.ENVIRONMENT
    }


@pytest.mark.skipif(sys.platform != "linux", reason="sessions share processors on Linux alone")
def test_a_nice_process_leaves_the_processors_to_others_as_its_session_does():
    nice = TrialProcess(3)
    nice.start()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        assert os.getpriority(os.PRIO_PROCESS, nice.pid) == min(19, own + 3)
        session = Path(f"/proc/{nice.pid}/autogroup")
        if session.exists() and os.getsid(nice.pid) != os.getsid(0):
            assert session.read_text().split()[-1] == "3"
        assert nice.try_out([FINE], 1) == (1, trial.PASSES)
    finally:
        nice.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="a process's limits are read from /proc")
def test_it_has_a_limit_of_memory(process):
    limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
    for what in ("Max address space", "Max data size", "Max core file size"):
        (line,) = (line for line in limits if line.startswith(what))
        assert "unlimited" not in line
