"""Every setting once, with its default, its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the gateway listens and what it bounds."""

    host: str = "127.0.0.1"  # nobody else's business until it is asked for
    port: int = 8765  # 0 takes a free one
    max_frame_bytes: int = 8 * 1024 * 1024  # a few files of 1 MiB, in base64
    max_generations: int = 64  # live on one connection: twice the largest batch
    outbox_bytes: int = 64 * 1024  # text that waits for one slow client before the model does
    kernel_buffer_bytes: int = 16 * 1024  # unsent bytes in the kernel, else megabytes hide there
    write_timeout_s: float = 30.0  # a client that takes nothing for so long is gone
    ping_interval_s: float = 20.0  # finds half-open connections
    ping_timeout_s: float = 20.0
    close_timeout_s: float = 5.0  # for clients to take their last frames at shutdown
