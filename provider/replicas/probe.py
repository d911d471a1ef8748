"""Plain GETs of a replica's pages: whether it is ready, and which models it serves."""

from __future__ import annotations

import asyncio
import ssl
from functools import cache
from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec

from gateway.protocol.address import Address
from provider.interface import ModelInfo

__all__ = ["get", "models_of", "readiness", "tls_context"]

MAX_BYTES = 4 << 20  # of an answer
PIECE = 1 << 16  # bytes of it that are read at once
PORTS = {"http": 80, "https": 443}


class _Listed(msgspec.Struct):
    data: list[ModelInfo]


async def readiness(address: Address) -> str:
    """Return why a gateway takes no generations, "" if it does. Raises OSError, ValueError."""
    status, body = await get(address, "/readyz")
    return "" if status == HTTPStatus.OK else body.decode("utf-8", "replace").strip() or "not ready"


async def models_of(address: Address, token: str | None) -> list[ModelInfo]:
    """Return the models that a gateway serves. Raises OSError, ValueError."""
    status, body = await get(address, "/v1/models", token)
    if status != HTTPStatus.OK:
        raise ValueError(f"/v1/models was answered with {status}")
    return msgspec.json.decode(body, type=_Listed).data


async def get(address: Address, path: str, token: str | None = None) -> tuple[int, bytes]:
    """Return the status and the body of a GET. Raises OSError, ValueError."""
    parts = urlsplit(address.page(path))
    if address.socket_file is not None:
        reader, writer = await asyncio.open_unix_connection(address.socket_file)
    else:
        tls = tls_context() if parts.scheme == "https" else None
        port = parts.port or PORTS[parts.scheme]
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=tls)
    try:
        lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
        lines += [f"Authorization: Bearer {token}"] if token else []
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head, _, body = (await _all_of(reader)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    version, _, rest = head.decode("latin-1").partition(" ")
    if not version.startswith("HTTP/"):
        raise ValueError("no answer to a plain GET")
    return int(rest[:3]), body


@cache
def tls_context() -> ssl.SSLContext:
    """Return the context of all GETs, which the event loop makes in tens of milliseconds."""
    return ssl.create_default_context()


async def _all_of(reader: asyncio.StreamReader) -> bytes:
    """Read to the end. Raises ValueError beyond MAX_BYTES."""
    answer = bytearray()
    while piece := await reader.read(PIECE):
        answer += piece
        if len(answer) > MAX_BYTES:
            raise ValueError(f"the answer to a plain GET has more than {MAX_BYTES} bytes")
    return bytes(answer)
