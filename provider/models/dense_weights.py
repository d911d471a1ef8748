"""Makes floats of packed weights on a CPU, which multiplies by those several times faster.

A packed weight has few bits a value, and groups of values share a scale.
"""

from __future__ import annotations

import logging
from typing import Any

from provider.runtime.mlx import on_cpu, tree_flatten
from provider.runtime.mlx_lm import dequantize_model

__all__ = ["become_dense", "dense_room", "float_bytes", "is_packed", "unpack"]

FLOAT_BYTES = 4
# The part of the free memory that weights may take as floats if nobody asks for it; the rest is for
# KV caches and for other models.
SHARE = 0.5

log = logging.getLogger(__name__)


def dense_room(choice: str, free: int) -> int:
    """Return how many bytes weights may take as floats; `choice` is `on`, `auto` or `off`."""
    return {"on": 1 << 62, "auto": int(free * SHARE), "off": 0}[choice]


def become_dense(name: str, nbytes: int, room: int) -> bool:
    """Return whether packed weights become floats, which would take `nbytes`; the log says it."""
    if not on_cpu():
        return False
    if nbytes <= room:
        log.info("`%s`: packed weights become float32, %d MiB: faster on a CPU", name, nbytes >> 20)
        return True
    said = "`%s`: weights stay packed, which is slow on a CPU; as float32 they would take %d MiB"
    log.info(said, name, nbytes >> 20)
    return False


def is_packed(model: Any) -> bool:
    """Return whether a model has packed weights."""
    return any(_packed(module) for module in model.modules())


def float_bytes(model: Any) -> int:
    """Return the bytes that a model takes once its packed weights are floats."""
    total = sum(int(array.size) for _, array in tree_flatten(model.parameters()))
    for module in model.modules():
        if _packed(module):
            total += int(module.weight.size) * 32 // module.bits - int(module.weight.size)
            total -= sum(
                int(module[name].size) for name in ("scales", "biases") if _has(module, name)
            )
    return total * FLOAT_BYTES


def unpack(model: Any) -> None:
    """Replace the packed weights of a model by floats, unevaluated."""
    dequantize_model(model)


def _packed(module: Any) -> bool:
    return "scales" in module and hasattr(module, "bits")


def _has(module: Any, name: str) -> bool:
    return module.get(name) is not None
