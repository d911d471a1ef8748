"""File descriptors: how many the process may have, and what is left of them for connections.

A process without free descriptors can accept nobody, open no file and start no process. So the
server keeps RESERVED for itself.
"""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass

__all__ = ["Sockets", "raise_limit"]

log = logging.getLogger(__name__)

RESERVED = 128  # for the server: a model's files, logs, pipes to the process that tries grammars
FOR_REQUESTS = 64  # sockets beside the connections: plain GETs, handshakes, refusals


@dataclass(frozen=True)
class Sockets:
    """How many sockets may be open in all, and how many of them as WebSocket connections."""

    all: int
    connections: int

    @classmethod
    def within(cls, max_connections: int, max_files: int) -> Sockets:
        """Return the numbers for a process that may have `max_files` open."""
        most = max(max_files - RESERVED, max_files // 4, 1)
        connections = min(max_connections, max(most - FOR_REQUESTS, most // 2, 1))
        return cls(most, connections)

    @classmethod
    def allowed(cls, max_connections: int) -> Sockets:
        """Return the numbers for the files that this process may have open."""
        return cls.within(max_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def raise_limit(max_connections: int) -> None:
    """Let the process open as many files as so many connections need, as far as is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = max_connections + FOR_REQUESTS + RESERVED
    if hard != resource.RLIM_INFINITY:
        need = min(need, hard)
    if soft != resource.RLIM_INFINITY and soft < need:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
        except (OSError, ValueError) as error:  # macOS has a further limit of its own
            log.debug("cannot raise the limit on open files to %d: %s", need, error)
