"""Finding a model and loading it: the embedded one, a folder, or one from the hub."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import errors as hub_errors
from mlx_lm import __version__ as mlx_lm_version
from mlx_lm.models.cache import KVCache, make_prompt_cache
from mlx_lm.utils import _download, load_config, load_model, load_tokenizer

from provider.backend import mx, on_cpu
from provider.embedded import MODEL_PATH
from provider.interface import ModelLoadingError, ModelNotFoundError

__all__ = ["EMBEDDED", "LoadedModel", "ModelFacts", "load", "model_name", "resolve", "tokenizer_of"]

SAMPLE = 1 << 20  # bytes of weights that tell two models apart
EMBEDDED = "embedded"  # the name of the model in the package
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class ModelFacts:
    """What other threads need to know of a model; it holds no weights."""

    context_window: int | None  # tokens, None if the model's configuration does not say
    trimmable: bool  # whether a cache can be cut back to any of its beginnings
    vocabulary: int  # entries


@dataclass
class LoadedModel:
    """A model on the MLX thread, with the tokenizer instance that belongs to that thread."""

    model: Any
    tokenizer: Any
    context_window: int | None  # tokens, None if the model's configuration does not say
    vocabulary: int  # entries
    trimmable: bool  # whether a cache can be cut back to any of its beginnings
    identity: str = ""  # of the weights and what else decides what a KV cache holds
    draft: Any = None  # a smaller model that proposes tokens

    @property
    def facts(self) -> ModelFacts:
        """What other threads may know."""
        return ModelFacts(self.context_window, self.trimmable, self.vocabulary)


def model_name(model: str | None) -> str:
    """Return the name under which a model is served: its hub id, or its folder's name."""
    if model is None or model == EMBEDDED:
        return EMBEDDED
    path = Path(model)
    return path.resolve().name if path.exists() else model


def resolve(model: str | None) -> Path:
    """Return the folder of a model, downloading one that is named by its hub id.

    Raises ModelNotFoundError if there is none, ModelLoadingError if the folder holds no model.
    """
    if model is None or model == EMBEDDED:
        return MODEL_PATH
    local = Path(model).expanduser()
    path = local if local.exists() else _from_hub(model)
    if not path.is_dir() or not (path / "config.json").is_file():
        raise ModelLoadingError(f"`{model}` is no model: it has no config.json", model_name=model)
    if not any(path.glob("model*.safetensors")):
        raise ModelLoadingError(f"`{model}` has no weights: no *.safetensors", model_name=model)
    return path


def _from_hub(model: str) -> Path:
    if not HUB_ID.fullmatch(model):
        raise ModelNotFoundError(model, "no such folder, and not the form of a hub id, OWNER/NAME")
    try:
        return Path(_download(model))
    except hub_errors.GatedRepoError as error:
        raise ModelNotFoundError(
            model, "the hub asks for a token that may read it", original_exception=error
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            model, "no such folder, and no such model on the hub", original_exception=error
        ) from error
    except Exception as error:  # whatever the HTTP client below the hub's raises
        raise ModelNotFoundError(
            model, "no such folder, and the hub cannot be reached", original_exception=error
        ) from error


def tokenizer_of(path: Path) -> Any:
    """Return a tokenizer for the calling thread. Raises ModelLoadingError."""
    try:
        return load_tokenizer(path, eos_token_ids=load_config(path).get("eos_token_id"))
    except Exception as error:
        raise _loading_error(path, error) from error


def load(path: Path, draft: Path | None = None) -> LoadedModel:
    """Load the weights on the calling thread, which must be the one that will use them.

    On a CPU they become float32: 16 bits are more than ten times slower there. A `draft` is loaded
    too; its tokens must be the model's.
    Raises ModelLoadingError.
    """
    loaded = _load(path)
    if draft is not None:
        second = _load(draft)
        if second.vocabulary != loaded.vocabulary:
            raise ModelLoadingError(
                f"`{draft.name}` cannot draft for `{path.name}`: it knows {second.vocabulary} "
                f"tokens, and not {loaded.vocabulary}",
                model_name=draft.name,
            )
        loaded.draft = second.model
        loaded.identity += second.identity
    return loaded


def _load(path: Path) -> LoadedModel:
    try:
        model, config = load_model(path)
        tokenizer = tokenizer_of(path)
        if on_cpu():
            model.set_dtype(mx.float32)
        mx.eval(model.parameters())
    except ModelLoadingError:
        raise
    except Exception as error:
        raise _loading_error(path, error) from error
    text_config = config.get("text_config") or config
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        context_window=text_config.get("max_position_embeddings"),
        vocabulary=int(text_config.get("vocab_size") or len(tokenizer)),
        trimmable=all(type(cache) is KVCache for cache in make_prompt_cache(model)),
        identity=_identity(path),
    )


def _identity(path: Path) -> str:
    """Return a digest of a model's configuration, and of its weights by samples of each file."""
    digest = hashlib.sha256(f"{mlx_lm_version} {on_cpu()}".encode())
    digest.update((path / "config.json").read_bytes())
    for weights in sorted(path.glob("model*.safetensors")):
        size = weights.stat().st_size
        digest.update(f"{weights.name} {size}".encode())
        with weights.open("rb") as file:
            for start in (0, size // 2, max(0, size - SAMPLE)):
                file.seek(start)
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def _loading_error(path: Path, error: Exception) -> ModelLoadingError:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(": ")
    return ModelLoadingError(
        f"`{path.name}` cannot be loaded: {reason}",
        model_name=path.name,
        original_exception=error,
    )
