"""The program that tries out grammars: what it answers, and that its process is limited."""

import json
import random
import signal
import subprocess
import sys

import pytest
from llguidance import LLTokenizer

from provider.constraints import trial
from provider.constraints.compiler import constraint_of
from tests.support.programs import measured_environment


def answers(*lines):
    """Return the exit code and the output of a process that is given lists of grammars."""
    given = "".join(json.dumps([trial.MAX_SECONDS_IN_ALL, line]) + "\n" for line in lines)
    done = subprocess.run(
        [sys.executable, "-P", trial.__file__],
        input=given.encode(),
        capture_output=True,
        env=measured_environment(),
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.decode().split()


def grammar(kind, **given):
    return constraint_of({"type": kind, **given}).grammar


# Compiled in no time, but a text of n letters is read in as many ways as there are binary trees.
AMBIGUOUS = "start: a\na: /[a-z]/ | a a\n"


@pytest.fixture(scope="module")
def tokenizer():
    return LLTokenizer("byte")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (grammar("regex", regex="[ab]"), trial.PASSES),  # complete after one byte
        (grammar("regex", regex="[a-z]*"), trial.PASSES),
        ("no grammar", trial.PASSES),
        (AMBIGUOUS, trial.COSTLY),
    ],
)
def test_only_a_grammar_with_slow_masks_is_costly(tokenizer, text, answer):
    assert trial._try_out(tokenizer, text) == answer


@pytest.fixture
def no_signal():
    """Ignore the signal that ends the process of a trial; this process goes on after it."""
    before = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


@pytest.mark.usefixtures("no_signal")
def test_grammars_are_tried_up_to_the_first_costly_one_and_no_timer_stays(tokenizer, capsys):
    fine = grammar("regex", regex="[ab]")
    trial._try_all(tokenizer, trial.MAX_SECONDS_IN_ALL, [fine, "no grammar", AMBIGUOUS, fine])
    assert capsys.readouterr().out.split() == ["passes", "passes", "costly"]
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


def test_each_grammar_is_answered_by_a_line_and_a_malformed_one_passes():
    fine = grammar("json_schema", schema={"type": "integer"})
    assert answers([fine, "", "no grammar"], [], [fine]) == (0, ["ready", *["passes"] * 4])


def test_a_grammar_whose_masks_take_too_long_is_costly_and_ends_its_list():
    fine = grammar("regex", regex="[ab]")
    assert answers([fine, AMBIGUOUS, fine], [fine]) == (
        0,
        ["ready", "passes", "costly", "passes"],
    )


def test_a_grammar_that_takes_too_long_is_unfinished_and_the_next_list_is_tried():
    remainders = {"type": "integer", "allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}
    fine, endless = grammar("regex", regex="[ab]"), grammar("json_schema", schema=remainders)
    said = ["ready", "passes", "unfinished", "passes"]
    assert answers([fine, endless, fine], [fine]) == (0, said)


def test_grammars_that_people_use_are_not_costly():
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijkl", k=12)) for _ in range(3000)]
    fields = {f"field_{n}": {"type": ["string", "null"], "maxLength": 200} for n in range(200)}
    given = [
        grammar("json_object"),
        grammar("choice", choices=words),
        grammar("json_schema", schema={"enum": words}),
        grammar("json_schema", schema={"type": "object", "properties": fields}),
        grammar("regex", regex=r"[\w.+-]+@[\w-]+\.[\w.]+"),
        grammar("lark", grammar='start: e\ne: e "+" t | t\nt: /[0-9]+/ | "(" e ")"'),
    ]
    assert answers(given) == (0, ["ready", *["passes"] * len(given)])


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_its_memory_is_limited():
    code = (
        "from provider.constraints import trial; trial._limit_memory(); "
        f"held = bytearray({trial.MAX_BYTES} + (64 << 20))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert b"MemoryError" in done.stderr
