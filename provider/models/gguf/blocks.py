"""Decodes the blocks in which a GGUF file stores its weights.

A block holds 32 or 256 neighbouring values of a row as small whole numbers, with scales in common.
Where mlx can multiply by such numbers directly, they are repacked; else they become floats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from provider.models.gguf.header import BLOCKS

__all__ = ["GROUP", "PACKED_BITS", "Packed", "floats", "packed"]

GROUP = 32  # values of a packed weight that share a scale
# The types that are repacked, and their bits.
PACKED_BITS = {"Q4_0": 4, "Q4_1": 4, "Q4_K": 4, "Q8_0": 8}

Array = np.ndarray[Any, Any]
# A group's whole numbers, its scales and its biases: `(groups, 32)`, `(groups, 1)` twice.
Groups = tuple[Array, Array, Array]


@dataclass(frozen=True, eq=False)
class Packed:
    """Rows of a weight as mlx packs it, each value being `scale * number + bias`."""

    weight: Array  # (rows, columns * bits / 32), uint32
    scales: Array  # (rows, columns / 32), float32
    biases: Array  # the same


def packed(kind: str, raw: Array, columns: int) -> Packed:
    """Return the rows of a type in PACKED_BITS; `raw` are their bytes, `columns` a row's values."""
    numbers, scales, biases = GROUPS[kind](_blocks(kind, raw))
    numbers = numbers.reshape(-1, columns)
    if PACKED_BITS[kind] == 4:
        numbers = numbers[:, 0::2] | numbers[:, 1::2] << 4
    weight = np.ascontiguousarray(numbers).view("<u4")
    return Packed(weight, scales.reshape(len(weight), -1), biases.reshape(len(weight), -1))


def floats(kind: str, raw: Array, columns: int) -> Array:
    """Return rows as float32, `(rows, columns)`; `raw` are their bytes."""
    if kind in PLAIN:
        return PLAIN[kind](raw).reshape(-1, columns)
    numbers, scales, biases = GROUPS[kind](_blocks(kind, raw))
    values = numbers.astype(np.float32)
    values *= scales
    values += biases
    return values.reshape(-1, columns)


def _blocks(kind: str, raw: Array) -> Array:
    return raw.reshape(-1, BLOCKS[kind][1])


def _half(blocks: Array, begin: int) -> Array:
    """Return the 16-bit float at byte `begin` of each block, as float32 `(blocks, 1)`."""
    return np.ascontiguousarray(blocks[:, begin : begin + 2]).view("<f2").astype(np.float32)


def _nibbles(data: Array) -> Array:
    """Return the low halves of each block's bytes, then the high halves."""
    return np.concatenate([data & 15, data >> 4], axis=1)


def _fifth_bits(data: Array) -> Array:
    """Return the bits of four bytes in their order, each as 16 or 0, `(blocks, 32)`."""
    return np.unpackbits(np.ascontiguousarray(data), axis=1, bitorder="little") << 4


def _q4_0(blocks: Array) -> Groups:
    scale = _half(blocks, 0)
    return _nibbles(blocks[:, 2:]), scale, -8 * scale


def _q4_1(blocks: Array) -> Groups:
    return _nibbles(blocks[:, 4:]), _half(blocks, 0), _half(blocks, 2)


def _q5_0(blocks: Array) -> Groups:
    scale = _half(blocks, 0)
    return _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6]), scale, -16 * scale


def _q5_1(blocks: Array) -> Groups:
    numbers = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return numbers, _half(blocks, 0), _half(blocks, 2)


def _q8_0(blocks: Array) -> Groups:
    scale = _half(blocks, 0)
    return blocks[:, 2:] ^ 128, scale, -128 * scale


def _q4_k(blocks: Array) -> Groups:
    scales, biases = _scales_of_k(blocks)
    return _nibbles_of_k(blocks[:, 16:]), scales, biases


def _q5_k(blocks: Array) -> Groups:
    scales, biases = _scales_of_k(blocks)
    high = blocks[:, 16:48, None] >> np.arange(8, dtype=np.uint8) & 1  # bit i is of group i
    numbers = _nibbles_of_k(blocks[:, 48:]) | high.transpose(0, 2, 1).reshape(-1, GROUP) << 4
    return numbers, scales, biases


def _q6_k(blocks: Array) -> Groups:
    low, high = blocks[:, :128].reshape(-1, 2, 1, 64), blocks[:, 128:192].reshape(-1, 2, 1, 32)
    low = low >> np.array([[0], [4]], np.uint8) & 15
    high = high >> np.array([[0], [2], [4], [6]], np.uint8) & 3
    numbers = (low.reshape(-1, 16) | high.reshape(-1, 16) << 4).reshape(-1, 16)
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8) * _half(blocks, 208)
    scales = scales.reshape(-1, 1)
    return numbers, scales, -32 * scales


def _nibbles_of_k(data: Array) -> Array:
    """Return the numbers of 256 values: of each 32 bytes first the low halves, then the high."""
    return _nibbles(data.reshape(-1, GROUP)).reshape(-1, GROUP)


def _scales_of_k(blocks: Array) -> tuple[Array, Array]:
    """Return scales and biases of the eight groups in a block; each has 6 bits, of 12 bytes."""
    first, second, rest = (blocks[:, begin : begin + 4] for begin in (4, 8, 12))
    scales = np.concatenate([first & 63, rest & 15 | first >> 6 << 4], axis=1)
    biases = np.concatenate([second & 63, rest >> 4 | second >> 6 << 4], axis=1)
    scales, biases = scales * _half(blocks, 0), biases * -_half(blocks, 2)
    return scales.reshape(-1, 1), biases.reshape(-1, 1)


GROUPS: dict[str, Callable[[Array], Groups]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
PLAIN: dict[str, Callable[[Array], Array]] = {
    "F32": lambda raw: raw.view("<f4"),
    "F16": lambda raw: raw.view("<f2").astype(np.float32),
    "BF16": lambda raw: (raw.view("<u2").astype(np.uint32) << 16).view(np.float32),
}
