"""Vision models of mlx-vlm: provides their inputs beyond tokens to the batch.

mlx-vlm turns pixels into embeddings, which replace the prompt's image tokens. After that a vision
model is a language model, and its rows decode together with all others. Some models number
positions in three dimensions (M-RoPE). For these every position is passed explicitly, because the
model would otherwise use positions that it remembers from its last prompt.

Rule: an `ImageProcessor` belongs to the prompt thread, everything else to the MLX thread.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from provider.caches.kinds import as_mlx_lm_cache
from provider.engine.model import PromptEmbeddings
from provider.engine.rows import Row
from provider.inputs.images import open_images
from provider.interface import ImageProcessingError
from provider.models.remote_code import refuse_model_file, without_code
from provider.runtime import mlx_vlm
from provider.runtime.mlx import fusing, mx
from provider.runtime.mlx_lm import KVCache

__all__ = [
    "ImageProcessor",
    "ProcessedImages",
    "PromptEmbeddings",
    "VisionModel",
    "load_vision_model",
    "supports_images",
    "why_text_only",
]

# Features of get_input_embeddings that are handled here; the language model gets all others as is.
KNOWN = {"inputs_embeds", "position_ids", "rope_deltas", "attention_mask"}
NOT_PIXELS = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
NEEDS_EXTRA = "; it accepts images after `pip install mlx-gateway[vision]`"
UNKNOWN = "; it is a vision model that mlx-vlm does not support"
AXES = 3  # axes of M-RoPE: time, height, width


def has_vision_config(path: Path) -> bool:
    """Return whether a folder's configuration is that of a vision model; a file never is."""
    if path.is_file():
        return False
    config = json.loads((path / "config.json").read_text("utf-8"))
    return bool(config.get("vision_config") or config.get("vision_tower"))


def supports_images(path: Path) -> bool:
    """Return whether a model accepts images: it is a vision model, and mlx-vlm supports it."""
    return has_vision_config(path) and mlx_vlm.available() and mlx_vlm.knows(path)


def why_text_only(path: Path) -> str:
    """Return why a vision model accepts no images, as the end of a sentence; "" otherwise."""
    if not has_vision_config(path) or supports_images(path):
        return ""
    return UNKNOWN if mlx_vlm.available() else NEEDS_EXTRA


def load_vision_model(path: Path) -> tuple[VisionModel, dict[str, Any]]:
    """Load a model with unevaluated weights.

    Raises the errors of mlx-vlm, and ValueError if the model needs code of its own.
    """
    config = mlx_vlm.load_config(path)
    refuse_model_file(config)
    return VisionModel(mlx_vlm.load_model(path)), config


@dataclass(frozen=True, eq=False)
class ProcessedImages:
    """A prompt's tokens, with image tokens in place of the images, and the processed images."""

    tokens: list[int]
    inputs: Mapping[str, np.ndarray[Any, Any]]  # pixels, and other arrays that describe them


class ImageProcessor:
    """A model's image processor, for the thread that created it.

    Creating one raises the errors of mlx-vlm.
    """

    def __init__(self, path: Path):
        with without_code():
            self._processor = mlx_vlm.load_processor(path)

    def processing(
        self, text: str, images: Sequence[bytes], names: Sequence[str] = ()
    ) -> Generator[None, None, ProcessedImages]:
        """Return the tokens of a rendered prompt together with its processed images.

        Raises ImageProcessingError if an image can't be read or the processor refuses it.
        """
        pictures = yield from open_images(images, names=names)
        try:
            made = dict(self._processor(images=pictures, text=[text]))
        except Exception as error:  # processors may raise anything
            raise ImageProcessingError(
                f"the model's processor refuses these images: {error}", original_exception=error
            ) from error
        tokens = np.array(made["input_ids"]).reshape(-1).tolist()
        pixels = {
            name: np.array(value)
            for name, value in made.items()
            if value is not None and name not in NOT_PIXELS
        }
        return ProcessedImages(tokens, pixels)


