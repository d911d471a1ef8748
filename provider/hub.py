"""Models on the hub, by huggingface_hub's own client: downloaded, checked, listed.

A download that was cut off goes on where it was. Where the hub is and which token is shown to it
are that client's settings: HF_ENDPOINT, HF_TOKEN, HF_HOME.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, scan_cache_dir, snapshot_download
from huggingface_hub import errors as hub_errors

from provider.interface import ModelLoadingError, ModelNotFoundError

__all__ = ["HUB_ID", "CachedModel", "cached", "check", "download"]

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# What mlx-lm reads of a model, and of an adapter; code is not among it.
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
    """A model in the local cache of the hub; `size` in bytes on disk."""

    id: str
    size: int
    path: Path


def download(model: str, *, token: str | None = None) -> Path:
    """Return the folder of a model, downloading what is not there.

    Raises ModelNotFoundError, which says whether there is none, or it needs a token, or the hub
    cannot be reached.
    """
    if not HUB_ID.fullmatch(model):
        raise ModelNotFoundError(model, "no such folder, and not the form of a hub id, OWNER/NAME")
    try:
        return Path(snapshot_download(model, allow_patterns=PATTERNS, token=token))
    except hub_errors.GatedRepoError as error:
        raise _not_found(model, "the hub asks for a token that may read it", error) from error
    except hub_errors.RepositoryNotFoundError as error:
        said = "no such folder, and no such model on the hub, or one that needs a token"
        raise _not_found(model, said, error) from error
    except Exception as error:  # whatever the HTTP client below the hub's raises
        said = "no such folder, and the hub cannot be reached"
        raise _not_found(model, said, error) from error


def check(model: str) -> int:
    """Compare a model's files in the cache with the hub's checksums; return how many are right.

    Raises ModelLoadingError, which names those that are not, ModelNotFoundError if the hub can't
    be asked.
    """
    try:
        found = HfApi().verify_repo_checksums(model)
    except Exception as error:  # whatever the HTTP client below the hub's raises
        raise _not_found(model, "the hub cannot be asked for its checksums", error) from error
    if found.mismatches:
        wrong = ", ".join(one["path"] for one in found.mismatches)
        said = f"`{model}` is damaged in the cache: {wrong}; delete it and pull it again"
        raise ModelLoadingError(said, model_name=model)
    return found.checked_count


def cached() -> list[CachedModel]:
    """Return the models in the local cache, the largest first; none where there is no cache."""
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


def _not_found(model: str, said: str, error: Exception) -> ModelNotFoundError:
    return ModelNotFoundError(model, said, original_exception=error)
