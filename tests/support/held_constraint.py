"""A constraint whose masks are late until a test lets them be made."""

import threading

from provider.constraints.masks import allow_only
from provider.constraints.matcher import SharedGrammar


class HeldConstraint:
    """Allows one token at each place of the answer; its masks are late until `let_go` is called.

    With `error`, this is raised instead.
    """

    bound, violated = True, False

    def __init__(self, wanted, error=None):
        self._wanted, self._error = wanted, error
        self._free = threading.Event()
        self._followed = threading.local()  # a dropped mask may be made beside the next one
        self.slow, self.simple = True, False
        self.masks, self.mask_seconds = 0, 0.0
        self.shared = SharedGrammar()

    def let_go(self):
        """Let the late mask be made, and make later ones at once."""
        self.slow, self.simple = False, True
        self._free.set()

    def hold(self):
        """Make later masks late again."""
        self.slow, self.simple = True, False
        self._free.clear()

    def follow(self, length, last, answer):
        assert len(answer()) == length
        assert self._free.wait(timeout=30)
        if self._error is not None:
            raise self._error
        self._followed.length = length

    def write(self, mask):
        allow_only(mask, [self._wanted[self._followed.length]])

    def satisfied(self, length):
        return True
