"""Checks in a separate process whether a grammar compiles within limits of time and memory.

llguidance does not bound all of its work: two large `multipleOf` for one number, or two dozen
patterns for one string, keep it busy for hours while memory fills up. A thread that is inside
llguidance can't be ended, but a process can. So each grammar is compiled in that process first.

Rule 1: a request that waits for such a check never delays a request that needs none.
Rule 2: this file is also the program of that process, and imports nothing else of this package.
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

MAX_SECONDS = 1.0  # processor time per grammar; an enum of 50,000 words takes a quarter of it
MAX_BYTES = 256 << 20  # memory beyond what the process starts with, if the system can limit it
MAX_REMEMBERED = 256  # grammars remembered because they have passed


class Sandbox:
    """Checks grammars, one after the other, on a thread of its own."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlx-forms")
        # Only the worker thread uses the following attributes, except in `close`.
        self._process: subprocess.Popen[bytes] | None = None
        self._passed: dict[str, None] = {}
        self._closed = False

    def submit(self, work: Callable[..., None], *arguments: Any) -> Future[None] | None:
        """Run `work` on the sandbox's thread; return None once closed. For any thread."""
        try:
            return self._worker.submit(work, *arguments)
        except RuntimeError:
            return None

    def passes(self, grammar: str) -> bool:
        """Return whether a grammar compiles within the limits.

        Must be called on the sandbox's thread. A malformed grammar passes too, because its later
        compilation gives the reason. Once the sandbox is closed, every grammar passes.
        """
        if grammar not in self._passed and not self._closed:
            if not self._compiles(grammar) and not self._closed:
                return False
            self._passed[grammar] = None
            if len(self._passed) > MAX_REMEMBERED:
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
            self._end()  # another program has ended the process
        try:
            process = self._process or self._start()
        except OSError:  # without a process, nothing is checked
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
        """Start the process. Raises OSError if that fails."""
        self._process = subprocess.Popen(  # noqa: S603 - the program is this file
            # -P keeps this folder off the path: another module could hide one of Python's.
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # keeps Ctrl-C from ending it
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
    """Compile grammars from standard input, one per line of JSON, and answer each with a line.

    An expensive grammar ends the process: by a signal when its time is used up, or because
    llguidance aborts when it can't allocate memory.
    """
    from llguidance import LLMatcher, LLTokenizer  # noqa: PLC0415 - for this process alone

    tokenizer = LLTokenizer("byte", n_vocab=1 << 18)  # a call's grammar may name any token
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _limit_memory()
    _say_done()
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
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
        resource.setrlimit(resource.RLIMIT_DATA, ((data << 10) + MAX_BYTES,) * 2)
    # Without such a limit on this system, only time is limited.
    except (OSError, StopIteration, ValueError):
        pass


if __name__ == "__main__":
    main()
