"""The answers to plain GET requests: the demo page, health, models, metrics, the protocol's text.

Each answer is one small body; none is streamed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from http import HTTPStatus
from pathlib import Path

import msgspec

from gateway import __version__
from gateway.protocol.asyncapi import document
from gateway.server.generations import Generations
from gateway.server.metrics import CONTENT_TYPE

__all__ = [
    "PROBES",
    "SHARED",
    "Page",
    "file_of",
    "not_allowed",
    "page_for",
    "preflight",
    "shared",
    "text_page",
    "unless_known",
    "web_root",
]

PROBES = frozenset({"/healthz", "/readyz"})  # asked by machines, at any rate
# What pages of listed origins may read.
SHARED = frozenset({"/asyncapi.json", "/readyz", "/v1/models"})
PACKAGE = Path(__file__).parents[1]
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
# The page loads nothing from other sites, and runs no code but that of its files.
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
PUBLIC = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
FURTHER = {
    # The client is public, and a page of any origin may import it.
    "client.js": PUBLIC,
    "tool_loop.js": PUBLIC,
    # The worker that runs functions written by the page's user may fetch; it has no page and no
    # token.
    "tools/functions_worker.js": {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'unsafe-eval'; connect-src http: https:"
        )
    },
}
UNSERVED = frozenset({"adapters", "npm"})  # folders of the page that only the npm package needs
PREFLIGHT_S = 600  # seconds for which a browser may remember what listed origins may ask


@dataclass(frozen=True)
class Page:
    """An answer to a GET."""

    status: HTTPStatus
    type: str
    body: bytes
    more: Mapping[str, str] = field(default_factory=dict)  # further headers

    def headers(self) -> dict[str, str]:
        """Return the headers, Content-Length included."""
        length = {"Content-Length": str(len(self.body))}
        return {"Content-Type": self.type, **length, **SECURITY, **self.more}


def text_page(status: HTTPStatus, text: str, more: Mapping[str, str] = {}) -> Page:
    """Return a page with a line of text."""
    return Page(status, "text/plain; charset=utf-8", f"{text}\n".encode(), more)


def not_allowed() -> Page:
    """Return the answer to a request with another method than GET, or with a body."""
    said = (
        "only a GET without a body is answered here; "
        "text is generated over a WebSocket, as /protocol describes"
    )
    return text_page(HTTPStatus.METHOD_NOT_ALLOWED, said, {"Allow": "GET, HEAD"})


def preflight() -> Page:
    """Return the answer to a browser that asks what a page of another origin may ask."""
    more = {
        "Access-Control-Allow-Methods": "GET",
        "Access-Control-Allow-Headers": "Authorization",
        "Access-Control-Max-Age": str(PREFLIGHT_S),
    }
    return text_page(HTTPStatus.OK, "GET", more)


def shared(page: Page, reader: str | None) -> Page:
    """Return a page that pages of the origin `reader` may read, none of another if it is None."""
    allow = {} if reader is None else {"Access-Control-Allow-Origin": reader}
    return replace(page, more={**page.more, "Vary": "Origin", **allow})


def web_root() -> Path:
    """Return the folder of the demo page: in the installed package, or beside it in the tree."""
    installed = PACKAGE / "_web_demo"
    return installed if installed.is_dir() else PACKAGE.parent / "web_demo"


def unless_known(page: Page, known: Sequence[str]) -> Page:
    """Return a page, or 304 if one of the values of If-None-Match has its ETag."""
    tag = page.more.get("ETag")
    if tag is None or not any(tag in value for value in known):
        return page
    return Page(HTTPStatus.NOT_MODIFIED, page.type, b"", page.more)


def page_for(path: str, generations: Generations) -> Page:
    """Return the answer to a GET of `path`, 404 if there is nothing there."""
    made = ROUTES.get(path)
    if made is not None:
        return made(generations)
    name = "index.html" if path == "/" else path.removeprefix("/")
    found = file_of(name, web_root()) if generations.settings.dev else _files().get(name)
    return found or text_page(HTTPStatus.NOT_FOUND, "not found")


@cache
def _files() -> dict[str, Page]:
    """Return the demo page's files by name, read once."""
    return {name: _file(name, path) for name, path in _names(web_root()).items()}


def file_of(name: str, folder: Path) -> Page | None:
    """Return a file of the folder, read now, None if there is none of this name."""
    path = _names(folder).get(name)
    return None if path is None else _file(name, path)


def _names(folder: Path, within: str = "") -> dict[str, Path]:
    """Return the files to be served, by their paths in the page's folder."""
    found: dict[str, Path] = {}
    for path in folder.iterdir():
        name = f"{within}{path.name}"
        if path.name.startswith(".") or name in UNSERVED:
            continue
        if path.is_dir():
            found |= _names(path, f"{name}/")
        elif path.suffix in TYPES and path.is_file():
            found[name] = path
    return found


def _file(name: str, path: Path) -> Page:
    return _kept(TYPES[path.suffix], path.read_bytes(), FURTHER.get(name, {}))


def _kept(kind: str, body: bytes, more: Mapping[str, str] = {}) -> Page:
    """Return a page that stays as it is while the server runs."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Page(HTTPStatus.OK, kind, body, {"ETag": tag, **more})


def _healthz(generations: Generations) -> Page:
    return text_page(HTTPStatus.OK, "ok")


def _readyz(generations: Generations) -> Page:
    if generations.draining:
        return text_page(HTTPStatus.SERVICE_UNAVAILABLE, "the gateway is stopping")
    health = generations.provider.health()
    if health.ready:
        return text_page(HTTPStatus.OK, ": ".join(filter(None, ["ready", health.reason])))
    return text_page(HTTPStatus.SERVICE_UNAVAILABLE, health.reason)


def _models(generations: Generations) -> Page:
    listed = [
        {
            "id": model.id,
            "object": "model",
            "created": 0,
            "owned_by": "mlx-gateway",
            "context_window": model.context_window,
            "loaded": model.loaded,
            "base": model.base,
            "vision": model.vision,
            "tools": model.tools,
            "thinking": model.thinking,
        }
        for model in generations.provider.models()
    ]
    body = msgspec.json.encode({"object": "list", "data": listed})
    return Page(HTTPStatus.OK, "application/json", body)


def _metrics(generations: Generations) -> Page:
    return Page(HTTPStatus.OK, CONTENT_TYPE, generations.exposition())


def _asyncapi(generations: Generations) -> Page:
    return _described(generations.authority, generations.settings.tls_cert is not None)


@cache
def _described(authority: str, tls: bool) -> Page:
    return _kept("application/json", msgspec.json.encode(document(authority, __version__, tls=tls)))


def _protocol(generations: Generations) -> Page:
    return _protocol_text()


@cache
def _protocol_text() -> Page:
    return _kept("text/markdown; charset=utf-8", (PACKAGE / "PROTOCOL.md").read_bytes())


ROUTES: dict[str, Callable[[Generations], Page]] = {
    "/healthz": _healthz,
    "/asyncapi.json": _asyncapi,
    "/metrics": _metrics,
    "/protocol": _protocol,
    "/readyz": _readyz,
    "/v1/models": _models,
}
