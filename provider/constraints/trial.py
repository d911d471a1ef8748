"""The program of the process that tries out grammars, within limits of time and memory.

llguidance does not bound all of its work: two large `multipleOf` for one number, or two dozen
patterns for one string, keep it busy for hours while memory fills up. A thread that is inside
llguidance can't be ended, but a process can. So each list of grammars is compiled in a child of
this process first, which takes a millisecond to start.

Rule: it imports nothing else of this package, and needs nothing of the server's environment.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["COSTLY", "KILLED", "PASSES", "UNFINISHED", "main"]

# The answers, one a line. UNFINISHED: its time is used up. KILLED: by whoever it was.
PASSES, COSTLY, UNFINISHED, KILLED = "passes", "costly", "unfinished", "killed"

MAX_SECONDS = 1.0  # processor time of a grammar; an enum of 50,000 words takes a quarter of it
MAX_SECONDS_IN_ALL = 2.0  # processor time of all grammars of one call
MAX_MASK_SECONDS = 0.25  # processor time of its masks; those of a usual schema take 0.01
MAX_BYTES = 256 << 20  # memory beyond what the process starts with, if the system can limit it
STEPS = 256  # bytes of a random text that fits the grammar, for each of which a mask is made


def main() -> None:
    """Try out the grammars in each line of standard input: seconds and a list, in JSON.

    The argument is how much nicer the process is than the one that starts it, by default not at
    all. The seconds are processor time for all grammars of the list. Each grammar is answered by a
    line, up to the first that does not pass. It is COSTLY too if llguidance aborts because it can't
    allocate memory.
    """
    from llguidance import LLTokenizer  # noqa: PLC0415 - for this process alone

    tokenizer = LLTokenizer("byte", n_vocab=1 << 18)  # a call's grammar may name any token
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _be_nicer(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    _limit_memory()
    _say("ready")
    for line in sys.stdin.buffer:
        seconds, grammars = json.loads(line)
        child = os.fork()
        if not child:
            _try_all(tokenizer, seconds, grammars)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            ends: dict[int, str] = {signal.SIGPROF: UNFINISHED, signal.SIGKILL: KILLED}
            _say(ends.get(os.WTERMSIG(status), COSTLY) if os.WIFSIGNALED(status) else COSTLY)


def _try_all(tokenizer: Any, seconds: float, grammars: Sequence[str]) -> None:
    """Try out grammars, in a child; a signal ends it when their time is used up."""
    end = time.process_time() + seconds
    for grammar in grammars:
        left = end - time.process_time()
        signal.setitimer(signal.ITIMER_PROF, max(0.01, min(MAX_SECONDS, left)))
        answer = _try_out(tokenizer, grammar)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say(answer)
        if answer == COSTLY:
            break


def _try_out(tokenizer: Any, grammar: str) -> str:
    """Return PASSES or COSTLY after compiling a grammar and writing a random text that fits it.

    A grammar that can't be compiled passes.
    """
    from llguidance import LLMatcher  # noqa: PLC0415 - for this process alone

    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    begin, draw = time.process_time(), random.Random(0)  # noqa: S311 - the same text each time
    for _ in range(STEPS):
        if matcher.is_stopped():
            break
        allowed = int.from_bytes(matcher.compute_bitmask()[:32], "little")
        choices = [byte for byte in range(256) if allowed >> byte & 1]
        if time.process_time() - begin > MAX_MASK_SECONDS:
            return COSTLY
        if not choices or not matcher.consume_token(draw.choice(choices)):
            break
    return COSTLY if time.process_time() - begin > MAX_MASK_SECONDS else PASSES


def _say(answer: str) -> None:
    sys.stdout.write(f"{answer}\n")
    sys.stdout.flush()


def _be_nicer(niceness: int) -> None:
    """Leave the processors to others; where Linux shares them by sessions, this session does."""
    if niceness:
        os.nice(niceness)
        with suppress(OSError):  # it does not share them by sessions
            Path("/proc/self/autogroup").write_text(str(niceness))


def _limit_memory() -> None:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        lines = Path("/proc/self/status").read_text().splitlines()
        sizes = dict(line.split(":", 1) for line in lines)
        for limit, size in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
            now = int(sizes[size].split()[0]) << 10
            resource.setrlimit(limit, (now + MAX_BYTES,) * 2)
    # Without such a limit on this system, only time is limited.
    except (OSError, KeyError, ValueError):
        pass


if __name__ == "__main__":
    main()
