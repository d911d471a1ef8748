"""The Host and Origin rules, against pages of other sites and DNS rebinding.

A page of another site can make a browser connect to a server on this machine; its Origin header
shows this. With DNS rebinding, the site points a name of its own at this machine, so that the page
has the server's origin; the Host header then has the site's name.

Origins are compared in the form in which browsers send them: in lower case, without the default
port of http and https, and without a path.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = [
    "Origins",
    "Proxies",
    "client_address",
    "counted_as",
    "flags_for",
    "host_allowed",
    "is_loopback",
    "is_trusted",
    "listed",
    "origins",
    "proxies",
]

HOME = 64  # bits of a network that is one client's
UNIX = "unix"  # stands for clients of the Unix socket
Proxies = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network | str, ...]

WITH_PORT = re.compile(r"\[([^]]*)\](?::\d*)?|([^:]*):\d*")
ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<name>\[[0-9a-f:.]+\]|[\w.-]*)(?P<port>:\d{1,5})?"
)
WITH_SLASH = re.compile(r"([^/])/$")
DEFAULT_PORTS = {"http": 80, "https": 443}
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


@dataclass(frozen=True)
class Origins:
    """The origins whose pages may connect, besides the server's own; made by `origins`."""

    exact: frozenset[str] = frozenset()
    any_port: frozenset[str] = frozenset()  # scheme and name of loopback origins with any port
    loopback: bool = False  # whether pages of this machine may connect, whatever their port

    def allow(self, origin: str | None, host: str | None) -> bool:
        """Return whether an Origin may connect: the server's own, one of these, or None (no page).

        `host` is the Host header of the same request.
        """
        return origin is None or self.list(origin) or _is_own(origin, host)

    def list(self, origin: str) -> bool:
        """Return whether an Origin is one of these."""
        try:
            parts = _Origin.parse(origin)
        except ValueError:
            return False
        return (
            parts.text in self.exact
            or parts.without_port in self.any_port
            or (self.loopback and parts.on_loopback)
        )


def origins(text: str | None, *, loopback: bool = False) -> Origins:
    """Return the origins that a setting lists, and with `loopback` all of this machine.

    Raises ValueError for an item that is not an origin.
    """
    exact, any_port = set(), set()
    for item in sorted(listed(text)):
        try:
            if item.endswith(":*"):
                any_port.add(_any_port(item))
            else:
                exact.add(_Origin.parse(WITH_SLASH.sub(r"\1", item)).text)
        except ValueError as error:
            raise ValueError(f"`{item}` in `origins` {error}") from error
    return Origins(frozenset(exact), frozenset(any_port), loopback)


def flags_for(origin: str, before: str | None, *, local: bool) -> str | None:
    """Return the flags that let pages of an origin connect, None if nothing can.

    `before` is the setting `origins` so far; `local` says that the gateway listens on loopback.
    """
    try:
        added = _Origin.parse(origin)
    except ValueError:
        return None
    flag = f"`--origins {','.join([*sorted(listed(before)), added.text])}`"
    return f"`--dev` or {flag}" if local and added.on_loopback else flag


@dataclass(frozen=True)
class _Origin:
    """The parts of an origin in normal form; `port` is "" or begins with a colon."""

    scheme: str
    name: str
    port: str

    @classmethod
    def parse(cls, text: str) -> _Origin:
        """Return the parts of an origin. Raises ValueError with the reason why it is none."""
        found = ORIGIN.fullmatch(text.lower())
        if found is None or not (found["name"] or found[0] == "file://"):
            raise ValueError(_why_no_origin(text))
        scheme, name, port = found["scheme"], found["name"], found["port"] or ""
        if port == f":{DEFAULT_PORTS.get(scheme)}":
            port = ""
        return cls(scheme, name if name.isascii() else _ascii(name), port)

    @property
    def text(self) -> str:
        return self.without_port + self.port

    @property
    def without_port(self) -> str:
        return f"{self.scheme}://{self.name}"

    @property
    def on_loopback(self) -> bool:
        name = self.name.strip("[]")
        return self.scheme in DEFAULT_PORTS and (is_loopback(name) or name.endswith(".localhost"))


def _any_port(item: str) -> str:
    parts = _Origin.parse(item.removesuffix(":*"))
    if parts.port or not parts.on_loopback:
        raise ValueError("has any port, which only an origin on loopback may have")
    return parts.without_port


def _ascii(name: str) -> str:
    """Return an international name as browsers send it."""
    try:
        return name.encode("idna").decode()
    except UnicodeError as error:
        raise ValueError("has a name that is not valid") from error


def _why_no_origin(text: str) -> str:
    if text == "*":
        return "would let in the pages of any site; list origins, or pass `--dev` while you develop"
    if text == "null":
        return "would let in the pages of any site, since each can have an origin of that name"
    if "://" not in text:
        return f"has no scheme; is it `http://{text}`, or `https://{text}`?"
    return "is not an origin, such as `https://app.example` or `http://localhost:5173`"


def _is_own(origin: str, host: str | None) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in DEFAULT_PORTS and parts.netloc.lower() == (host or "").lower()


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
    address = _without_mapping(peer)
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    while hops and is_trusted(address, trusted):
        hop = _without_port(hops.pop())
        if not _is_address(hop):
            break
        address = _without_mapping(hop)
    return address


def counted_as(address: str) -> str:
    """Return what an address is counted as: an IPv6 address as its /64 network.

    A client has all addresses of such a network, which is what a provider gives to a home.
    """
    if ":" not in address or not _is_address(address):
        return address
    parsed = ipaddress.ip_address(address)
    if parsed.is_loopback:
        return address
    return str(ipaddress.ip_network((int(parsed), HOME), strict=False))


def _without_mapping(address: str) -> str:
    """Return the IPv4 address that an IPv6 one stands for, as on a socket for both kinds."""
    if not address.lower().startswith("::ffff:") or not _is_address(address):
        return address
    mapped = getattr(ipaddress.ip_address(address), "ipv4_mapped", None)
    return address if mapped is None else str(mapped)


def _without_port(hop: str) -> str:
    """Return the address of an entry, which some proxies write with a port: `[::1]:80`, `[::1]`."""
    found = WITH_PORT.fullmatch(hop)
    return hop if found is None else found[1] or found[2]


def is_trusted(address: str, trusted: Proxies) -> bool:
    """Return whether an address, "" on a Unix socket, is that of a trusted proxy."""
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
