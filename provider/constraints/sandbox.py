"""Tries in a process of its own whether a grammar compiles in bounded time and memory.

llguidance bounds most of what it does, and not all: two large `multipleOf` of one number, or two
dozen patterns of one text, keep it busy for hours while the memory fills. A thread that is in there
can't be ended and a process can, so that each grammar is compiled in one of those first.

Rule 1: who waits for a trial holds up nobody who wants none.
Rule 2: this file is the program of that process too, and imports nothing of ours.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

__all__ = ["Sandbox"]

SECONDS = 1.0  # processor time; an enum of 50,000 words takes a quarter of it
BYTES = 256 << 20  # memory beyond what the process starts with, where the system can limit it
REMEMBERED = 256  # grammars that are known to pass


class Sandbox:
    """Tries grammars, one after the other."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlx-forms")
        # Used by the worker thread alone, like the attributes below.
        self._process: subprocess.Popen[bytes] | None = None
        self._passed: dict[str, None] = {}
        self._closed = False

    def submit(self, work: Callable[..., None], *arguments: Any) -> Future[None] | None:
        """Run `work` on the sandbox's thread; None once closed. May be called from any thread."""
        try:
            return self._worker.submit(work, *arguments)
        except RuntimeError:
            return None

    def passes(self, grammar: str) -> bool:
        """Return whether a grammar compiles within the limits; on the sandbox's thread.

        What is no grammar passes too: whoever compiles it finds out why. Once closed, all do.
        """
        if grammar not in self._passed and not self._closed:
            if not self._compiles(grammar) and not self._closed:
                return False
            self._passed[grammar] = None
            if len(self._passed) > REMEMBERED:
                del self._passed[next(iter(self._passed))]
        return True

    def close(self) -> None:
        """End the process and the thread. Idempotent."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        self._worker.shutdown(wait=True)
        self._end()

    def _compiles(self, grammar: str) -> bool:
        if self._process is not None and self._process.poll() is not None:
            self._end()  # the process was killed from outside
        try:
            process = self._process or self._start()
        except OSError:  # no process can be started; do without one
            return True
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(grammar).encode() + b"\n")
            process.stdin.flush()
            if process.stdout.readline():
                return True
        except OSError:  # the process has died
            pass
        self._end()
        return False

    def _start(self) -> subprocess.Popen[bytes]:
        """Begin with a process. Raises OSError if none can be had."""
        self._process = subprocess.Popen(  # noqa: S603 - of this very file
            # -P, because its folder holds modules named like Python's own
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # keeps Ctrl-C from it
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():  # the process writes a line once it is ready
            self._end()
            raise OSError("the process has ended at once")
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def main() -> None:
    """Compile grammars, one a line of JSON, and answer each; a costly one ends the process.

    Time ends it by a signal and memory by llguidance's own end where it can get none.
    """
    from llguidance import LLMatcher, LLTokenizer  # noqa: PLC0415 - of this process alone

    tokenizer = LLTokenizer("byte", n_vocab=1 << 18)  # a call's grammar may name any token
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _limit_memory()
    _say_done()
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        LLMatcher(tokenizer, json.loads(line), log_level=0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say_done()


def _say_done() -> None:
    sys.stdout.write("\n")
    sys.stdout.flush()


def _limit_memory() -> None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        data = next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))
        resource.setrlimit(resource.RLIMIT_DATA, ((data << 10) + BYTES,) * 2)
    # No such limit on this system; time alone is limited.
    except (OSError, StopIteration, ValueError):
        pass


if __name__ == "__main__":
    main()
