"""The WebSocket server and its clients; knows no model, and never imports mlx.

`__version__` is read on first use, because importing the modules that read it takes as long as
importing a whole command.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__: str


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version("mlx-gateway")
    except PackageNotFoundError:  # run from a tree that is not installed
        return "0"
