"""Finds the files of a model: the package's, a given folder or file, or a download of the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from provider.embedded import MODEL_PATH
from provider.interface import ModelLoadingError, ModelNotFoundError
from provider.models.gguf.header import is_gguf
from provider.models.hub import HUB_ID, Tell, download

__all__ = [
    "EMBEDDED",
    "ModelSource",
    "model_name",
    "resolve",
    "resolve_adapter",
]


@dataclass(frozen=True)
class ModelSource:
    """The source of a model: `path` is a folder, a GGUF file or a hub id, None for the package's.

    For an adapter, `base` is the name of its base model, and `adapter` its own folder or hub id.
    `draft` is the folder or hub id of a draft model.
    """

    name: str
    path: str | None
    draft: str | None = None
    base: str | None = None
    adapter: str | None = None


EMBEDDED = "embedded"  # the name of the model in the package


def model_name(model: str | None) -> str:
    """Return the name under which a model is served: its hub id, or its folder's or file's name."""
    if model is None or model == EMBEDDED:
        return EMBEDDED
    path = _local(model)
    if path is None:
        return model
    path = path.resolve()
    return path.name.removesuffix(".gguf") if path.is_file() else path.name


def _local(name: str) -> Path | None:
    """Return `name` as a path if such a path exists, else None."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    # The name is too long, has invalid characters, or there is no home folder.
    except (OSError, RuntimeError, ValueError):
        return None


def _downloaded(name: str, tell: Tell | None) -> Path:
    """Return the folder of a hub id; the hub is not asked for what can only be a path."""
    if name.endswith(".gguf"):
        raise ModelNotFoundError(name, "there is no such file")
    if not HUB_ID.fullmatch(name) or name.startswith("."):
        told = "there is no such folder"
        no_id = ", and it is not a hub id of the form OWNER/NAME"
        raise ModelNotFoundError(name, told if "/" in name else told + no_id)
    return download(name, tell=tell)


def resolve(model: str | None, tell: Tell | None = None) -> Path:
    """Return the folder of a model, or its GGUF file; a hub id is downloaded first, see `download`.

    Raises ModelNotFoundError if there is none, ModelLoadingError if the folder has no model.
    """
    if model is None or model == EMBEDDED:
        return MODEL_PATH
    path = _local(model) or _downloaded(model, tell)
    if path.is_file():
        if not is_gguf(path):
            raise ModelLoadingError(f"`{model}` is no GGUF file, and no folder", model_name=model)
        return path
    if not path.is_dir() or not (path / "config.json").is_file():
        raise ModelLoadingError(
            f"`{model}` is not a model: it has no config.json", model_name=model
        )
    if not any(path.glob("model*.safetensors")):
        raise ModelLoadingError(f"`{model}` has no weights: no *.safetensors", model_name=model)
    return path


def resolve_adapter(adapter: str, tell: Tell | None = None) -> Path:
    """Return the folder of an adapter; a hub id is downloaded first, see `download`.

    Raises ModelNotFoundError if there is none, ModelLoadingError if the folder has no adapter.
    """
    path = _local(adapter) or _downloaded(adapter, tell)
    for name in ("adapter_config.json", "adapters.safetensors"):
        if not (path / name).is_file():
            said = f"`{adapter}` is not an adapter: it has no {name}"
            raise ModelLoadingError(said, model_name=adapter)
    return path
