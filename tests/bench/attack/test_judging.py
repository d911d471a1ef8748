"""The judge of the attacks lets nothing pass that should fail."""

import dataclasses
import json
import os
import sys
import time

import pytest
from rich.console import Console

from tests.bench.attack.bench import busy_seconds, idle_machine
from tests.bench.attack.judging import (
    MIB,
    SLACK_S,
    Check,
    Verdict,
    beside,
    table,
    usually_waits,
    write,
)
from tests.bench.attack.polite import Seen, ServerTime, slower

QUIET = Seen(seconds=1.0, gap=0.02, first=0.1, ping=0.01, tokens=100.0, answers=3)
WORSE = {
    "longest gap": {"gap": QUIET.gap + SLACK_S + 0.01},
    "first text": {"first": QUIET.first + SLACK_S + 0.01},
    "ping": {"ping": QUIET.ping + SLACK_S + 0.01},
    "tokens/s": {"tokens": 79.0},
    "memory": {"memory": 2 * MIB},
}


def failed(seen):
    return [check.what for check in beside(QUIET, seen, memory=1) if not check.holds]


def test_what_is_as_quiet_holds():
    assert failed(QUIET) == []


@pytest.mark.parametrize("what", WORSE)
def test_each_bound_fails_alone(what):
    assert failed(dataclasses.replace(QUIET, **WORSE[what])) == [what]


def test_a_measuring_process_that_was_late_itself_is_allowed_for():
    late = dataclasses.replace(QUIET, gap=QUIET.gap + SLACK_S + 0.01, late=0.02)
    assert failed(late) == []


def test_a_wrong_answer_and_a_refusal_fail():
    assert failed(dataclasses.replace(QUIET, wrong=1)) == ["answers"]
    refused = dataclasses.replace(QUIET)
    refused.failures = QUIET.failures + type(QUIET.failures)(overloaded=2)
    assert failed(refused) == ["answers"]


def test_nine_of_ten_waits_are_judged_and_one_of_them_is_not():
    quiet, seen = Seen(), Seen()
    quiet.waits["first"] = [0.1] * 10
    seen.waits["first"] = [9.0] + [0.2] * 10
    assert usually_waits("first", quiet, seen, 0.15).holds
    assert not usually_waits("first", quiet, seen, 0.05).holds
    seen.waits["first"] += [9.0] * 2
    assert not usually_waits("first", quiet, seen, 0.15).holds
    seen.waits["first"] = [9.0]
    assert not usually_waits("first", quiet, seen, 0.15).holds


def test_of_two_quiet_runs_the_worse_figures_count():
    one = dataclasses.replace(QUIET, waits=Seen().waits)
    other = dataclasses.replace(QUIET, seconds=2.0, gap=0.01, first=0.3, tokens=60.0)
    other.waits = Seen().waits
    one.waits["first"], other.waits["first"] = [0.1] * 3, [0.3]
    worse = slower(one, other)
    assert (worse.rate, worse.gap, worse.first) == (30.0, 0.02, 0.3)
    assert worse.waits["first"] == [0.1, 0.1, 0.1, 0.3]
    assert worse.waits["ping"] == []


@pytest.mark.skipif(sys.platform != "linux", reason="waiting for a processor is counted in /proc")
def test_the_time_of_a_server_goes_on_while_it_works_and_no_faster_than_all_time():
    served = ServerTime(os.getpid())
    begin, before = time.monotonic(), served.now()
    time.sleep(0.02)
    work = time.thread_time()
    sum(range(100_000))
    worked = time.thread_time() - work
    assert worked < served.now() - before < time.monotonic() - begin + 1e-6
    served.close()


def test_the_time_of_no_server_is_the_time():
    assert ServerTime(None).unserved() == 0.0


def test_a_verdict_holds_if_there_are_checks_and_all_hold(tmp_path, capsys):
    good, bad = Check("ping", 0.1, True), Check("end", "killed", False, "status 0")
    verdicts = [Verdict("one", "loop", "much", checks, 1.0) for checks in ([good], [good, bad], [])]
    assert [verdict.holds for verdict in verdicts] == [True, False, False]
    write(verdicts, tmp_path / "new" / "attack.json")
    written = json.loads((tmp_path / "new" / "attack.json").read_text())
    assert [one["holds"] for one in written] == [True, False, False]
    Console(width=150).print(table(verdicts))
    assert "end: killed (status 0)" in capsys.readouterr().out


def test_a_verdict_on_a_second_try_says_what_failed_first(capsys):
    slow = Check("ping", 0.5, False, "at most 0.3 s")
    first = Verdict("one", "loop", "much", [slow, Check("end", "0", True)], 1.0)
    assert first.failed == ["ping: 0.5, at most 0.3 s"]
    again = Verdict("one", "loop", "much", [Check("ping", 0.1, True)], 1.0, first.failed)
    Console(width=200).print(table([again]))
    said = capsys.readouterr().out
    assert "ok, again" in said
    assert "first ping: 0.5, at most" in said


async def test_a_second_try_waits_for_others_to_end():
    used = iter([0.0, 10.0, 10.0, 20.0, 20.0, 20.0])  # seconds, before and after each look
    await idle_machine(every=0.0, busy=lambda: next(used))
    assert list(used) == []
    await idle_machine(at_most=0.0, busy=lambda: pytest.fail("there is no time"))
    assert busy_seconds() >= 0.0