class VisionModel:
    """A model of mlx-vlm with the interface of mlx-lm's: tokens and caches in, logits out."""

    def __init__(self, model: Any):
        self.model = model
        self.language = model.language_model
        self.uses_mrope = False  # set by `warm_up`

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # not yet set while the object is being copied
            raise AttributeError(name)
        return getattr(self.model, name)

    @property
    def layers(self) -> Any:
        """The layers of the language model; each has a cache."""
        return self.language.layers if hasattr(self.language, "layers") else self.model.layers

    def make_cache(self) -> list[Any]:
        """Return one cache per layer, of mlx-lm's equivalent class where there is one."""
        if not hasattr(self.language, "make_cache"):
            return [KVCache() for _ in self.layers]
        return [as_mlx_lm_cache(cache) for cache in self.language.make_cache()]

    def warm_up(self) -> None:
        """Find out whether the model numbers positions in three dimensions."""
        features = self.model.get_input_embeddings(mx.array([[0, 0]]))
        self.uses_mrope = features.position_ids is not None

    def __call__(self, tokens: Any, cache: Any = None, **more: Any) -> Any:
        """Return logits, `(rows, tokens, vocabulary)`."""
        with fusing():
            return self.language(tokens, cache=cache, **more).logits

    def embed(self, images: ProcessedImages) -> PromptEmbeddings:
        """Return the embeddings of a prompt with images. Raises the errors of mlx-vlm's model."""
        tokens = mx.array([images.tokens[:-1]])
        inputs = {name: mx.array(value) for name, value in images.inputs.items()}
        pixels = inputs.pop("pixel_values", None)
        features = self.model.get_input_embeddings(tokens, pixels, **inputs)
        found = {name: value for name, value in features.to_dict().items() if value is not None}
        positions, deltas = found.get("position_ids"), found.get("rope_deltas")
        extras = {name: value for name, value in found.items() if name not in KNOWN}
        if positions is not None:
            positions = mx.broadcast_to(
                positions.reshape(-1, tokens.shape[1]), (AXES, tokens.shape[1])
            )
        mx.eval(
            [found["inputs_embeds"], *extras.values()], positions if positions is not None else []
        )
        delta = 0 if deltas is None else int(deltas.reshape(-1)[0].item())
        return PromptEmbeddings(found["inputs_embeds"][0], positions, delta, extras)

    # The following methods return further arguments of a forward pass.

    def chunk_extras(
        self, rows: Sequence[Row], counts: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """Return the further arguments for prefilling a chunk of each row.

        Rows with images are prefilled one at a time.
        """
        more: dict[str, Any] = {}
        (first, *_), (count, *_) = rows, counts
        given: PromptEmbeddings | None = first.prompt_embeddings
        if given is not None and first.done < given.length:
            end = min(first.done + count, given.length)
            parts = [given.embeddings[first.done : end]]
            if first.done + count > end:
                beyond = mx.array([tokens[0][end - first.done :]])
                parts.append(self.model.get_input_embeddings(beyond).inputs_embeds[0])
            more = {"inputs_embeds": mx.concatenate(parts)[None], **given.extras}
        if self.uses_mrope:
            width = len(tokens[0])
            places = [
                _places(row, row.done, count, width)
                for row, count in zip(rows, counts, strict=True)
            ]
            more["position_ids"] = mx.stack(places, axis=1)
        return more

    def step_extras(self, rows: Sequence[Row | None]) -> dict[str, Any]:
        """Return the further arguments for one token of each row."""
        if not self.uses_mrope:
            return {}
        places = [0 if row is None else row.fed + _delta(row) for row in rows]
        position_ids = mx.broadcast_to(mx.array(places)[None, :, None], (AXES, len(rows), 1))
        return {"position_ids": position_ids}

    def draft_extras(self, row: Row, count: int) -> dict[str, Any]:
        """Return the further arguments for the next `count` tokens of one row."""
        if not self.uses_mrope:
            return {}
        return {"position_ids": _places(row, row.fed, count, count)[:, None]}

    def failed(self, error: Exception) -> None:
        """Do nothing: no other process has made the pass."""


def _delta(row: Row) -> int:
    given = row.prompt_embeddings
    return 0 if given is None else int(given.delta)


def _places(row: Row, begin: int, count: int, width: int) -> Any:
    """Return the positions of a chunk, `(3, width)`, with zeros after its `count` tokens."""
    given = row.prompt_embeddings
    known = 0 if given is None else max(0, min(begin + count, given.length) - begin)
    parts = [] if not known else [given.positions[:, begin : begin + known]]
    after = mx.arange(begin + known, begin + count) + _delta(row)
    parts.append(mx.broadcast_to(after[None], (AXES, count - known)))
    parts.append(mx.zeros((AXES, width - count), after.dtype))
    return mx.concatenate([part.astype(mx.int32) for part in parts], axis=1)
