"""Vision models, by mlx-vlm: adapts what they need beyond tokens to the batch.

mlx-vlm turns pixels into embeddings that stand in the prompt where its image tokens are; from there
on a model that sees is a language model, and its rows decode with all others. Some count positions
in three dimensions (M-RoPE); then every position is given, and none is left to what the model
remembers of its last prompt.

Rule: an `ImageProcessor` belongs to the thread that makes prompts, all else to the MLX thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from provider.runtime.mlx import mx
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

# Of what get_input_embeddings gives: the rest must reach the language model with the whole prompt.
KNOWN = {"inputs_embeds", "position_ids", "rope_deltas", "attention_mask"}
NOT_PIXELS = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
NEEDS_EXTRA = "; it sees with `pip install mlx-gateway[vision]`"
UNKNOWN = "; it could see, and mlx-vlm does not know how"
AXES = 3  # axes of M-RoPE: time, height, width


def has_vision_config(path: Path) -> bool:
    """Return whether a configuration is a vision model's."""
    config = json.loads((path / "config.json").read_text("utf-8"))
    return bool(config.get("vision_config") or config.get("vision_tower"))


def supports_images(path: Path) -> bool:
    """Return whether mlx-vlm is there and knows a model that sees; if not, it reads text alone."""
    return has_vision_config(path) and mlx_vlm.available() and mlx_vlm.knows(path)


def why_text_only(path: Path) -> str:
    """Return why a model that could see does not, as the end of a sentence; nothing if it does."""
    if not has_vision_config(path) or supports_images(path):
        return ""
    return UNKNOWN if mlx_vlm.available() else NEEDS_EXTRA


def load_vision_model(path: Path) -> tuple[VisionModel, dict[str, Any]]:
    """Load a model, its weights not computed yet.

    Raises what mlx-vlm raises, ValueError if it is made by code of its own.
    """
    config = mlx_vlm.load_config(path)
    refuse_model_file(config)
    return VisionModel(mlx_vlm.load_model(path)), config


@dataclass(frozen=True, eq=False)
class ProcessedImages:
    """Images as a model's processor has made them, with the tokens that hold their places."""

    tokens: list[int]
    inputs: Mapping[str, np.ndarray[Any, Any]]  # pixels, and what belongs to them


class ImageProcessor:
    """A model's processor, on the thread that made it. Making one raises what mlx-vlm raises."""

    def __init__(self, path: Path):
        with without_code():
            self._processor = mlx_vlm.load_processor(path)

    def process(self, text: str, images: Sequence[bytes]) -> ProcessedImages:
        """Return the tokens of a rendered prompt, with places for the images, and the images.

        Raises ImageProcessingError if an image can't be read, or the processor refuses.
        """
        pictures = open_images(images)
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
    """A model of mlx-vlm, called as mlx-lm's are: tokens and caches in, logits out."""

    def __init__(self, model: Any):
        self.model = model
        self.language = model.language_model
        self.counts_in_three = False  # once `warm_up` has seen it

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # missing while it is being copied
            raise AttributeError(name)
        return getattr(self.model, name)

    @property
    def layers(self) -> Any:
        """The layers of the language model; each has a cache."""
        return self.language.layers if hasattr(self.language, "layers") else self.model.layers

    def make_cache(self) -> list[Any]:
        """Return caches of mlx-lm's classes, which the batch knows, where there are such."""
        if not hasattr(self.language, "make_cache"):
            return [KVCache() for _ in self.layers]
        return [as_mlx_lm_cache(cache) for cache in self.language.make_cache()]

    def warm_up(self) -> None:
        """Find out how the model numbers positions."""
        features = self.model.get_input_embeddings(mx.array([[0, 0]]))
        self.counts_in_three = features.position_ids is not None

    def __call__(self, tokens: Any, cache: Any = None, **more: Any) -> Any:
        """Return logits, `(rows, tokens, vocabulary)`."""
        return self.language(tokens, cache=cache, **more).logits

    def embed(self, images: ProcessedImages) -> PromptEmbeddings:
        """Return what a prompt with images is. Raises what mlx-vlm's model raises."""
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

    # What goes with a forward pass.

    def chunk_extras(
        self, rows: Sequence[Row], counts: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """Return what goes with chunks of sequences; a row that sees is read alone."""
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
        if self.counts_in_three:
            width = len(tokens[0])
            places = [
                _places(row, row.done, count, width)
                for row, count in zip(rows, counts, strict=True)
            ]
            more["position_ids"] = mx.stack(places, axis=1)
        return more

    def step_extras(self, rows: Sequence[Row | None]) -> dict[str, Any]:
        """Return what goes with one token of each row."""
        if not self.counts_in_three:
            return {}
        places = [0 if row is None else row.fed + _delta(row) for row in rows]
        position_ids = mx.broadcast_to(mx.array(places)[None, :, None], (AXES, len(rows), 1))
        return {"position_ids": position_ids}

    def draft_extras(self, row: Row, count: int) -> dict[str, Any]:
        """Return what goes with the next tokens of one row that decodes several at once."""
        if not self.counts_in_three:
            return {}
        return {"position_ids": _places(row, row.fed, count, count)[:, None]}


def _delta(row: Row) -> int:
    given = row.prompt_embeddings
    return 0 if given is None else int(given.delta)


def _places(row: Row, begin: int, count: int, width: int) -> Any:
    """Return the positions of a chunk, `(3, width)`, with zeros behind its end."""
    given = row.prompt_embeddings
    known = 0 if given is None else max(0, min(begin + count, given.length) - begin)
    parts = [] if not known else [given.positions[:, begin : begin + known]]
    after = mx.arange(begin + known, begin + count) + _delta(row)
    parts.append(mx.broadcast_to(after[None], (AXES, count - known)))
    parts.append(mx.zeros((AXES, width - count), after.dtype))
    return mx.concatenate([part.astype(mx.int32) for part in parts], axis=1)
