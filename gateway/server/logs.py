"""What is logged, and how: lines for people on a terminal, JSON elsewhere.

Rule 1: at INFO, a connection has two lines and a generation one.
Rule 2: prompts, answers and tokens are in no line at INFO and above. An error's own words may hold
one, so that of an unexpected error only its type and the lines of code are told; DEBUG tells all.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

__all__ = ["LIBRARY", "fields", "set_up", "unexpected"]

OWN = ("gateway", "provider")
LIBRARY = "gateway.websockets"  # logger of the websockets library, mostly on handshakes


def set_up(level: str, form: str, stream: TextIO | None = None) -> None:
    """Log to a stream, standard error if none; `form` is "text", "json", or "auto".

    That is text on a terminal, and JSON elsewhere.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    as_json = form == "json" or (form == "auto" and not stream.isatty())
    handler.setFormatter(_Json() if as_json else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in OWN:
        logging.getLogger(name).setLevel(level.upper())
    # A port scan is no error of ours.
    logging.getLogger(LIBRARY).setLevel("DEBUG" if level == "debug" else "CRITICAL")


def fields(**values: Any) -> dict[str, Any]:
    """Return what `extra` of a log call takes: values that JSON lines show by their names."""
    return {"fields": values}


def unexpected(log: logging.Logger, what: str, error: BaseException) -> None:
    """Log an unexpected error."""
    trace = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    kind = type(error).__name__
    log.error("%s: %s\n%s", what, kind, trace, extra=fields(error=kind))
    log.debug("%s", what, exc_info=error)


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")


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
