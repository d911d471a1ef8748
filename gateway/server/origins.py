"""The Host and Origin rules, against pages of other sites and DNS rebinding.

A page of another site can make a browser connect to a server on this machine; its Origin header
shows this. With DNS rebinding, the site points a name of its own at this machine, so that the page
has the server's origin; the Host header then has the site's name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

__all__ = [
    "Proxies",
    "client_address",
    "host_allowed",
    "is_loopback",
    "listed",
    "origin_allowed",
    "proxies",
]

UNIX = "unix"  # stands for clients of the Unix socket
Proxies = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network | str, ...]

WITH_PORT = re.compile(r"\[([^]]*)\](?::\d*)?|([^:]*):\d*")
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def listed(text: str | None) -> frozenset[str]:
    """Return the comma-separated items of a setting, in lower case."""
    return frozenset(item.strip().lower() for item in (text or "").split(",") if item.strip())


def host_allowed(host: str | None, bound: str, hosts: Collection[str] = ()) -> bool:
    """Return whether a Host header names this server, which is bound to the address `bound`.

    The names of loopback, `bound` and the names in `hosts` are allowed. Unless it is bound to
    loopback, any literal IP address is allowed too, because rebinding needs a name.
    """
    name = _hostname(host)
    if name is None:
        return False
    if name in LOOPBACK_NAMES or name == bound.lower() or name in hosts:
        return True
    return not is_loopback(bound) and _is_address(name)


def origin_allowed(origin: str | None, host: str | None, origins: Collection[str] = ()) -> bool:
    """Return whether an Origin may connect: the server's own, a listed one, or None (no page)."""
    if origin is None or origin.lower() in origins:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and parts.netloc.lower() == (host or "").lower()


def proxies(text: str | None) -> Proxies:
    """Return the trusted proxies that a setting lists. Raises ValueError for a wrong address."""
    return tuple(
        item if item == UNIX else ipaddress.ip_network(item, strict=False)
        for item in sorted(listed(text))
    )


def client_address(peer: str, forwarded: Sequence[str], trusted: Proxies) -> str:
    """Return the address of the client, "" for an unknown one on a Unix socket.

    `peer` is the address of the socket's other end, "" on a Unix socket. `forwarded` has the values
    of X-Forwarded-For, to which each proxy appends the address of its own peer. Its addresses are
    read from right to left, up to the first that is not a trusted proxy's: any further ones may be
    forged.
    """
    address = peer
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    while hops and _is_trusted(address, trusted):
        hop = _without_port(hops.pop())
        if not _is_address(hop):
            break
        address = hop
    return address


def _without_port(hop: str) -> str:
    """Return the address of an entry, which some proxies write with a port: `[::1]:80`, `[::1]`."""
    found = WITH_PORT.fullmatch(hop)
    return hop if found is None else found[1] or found[2]


def _is_trusted(address: str, trusted: Proxies) -> bool:
    if not address:
        return UNIX in trusted
    if not _is_address(address):
        return False
    parsed = ipaddress.ip_address(address)
    return any(not isinstance(network, str) and parsed in network for network in trusted)


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
    """Return whether an address to listen on can be reached from this machine only."""
    return bound in LOOPBACK_NAMES or (
        _is_address(bound) and ipaddress.ip_address(bound).is_loopback
    )
