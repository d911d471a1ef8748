"""`mlx-gateway` and `python -m gateway`: the command line.

SIGTERM ends it at once until a command handles signals itself, even during the imports.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType

from gateway.commands.failure import STOPPED_EARLY, ExitStatus

__all__ = ["main"]

SHOW_CURSOR = "\x1b[?25h"  # for the terminal, whose cursor a spinner may have hidden


def main() -> None:
    """Run the command line; its exit status is an ExitStatus."""
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _stop)  # before the imports, which take seconds
    from gateway.commands.cli import run  # noqa: PLC0415

    run(began)


def _stop(number: int, frame: FrameType | None) -> None:
    # Nothing is open yet that must be closed, and an import may swallow an exception.
    if sys.stderr.isatty():
        sys.stderr.write(SHOW_CURSOR)
    print(STOPPED_EARLY, file=sys.stderr, flush=True)  # noqa: T201 - no console is there yet
    os._exit(ExitStatus.TERMINATED)


if __name__ == "__main__":
    main()
