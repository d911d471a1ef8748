"""Code that comes with a model is never run: its configuration and its weights are all that counts.

mlx-lm and transformers refuse such code unless they are told to trust it. mlx-vlm runs a
`model_file` unasked, and tells transformers for some models to trust what an `auto_map` names: a
file beside the weights, or one of any other repository, which is downloaded for it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from provider.runtime.mlx_lm import guard_model_code

__all__ = ["refuse_model_file", "without_code"]

_here = threading.local()


def refuse_model_file(config: Mapping[str, Any]) -> None:
    """Raise ValueError if a model is made by code of its own."""
    if config.get("model_file") is not None:
        raise ValueError(
            f"it needs code of its own, {config['model_file']!r}; code of models is never run"
        )


@contextmanager
def without_code() -> Iterator[None]:
    """Let transformers run no code of a model on this thread, whoever tells it to trust that.

    It raises ValueError instead; other threads, and other uses of transformers, go on as before.
    """
    _here.refused = True
    try:
        yield
    finally:
        _here.refused = False


def _if_not_refused(run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def run_if_not_refused(name: Any, *arguments: Any, **more: Any) -> Any:
        if getattr(_here, "refused", False):
            raise ValueError(f"it needs code of its own, {name!r}; code of models is never run")
        return run(name, *arguments, **more)

    return run_if_not_refused


guard_model_code(_if_not_refused)
