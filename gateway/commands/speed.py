"""The speed of an answer, in words."""

from __future__ import annotations

__all__ = ["rate"]

EXACT = 9.5  # a second; below, a rounded figure would say too little


def rate(tokens_per_second: float) -> str:
    """Return the speed of an answer."""
    digits = 0 if tokens_per_second >= EXACT else 1
    return f"{tokens_per_second:.{digits}f} tokens/s"
