"""Makes a model of mlx-lm of a GGUF file, and reads its weights in steps.

Weights whose blocks mlx can multiply by stay packed, unless all are to be floats.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from provider.models.gguf.blocks import GROUP, PACKED_BITS, floats, packed
from provider.models.gguf.header import BLOCKS, GGUFError, Header, Tensor
from provider.models.gguf.shapes import ROPE_FACTORS, Shape, shape_of
from provider.runtime.mlx import mx, on_cpu, tree_flatten
from provider.runtime.mlx_lm import load_model

__all__ = ["UnreadModel", "dense_bytes"]

SLICE = 8 << 20  # values that one step decodes; other models may decode tokens between steps


def dense_bytes(header: Header) -> int | None:
    """Return the bytes of a file's weights as float32, None if none of them could stay packed."""
    if not any(_stays_packed(tensor) for tensor in header.tensors.values()):
        return None
    return sum(prod(tensor.shape) * 4 for tensor in header.tensors.values())


def _stays_packed(tensor: Tensor) -> bool:
    return tensor.type in PACKED_BITS and len(tensor.shape) > 1


class UnreadModel:
    """A model of mlx-lm without weights, which `reading` fills in.

    With `dense`, no weight stays packed. Raises GGUFError if the file's model can't be loaded.
    """

    def __init__(self, header: Header, *, dense: bool):
        self.header = header
        self._shape = shape_of(header)
        # Where each tensor goes: a module, and the name of one of its parameters.
        self._places = {
            name: self._shape.name(name).rpartition(".")[::2]
            for name in header.tensors
            if name != ROPE_FACTORS
        }
        self.config = _config(header, self._shape)
        self.model = _built(self.config, {} if dense else self._kept())
        dtype = _dtype(header, self._shape)
        self.model.apply(lambda array: array if array.dtype == mx.uint32 else array.astype(dtype))
        self._modules = dict(self.model.named_modules())
        self._check()

    def reading(self) -> Generator[int, None, None]:
        """Read the weights into the model in steps; yield the bytes that each step has made."""
        tensors = [self.header.tensors[name] for name in self._places]
        for tensor in sorted(tensors, key=lambda tensor: tensor.begin):
            parts: dict[str, list[Any]] = {}
            for rows in _rows(self.header.path, tensor):
                made = self._parameters(tensor, rows)
                mx.eval(made)
                for name, array in made.items():
                    parts.setdefault(name, []).append(array)
                yield sum(int(array.nbytes) for array in made.values())
            module = self._modules[self._places[tensor.name][0]]
            for name, arrays in parts.items():
                setattr(module, name, arrays[0] if len(arrays) == 1 else mx.concatenate(arrays))
            mx.eval(module.parameters())

    def _kept(self) -> dict[str, int]:
        """Return the bits of each module whose weight stays packed."""
        return {
            self._places[name][0]: PACKED_BITS[tensor.type]
            for name, tensor in self.header.tensors.items()
            if name in self._places and _stays_packed(tensor)
        }

    def _parameters(self, tensor: Tensor, raw: np.ndarray[Any, Any]) -> dict[str, Any]:
        """Return the parameters that a tensor becomes, for those of its rows that `raw` holds."""
        place, name = self._places[tensor.name]
        module, columns = self._modules[place], tensor.shape[-1]
        if name == "weight" and "scales" in module:
            rows, dtype = packed(tensor.type, raw, columns), module.scales.dtype
            return {
                "weight": mx.array(rows.weight),
                "scales": mx.array(rows.scales).astype(dtype),
                "biases": mx.array(rows.biases).astype(dtype),
            }
        values = floats(tensor.type, raw, columns)
        if "norm" in place:
            values = values - np.float32(self._shape.norm_offset)
        return {name: mx.array(values.reshape(-1, *tensor.shape[1:])).astype(module[name].dtype)}

    def _check(self) -> None:
        """Raise GGUFError unless the tensors are those that the model needs."""
        for name, (place, parameter) in self._places.items():
            if parameter not in self._modules.get(place, ()):
                raise GGUFError(
                    f"its tensor `{name}` is unknown in a {self._shape.model_type} model"
                )
            shape, wanted = self.header.tensors[name].shape, self._wanted(place, parameter)
            if shape != wanted:
                raise GGUFError(f"its tensor `{name}` has the shape {shape} instead of {wanted}")
        there = {f"{place}.{parameter}" for place, parameter in self._places.values()}
        needed = {name for name, _ in tree_flatten(self.model.parameters())}
        missing = sorted(
            name for name in needed - there if not name.endswith((".scales", ".biases"))
        )
        if missing:
            raise GGUFError(f"it has no tensor for `{missing[0]}`")

    def _wanted(self, place: str, parameter: str) -> tuple[int, ...]:
        module = self._modules[place]
        shape = tuple(int(size) for size in module[parameter].shape)
        if parameter == "weight" and "scales" in module:
            return (*shape[:-1], shape[-1] * 32 // module.bits)
        return shape


def _built(config: Mapping[str, Any], bits: Mapping[str, int]) -> Any:
    """Return a model with random weights that are not evaluated; `bits` are those of modules."""
    packing = {place: {"group_size": GROUP, "bits": of} for place, of in bits.items()}
    quantization = {"quantization": {"group_size": GROUP, "bits": 4, **packing}} if packing else {}
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps({**config, **quantization})
        (Path(folder) / "config.json").write_text(text, encoding="utf-8")
        return load_model(Path(folder), lazy=True, strict=False)[0]


def _dtype(header: Header, shape: Shape) -> Any:
    """Return the type of floats, which on a GPU follows the file, on a CPU is the fast one."""
    if on_cpu():
        return mx.float32
    wide = shape.wide or any(tensor.type == "BF16" for tensor in header.tensors.values())
    return mx.bfloat16 if wide else mx.float16


def _config(header: Header, shape: Shape) -> dict[str, Any]:
    config = shape.config(header)
    if ROPE_FACTORS in header.tensors:
        if config["rope_scaling"] is None:
            raise GGUFError(f"its tensor `{ROPE_FACTORS}` is unknown in a {shape.model_type} model")
        tensor = header.tensors[ROPE_FACTORS]
        given = np.concatenate(
            [floats(tensor.type, raw, tensor.shape[-1]) for raw in _rows(header.path, tensor)]
        )
        config["rope_scaling"]["factor"] = _llama3_factor(given.reshape(-1), config)
    return config


def _llama3_factor(given: np.ndarray[Any, Any], config: Mapping[str, Any]) -> float:
    """Return the factor from which Llama 3 derives those of each wavelength. Raises GGUFError."""
    scaling, dims = config["rope_scaling"], config["head_dim"]
    factor = float(given.max())
    waves = 2 * np.pi * config["rope_theta"] ** (np.arange(0, dims, 2) / dims)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = (scaling["original_max_position_embeddings"] / waves - low) / (high - low)
    smooth = np.clip(smooth, 0, 1)
    wanted = 1 / ((1 - smooth) / factor + smooth)
    if wanted.shape != given.shape or not np.allclose(wanted, given, rtol=1e-3):
        raise GGUFError(f"its tensor `{ROPE_FACTORS}` scales positions in a way that is unknown")
    return factor


def _rows(path: Path, tensor: Tensor) -> Iterator[np.ndarray[Any, Any]]:
    """Read a tensor's bytes, some rows at a time."""
    columns = tensor.shape[-1]
    values, nbytes = BLOCKS[tensor.type]
    row = columns // values * nbytes
    rows = tensor.nbytes // row
    step = max(1, SLICE // columns)
    for begin in range(0, rows, step):
        count = min(step, rows - begin) * row
        yield np.fromfile(path, np.uint8, count, offset=tensor.begin + begin * row)
