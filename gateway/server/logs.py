"""The format of log lines: text on a terminal, JSON elsewhere.

Rule 1: at INFO, a connection has two lines and a generation has one.
Rule 2: no line at INFO or above has a prompt or an answer. The message of an unexpected error may
quote one, so only its type and traceback are logged; its message is logged at DEBUG.
Rule 3: no line has a token, at DEBUG neither. The websockets library logs handshakes and frames at
DEBUG, so its lines of that level are never shown; its errors may quote a header, so they are shown
without their messages.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import textwrap
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

__all__ = ["LIBRARY", "LOG_EVERY_S", "Rare", "fields", "set_up", "unexpected"]

OWN = ("gateway", "provider")
LIBRARY = "gateway.websockets"  # logger of the websockets library, mostly on handshakes
CLOCK = "%H:%M:%S"
STANDARD_ERROR = 2  # its file descriptor
COLUMNS = 80  # of a terminal that doesn't tell
BELOW = len("00:00:00 ")  # columns before what a long line goes on with
LEAST_COLUMNS = 40  # a narrower terminal is not written for
LOG_EVERY_S = 60.0  # seconds between two log lines on the same shortage


def set_up(level: str, line_format: str, stream: TextIO | None = None) -> None:
    """Log to `stream`, by default standard error. `line_format` is "text", "json" or "auto".

    "auto" is text on a terminal and JSON elsewhere.
    """
    handler = _ToStandardError() if stream is None else logging.StreamHandler(stream)
    as_json = line_format == "json" or (line_format == "auto" and not handler.stream.isatty())
    text = _Terminal(_columns) if handler.stream.isatty() else _Text()
    handler.setFormatter(_Json() if as_json else text)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in OWN:
        logging.getLogger(name).setLevel(level.upper())
    # The library logs every failed handshake as an error, and a port scan causes many.
    library = logging.getLogger(LIBRARY)
    library.setLevel("INFO" if level == "debug" else "CRITICAL")
    library.addFilter(_without_message)


def fields(**values: Any) -> dict[str, Any]:
    """Return the argument `extra` of a log call; JSON lines show each value by its name."""
    return {"fields": values}


def unexpected(log: logging.Logger, what: str, error: BaseException) -> None:
    """Log an unexpected error by its type and traceback; `what` says what has failed."""
    trace = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    kind = type(error).__name__
    log.error("%s: %s\n%s", what, kind, trace, extra=fields(error=kind))
    log.debug("%s", what, exc_info=error)


class Rare:
    """Says yes at most once in LOG_EVERY_S seconds."""

    def __init__(self) -> None:
        self._next = 0.0

    def now(self) -> bool:
        """Return whether the last yes was at least LOG_EVERY_S seconds ago."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + LOG_EVERY_S
        return True


def _without_message(record: logging.LogRecord) -> bool:
    """Leave the type of a record's error, and drop the rest of it; let the record through."""
    if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
        record.msg = f"{record.getMessage()}: {record.exc_info[0].__name__}"
        record.args, record.exc_info, record.exc_text = None, None, None
    return True


class _ToStandardError(logging.StreamHandler[TextIO]):
    """Writes to `sys.stderr` as it is now: a spinner replaces it, to write lines above itself."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.stream = sys.stderr
        super().emit(record)


class _Text(logging.Formatter):
    """A line of text with its date."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")


class _Terminal(logging.Formatter):
    """A line that begins with the time alone; a long one goes on between words, below its text."""

    def __init__(self, columns: Callable[[], int]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", CLOCK)
        self._columns = columns

    def format(self, record: logging.LogRecord) -> str:
        first, *trace = super().format(record).split("\n")
        return "\n".join([self._wrapped(first), *trace])

    def _wrapped(self, line: str) -> str:
        columns = self._columns()
        if len(line) <= columns:
            return line
        inset = " " * BELOW
        return textwrap.fill(
            line,
            max(columns, LEAST_COLUMNS),
            subsequent_indent=inset,
            break_long_words=False,
            break_on_hyphens=False,
        )


def _columns() -> int:
    """Return the width of the terminal, also while a spinner has replaced `sys.stderr`."""
    try:
        return os.get_terminal_size(STANDARD_ERROR).columns or COLUMNS
    except OSError:
        return COLUMNS


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
