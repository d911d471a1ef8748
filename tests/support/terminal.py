"""The command line on a terminal of its own, and its screen as text."""

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from pathlib import Path

from tests.support.programs import GATEWAY, Program
from tests.support.timeouts import STARTING, TIMEOUT

CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
ROWS, COLUMNS = 30, 80


class Terminal:
    """`mlx-gateway` with these arguments on a terminal of 80 columns.

    `screen` is all that was written to it, as it was written.
    """

    def __init__(self, *arguments, env=None, split=False):
        """With `split`, standard output isn't the terminal, and is read by `out`."""
        self.screen = ""
        self._parent, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("4H", ROWS, COLUMNS, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", **(env or {})}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        self._out, out = os.pipe() if split else (None, child)
        self.process = Program(
            [*GATEWAY, *arguments], [child, out, child], terminal=True, env=environment
        )
        os.close(child)
        if split:
            os.close(out)

    @property
    def text(self):
        """What was written, without colours and cursor movements."""
        return CODES.sub("", self.screen)

    def out(self):
        """Return what was written to standard output, to its end."""
        with os.fdopen(self._out) as reading:
            return reading.read()

    def type(self, text):
        os.write(self._parent, text if isinstance(text, bytes) else text.encode())

    def press_ctrl_c(self):
        """Press Ctrl-C at a prompt, once the program waits for a key: before, `input` misses it."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        deadline = time.monotonic() + TIMEOUT
        while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline
        self.type("\x03")

    def modes(self):
        """Return how the terminal treats keys: whether it echoes them, among others."""
        return termios.tcgetattr(self._parent)[3]

    def wait_for(self, text, since=0):
        """Wait until a text was written after a place, and return the place after it."""
        deadline = time.monotonic() + STARTING
        while text not in self.screen[since:]:
            assert time.monotonic() < deadline, self.screen
            if select.select([self._parent], [], [], 1)[0] and not self._read():
                assert text in self.screen[since:], self.screen
        return self.screen.index(text, since) + len(text)

    def close(self):
        """Wait for the end of the program, and return its status."""
        while self._read():
            pass
        status = self.process.wait(TIMEOUT)
        self.last_modes = self.modes()
        os.close(self._parent)
        return status

    def _read(self):
        """Add what was written to the screen; return whether there may be more."""
        try:
            read = os.read(self._parent, 4096)
        except OSError:  # the other end is closed
            return False
        self.screen += read.decode("utf-8", "replace")
        return bool(read)
