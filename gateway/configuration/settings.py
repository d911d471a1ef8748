"""Every setting of the gateway, with its default and a line of help.

A field's metadata has `why` (the line of help), `group`, and optionally `min`, `max`, `choices`
and `matches`, a pattern, with `form`, what it allows in words. A field whose name ends in `_s` is
in seconds; users write the name without the ending.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["ServeSettings", "Settings"]

UNBOUNDED = 1e12  # a second


def _setting(default: Any, why: str, group: str, **bounds: Any) -> Any:
    return field(default=default, metadata={"why": why, "group": group, **bounds})


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of the `serve` command alone: models, tokens and logs."""

    model: tuple[str, ...] = _setting(
        (),
        "model to serve, as MODEL; NAME=MODEL gives it a name, and `embedded` is the small model "
        "in the package; may be repeated, and requests that name none get the first",
        "Model",
    )
    adapter: tuple[str, ...] = _setting(
        (),
        "LoRA adapter to serve as a model of its own, as NAME=BASE:FOLDER, where BASE is the name "
        "of a model whose weights it shares; may be repeated",
        "Model",
    )
    pin: tuple[str, ...] = _setting(
        (), "name of a model to load at start and never unload; may be repeated", "Model"
    )
    allow_any_model: bool = _setting(
        default=False, why="let clients ask for any folder or hub id as a model", group="Model"
    )
    idle_unload_s: float | None = _setting(
        None,
        "seconds after its last answer when a model is unloaded; by default only when another "
        "model needs the memory",
        "Model",
        min=0.1,
    )
    draft_model: str | None = _setting(
        None,
        "smaller model that proposes tokens for the first model (speculative decoding); runs are "
        "then decoded each on its own, not as a batch",
        "Model",
    )
    replica: tuple[str, ...] = _setting(
        (),
        "address of another gateway, on which answers are made instead of here; may be repeated: "
        "each conversation stays with one, new ones go to the least busy; the token is that of the "
        "variable `MLX_GATEWAY_TOKEN`",
        "Model",
    )
    shard: str | None = _setting(
        None,
        "serve one model by several processes that `mlx.launch` has started with this command: "
        "each has a part of every layer (tensor), or some layers (pipeline); the one of rank 0 "
        "has the gateway",
        "Model",
        choices=("tensor", "pipeline"),
    )
    replicas: str | None = _setting(
        None,
        "number of processes on which answers are made, each with the model, started and watched "
        "by Ray Serve; a range such as 1-3 scales by load; needs `pip install '.[ray]'`",
        "Model",
    )
    ray: str | None = _setting(
        None, "address of a Ray cluster for `replicas`; by default on this machine", "Model"
    )
    log_level: str = _setting(
        "info",
        "least severe messages that are logged",
        "Server",
        choices=("debug", "info", "warning", "error"),
    )

    log_format: str = _setting(
        "auto",
        "log lines as text or as JSON; auto is text on a terminal and JSON elsewhere",
        "Server",
        choices=("auto", "text", "json"),
    )
    token_file: str | None = _setting(
        None,
        "TOML file with the digests of accepted tokens; `mlx-gateway token new` writes it",
        "Access",
    )
    insecure: bool = _setting(
        default=False,
        why="listen on addresses that other machines can reach, without tokens",
        group="Access",
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a gateway: where it listens, who may connect, its limits and timeouts."""

    host: str = _setting(
        "127.0.0.1", "address to listen on; the default is for this machine only", "Server"
    )
    port: int = _setting(8765, "port to listen on; 0 picks a free one", "Server", min=0, max=65535)
    unix: str | None = _setting(
        None,
        "path of a Unix socket to listen on, instead of host and port; for a reverse proxy",
        "Server",
    )
    tls_cert: str | None = _setting(
        None,
        "PEM file with the certificate and its chain, for https and wss; read again on SIGHUP",
        "Server",
    )
    tls_key: str | None = _setting(
        None, "PEM file with the certificate's key, if it isn't in the certificate's file", "Server"
    )
    as_replica: bool = _setting(
        default=False,
        why="serve the gateway that has this one as `--replica`: believe it for which of its "
        "clients a generation is, and let it have as many as there may be in all",
        group="Server",
    )
    node: str | None = _setting(
        None,
        "name of this gateway among several behind a load balancer: tickets begin with it, and "
        "clients that come back add it to the address, as `?node=NAME`",
        group="Server",
        matches=r"[A-Za-z0-9._-]{1,64}",
        form="1 to 64 of the characters A-Z, a-z, 0-9, `.`, `_` and `-`",
    )
    hosts: str | None = _setting(
        None, "host names to accept in `Host` besides the address, separated by commas", "Access"
    )
    origins: str | None = _setting(
        None,
        "origins whose pages may connect, such as `https://app.example` or `http://localhost:*`, "
        "separated by commas",
        "Access",
    )
    dev: bool = _setting(
        default=False,
        why="for development: let pages of every port on this machine connect, and read the demo "
        "page's files anew at each request; needs a `host` on loopback",
        group="Access",
    )
    trusted_proxies: str | None = _setting(
        None,
        "addresses or networks of proxies whose `X-Forwarded-For` is believed, or `unix` for those "
        "on the Unix socket, separated by commas",
        "Access",
    )
    compression: bool = _setting(
        default=False,
        why="compress messages for clients that offer it; takes 35 KiB a connection",
        group="Server",
    )
    max_connections: int = _setting(
        4096,
        "connections in all; each takes a file descriptor and 20 KiB; cut at start to what the "
        "process may open (`ulimit -n`), less some for its own files",
        "Limits",
        min=1,
    )
    max_connections_per_address: int = _setting(
        1024, "connections from one address; a whole office may share one", "Limits", min=1
    )
    max_connections_per_token: int = _setting(
        1024, "connections with one token; the token file may say otherwise", "Limits", min=1
    )
    max_frame_bytes: int = _setting(
        8 * 1024 * 1024,
        "size of one frame; 8 MiB hold a few files of 1 MiB in base64",
        "Limits",
        min=1024,
    )
    max_generations: int = _setting(
        64,
        "live generations on one connection, of which one with `n` answers counts as n, here and "
        "below; 64 are two full batches",
        "Limits",
        min=1,
    )
    resume_bytes: int = _setting(
        1 << 20,
        "frames kept of one resumable generation, to be sent again after a lost connection",
        "Limits",
        min=1024,
    )
    resume_total_bytes: int = _setting(
        64 << 20,
        "frames kept of all resumable generations: of those whose client is there, which keep "
        "fewer beyond its share, as much of those that go on without it, and as much of those "
        "that have ended, where the client that holds the most loses its oldest",
        "Limits",
        min=0,
    )
    response_bytes: int = _setting(
        64 << 20,
        "conversations of all clients: those on /v1/realtime, of which a client may have half of "
        "what others leave, and beside them those kept for `previous_response_id` on "
        "/v1/responses, where the client that has the most loses its oldest; 64 MiB are a thousand "
        "of 16,000 tokens",
        "Limits",
        min=0,
    )
    max_generations_per_token: int = _setting(
        256, "live generations with one token; the token file may say otherwise", "Limits", min=1
    )
    max_generations_in_all: int = _setting(
        2048,
        "live generations in all, queued ones included; the next one is refused as `overloaded`",
        "Limits",
        min=1,
    )
    client_share: float = _setting(
        0.5,
        "part of the generations in all that one client, by its token or else by its address, may "
        "have of those that others leave; so a newcomer always gets in",
        "Limits",
        min=0.01,
        max=1,
    )
    max_prompt_tokens: int | None = _setting(
        None, "tokens of one prompt; by default as many as the model can read", "Limits", min=1
    )
    max_answer_tokens: int | None = _setting(
        None,
        "tokens of one answer; requests for more are refused; by default no limit but the model's",
        "Limits",
        min=1,
    )
    max_depth: int = _setting(
        64,
        "nesting of one frame; JSON Schemas of tools need about a dozen levels",
        "Limits",
        min=4,
        max=500,
    )
    max_values: int = _setting(
        16_384,
        "keys and values in one frame, where a long text or an image is one, and 50 escapes in "
        "JSON are another; each takes up to half a microsecond to decode, in which nobody else is "
        "served",
        "Limits",
        min=1024,
    )
    frame_rate: float = _setting(
        1000.0,
        "frames a second on one connection; a burst may be ten times that",
        "Limits",
        min=1,
    )
    page_rate: float = _setting(
        50.0,
        "plain GETs a second from one address, but for /healthz and /readyz, and WebSockets that "
        "are refused or show no token in the handshake; each takes up to a few "
        "milliseconds in which nobody else is served; a burst may be ten times that",
        "Limits",
        min=1,
    )
    rate_bytes: int = _setting(
        4 << 20,
        "bytes a second on one connection; a burst may be ten times that",
        "Limits",
        min=1024,
    )
    client_frame_rate: float = _setting(
        4000.0,
        "frames a second of one client, by its token or else by its address, on all its "
        "connections, with those that it is sent again by `resume`; each takes some 30 "
        "microseconds, so that it has an eighth of the event loop; beyond it they are read more "
        "slowly; a burst may be ten times that",
        "Limits",
        min=1,
    )
    client_rate_bytes: int = _setting(
        16 << 20,
        "bytes a second of one client on all its connections; beyond it they are read more "
        "slowly; a burst may be ten times that",
        "Limits",
        min=1024,
    )
    client_loop_share: float = _setting(
        0.1,
        "part of the event loop's processor time that may go into what one client sends, by its "
        "token or else by its address, while others are answered; beyond it the client is read "
        "more slowly, since a busy loop slows their answers",
        "Limits",
        min=0.01,
        max=1,
    )
    request_bytes: int = _setting(
        256 << 20,
        "large messages in memory, of all clients: half of it for those that are on their way, "
        "which wait for their turn, and half for requests whose prompts are not built, the next of "
        "which is refused as `overloaded`; 256 MiB are 32 messages of the largest size",
        "Limits",
        min=32 * 1024,
    )
    outbox_bytes: int = _setting(
        64 * 1024,
        "text that waits for a slow client before its generations pause",
        "Limits",
        min=1,
    )
    outbox_total_bytes: int = _setting(
        64 << 20,
        "text that waits for all clients together: for slow ones, each of which has a quarter of "
        "what is left at most, so that those who come late have as much as the others, and in "
        "answers that are not streamed, which end as `overloaded` beyond a client's share; and as "
        "much on its way to clients that are sent it again, where it waits beyond a share",
        "Limits",
        min=1,
    )
    kernel_buffer_bytes: int = _setting(
        16 * 1024,
        "unsent bytes of one connection in the kernel, which would buffer megabytes by itself",
        "Limits",
        min=1,
    )
    write_timeout_s: float = _setting(
        30.0,
        "seconds after which a client that takes no bytes is disconnected",
        "Timeouts",
        min=0.1,
    )
    hello_timeout_s: float = _setting(
        10.0, "seconds a client has to send its token in `hello`", "Timeouts", min=0.1
    )
    # Others aren't read meanwhile, so it is well below the time in which they must answer a ping.
    message_timeout_s: float = _setting(
        10.0,
        "seconds a large message may take while others wait for the memory that it has",
        "Timeouts",
        min=0.1,
    )
    ping_interval_s: float = _setting(
        20.0, "seconds between pings, which find dead connections", "Timeouts", min=0.1
    )
    ping_timeout_s: float = _setting(
        20.0, "seconds a client has to answer a ping", "Timeouts", min=0.1
    )
    shutdown_grace_s: float = _setting(
        30.0,
        "seconds generations have to finish after SIGTERM, before they are cancelled",
        "Timeouts",
        min=0,
    )
    resume_ttl_s: float = _setting(
        60.0,
        "seconds a resumable generation is kept for a client that lost its connection",
        "Timeouts",
        min=0,
    )
    response_ttl_s: float = _setting(
        3600.0,
        "seconds after its last use for which a response can be continued on /v1/responses; "
        "OpenAI's connections live as long",
        "Timeouts",
        min=0,
    )
    generation_timeout_s: float = _setting(
        600.0,
        "seconds one generation may take, its time in the queue included",
        "Timeouts",
        min=0.1,
    )
    idle_timeout_s: float | None = _setting(
        None,
        "seconds without a generation after which a connection is closed; by default never",
        "Timeouts",
        min=0.1,
    )
    close_timeout_s: float = _setting(
        5.0,
        "seconds that each stage of ending a connection or the gateway may take: a client's last "
        "frames, its close, the streams of its generations",
        "Timeouts",
        min=0,
    )

    def of_a_replica(self) -> Settings:
        """Return the settings of a replica, whose only client is the gateway in front of it.

        The limits of one client are lifted; that gateway applies them to its own clients.
        """
        return replace(
            self,
            max_generations=self.max_generations_in_all,
            max_generations_per_token=self.max_generations_in_all,
            client_share=1.0,
            frame_rate=UNBOUNDED,
            client_frame_rate=UNBOUNDED,
            rate_bytes=int(UNBOUNDED),
            client_rate_bytes=int(UNBOUNDED),
            client_loop_share=1.0,
        )
