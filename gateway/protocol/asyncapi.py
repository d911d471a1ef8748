"""The native protocol as an AsyncAPI 3.1 document, made from the frame types.

Source: https://www.asyncapi.com/docs/reference/specification/v3.1.0. Subprotocols, close codes and
the msgpack codec have no field there, so the description and `x-` extensions hold them.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from gateway.protocol.codes import RETRYABLE, CloseCode
from gateway.protocol.frames import (
    JOINED_PROTOCOL,
    JSON_PROTOCOL,
    MSGPACK_PROTOCOL,
    NUMBERS,
    ClientFrame,
    ServerFrame,
    name_of,
)

__all__ = ["document"]

DESCRIPTION = (
    "Many generations on one WebSocket connection. Text frames hold one JSON object each; with the "
    f"subprotocol `{MSGPACK_PROTOCOL}`, binary frames hold the same fields as a msgpack array, the "
    "number of the type first (`x-msgpack-number`). The normative text is at /protocol."
)
QUERY = {
    "type": "object",
    "properties": {
        "node": {
            "type": "string",
            "description": "what stands before the last `.` of a ticket, for load balancers",
        }
    },
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "hello": {"token": "…", "client": "my-page/1.0"},
    "generate": {"id": "a", "prompt": "Count from 1 to 3", "temperature": 0, "resumable": True},
    "cancel": {"id": "a"},
    "ack": {"id": "a", "seq": 41},
    "resume": {"id": "a", "ticket": "Yh2Zc0w1TtqGmYxX3Lq0mA", "after": 41},
    "ping": {"nonce": "1"},
    "queued": {"id": "a", "position": 2},
    "progress": {"id": "a", "done": 512, "total": 4096},
    "chunk": {"id": "a", "seq": 1, "text": "1, 2, 3."},
    "pong": {"nonce": "1"},
}


def document(server: str, version: str, *, tls: bool = False) -> dict[str, Any]:
    """Return the document for a server at the address `server`, as HOST:PORT."""
    kinds = (*get_args(ClientFrame), *get_args(ServerFrame))
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    sent, received = (
        [name_of(kind) for kind in get_args(union)] for union in (ClientFrame, ServerFrame)
    )
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "mlx-gateway",
            "version": version,
            "description": DESCRIPTION,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "gateway": {
                "host": server,
                "protocol": "wss" if tls else "ws",
                "pathname": "/v1",
                "security": [{"$ref": "#/components/securitySchemes/bearer"}],
                "x-subprotocols": [JSON_PROTOCOL, MSGPACK_PROTOCOL, JOINED_PROTOCOL],
            }
        },
        "channels": {
            "stream": {
                "address": "/stream",
                "messages": {
                    name: {"$ref": f"#/components/messages/{name}"} for name in (*sent, *received)
                },
                "bindings": {"ws": {"method": "GET", "query": QUERY, "bindingVersion": "0.1.0"}},
            }
        },
        "operations": {
            "fromClient": _operation("receive", "What a client sends", sent),
            "fromServer": _operation("send", "What the server sends", received),
        },
        "components": {
            "messages": {name_of(kind): _message(kind) for kind in kinds},
            "schemas": {name: _nullable_free(schema) for name, schema in schemas.items()},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "x-close-codes": {str(code.value): code.name.lower() for code in CloseCode},
        "x-retryable-errors": sorted(code for code, again in RETRYABLE.items() if again),
    }


def _operation(action: str, summary: str, names: list[str]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/stream"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/stream/messages/{name}"} for name in names],
    }


def _message(kind: type[msgspec.Struct]) -> dict[str, Any]:
    name = name_of(kind)
    message: dict[str, Any] = {
        "name": name,
        "summary": (kind.__doc__ or "").partition("\n")[0],
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
        "x-msgpack-number": NUMBERS[kind],
    }
    if name in EXAMPLES:
        message["examples"] = [{"name": name, "payload": {"type": name, **EXAMPLES[name]}}]
    return message


def _nullable_free(schema: Any) -> Any:
    """Return a JSON Schema without defaults of null, because fields that are null are not sent."""
    if isinstance(schema, dict):
        kept = {k: _nullable_free(v) for k, v in schema.items() if (k, v) != ("default", None)}
        choices = [one for one in kept.get("anyOf", []) if one != {"type": "null"}]
        if len(choices) == 1:
            kept.pop("anyOf")
            kept.update(choices[0])
        elif choices:
            kept["anyOf"] = choices
        return kept
    return [_nullable_free(one) for one in schema] if isinstance(schema, list) else schema
