"""All uses of mlx-vlm, an optional package that is imported only when a model needs it."""

from __future__ import annotations

import functools
import importlib.util
import logging
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from provider.runtime.mlx_lm import unknown_version

__all__ = ["available", "knows", "load_config", "load_model", "load_processor"]

KNOWN = "0.7.10"  # the version that the tests have run with

log = logging.getLogger(__name__)


def available() -> bool:
    """Return whether mlx-vlm is installed."""
    return importlib.util.find_spec("mlx_vlm") is not None


def knows(path: Path) -> bool:
    """Return whether mlx-vlm implements the model type in a folder's configuration."""
    from mlx_vlm.utils import get_model_type, load_config  # noqa: PLC0415 - an extra

    kind = str(get_model_type(load_config(path)))
    return kind.isidentifier() and importlib.util.find_spec(f"mlx_vlm.models.{kind}") is not None


def load_config(path: Path) -> dict[str, Any]:
    """Return a model's configuration. Raises the errors of mlx-vlm."""
    from mlx_vlm.utils import load_config  # noqa: PLC0415 - an extra

    return load_config(path)  # type: ignore[no-any-return]


def load_model(path: Path) -> Any:
    """Return a model with unevaluated weights. Raises the errors of mlx-vlm."""
    from mlx_vlm.utils import load_model  # noqa: PLC0415 - an extra

    _warn_of_unknown_version()
    return load_model(path, lazy=True)


def load_processor(path: Path) -> Any:
    """Return the processor of a model's prompts and images. Raises the errors of mlx-vlm."""
    from mlx_vlm.utils import load_processor  # noqa: PLC0415 - an extra

    return load_processor(path, add_detokenizer=False, trust_remote_code=False)


@functools.cache
def _warn_of_unknown_version() -> None:
    if line := unknown_version("mlx-vlm", version_of("mlx-vlm"), KNOWN):
        log.warning("%s", line)
