"""Turns prompts into tokens; knows no socket.

`MLXProvider` is imported on first use, because importing mlx and mlx-lm takes over a second, and
not every user of the interface needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from provider.interface import AbstractLLMInterface, GenerateResponse

if TYPE_CHECKING:
    from provider.mlx_provider import MLXProvider

__all__ = ["AbstractLLMInterface", "GenerateResponse", "MLXProvider"]


def __getattr__(name: str) -> Any:
    if name == "MLXProvider":
        from provider.mlx_provider import MLXProvider  # noqa: PLC0415 - see the module docstring

        return MLXProvider
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
