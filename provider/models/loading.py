"""Loads a model's weights, tokenizer and image processor from its folder or its GGUF file."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provider.caches.kinds import is_always_trimmable
from provider.engine.model import LoadedModel, Loading, LoadProgress
from provider.formats.families import with_own_reading
from provider.interface import ModelLoadingError
from provider.models.dense_weights import become_dense, float_bytes, is_packed, unpack
from provider.models.gguf.header import Header, read_header
from provider.models.gguf.tokenizer import tokenizer_of_header
from provider.models.gguf.weights import UnreadModel, dense_bytes
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
    "header_of",
    "identity_of",
    "image_processor_of",
    "load",
    "loading",
    "tokenizer_of",
]


SAMPLE = 1 << 20  # bytes of weights in each sample of a model's identity

SLICE = 64 << 20  # bytes of weights that one step loads; other models may decode between steps

HALVES = (mx.float16, mx.bfloat16)

MAX_REASON = 300  # characters of an error's reason; some errors list every weight


def header_of(path: Path) -> Header | None:
    """Return the header of a GGUF file, None for a folder. Raises ModelLoadingError."""
    try:
        return read_header(path) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise _loading_error(path, error) from error


def tokenizer_of(path: Path, header: Header | None = None) -> Any:
    """Return a tokenizer for the calling thread. Raises ModelLoadingError.

    A GGUF file's `header` is read if it isn't given.
    """
    try:
        if path.is_file():
            return with_own_reading(tokenizer_of_header(header or read_header(path)))
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
    header: Header | None = None,
    dense_room: int = 0,
) -> Loading:
    """Load the weights on the calling thread, which must be the one that will use them.

    The generator loads in steps, between which other models may decode. It first yields the total
    size, before anything is loaded. On a CPU the weights become float32, because 16-bit types are
    more than ten times slower there; packed weights do so if all then take at most `dense_room`
    bytes. With an `adapter`, its weights (LoRA, DoRA) are applied to the model, and those of
    `base`, the same model without the adapter, are shared. A `draft` model is loaded too, and must
    have the same vocabulary. A given `tokenizer` belongs to the calling thread from now on. A GGUF
    file's `header` is read if it isn't given. Raises ModelLoadingError.
    """
    try:
        unread = _unread(path, header, base, dense_room)
        loaded = _loaded(unread, adapter, base, tokenizer)
        steps, total = unread.reading(base), unread.nbytes(base)
        if draft is not None:
            drafting = _unread(draft, None, None, dense_room - total)
            _add_draft(loaded, _loaded(drafting, None, None, None), path, draft)
            steps = itertools.chain(steps, drafting.reading(None))
            total += drafting.nbytes(None)
        loaded.weights = total
        yield LoadProgress(0, total)
        for done in itertools.accumulate(steps):
            yield LoadProgress(done, total)
    except ModelLoadingError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _loading_error(path, error) from error
    return loaded


def _add_draft(loaded: LoadedModel, drafting: LoadedModel, path: Path, draft: Path) -> None:
    if drafting.vocabulary != loaded.vocabulary:
        raise ModelLoadingError(
            f"`{draft.name}` cannot be the draft model of `{path.name}`: it has "
            f"{drafting.vocabulary} tokens instead of {loaded.vocabulary}",
            model_name=draft.name,
        )
    loaded.draft = drafting.model
    loaded.identity += drafting.identity


@dataclass(frozen=True)
class _Unread:
    """A model whose weights are not evaluated yet; those of a GGUF file are not even known."""

    path: Path
    model: Any
    config: dict[str, Any]
    gguf: UnreadModel | None = None

    def nbytes(self, base: LoadedModel | None) -> int:
        """Return the bytes of the weights without those of `base`."""
        return sum(int(array.nbytes) for array in self._own(base))

    def reading(self, base: LoadedModel | None) -> Iterator[int]:
        """Evaluate the weights in steps; yield the bytes of each."""
        if self.gguf is not None and base is None:
            yield from self.gguf.reading()
            mx.eval(self.model.parameters())
            return
        arrays = self._own(base)
        while arrays:
            part: list[Any] = []
            while arrays and (not part or sum(array.nbytes for array in part) < SLICE):
                part.append(arrays.pop())
            mx.eval(part)
            yield int(sum(array.nbytes for array in part))

    def _own(self, base: LoadedModel | None) -> list[Any]:
        shared = set() if base is None else {id(array) for array in _arrays(base.model)}
        return [array for array in _arrays(self.model) if id(array) not in shared]


def _unread(path: Path, header: Header | None, base: LoadedModel | None, room: int) -> _Unread:
    """Return a model; mlx-vlm makes it if it supports the model's images."""
    if path.is_file():
        header = header or read_header(path)
        unread = UnreadModel(header, dense=_is_dense_gguf(header, base, room))
        return _Unread(path, unread.model, unread.config, unread)
    made = load_vision_model(path) if supports_images(path) else load_model(path, lazy=True)
    model, config = made
    if on_cpu():
        model.apply(_as_fast_float)
    if is_packed(model) and _becomes_dense(path, base, float_bytes(model), room):
        unpack(model)
    return _Unread(path, model, config)


