"""The limits on the admission of a generation, and a table of what enforces each limit.

`refusal` checks the limits on admission; ENFORCERS names the enforcer of every limit, `refusal`
among them. Pure: the clock and the counts are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gateway.configuration.settings import Settings
from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Refusal
from gateway.protocol.frames import Generate, Resume
from gateway.server.tokens import Token
from provider.wording import counted

__all__ = ["ENFORCERS", "RETRY_AFTER_S", "Load", "answers_of", "refusal"]

RETRY_AFTER_S = 1.0  # for a client over a limit of generations; some generation ends soon

# For each setting, the function in gateway/server that enforces it or passes it to its enforcer.
ENFORCERS: dict[str, str] = {
    "max_connections": "server.Gateway.__init__",
    "max_connections_per_address": "handshake.Handshake.enter",
    "max_connections_per_token": "handshake.Handshake.is_full",
    "max_frame_bytes": "server.options_of",
    "max_generations": "limits.refusal",
    "max_generations_per_token": "limits._of_too_many",
    "max_generations_in_all": "limits._of_too_many",
    "client_share": "limits._share",
    "max_prompt_tokens": "generations.Generations.begin",
    "max_answer_tokens": "limits.refusal",
    "max_depth": "server._route_limits",
    "max_values": "server._route_limits",
    "frame_rate": "reading.MeteredConnection.__init__",
    "client_frame_rate": "reading.ClientRates.__init__",
    "client_rate_bytes": "reading.ClientRates.__init__",
    "client_loop_share": "generations.Generations.__init__",
    "request_bytes": "generations.Generations.__init__",
    "page_rate": "handshake.Handshake.__init__",
    "rate_bytes": "reading.MeteredConnection.__init__",
    "resume_bytes": "connection.Connection.__init__",
    "resume_total_bytes": "generations.Generations.__init__",
    "response_bytes": "server._route_limits",
    "response_ttl_s": "server._route_limits",
    "outbox_bytes": "connection.Connection.must_wait",
    "outbox_total_bytes": "generations.Generations.__init__",
    "kernel_buffer_bytes": "server.Gateway._bound_kernel_buffer",
    "write_timeout_s": "connection.Connection._check_write_time",
    "message_timeout_s": "reading.MeteredConnection.__init__",
    "hello_timeout_s": "connection.Connection.admit",
    "ping_interval_s": "server.options_of",
    "ping_timeout_s": "server.options_of",
    "shutdown_grace_s": "server.Gateway.drain",
    "resume_ttl_s": "generations.Generations.__init__",
    "generation_timeout_s": "generations.Generations.begin",
    "idle_timeout_s": "connection.Connection.run",
    "close_timeout_s": "server.Gateway._handlers_end",
}


@dataclass(frozen=True)
class Load:
    """The numbers of live answers: on the connection, of its client, and of all clients.

    A client is a token, or an address where there is no token.
    """

    connection: int
    client: int
    all: int
    draining: bool = False  # whether the gateway is stopping


def refusal(
    request: Generate | Resume, settings: Settings, token: Token | None, load: Load, now: datetime
) -> Refusal | None:
    """Return which limit a generation would exceed, None if it may begin or be taken over.

    Each of its answers counts as one generation.
    """
    more = 1 if isinstance(request, Resume) else answers_of(request)
    if load.connection + more > settings.max_generations >= more:
        return _too_many(ErrorCode.RATE_LIMITED, settings.max_generations, "on one connection")
    if isinstance(request, Resume):
        return None  # a resumed generation is already counted for its client and in all
    if request.relayed is not None and not settings.as_replica:
        said = "only a gateway that was started with `--as-replica` takes it"
        return Refusal(ErrorCode.FORBIDDEN, said, fields=("relayed",))
    if load.draining:
        return Refusal(ErrorCode.SHUTTING_DOWN, "the gateway is stopping")
    longest = settings.max_answer_tokens
    if longest is not None and request.max_tokens is not None and request.max_tokens > longest:
        said = f"must be at most {longest}"
        return Refusal(ErrorCode.INVALID_REQUEST, said, fields=("max_tokens",))
    if token is not None and not token.valid_at(now):
        return Refusal(ErrorCode.UNAUTHORIZED, "the token has expired")
    return _of_too_many(more, settings, token, load)


def answers_of(frame: Generate) -> int:
    """Return how many answers a request asks for; the provider checks the number."""
    return max(1, frame.n or 1)


def _of_too_many(more: int, settings: Settings, token: Token | None, load: Load) -> Refusal | None:
    """Return why `more` further answers can't begin, None if they can."""
    in_all = settings.max_generations_in_all
    own = None if token is None else token.max_generations or settings.max_generations_per_token
    most = min(settings.max_generations, own or in_all, _share(settings, in_all))
    if more > most:
        said = f"must be at most {most}, because each answer counts as a generation"
        return Refusal(ErrorCode.INVALID_REQUEST, said, fields=("n",))
    if own is not None and load.client + more > own:
        return _too_many(ErrorCode.RATE_LIMITED, own, "with one token")
    if load.all + more > in_all:
        return _too_many(ErrorCode.OVERLOADED, in_all, "in all")
    share = _share(settings, in_all - (load.all - load.client))
    if load.client + more > share:
        said = (
            f"a client may have {counted(share, 'generation')} now, the rest is for other clients"
        )
        return Refusal(ErrorCode.OVERLOADED, said, RETRY_AFTER_S)
    return None


def _share(settings: Settings, left: int) -> int:
    """Return how many generations one client may have, if others leave `left` of the limit."""
    return max(1, int(settings.client_share * left))


def _too_many(code: ErrorCode, most: int, where: str) -> Refusal:
    return Refusal(code, f"at most {counted(most, 'generation')} may run {where}", RETRY_AFTER_S)
