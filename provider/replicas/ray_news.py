"""Which replicas Ray Serve routes to, as its router tells it to the provider of this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

__all__ = ["Listener", "tell"]

Listener = Callable[[Mapping[str, str]], None]

listener: Listener | None = None  # called on any thread


def tell(urls: Mapping[str, str]) -> None:
    """Tell the listener, if there is one, the address of each replica by its name."""
    if listener is not None:
        listener(urls)
