"""Standard streams that a command can use, whoever has started it, and whatever they hold."""

from __future__ import annotations

import io
import os
import sys
from typing import Literal, TextIO

__all__ = ["make_usable", "usable"]


def make_usable() -> None:
    """Have `sys` hold three streams that are open and raise no errors for characters."""
    sys.stdin = usable(sys.stdin, "r")
    sys.stdout = usable(sys.stdout, "w")
    sys.stderr = usable(sys.stderr, "w")


def usable(stream: TextIO | None, mode: Literal["r", "w"]) -> TextIO:
    """Return a stream, or one of nothing in place of None, which Python has for a closed one.

    What its encoding doesn't have is replaced, unless it keeps such bytes as they are.
    """
    if stream is None:
        return open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123 - open to the end
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="replace")
    return stream
