"""Every setting of the gateway once, with its default, its unit and its reason.

A field's metadata is what a command line, a file and a check need: `why` (one line), `group`, and
where they apply `least`, `most`, `choices`. A name that ends in `_s` is in seconds and is shown
without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["ServeSettings", "Settings"]


def _setting(default: Any, why: str, group: str, **bounds: Any) -> Any:
    return field(default=default, metadata={"why": why, "group": group, **bounds})


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """What is served, and what is said about it."""

    model: tuple[str, ...] = _setting(
        (),
        "a folder, a hub id or `embedded`, or NAME= and such; several times for several, the first "
        "is meant where none is named; absent, the small one in the package",
        "Model",
    )
    adapter: tuple[str, ...] = _setting(
        (), "NAME=BASE:FOLDER, a LoRA adapter as a model that shares BASE's weights", "Model"
    )
    pin: tuple[str, ...] = _setting(
        (), "names of models that are loaded at the start and stay", "Model"
    )
    allow_any_model: bool = _setting(
        default=False, why="lets clients name any folder or hub id", group="Model"
    )
    idle_unload_s: float | None = _setting(
        None, "seconds without a generation after which a model is unloaded", "Model", least=0.1
    )
    draft_model: str | None = _setting(
        None, "a smaller one that proposes tokens for the first; runs then go one by one", "Model"
    )
    log_level: str = _setting(
        "info",
        "how much is said on standard error",
        "Server",
        choices=("debug", "info", "warning", "error"),
    )

    log_format: str = _setting(
        "auto",
        "lines for people, or JSON; by itself, JSON where there is no terminal",
        "Server",
        choices=("auto", "text", "json"),
    )
    token_file: str | None = _setting(
        None, "digests of the tokens that are let in; see `mlx-gateway token new`", "Access"
    )
    insecure: bool = _setting(
        default=False, why="listens beyond this machine without tokens", group="Access"
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the gateway listens and what it bounds."""

    host: str = _setting(
        "127.0.0.1", "the address to listen on: nobody else's business until asked for", "Server"
    )
    port: int = _setting(8765, "the port; 0 takes a free one", "Server", least=0, most=65535)
    unix: str | None = _setting(
        None, "a path: listen on this socket file instead, for a proxy on this machine", "Server"
    )
    tls_cert: str | None = _setting(
        None, "a file with the certificate and its chain, for wss://; read anew on SIGHUP", "Server"
    )
    tls_key: str | None = _setting(None, "a file with the certificate's key", "Server")
    hosts: str | None = _setting(
        None, "names that a `Host` may have beside the address, with commas between", "Access"
    )
    origins: str | None = _setting(
        None, "pages that may connect, as `https://app.example`, with commas between", "Access"
    )
    trusted_proxies: str | None = _setting(
        None, "addresses or networks whose `X-Forwarded-For` is believed, or `unix`", "Access"
    )
    compression: bool = _setting(
        default=False,
        why="deflates messages, if the client asks: 35 KiB a connection",
        group="Server",
    )
    max_connections: int = _setting(
        4096, "connections in all: each is a file, and 20 KiB", "Limits", least=1
    )
    max_connections_per_address: int = _setting(
        1024, "connections from one address: whole offices have one", "Limits", least=1
    )
    max_connections_per_token: int = _setting(
        1024, "connections with one token; a token may have its own limit", "Limits", least=1
    )
    max_frame_bytes: int = _setting(
        8 * 1024 * 1024, "the largest frame: a few files of 1 MiB, in base64", "Limits", least=1024
    )
    max_generations: int = _setting(
        64, "live ones on one connection: twice the largest batch", "Limits", least=1
    )
    resume_bytes: int = _setting(
        1 << 20, "what is kept of a resumable generation, to be sent again", "Limits", least=1024
    )
    resume_total_bytes: int = _setting(
        64 << 20, "what is kept of ended generations, to be sent again, in all", "Limits", least=0
    )
    max_generations_per_token: int = _setting(
        256, "live ones with one token; a token may have its own limit", "Limits", least=1
    )
    max_generations_in_all: int = _setting(
        2048,
        "live ones in all, queued ones among them: who comes later waits elsewhere",
        "Limits",
        least=1,
    )
    max_prompt_tokens: int | None = _setting(
        None, "tokens of one prompt; the model's context is a bound of its own", "Limits", least=1
    )
    max_answer_tokens: int | None = _setting(
        None, "tokens of one answer; who asks for more is refused", "Limits", least=1
    )
    max_depth: int = _setting(
        64, "nesting of a frame: JSON Schemas of tools need a dozen", "Limits", least=4, most=500
    )
    frame_rate: float = _setting(
        1000.0, "frames a second of one client, ten times as many at once", "Limits", least=1
    )
    rate_bytes: int = _setting(
        4 << 20, "bytes a second of one client, ten times as many at once", "Limits", least=1024
    )
    outbox_bytes: int = _setting(
        64 * 1024, "text that waits for a slow client before the model does", "Limits", least=1
    )
    kernel_buffer_bytes: int = _setting(
        16 * 1024, "unsent bytes in the kernel, where megabytes would hide", "Limits", least=1
    )
    write_timeout_s: float = _setting(
        30.0, "seconds after which a client that takes nothing is gone", "Timeouts", least=0.1
    )
    hello_timeout_s: float = _setting(
        10.0, "seconds that a client has to show its token in a `hello`", "Timeouts", least=0.1
    )
    ping_interval_s: float = _setting(
        20.0, "seconds between pings, which find half-open connections", "Timeouts", least=0.1
    )
    ping_timeout_s: float = _setting(
        20.0, "seconds that a client has to answer a ping", "Timeouts", least=0.1
    )
    shutdown_grace_s: float = _setting(
        30.0, "seconds that generations have to finish after SIGTERM", "Timeouts", least=0
    )
    resume_ttl_s: float = _setting(
        60.0, "seconds that a lost client has to come back for a generation", "Timeouts", least=0
    )
    generation_timeout_s: float = _setting(
        600.0,
        "seconds that one generation may take, its place in the queue included",
        "Timeouts",
        least=0.1,
    )
    idle_timeout_s: float | None = _setting(
        None, "seconds without a generation after which a connection ends", "Timeouts", least=0.1
    )
    close_timeout_s: float = _setting(
        5.0, "seconds that clients have at shutdown to take their last frames", "Timeouts", least=0
    )
