"""Loads a model's weights, tokenizer and image processor from its folder."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

from provider.caches.kinds import is_always_trimmable
from provider.engine.model import LoadedModel, Loading, LoadProgress
from provider.formats.families import with_own_reading
from provider.interface import ModelLoadingError
from provider.models.vision import ImageProcessor, load_vision_model, supports_images
from provider.runtime.mlx import mx, on_cpu, tree_flatten
from provider.runtime.mlx_lm import (
    load_adapters,
    load_config,
    load_model,
    load_tokenizer,
    make_prompt_cache,
)
from provider.runtime.mlx_lm import version as mlx_lm_version

__all__ = [
    "image_processor_of",
    "load",
    "loading",
    "tokenizer_of",
]


SAMPLE = 1 << 20  # bytes of weights in each sample of a model's identity

SLICE = 64 << 20  # bytes of weights that one step loads; other models may decode between steps

HALVES = (mx.float16, mx.bfloat16)

MAX_REASON = 300  # characters of an error's reason; some errors list every weight


def tokenizer_of(path: Path) -> Any:
    """Return a tokenizer for the calling thread. Raises ModelLoadingError."""
    try:
        ends = load_config(path).get("eos_token_id")
        return with_own_reading(load_tokenizer(path, eos_token_ids=ends))
    except Exception as error:
        raise _loading_error(path, error) from error


def image_processor_of(path: Path) -> ImageProcessor | None:
    """Return a model's image processor for the calling thread, None for a text model.

    Raises ModelLoadingError.
    """
    try:
        return ImageProcessor(path) if supports_images(path) else None
    except Exception as error:
        raise _loading_error(path, error) from error


def load(path: Path, draft: Path | None = None, **more: Any) -> LoadedModel:
    """Load a model in one go; arguments and errors are those of `loading`."""
    steps = loading(path, draft, **more)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def loading(
    path: Path,
    draft: Path | None = None,
    *,
    adapter: Path | None = None,
    base: LoadedModel | None = None,
    tokenizer: Any = None,
) -> Loading:
    """Load the weights on the calling thread, which must be the one that will use them.

    The generator loads in steps, between which other models may decode. It first yields the total
    size, before anything is loaded. On a CPU the weights become float32, because 16-bit types are
    more than ten times slower there. With an `adapter`, its weights (LoRA, DoRA) are applied to
    the model, and those of `base`, the same model without the adapter, are shared. A `draft` model
    is loaded too, and must have the same vocabulary. A given `tokenizer` belongs to the calling
    thread from now on. Raises ModelLoadingError.
    """
    try:
        loaded = _lazily_loaded(path, adapter, base, tokenizer)
        drafting = None if draft is None else _lazily_loaded(draft, None, None, None)
        if drafting is not None and draft is not None:
            _check_draft(path, draft, loaded, drafting)
            loaded.draft = drafting.model
            loaded.identity += drafting.identity
        models = [loaded.model] if drafting is None else [loaded.model, drafting.model]
        loaded.weights = yield from _evaluating(models, base)
    except ModelLoadingError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _loading_error(path, error) from error
    return loaded


def _check_draft(path: Path, draft: Path, loaded: LoadedModel, drafting: LoadedModel) -> None:
    if drafting.vocabulary != loaded.vocabulary:
        raise ModelLoadingError(
            f"`{draft.name}` cannot be the draft model of `{path.name}`: it has "
            f"{drafting.vocabulary} tokens instead of {loaded.vocabulary}",
            model_name=draft.name,
        )


def _lazily_loaded(
    path: Path, adapter: Path | None, base: LoadedModel | None, tokenizer: Any
) -> LoadedModel:
    """Return a model with unevaluated weights, except for those that it shares with `base`."""
    model, config = _built(path)
    if base is not None:
        model.update(base.model.parameters())
    if adapter is not None:
        load_adapters(model, str(adapter))
    if on_cpu():
        model.apply(lambda array: array.astype(mx.float32) if array.dtype in HALVES else array)
    tokenizer = tokenizer or tokenizer_of(path)
    text_config = config.get("text_config") or config
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        context_window=text_config.get("max_position_embeddings"),
        vocabulary=int(text_config.get("vocab_size") or len(tokenizer)),
        trimmable=is_always_trimmable(make_prompt_cache(model)),
        identity=_identity(path) + (_identity(adapter) if adapter is not None else ""),
    )


def _built(path: Path) -> tuple[Any, dict[str, Any]]:
    """Return a model and its configuration; mlx-vlm makes it if it supports the model's images."""
    if supports_images(path):
        return load_vision_model(path)
    return load_model(path, lazy=True)  # type: ignore[no-any-return]


def _evaluating(models: list[Any], base: LoadedModel | None) -> Generator[LoadProgress, None, int]:
    """Evaluate the weights slice by slice; return their size in bytes without those of `base`."""
    shared = set() if base is None else {id(array) for array in _arrays(base.model)}
    arrays = [array for model in models for array in _arrays(model) if id(array) not in shared]
    done, total = 0, int(sum(array.nbytes for array in arrays))
    yield LoadProgress(0, total)
    while arrays:
        part: list[Any] = []
        while arrays and (not part or sum(array.nbytes for array in part) < SLICE):
            part.append(arrays.pop())
        mx.eval(part)
        done += int(sum(array.nbytes for array in part))
        yield LoadProgress(done, total)
    return total


def _arrays(model: Any) -> list[Any]:
    return [array for _, array in tree_flatten(model.parameters())]


def _identity(path: Path) -> str:
    """Return a digest of the configuration and of samples of each file of weights."""
    digest = hashlib.sha256(f"{mlx_lm_version} {on_cpu()}".encode())
    for config in ("config.json", "adapter_config.json"):
        if (path / config).is_file():
            digest.update((path / config).read_bytes())
    for weights in sorted([*path.glob("model*.safetensors"), *path.glob("adapters*.safetensors")]):
        size = weights.stat().st_size
        digest.update(f"{weights.name} {size}".encode())
        with weights.open("rb") as file:
            for start in (0, size // 2, max(0, size - SAMPLE)):
                file.seek(start)
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def _loading_error(path: Path, error: Exception) -> ModelLoadingError:
    said = " ".join(str(error).split()).replace(str(path), path.name) or type(error).__name__
    reason = said.partition(". ")[0].rstrip(".: ")[:MAX_REASON]
    return ModelLoadingError(
        f"`{path.name}` cannot be loaded: {reason}",
        model_name=path.name,
        original_exception=error,
    )
