"""The address of a gateway in the forms that people have: as printed, as opened, as a host."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, quote, urlsplit, urlunsplit

__all__ = ["STREAM_PATH", "Address", "address_of", "node_of", "without_token"]

STREAM_PATH = "/v1/stream"
SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
OF_PAGES = {"ws": "http", "wss": "https"}
UNIX = "unix:"


@dataclass(frozen=True)
class Address:
    """Where the WebSocket is, and the token if the address has one."""

    url: str
    token: str | None = None
    socket_file: str | None = None  # path of the Unix socket on which `url` is requested

    def url_of(self, ticket: str) -> str:
        """Return the URL where a ticket's generation is; a load balancer looks for its `node`."""
        node = node_of(ticket)
        if not node:
            return self.url
        path, _, query = self.url.partition("?")
        rest = [part for part in query.split("&") if part and not part.startswith("node=")]
        return f"{path}?{'&'.join([f'node={quote(node)}', *rest])}"

    def page(self, path: str) -> str:
        """Return the URL, by HTTP, of a page of the gateway such as `/v1/models`."""
        parts = urlsplit(self.url)
        above = parts.path.removesuffix(STREAM_PATH).rstrip("/")
        return urlunsplit((OF_PAGES[parts.scheme], parts.netloc, f"{above}{path}", "", ""))


def node_of(ticket: str) -> str:
    """Return the name of the gateway that has a ticket's generation, "" if it has none."""
    return ticket.rpartition(".")[0]


def without_token(text: str) -> str:
    """Return an address as it may be shown: without the token that it may have."""
    return text.partition("#")[0]


def address_of(text: str) -> Address:
    """Return the address that a text such as `http://127.0.0.1:8765/` or `host:8765` means.

    Without a path it is that of the stream; any other path stays. `#token=…`, as in the page's
    address, is the token. `unix:PATH` is a socket file. Raises ValueError, without the token.
    """
    if text.startswith(UNIX):
        if not (path := text.removeprefix(UNIX)):
            raise _wrong(text, "the path of the socket file is missing")
        return Address(f"ws://localhost{STREAM_PATH}", socket_file=path)
    shown = without_token(text)
    if not text.isprintable() or " " in text:
        raise _wrong(shown, "it has a blank in it")
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
    except ValueError as error:
        raise _wrong(shown, str(error)) from None
    _check(shown, parts)
    path = parts.path if parts.path not in {"", "/"} else STREAM_PATH
    url = urlunsplit((SCHEMES[parts.scheme], parts.netloc, path, parts.query, ""))
    return Address(url, _token_in(parts.fragment))


def _token_in(fragment: str) -> str | None:
    """Return the first token of a fragment; a plus is one, and no blank as in a form's fields."""
    found = parse_qs(fragment.replace("+", "%2B")).get("token")
    return found[0] if found else None


def _check(shown: str, parts: SplitResult) -> None:
    if parts.scheme not in SCHEMES:
        raise _wrong(shown, f"`{parts.scheme}` is none of {', '.join(SCHEMES)}")
    if not parts.hostname:
        raise _wrong(shown, "the host is missing")
    try:
        _ = parts.port
    except ValueError:
        raise _wrong(shown, "the port must be a number up to 65535") from None


def _wrong(shown: str, why: str) -> ValueError:
    return ValueError(f"`{shown}` is no address such as http://127.0.0.1:8765/: {why}")
