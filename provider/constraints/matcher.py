"""llguidance's matcher of one answer, and what it shares with the other answers to its grammar.

All copies of a matcher share one lexer, behind a lock of llguidance's own. A thread that waits for
that lock inside llguidance may hold the interpreter's, so that nothing else runs meanwhile.
Rule 1: whoever uses a matcher that another thread may use holds the lock of its grammar.
Rule 2: what is known to be costly is done without the interpreter's lock.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property

from llguidance import LLExecutor, LLMatcher, LLTokenizer

__all__ = ["Matcher", "SharedGrammar", "reason_of"]

COSTLY_S = 0.002  # processor time of a mask; a usual one takes less than a tenth of a millisecond
# What a grammar holds, estimated. Measured were 208 MiB for a literal of 976 KiB and 83 MiB for an
# enum of 924 KiB, and at most 53 MiB more for each second that its masks have taken. These fill the
# lexer's table of states, until llguidance's own limits end that at 60 MiB.
BASE_BYTES = 1 << 20
BYTES_OF_SOURCE_BYTE = 256
BYTES_OF_MASK_SECOND, MAX_LEXER_BYTES = 64 << 20, 64 << 20
PROVEN = 32  # masks after which a grammar without a costly one is trusted


@dataclass(eq=False)
class SharedGrammar:
    """What all answers to one grammar share."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    costly: bool = False  # whether a mask has taken longer than COSTLY_S
    masks: int = 0
    source: int = 0  # length of the grammar
    seconds: float = 0.0  # processor time that its masks have taken

    @property
    def worn(self) -> bool:
        """Whether the lexer's table may be as large as it can be."""
        return self.seconds * BYTES_OF_MASK_SECOND >= MAX_LEXER_BYTES

    @property
    def nbytes(self) -> int:
        """The memory that the grammar holds, as an estimate."""
        lexer = min(MAX_LEXER_BYTES, int(self.seconds * BYTES_OF_MASK_SECOND))
        return BASE_BYTES + BYTES_OF_SOURCE_BYTE * self.source + lexer

    @property
    def trusted(self) -> bool:
        """Whether its masks have all been cheap so far, and were not few."""
        return self.masks >= PROVEN and not self.costly

    def note(self, seconds: float) -> None:
        """Note how much processor time a mask has taken."""
        self.masks += 1
        self.seconds += seconds
        if seconds > COSTLY_S:
            self.costly = True


@dataclass(frozen=True)
class Matcher:
    """One answer's place in a grammar."""

    inner: LLMatcher
    shared: SharedGrammar = field(default_factory=SharedGrammar)

    def copy(self) -> Matcher:
        """Return a copy, for another answer."""
        return Matcher(self.inner.deep_copy(), self.shared)

    def take(self, token: int) -> bool:
        """Go on by a token; return whether the grammar allows it. The matcher may fail."""
        if self.shared.costly:
            return _taken_without_lock(self.inner, token)
        return self.take_if_allowed(token)

    def take_if_allowed(self, token: int) -> bool:
        """Do what `take` does, but a token that is not allowed is no failure of the matcher."""
        return bool(self.inner.try_consume_tokens([token]))


class _OfThread(threading.local):
    """A thread's own executor, and a matcher that has failed already."""

    @cached_property
    def executor(self) -> LLExecutor:
        """An executor, whose thread is as nice as this one."""
        return LLExecutor(1)

    @cached_property
    def failed(self) -> LLMatcher:
        """A matcher that has failed, which takes no time."""
        return LLMatcher(LLTokenizer("byte"), "", log_level=0)


_own = _OfThread()


def _taken_without_lock(matcher: LLMatcher, token: int) -> bool:
    # llguidance lets go of the interpreter's lock only where there are two matchers.
    return bool(_own.executor.consume_token_par([(matcher, token), (_own.failed, 0)])[0])


def reason_of(matcher: LLMatcher) -> str:
    """Return why a matcher has failed: its message without the tokens and the grammar."""
    said = matcher.get_error().partition("<state>")[0].strip()
    return "no text can fit it" if said == "NoExtensionBias" else said
