"""A program that was forked is to its test what an interpreter of its own is."""

import os
import signal
import subprocess
import sys

import pytest

from tests.support import programs

PROGRAMS = {
    "its output": "import sys; print('ä', sys.argv[1:]); print('no', file=sys.stderr)",
    "its input": "import sys; print(sys.stdin.read().upper(), end='')",
    "its environment": "import os; print(os.environ['GIVEN'], 'HOME' in os.environ)",
    "a status": "raise SystemExit(7)",
    "a status in words": "import sys; sys.exit('it failed')",
    "an exception": "1 / 0",
    "a signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "Ctrl-C": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "its end": "import atexit; atexit.register(print, 'the end')",
    "its module": "import __main__; x = 1; print(__main__.x, __name__)",
    "its threads": "import threading; threading.Timer(0.01, print, ['late']).start()",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_forked_program_does_what_an_interpreter_does(name, tmp_path):
    arguments = ("-c", PROGRAMS[name], "one", "two")
    options = {"env": {"GIVEN": "yes"}, "cwd": tmp_path}
    forked = programs.run(*arguments, input="said\n", **options)
    alone = subprocess.run(
        [sys.executable, *arguments],
        input="said\n",
        capture_output=True,
        encoding="utf-8",
        check=False,
        **options,
    )
    assert (forked.returncode, forked.stdout) == (alone.returncode, alone.stdout)
    assert forked.stderr.splitlines()[-1:] == alone.stderr.splitlines()[-1:]


def test_a_program_can_be_waited_for_and_ended():
    reading, writing = os.pipe()
    try:
        program = programs.Program(("-c", "input()"), [reading, 1, 2])
        assert program.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.01)
        program.send_signal(signal.SIGTERM)
        assert program.wait() == program.poll() == -signal.SIGTERM
        program.send_signal(signal.SIGTERM)  # too late to reach another process
    finally:
        os.close(reading)
        os.close(writing)
