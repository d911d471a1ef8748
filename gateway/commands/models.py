"""The commands about models: which are served, which are in the local cache, getting one more."""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from gateway.commands.failure import ExitStatus, Failure
from provider.interface import ModelLoadingError, ModelNotFoundError
from provider.models import hub

__all__ = ["list_models", "pull_model"]

TIMEOUT_S = 5.0  # for a gateway that may not be there
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def list_models(url: str, token: str | None, errors: Console) -> None:
    """Print the models that a gateway serves, if there is one, and those in the hub's cache.

    As a table on a terminal, with tabs between elsewhere. Raises Failure if the gateway wants
    another token.
    """
    served = _served(url, token)
    if served is None:
        errors.print(f"[dim]no gateway at {url}[/]")
    rows = [(one["id"], _state(one), "", _context(one)) for one in served or ()]
    rows += [(one.id, "in the cache", _size(one.size), "") for one in hub.cached()]
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))  # noqa: T201 - this is the data
        return
    table = Table("model", "where", "size", "context", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def pull_model(model: str, errors: Console) -> None:
    """Download a model, or what is missing of it, and compare it with the hub's checksums.

    Prints its folder. Raises Failure, also where it is neither a model for mlx-lm nor an adapter.
    """
    try:
        path = _download(model, errors)
        with errors.status("comparing checksums"):
            right = hub.check(model)
    except ModelNotFoundError as error:
        hint = "is the id right? a model that needs a token wants it in the variable `HF_TOKEN`"
        raise Failure(str(error), hint, ExitStatus.NO_MODEL) from error
    except ModelLoadingError as error:
        hint = "`hf cache rm` deletes a model from the cache"
        raise Failure(str(error), hint, ExitStatus.NO_MODEL) from error
    errors.print(f"{right} files are there and right; serve it with {_flag(model, path)}")
    print(path)  # noqa: T201 - this is the data


def _flag(model: str, path: Path) -> str:
    """Return how it is served. Raises Failure if it can't be."""
    if hub.holds_model(path):
        return f"--model {model}"
    if hub.holds_adapter(path):
        return f"--adapter NAME=BASE:{model}"
    said = f"`{model}` was downloaded, and holds no model: no config.json with model*.safetensors"
    hint = "look for one in MLX's format, as those of mlx-community are"
    raise Failure(said, hint, ExitStatus.NO_MODEL)


def _download(model: str, errors: Console) -> Path:
    columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn()]
    columns += [TransferSpeedColumn(), TimeRemainingColumn()]
    progress = Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)
    with progress, _ending_at_once(model, progress, errors):
        task = progress.add_task(model, total=None)
        return hub.download(
            model, tell=lambda done, total: progress.update(task, completed=done, total=total)
        )


@contextmanager
def _ending_at_once(model: str, progress: Progress, errors: Console) -> Iterator[None]:
    """Let Ctrl-C end the process now; the hub's client would first come to the end of its files."""
    of_others = hub.incomplete(model)

    def end(number: int, frame: FrameType | None) -> None:
        progress.stop()
        for file in hub.incomplete(model) - of_others:
            file.unlink(missing_ok=True)
        errors.print("stopped; the same command gets the files that are missing")
        os._exit(ExitStatus.INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _served(url: str, token: str | None) -> list[dict[str, Any]] | None:
    """Return what a gateway says of its models, None if there is none."""
    base = url if "://" in url else f"http://{url}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{base.rstrip('/')}/v1/models", headers=headers)  # noqa: S310 - the user's own
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            listed: list[dict[str, Any]] = json.load(answer)["data"]
            return listed
    except urllib.error.HTTPError as error:
        hint = "put a token into the variable `MLX_GATEWAY_TOKEN`"
        said = f"`{url}` answers {error.code}"
        raise Failure(said, hint, ExitStatus.UNAUTHORIZED) from error
    except (OSError, ValueError, KeyError):
        return None


def _state(model: dict[str, Any]) -> str:
    state = "served, loaded" if model.get("loaded") else "served, loads when asked for"
    return f"{state}, an adapter of {model['base']}" if model.get("base") else state


def _context(model: dict[str, Any]) -> str:
    window = model.get("context_window")
    return f"{window} tokens" if window else ""


def _size(nbytes: int) -> str:
    size, unit = float(nbytes), 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.{1 if unit else 0}f} {UNITS[unit]}"
