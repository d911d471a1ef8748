"""The commands `models` and `pull`: list served and downloaded models, download one."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
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

from gateway.commands.failure import ExitStatus, Failure, address_given
from gateway.commands.provider_start import EXAMPLE, ROOM, missing_model
from gateway.protocol.address import without_token
from provider.interface import (
    HubUnreachableError,
    ModelLoadingError,
    ModelNotFoundError,
    ModelStorageError,
)
from provider.models import hub
from provider.wording import counted

__all__ = ["list_models", "pull_model"]

TIMEOUT_S = 5.0  # wait for a gateway that may not answer
OFFLINE = "check the network, and the variable `HF_ENDPOINT` if it is set"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def list_models(url: str, token: str | None, errors: Console) -> None:
    """Print the models that a running gateway serves, if any, and those in the local cache.

    The output is a table on a terminal and tab-separated elsewhere. Raises Failure if the gateway
    refuses the token.
    """
    served = _served(url, token)
    if served is None:
        errors.print(f"no gateway at {without_token(url)}", style="dim", markup=False)
    rows = [(one["id"], _state(one), "", _context(one)) for one in served or ()]
    rows += [(one.id, "in the cache", _size(one.size), "") for one in hub.cached()]
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))  # noqa: T201 - this is the data
        return
    if not rows:
        errors.print("no model was downloaded; `mlx-gateway pull OWNER/NAME` downloads one")
        return
    table = Table("model", "where", "size", "context", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def pull_model(model: str, errors: Console) -> None:
    """Download what is missing of a model, verify the hub's checksums, and print its folder.

    Raises Failure, also for a repository that holds neither a model for mlx-lm nor an adapter.
    """
    try:
        path = _download(model, errors)
        with errors.status("verifying checksums"):
            right = hub.check(model)
    except HubUnreachableError as error:
        raise Failure(missing_model(error), OFFLINE, ExitStatus.NO_MODEL) from error
    except ModelNotFoundError as error:
        hint = f"pass OWNER/NAME, such as `{EXAMPLE}`; a private or gated one wants `HF_TOKEN` set"
        raise Failure(missing_model(error), hint, ExitStatus.NO_MODEL) from error
    except ModelStorageError as error:
        raise Failure(str(error), ROOM, ExitStatus.NO_MODEL) from error
    except ModelLoadingError as error:
        hint = "delete the model from the cache with `hf cache rm`, and download it again"
        raise Failure(str(error), hint, ExitStatus.NO_MODEL) from error
    command = f"mlx-gateway serve {_argument(model, path)}"
    errors.print(f"verified {counted(right, 'file')}; `{command}` serves it", markup=False)
    print(path)  # noqa: T201 - this is the data


def _argument(model: str, path: Path) -> str:
    """Return the argument that serves a downloaded model. Raises Failure if it can't be served."""
    if hub.holds_model(path):
        return model
    if hub.holds_adapter(path):
        return f"--adapter NAME=BASE:{model}"
    said = f"`{model}` was downloaded but holds no model: no config.json and model*.safetensors"
    hint = "choose a model in MLX's format, such as those of mlx-community"
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
    """Make Ctrl-C end the process at once; the hub's client would first finish its files."""
    of_others = hub.incomplete(model)

    def end(number: int, frame: FrameType | None) -> None:
        progress.stop()
        for file in hub.incomplete(model) - of_others:
            file.unlink(missing_ok=True)
        errors.print("stopped; run the same command again to download the missing files")
        os._exit(ExitStatus.INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _served(url: str, token: str | None) -> list[dict[str, Any]] | None:
    """Return the models that a gateway serves, None if no gateway answers."""
    address = address_given(url)
    token = token or address.token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(address.page("/v1/models"), headers=headers)  # noqa: S310
    file = address.socket_file
    opener = urllib.request.build_opener(*([] if file is None else [_SocketFile(file)]))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            listed: list[dict[str, Any]] = json.load(answer)["data"]
            return listed
    except urllib.error.HTTPError as error:
        error.close()
        hint = "set the variable `MLX_GATEWAY_TOKEN` to a token that the gateway accepts"
        said = f"`{without_token(url)}` refused to list its models (HTTP {error.code})"
        raise Failure(said, hint, ExitStatus.UNAUTHORIZED) from error
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return None


class _SocketFile(urllib.request.HTTPHandler):
    """Opens HTTP on a socket file."""

    def __init__(self, path: str):
        super().__init__()
        self._path = path

    def http_open(self, req: urllib.request.Request) -> Any:
        """Return the answer to a request. Raises OSError."""
        return self.do_open(self._connection, req)  # type: ignore[arg-type]

    def _connection(self, host: str, *, timeout: float) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(host, timeout=timeout)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(timeout)
        try:
            connection.sock.connect(self._path)
        except OSError:
            connection.close()
            raise
        return connection


def _state(model: dict[str, Any]) -> str:
    state = "served, loaded" if model.get("loaded") else "served, loaded on demand"
    return f"{state}, adapter of {model['base']}" if model.get("base") else state


def _context(model: dict[str, Any]) -> str:
    window = model.get("context_window")
    return f"{window} tokens" if window else ""


def _size(nbytes: int) -> str:
    size, unit = float(nbytes), 0
    while size >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.{1 if unit else 0}f} {UNITS[unit]}"
