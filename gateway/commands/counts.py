"""Numbers of things, in words that fit one of them too."""

from __future__ import annotations

__all__ = ["counted", "rate"]

EXACT = 9.5  # a second; below, a rounded figure would say too little


def counted(number: int, thing: str) -> str:
    """Return a number with the name of what it counts, in the singular for one."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def rate(tokens_per_second: float) -> str:
    """Return the speed of an answer."""
    digits = 0 if tokens_per_second >= EXACT else 1
    return f"{tokens_per_second:.{digits}f} tokens/s"