def _is_dense_gguf(header: Header, base: LoadedModel | None, room: int) -> bool:
    nbytes = dense_bytes(header)
    return nbytes is not None and _becomes_dense(header.path, base, nbytes, room)


def _becomes_dense(path: Path, base: LoadedModel | None, nbytes: int, room: int) -> bool:
    """Return whether packed weights become floats: as those of `base`, else if there is room."""
    if base is not None:
        return not is_packed(base.model)
    return become_dense(path.name, nbytes, room)


def _as_fast_float(array: Any) -> Any:
    return array.astype(mx.float32) if array.dtype in HALVES else array


def _loaded(
    unread: _Unread, adapter: Path | None, base: LoadedModel | None, tokenizer: Any
) -> LoadedModel:
    """Return a model with unevaluated weights, except for those that it shares with `base`."""
    model, path = unread.model, unread.path
    if base is not None:
        model.update(base.model.parameters())
    if adapter is not None:
        load_adapters(model, str(adapter))
    if on_cpu():
        model.apply(_as_fast_float)
    header = None if unread.gguf is None else unread.gguf.header
    tokenizer = tokenizer or tokenizer_of(path, header)
    text_config = unread.config.get("text_config") or unread.config
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        context_window=text_config.get("max_position_embeddings"),
        vocabulary=int(text_config.get("vocab_size") or len(tokenizer)),
        trimmable=is_always_trimmable(make_prompt_cache(model)),
        identity=identity_of(path) + (identity_of(adapter) if adapter is not None else ""),
    )


def _arrays(model: Any) -> list[Any]:
    return [array for _, array in tree_flatten(model.parameters())]


def identity_of(path: Path) -> str:
    """Return a digest of the configuration and of samples of each file of weights."""
    digest = hashlib.sha256(f"{mlx_lm_version} {on_cpu()}".encode())
    for config in ("config.json", "adapter_config.json"):
        if (path / config).is_file():
            digest.update((path / config).read_bytes())
    for weights in _files_of_weights(path):
        size = weights.stat().st_size
        digest.update(f"{weights.name} {size}".encode())
        with weights.open("rb") as file:
            for start in (0, size // 2, max(0, size - SAMPLE)):
                file.seek(start)
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def _files_of_weights(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted([*path.glob("model*.safetensors"), *path.glob("adapters*.safetensors")])


def _loading_error(path: Path, error: Exception) -> ModelLoadingError:
    said = " ".join(str(error).split()).replace(str(path), path.name) or type(error).__name__
    reason = said.partition(". ")[0].rstrip(".: ")[:MAX_REASON]
    return ModelLoadingError(
        f"`{path.name}` cannot be loaded: {reason}",
        model_name=path.name,
        original_exception=error,
    )
