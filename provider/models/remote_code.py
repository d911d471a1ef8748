"""Makes sure that code which comes with a model never runs; only its data is used.

mlx-lm and transformers refuse such code by default. But mlx-vlm runs a `model_file` without asking,
and for some models it lets transformers trust the code that an `auto_map` names. That may be a file
beside the weights, or a file of another repository that is downloaded.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from provider.runtime.mlx_lm import guard_model_code

__all__ = ["refuse_model_file", "without_code"]

_thread = threading.local()  # `refused` says whether the thread is in `without_code`


def refuse_model_file(config: Mapping[str, Any]) -> None:
    """Raise ValueError if a model's configuration names code of its own."""
    if config.get("model_file") is not None:
        raise ValueError(
            f"it needs code of its own, {config['model_file']!r}; code of models is never run"
        )


@contextmanager
def without_code() -> Iterator[None]:
    """Keep transformers from running a model's code on this thread, even if told to trust it.

    Transformers raises ValueError instead. Other threads are not affected.
    """
    _thread.refused = True
    try:
        yield
    finally:
        _thread.refused = False


def _if_not_refused(run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def run_if_not_refused(name: Any, *arguments: Any, **more: Any) -> Any:
        if getattr(_thread, "refused", False):
            raise ValueError(f"it needs code of its own, {name!r}; code of models is never run")
        return run(name, *arguments, **more)

    return run_if_not_refused


guard_model_code(_if_not_refused)
