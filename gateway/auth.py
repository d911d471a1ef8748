"""Who may come in: the Host and Origin rules, against other pages and DNS rebinding.

A page of another site can make a browser connect to a server on this machine. Its Origin gives it
away. A name of its own that it lets point here does too: the Host header then is not ours.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

__all__ = ["host_allowed", "is_loopback", "origin_allowed"]

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def host_allowed(host: str | None, bound: str) -> bool:
    """Return whether a Host header names this server, which is bound to the address `bound`.

    Bound to loopback, only its names will do; else also any literal address, which no rebinding
    can forge, and the name it was bound by.
    """
    name = _hostname(host)
    if name is None:
        return False
    if name in LOOPBACK_NAMES or name == bound.lower():
        return True
    return not is_loopback(bound) and _is_address(name)


def origin_allowed(origin: str | None, host: str | None) -> bool:
    """Return whether a page of this origin may connect: only our own, or no page at all."""
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and parts.netloc.lower() == (host or "").lower()


def _hostname(host: str | None) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname if host else None
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(bound: str) -> bool:
    """Return whether an address to listen on is reached from this machine only."""
    return bound in LOOPBACK_NAMES or (
        _is_address(bound) and ipaddress.ip_address(bound).is_loopback
    )
