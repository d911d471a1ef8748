"""Tries out grammars in a separate process, within limits of time and memory; see `trial.py`.

Rule 1: no grammar is compiled in this process before it has passed there. Without that process,
for whatever reason, it is refused.
Rule 2: a request that waits for such a trial never delays a request that needs none.
Rule 3: clients take turns. The number of waiting trials is bounded, and a trial ends when its
request is cancelled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from provider.constraints import trial
from provider.constraints.fair_queue import FairQueue
from provider.interface import GenerationError, ResourceExceededError

__all__ = ["Check", "Sandbox"]

log = logging.getLogger(__name__)

MAX_WALL_SECONDS = 10.0  # of a trial, even if its process gets little processor time
MAX_WAITING = 256  # waiting trials; each waits up to two seconds for each one before it
MAX_WAITING_OF_A_CLIENT = 64  # waiting trials of one client, more than a batch has places for
MAX_REMEMBERED = 1024  # grammars whose answer is remembered, by their digests
RETRY_AFTER_S = 1.0

PASSES, COSTLY = trial.PASSES.encode(), trial.COSTLY.encode()

# Variables of the server's environment that the process gets: those without which Python may not
# find its libraries. The others may hold secrets.
ENVIRONMENT = ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL")

# Given grammars, returns the index of the first that is too expensive, None if all pass.
FirstCostly = Callable[[Sequence[str]], int | None]
Check = Callable[[FirstCostly], None]


@dataclass(eq=False)
class _Trial:
    """A check that waits or is being made."""

    check: Check
    client: str | None
    future: Future[None] = field(default_factory=Future)


class Sandbox:
    """Tries out grammars, one after the other, on a thread of its own."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards the attributes below
        self._waiting: FairQueue[_Trial] = FairQueue(MAX_WAITING, MAX_WAITING_OF_A_CLIENT)
        self._current: _Trial | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        # Only the sandbox's thread uses the following attributes.
        self._remembered: dict[bytes, bool] = {}  # whether a grammar passes
        self._ended: int | None = None  # how the last process ended, as `Popen.returncode` says

    def submit(self, check: Check, client: str | None = None) -> Future[None]:
        """Run `check` on the sandbox's thread, in the client's turn; from any thread.

        The future has its result or its error; cancelling it ends the trial. It raises
        ResourceExceededError if there is no process to try a grammar in. Raises GenerationError
        once closed, ResourceExceededError if too many checks wait.
        """
        one = _Trial(check, client)
        with self._changed:
            if self._closed:
                raise GenerationError("the provider is closed")
            if not self._waiting.put(client, one):
                raise _later("too many constraints wait to be compiled")
            try:
                self._start_thread()
            except RuntimeError as error:  # the system has no more threads
                self._waiting.remove(client, one)
                raise _later("a constraint can't be compiled now") from error
            self._changed.notify()
        one.future.add_done_callback(lambda future: self._cancel(one, future))
        return one.future

    def close(self) -> None:
        """End the process and the thread. Idempotent."""
        with self._changed:
            self._closed = True
            while (one := self._waiting.pop()) is not None:
                _end(one, GenerationError("the provider is closed"))
            self._kill()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def first_costly(self, grammars: Sequence[str]) -> int | None:
        """Return the index of the first grammar that is too expensive, None if all pass.

        Must be called on the sandbox's thread. A malformed grammar passes too, because its later
        compilation gives the reason. Raises ResourceExceededError without a process to try it in,
        GenerationError once closed or if its request was cancelled.
        """
        digests = [hashlib.sha256(grammar.encode()).digest() for grammar in grammars]
        unknown = [at for at, digest in enumerate(digests) if digest not in self._remembered]
        costly = [at for at, digest in enumerate(digests) if not self._remembered.get(digest, True)]
        if not costly and unknown:
            passed = self._try_out([grammars[at] for at in unknown])
            self._remember(dict.fromkeys((digests[at] for at in unknown[:passed]), True))
            if passed < len(unknown):
                costly = [unknown[passed]]
                # A process that was killed may have been killed for another reason.
                if self._ended != -signal.SIGKILL:
                    self._remember({digests[costly[0]]: False})
        return min(costly, default=None)

    def _remember(self, answers: dict[bytes, bool]) -> None:
        self._remembered.update(answers)
        while len(self._remembered) > MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    # The thread.

    def _start_thread(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="mlx-constraints", daemon=True)
            thread.start()
            self._thread = thread

    def _work(self) -> None:
        while (one := self._next()) is not None:
            try:
                one.check(self.first_costly)
            except Exception as error:  # noqa: BLE001 - raised by the future
                _end(one, error)
            else:
                _end(one, None)
        self._stop()

    def _next(self) -> _Trial | None:
        """Wait for a check and return it; return None once closed."""
        with self._changed:
            self._current = None
            self._changed.wait_for(lambda: self._closed or len(self._waiting) > 0)
            self._current = None if self._closed else self._waiting.pop()
            return self._current

    def _cancel(self, one: _Trial, future: Future[None]) -> None:
        """End a trial whose request was cancelled."""
        if not future.cancelled():
            return
        with self._changed:
            self._waiting.remove(one.client, one)
            if self._current is one:
                self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    # The process.

    def _try_out(self, grammars: Sequence[str]) -> int:
        """Return how many grammars pass before the first that does not."""
        process, self._ended = self._ready(), None
        assert process.stdin is not None
        assert process.stdout is not None
        passed, answer = 0, b""
        with _killed_after(process, MAX_WALL_SECONDS), suppress(OSError):  # the process has died
            process.stdin.write(json.dumps(list(grammars)).encode() + b"\n")
            process.stdin.flush()
            while passed < len(grammars):
                answer = process.stdout.readline().strip()
                if answer != PASSES:
                    break
                passed += 1
        if answer not in {PASSES, COSTLY}:  # the grammar has ended the process
            self._stop()
            self._refuse_if_gone()
        return passed

    def _refuse_if_gone(self) -> None:
        with self._changed:
            if self._closed:
                raise GenerationError("the provider is closed")
            if self._current is not None and self._current.future.cancelled():
                raise GenerationError("the request has gone")

    def _ready(self) -> subprocess.Popen[bytes]:
        """Return the process, started if necessary. Raises ResourceExceededError if that fails."""
        if self._process is not None and self._process.poll() is not None:
            self._stop()  # another program has ended the process
        if self._process is not None:
            return self._process
        try:
            started = _started()
        except (OSError, RuntimeError) as error:
            log.warning("no process to try out a constraint in: %s", error)
            raise _later("a constraint can't be compiled now") from error
        with self._changed:
            self._process = started
            gone = self._closed or (self._current is not None and self._current.future.cancelled())
            if gone:
                self._kill()
        return started

    def _stop(self) -> None:
        with self._changed:
            process, self._process = self._process, None
        if process is not None:
            _finish(process)
            self._ended = process.returncode


def _started() -> subprocess.Popen[bytes]:
    """Start the process and wait until it is ready. Raises OSError or RuntimeError."""
    process = subprocess.Popen(  # noqa: S603 - the program is one of this package
        # -P keeps the program's folder off the path: another module could hide one of Python's.
        [sys.executable, "-P", str(Path(trial.__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        start_new_session=True,  # keeps Ctrl-C from ending it
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


def _finish(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    with suppress(OSError):  # closing a pipe to a dead process fails if text waits to be written
        process.communicate()


class _killed_after:  # noqa: N801 - read as a verb, like the context managers of the library
    """Kills a process that takes longer than a time; creating it may raise RuntimeError."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float):
        self._timer = threading.Timer(seconds, process.kill)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *details: object) -> None:
        self._timer.cancel()


def _end(one: _Trial, error: Exception | None) -> None:
    with suppress(InvalidStateError):  # cancelled
        if error is None:
            one.future.set_result(None)
        else:
            one.future.set_exception(error)


def _later(said: str) -> ResourceExceededError:
    return ResourceExceededError(f"{said}; try again later", details={"retry_after": RETRY_AFTER_S})
