"""Leaves out the oldest messages of a conversation that is too long for its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Shortening"]


@dataclass(eq=False)
class Shortening:
    """How much of a prompt is left out."""

    left_out: int = 0  # of the oldest messages
    may_leave_out: int = 0

    def more(self) -> bool:
        """Leave out more of the oldest messages from now on; return False if that may not be."""
        more = self.may_leave_out - self.left_out
        if more <= 0:
            return False
        self.left_out += max(1, more // 4)
        return True

    def applied_to(
        self, messages: list[dict[str, Any]], paths: list[str]
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Return a prompt without the messages that are left out; it may be another one each time.

        What stays begins with a user's message, after that of the system, if there is one.
        """
        users = [place for place, one in enumerate(messages) if one["role"] == "user"]
        begin = 1 if messages and messages[0]["role"] == "system" else 0
        self.may_leave_out = max(0, users[-1] - begin) if users else 0
        self.left_out = min(self.left_out, self.may_leave_out)  # some may have been deleted
        if not self.left_out:
            return messages, paths
        first = next(place for place in users if place >= begin + self.left_out)
        self.left_out = first - begin
        return [*messages[:begin], *messages[first:]], [*paths[:begin], *paths[first:]]
