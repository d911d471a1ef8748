"""The WebSocket server and its clients; knows no model, and never imports mlx."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("mlx-gateway")
except PackageNotFoundError:  # run from a tree that is not installed
    __version__ = "0"
