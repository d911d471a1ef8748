"""A process that tries out grammars for one thread; `trial.py` is its program.

It is started when it is needed, and ended when it takes too long or nobody waits for it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from provider.constraints import trial

__all__ = ["TrialProcess"]

MAX_WALL_SECONDS = 10.0  # of a list of grammars, even if the process gets little processor time

# Variables of the server's environment that the process gets: those without which Python may not
# find its libraries. The others may hold secrets.
ENVIRONMENT = ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL")


class TrialProcess:
    """One process; one thread calls `try_out` and `stop`, any thread `kill`."""

    def __init__(self, niceness: int = 0) -> None:
        """Prepare a process that is nicer than this one by `niceness`, as in `nice -n`."""
        self._niceness = niceness
        self._lock = threading.Lock()  # keeps a process from being killed after it was waited for
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    @property
    def pid(self) -> int | None:
        """The process's id, None if it does not run."""
        process = self._process
        return None if process is None else process.pid

    def start(self) -> None:
        """Start the process unless it runs. Raises OSError or RuntimeError."""
        if self._process is not None and (self._killed or self._process.poll() is not None):
            self.stop()
        if self._process is None:
            started = _started(self._niceness)
            with self._lock:
                self._process, self._killed = started, False

    def try_out(self, grammars: Sequence[str], seconds: float) -> tuple[int, str]:
        """Return how many grammars pass before the first that does not, and what was said of it.

        They have `seconds` of processor time together. The process must have been started.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        passed, answer = 0, ""
        with _killed_after(process, MAX_WALL_SECONDS), suppress(OSError):  # the process has died
            process.stdin.write(json.dumps([seconds, list(grammars)]).encode() + b"\n")
            process.stdin.flush()
            while passed < len(grammars):
                answer = process.stdout.readline().decode().strip()
                if answer != trial.PASSES:
                    break
                passed += 1
        if not answer:
            self.stop()
        return passed, answer or trial.KILLED

    def kill(self) -> None:
        """End the process, if it runs; `try_out` returns."""
        with self._lock:
            if self._process is not None:
                self._killed = True
                _kill(self._process)

    def stop(self) -> None:
        """End the process, and wait for it."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            _finish(process)


def _started(niceness: int) -> subprocess.Popen[bytes]:
    """Start the process and wait until it is ready. Raises OSError or RuntimeError."""
    process = subprocess.Popen(  # noqa: S603 - the program is one of this package
        # -P keeps the program's folder off the path: another module could hide one of Python's.
        [sys.executable, "-P", str(Path(trial.__file__).resolve()), str(niceness)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        start_new_session=True,  # keeps Ctrl-C from ending it, and lets its children be killed
    )
    assert process.stdout is not None
    try:
        with _killed_after(process, MAX_WALL_SECONDS):
            if process.stdout.readline():
                return process
    except BaseException:
        _finish(process)
        raise
    _finish(process)
    raise OSError("the process has ended at once")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that was not waited for, and its child."""
    with suppress(OSError):  # it has become no group of its own yet, or is gone
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _finish(process: subprocess.Popen[bytes]) -> None:
    _kill(process)
    with suppress(OSError):  # closing a pipe to a dead process fails if text waits to be written
        process.communicate()


class _killed_after:  # noqa: N801 - read as a verb, like the context managers of the library
    """Kills a process that takes longer than a time; creating it may raise RuntimeError."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float):
        self._timer = threading.Timer(seconds, _kill, (process,))
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *details: object) -> None:
        self._timer.cancel()
