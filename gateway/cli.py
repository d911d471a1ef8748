"""The command line: `serve` and `chat`.

Standard output is data, everything said about it goes to standard error. An error is one line
that says what failed, then a hint that says what to do.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from enum import IntEnum
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.markup import escape

from gateway import __version__
from gateway.chat import chat_with
from gateway.server import Gateway
from gateway.settings import Settings
from provider.interface import AbstractLLMError, ModelLoadingError, ModelNotFoundError

__all__ = ["ExitStatus", "main"]

DEFAULTS = Settings()
errors = Console(stderr=True, highlight=False, soft_wrap=True)
app = typer.Typer(
    name="mlx-gateway",
    help="A WebSocket streaming gateway for language models that run on MLX.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class ExitStatus(IntEnum):
    """How the program ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    ADDRESS_IN_USE = 3
    NO_MODEL = 4
    NO_GATEWAY = 5
    INTERRUPTED = 130


class Failure(Exception):  # noqa: N818 - what the user is told, not an error of ours
    """Something that ends the program with a line, a hint and a status."""

    def __init__(self, message: str, hint: str, status: ExitStatus):
        super().__init__(message)
        self.hint = hint
        self.status = status


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    """Put a language model that runs on MLX behind a WebSocket."""
    if version:
        print(f"mlx-gateway {__version__}")  # noqa: T201 - this is the data
        raise typer.Exit


@app.command()
def serve(
    model: Annotated[
        Optional[str],
        typer.Option(help="A folder or a hub id. Default: the small model in the package."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = DEFAULTS.host,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")
    ] = DEFAULTS.port,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    provider: Annotated[str, typer.Option(help="mlx, or scripted: no model.", hidden=True)] = "mlx",
) -> None:
    """Serve a model, and a page to talk to it."""
    _set_up_logging(log_level)
    settings = Settings(host=host, port=port)
    _run(_serve(settings, _open_provider(provider, model), model))


@app.command()
def chat(
    url: Annotated[
        str, typer.Option(help="The gateway's address.")
    ] = f"http://{DEFAULTS.host}:{DEFAULTS.port}/",
    system: Annotated[
        Optional[str],
        typer.Option(help="A system prompt."),
    ] = None,
    temperature: Annotated[
        Optional[float],
        typer.Option(min=0.0, max=2.0, help="0 is greedy. Default: the gateway's."),
    ] = None,
    max_tokens: Annotated[
        Optional[int],
        typer.Option(min=1, help="The longest answer. Default: the gateway's."),
    ] = None,
) -> None:
    """Chat with a gateway that is running. Ctrl-C stops the answer, Ctrl-D ends the chat."""
    sampling = {"temperature": temperature, "max_tokens": max_tokens}
    given = {name: value for name, value in sampling.items() if value is not None}
    try:
        chat_with(url, system, given)
    except OSError:
        hint = "start one with `mlx-gateway serve`, or pass its address with `--url`"
        failure = Failure(f"no gateway at `{url}`", hint, ExitStatus.NO_GATEWAY)
        raise _tell(failure) from None


def main() -> None:
    """Run the command line; its exit status is an ExitStatus."""
    app()


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(work)
    except Failure as failure:
        raise _tell(failure) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitStatus.INTERRUPTED) from None


def _tell(failure: Failure) -> typer.Exit:
    errors.print(f"[bold red]error:[/] {escape(str(failure))}\n\n[dim]hint:[/] {failure.hint}")
    return typer.Exit(failure.status)


# serve -----------------------------------------------------------------------------------------


def _open_provider(kind: str, model: str | None) -> Any:
    if kind == "scripted":
        from provider.scripted import ScriptedProvider  # noqa: PLC0415

        return ScriptedProvider()
    # mlx takes a second to import; nothing but serving needs it.
    with errors.status("starting mlx"):
        from provider import MLXProvider  # noqa: PLC0415

    return MLXProvider({"model": model} if model else {})


async def _serve(settings: Settings, provider: Any, model: str | None) -> None:
    """Listen, load, say where, wait for a signal, stop."""
    stop = _stop_on_signals()
    gateway = Gateway(provider, settings)
    try:
        await gateway.__aenter__()
    except OSError as error:
        raise _address_failure(settings, error) from error
    try:
        with errors.status(f"loading {model or 'the model in the package'}"):
            await _load_or_stop(provider, stop)
        if not stop.is_set():
            print(f"Open {gateway.url}", flush=True)  # noqa: T201 - this is the data
        await stop.wait()
    finally:
        await gateway.close()
        await provider.aclose()


async def _load_or_stop(provider: Any, stop: asyncio.Event) -> None:
    loading = asyncio.ensure_future(provider.load())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not loading.done():
        loading.cancel()
        return
    try:
        loading.result()
    except ModelNotFoundError as error:
        hint = "give `--model` a folder, or the OWNER/NAME of a model on the hub"
        raise Failure(str(error), hint, ExitStatus.NO_MODEL) from error
    except ModelLoadingError as error:
        hint = "the folder must hold config.json, *.safetensors and tokenizer.json for mlx-lm"
        raise Failure(str(error), hint, ExitStatus.NO_MODEL) from error
    except AbstractLLMError as error:
        raise Failure(str(error), "see the log above", ExitStatus.FAILED) from error


def _stop_on_signals() -> asyncio.Event:
    """Return an event that the first SIGINT or SIGTERM sets; a second one ends at once."""
    stop = asyncio.Event()

    def handle() -> None:
        if stop.is_set():
            os._exit(ExitStatus.INTERRUPTED)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle)
    return stop


def _address_failure(settings: Settings, error: OSError) -> Failure:
    address = f"`{settings.host}:{settings.port}`"
    if error.errno == errno.EADDRINUSE:
        hint = "stop the other process, or pass `--port 0` to take a free one"
        return Failure(f"port already in use: {address}", hint, ExitStatus.ADDRESS_IN_USE)
    hint = "pass an address of this machine with `--host`, and a port that you may use"
    reason = error.strerror or str(error)
    return Failure(f"cannot listen on {address}: {reason}", hint, ExitStatus.FAILED)


def _set_up_logging(level: str) -> None:
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise typer.BadParameter("must be debug, info, warning or error", param_hint="--log-level")
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.WARNING, format=form, stream=sys.stderr)
    for name in ("gateway", "provider"):
        logging.getLogger(name).setLevel(number)
