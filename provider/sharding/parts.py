"""Loads one process's part of a model, by mlx-lm's `sharded_load`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from provider.interface import ModelLoadingError
from provider.runtime.mlx import mx, on_cpu
from provider.runtime.mlx_lm import load_config, sharded_load

__all__ = ["load_part", "versions", "why_indivisible"]

PACKAGES = ("mlx-gateway", "mlx", "mlx-lm")
HALVES = (mx.float16, mx.bfloat16)
HEADS = ("num_attention_heads", "num_key_value_heads")


def versions() -> dict[str, str]:
    """Return the versions that all processes of a model must have in common."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # the gateway runs from its folder
        return "not installed"


def load_part(path: Path, how: str, group: mx.distributed.Group) -> tuple[Any, dict[str, Any]]:
    """Return this process's part of a model, and the model's configuration; waits for all parts.

    With `tensor` each process has a part of every layer, with `pipeline` some layers. On a CPU the
    weights become float32. Raises ModelLoadingError for a model that can't be divided so.
    """
    try:
        _refuse_indivisible(path, how, group.size())
        by = {"tensor_group" if how == "tensor" else "pipeline_group": group}
        never = {"trust_remote_code": False}
        model, _, config = sharded_load(str(path), return_config=True, tokenizer_config=never, **by)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split()).replace(str(path), path.name)
        raise ModelLoadingError(
            f"`{path.name}` can't be loaded with `--shard {how}`: {said}",
            model_name=path.name,
            original_exception=error,
        ) from error
    if on_cpu():
        model.apply(lambda array: array.astype(mx.float32) if array.dtype in HALVES else array)
        mx.eval(model.parameters())
    return model, config


def _refuse_indivisible(path: Path, how: str, size: int) -> None:
    if path.is_file():
        raise ValueError("a GGUF file is not divided")
    if how == "tensor" and (why := why_indivisible(load_config(path), size)):
        raise ValueError(why)


def why_indivisible(config: Mapping[str, Any], size: int) -> str:
    """Return why the heads of a model are not divided among `size` processes, "" if they are."""
    config = config.get("text_config") or config
    for name in HEADS:
        heads = config.get(name)
        if isinstance(heads, int) and heads % size:
            return f"its {name} are {heads}, which {size} processes can't share"
    return ""
