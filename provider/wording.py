"""Numbers of things, in words that fit one of them too."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, thing: str, *, are: bool = False) -> str:
    """Return a number with the name of what it counts, in the singular for one.

    With `are`, the verb follows: "1 socket is", "2 sockets are".
    """
    one = number == 1
    said = f"{number:,} {thing}{'' if one else 's'}"
    return f"{said} {'is' if one else 'are'}" if are else said
