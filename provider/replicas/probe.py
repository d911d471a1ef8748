"""Plain GETs of a replica's pages: whether it is ready, and which models it serves."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import fields
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gateway.client.address import Address
from provider.interface import ModelInfo

__all__ = ["get", "models_of", "readiness"]

MAX_BYTES = 4 << 20  # of an answer
PORTS = {"ws": 80, "wss": 443}


async def readiness(address: Address) -> str:
    """Return why a gateway takes no generations, "" if it does. Raises OSError, ValueError."""
    status, body = await get(address, "/readyz")
    return "" if status == HTTPStatus.OK else body.decode("utf-8", "replace").strip() or "not ready"


async def models_of(address: Address, token: str | None) -> list[ModelInfo]:
    """Return the models that a gateway serves. Raises OSError, ValueError."""
    status, body = await get(address, "/v1/models", token)
    if status != HTTPStatus.OK:
        raise ValueError(f"/v1/models was answered with {status}")
    names = [one.name for one in fields(ModelInfo)]
    listed: list[dict[str, Any]] = msgspec.json.decode(body)["data"]
    return [ModelInfo(**{name: one[name] for name in names if name in one}) for one in listed]


async def get(address: Address, path: str, token: str | None = None) -> tuple[int, bytes]:
    """Return the status and the body of a GET. Raises OSError, ValueError."""
    parts = urlsplit(address.url)
    if address.socket_file is not None:
        reader, writer = await asyncio.open_unix_connection(address.socket_file, limit=MAX_BYTES)
    else:
        tls = ssl.create_default_context() if parts.scheme == "wss" else None
        port = parts.port or PORTS[parts.scheme]
        reader, writer = await asyncio.open_connection(
            parts.hostname, port, ssl=tls, limit=MAX_BYTES
        )
    try:
        lines = [f"GET {path} HTTP/1.1", f"Host: {parts.netloc}", "Connection: close"]
        lines += [f"Authorization: Bearer {token}"] if token else []
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    version, _, rest = head.decode("latin-1").partition(" ")
    if not version.startswith("HTTP/"):
        raise ValueError("no answer to a plain GET")
    return int(rest[:3]), body
