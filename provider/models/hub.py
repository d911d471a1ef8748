"""Downloads, checks and lists models of the Hugging Face hub with the client huggingface_hub.

The client reconnects after a lost connection and continues the file there. After an interrupted
download it keeps the complete files. Its own settings HF_ENDPOINT, HF_TOKEN and HF_HOME determine
the hub's address, the token and the cache.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, scan_cache_dir, snapshot_download
from huggingface_hub import errors as hub_errors
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.utils.tqdm import tqdm

from provider.interface import (
    AbstractLLMError,
    HubUnreachableError,
    ModelLoadingError,
    ModelNotFoundError,
    ModelStorageError,
)

__all__ = [
    "HUB_ID",
    "CachedModel",
    "Tell",
    "cached",
    "check",
    "download",
    "holds_adapter",
    "holds_model",
    "incomplete",
]

Tell = Callable[[int, int], None]  # called with the bytes so far, and the total of the begun files

# Errors of a disk that name no file.
OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# The files of a model or adapter that mlx-lm reads; none of them is code.
PATTERNS = [
    "*.json",
    "model*.safetensors",
    "adapters.safetensors",
    "tokenizer.model",
    "*.tiktoken",
    "tiktoken.model",
    "*.txt",
    "*.jsonl",
    "*.jinja",
]


@dataclass(frozen=True)
class CachedModel:
    """A model in the hub's local cache; `size` is in bytes on disk."""

    id: str
    size: int
    path: Path


def download(model: str, *, token: str | None = None, tell: Tell | None = None) -> Path:
    """Return the folder of a model after downloading its missing files.

    `tell` is called with the progress, on the threads that download; an AbstractLLMError that it
    raises stops the download. Raises ModelNotFoundError, whose message says whether there is no
    such model or it needs a token, HubUnreachableError, and ModelStorageError if the files can't be
    kept here.
    """
    if not HUB_ID.fullmatch(model):
        raise ModelNotFoundError(model, "not a hub id of the form OWNER/NAME")
    try:
        bar = None if tell is None else _bar(tell)
        return Path(snapshot_download(model, allow_patterns=PATTERNS, token=token, tqdm_class=bar))
    except AbstractLLMError:
        raise
    except hub_errors.GatedRepoError as error:
        raise _not_found(model, "the hub requires a token with access to it", error) from error
    except hub_errors.RepositoryNotFoundError as error:
        said = "no such model on the hub, or one that needs a token"
        raise _not_found(model, said, error) from error
    except Exception as error:  # the HTTP client may raise errors of many classes
        if _is_of_disk(error):
            said = f"`{model}` cannot be kept in {HF_HUB_CACHE}: {error}"
            raise ModelStorageError(said, model_name=model, original_exception=error) from error
        said = "the hub cannot be reached"
        raise HubUnreachableError(model, said, original_exception=error) from error


def _is_of_disk(error: Exception) -> bool:
    """Return whether an error is about a file or a disk, and not about a connection."""
    return isinstance(error, OSError) and (error.filename is not None or error.errno in OF_DISKS)


def incomplete(model: str) -> set[Path]:
    """Return a model's incomplete files: of running downloads, and of killed processes.

    Each process writes files of its own and never continues those of another process.
    """
    folder = Path(HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"
    return set((folder / "blobs").glob("*.incomplete"))


def holds_model(path: Path) -> bool:
    """Return whether a folder has the files of a model that mlx-lm requires."""
    return (path / "config.json").is_file() and any(path.glob("model*.safetensors"))


def holds_adapter(path: Path) -> bool:
    """Return whether a folder has the files of an adapter that mlx-lm requires."""
    return all((path / name).is_file() for name in ("adapter_config.json", "adapters.safetensors"))


def check(model: str) -> int:
    """Compare a model's cached files with the hub's checksums; return the number of files.

    Raises ModelLoadingError with the names of damaged files, and HubUnreachableError.
    """
    try:
        found = HfApi().verify_repo_checksums(model)
    except Exception as error:  # the HTTP client may raise errors of many classes
        said = "the hub cannot be reached for its checksums"
        raise HubUnreachableError(model, said, original_exception=error) from error
    if found.mismatches:
        wrong = ", ".join(one["path"] for one in found.mismatches)
        said = f"`{model}` is damaged in the cache: {wrong}; delete it and pull it again"
        raise ModelLoadingError(said, model_name=model)
    return found.checked_count


def cached() -> list[CachedModel]:
    """Return the models in the local cache, the largest first; none if there is no cache."""
    try:
        repositories = scan_cache_dir().repos
    except hub_errors.CacheNotFound:
        return []
    models = [
        CachedModel(one.repo_id, one.size_on_disk, one.repo_path)
        for one in repositories
        if one.repo_type == "model"
    ]
    return sorted(models, key=lambda model: (-model.size, model.id))


def _bar(tell: Tell) -> type[Any]:
    """Return a class of progress bars that report to `tell`.

    The client makes one bar each for files, transferred bytes and written bytes; only the last one
    reports.
    """

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **more: Any):
            self.reports = more.get("unit") == "B" and "transfer" not in str(more.get("name"))
            self.bytes = 0
            super().__init__(*arguments, **more)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            super().update(n)
            if self.reports:
                with self.get_lock():
                    self.bytes += int(n or 0)
                    tell(self.bytes, int(self.total or 0))

    return Bar


def _not_found(model: str, said: str, error: Exception) -> ModelNotFoundError:
    return ModelNotFoundError(model, said, original_exception=error)
