"""Where a model comes from: the package, a folder, or the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from provider.embedded import MODEL_PATH
from provider.interface import ModelLoadingError
from provider.models.hub import Tell, download

__all__ = [
    "EMBEDDED",
    "ModelSource",
    "model_name",
    "resolve",
    "resolve_adapter",
]


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: a folder or a hub id, None for the model in the package.

    An adapter has a `base`, the name of another model, and its own `adapter` folder or hub id.
    """

    name: str
    path: str | None
    draft: str | None = None
    base: str | None = None
    adapter: str | None = None


EMBEDDED = "embedded"  # the name of the model in the package


def model_name(model: str | None) -> str:
    """Return the name under which a model is served: its hub id, or its folder's name."""
    if model is None or model == EMBEDDED:
        return EMBEDDED
    path = _local(model)
    return model if path is None else path.resolve().name


def _local(name: str) -> Path | None:
    """Return the existing path of that name, None if there is none."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    # A name that is too long, no home folder, or invalid characters.
    except (OSError, RuntimeError, ValueError):
        return None


def resolve(model: str | None, tell: Tell | None = None) -> Path:
    """Return the folder of a model, downloading one that is named by its hub id; see `download`.

    Raises ModelNotFoundError if there is none, ModelLoadingError if the folder holds no model.
    """
    if model is None or model == EMBEDDED:
        return MODEL_PATH
    path = _local(model) or download(model, tell=tell)
    if not path.is_dir() or not (path / "config.json").is_file():
        raise ModelLoadingError(
            f"`{model}` is not a model: it has no config.json", model_name=model
        )
    if not any(path.glob("model*.safetensors")):
        raise ModelLoadingError(f"`{model}` has no weights: no *.safetensors", model_name=model)
    return path


def resolve_adapter(adapter: str, tell: Tell | None = None) -> Path:
    """Return the folder of an adapter, downloading one that is named by its hub id; see `download`.

    Raises ModelNotFoundError if there is none, ModelLoadingError if the folder holds no adapter.
    """
    path = _local(adapter) or download(adapter, tell=tell)
    for name in ("adapter_config.json", "adapters.safetensors"):
        if not (path / name).is_file():
            said = f"`{adapter}` is not an adapter: it has no {name}"
            raise ModelLoadingError(said, model_name=adapter)
    return path
