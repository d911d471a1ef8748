"""The small model in the package, and the code that made it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["MODEL_PATH"]

MODEL_PATH = Path(__file__).parent / "model"
