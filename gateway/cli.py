"""The command line: `serve`, `config` and `chat`.

Standard output is data, everything said about it goes to standard error. An error is one line
that says what failed, then a hint that says what to do.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import fields
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.markup import escape

from gateway import __version__, configuration
from gateway.chat import chat_with
from gateway.configuration import BadSetting, Setting, Value
from gateway.server import Gateway
from gateway.settings import ServeSettings, Settings
from provider.interface import AbstractLLMError, ModelLoadingError, ModelNotFoundError
from provider.settings import EngineSettings

__all__ = ["ExitStatus", "main"]

DEFAULTS = Settings()
SETTINGS = configuration.settings(ServeSettings, Settings, EngineSettings)
EPILOG = (
    "Every setting is also a variable, `--write-timeout` as `MLX_GATEWAY_WRITE_TIMEOUT`, and a "
    "line of the file, as `write_timeout = 30`. A flag wins over a variable, a variable over the "
    "file. Bytes may be given as `512MiB`."
)
errors = Console(stderr=True, highlight=False, soft_wrap=True)
app = typer.Typer(
    name="mlx-gateway",
    help="A WebSocket streaming gateway for language models that run on MLX.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
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


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every setting; it gets what was given as `flags`, unchecked."""

    def flagged(**given: Any) -> None:
        own = {
            name: given.pop(name) for name in inspect.signature(command).parameters if name in given
        }
        command(flags=given, **own)

    parameters = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.name != "flags"
    ]
    parameters += [_flag(setting) for setting in SETTINGS]
    flagged.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flagged.__annotations__ = {one.name: one.annotation for one in parameters}
    flagged.__name__, flagged.__doc__ = command.__name__, command.__doc__
    return flagged


def _flag(setting: Setting) -> inspect.Parameter:
    choices = setting.field.metadata.get("choices")
    said = f" [default: {setting.default}]" if setting.default else ""
    option = typer.Option(
        setting.flag,
        metavar="|".join(map(str, choices)) if choices else setting.kind,
        help=escape(f"{setting.why[0].upper()}{setting.why[1:]}.{said}"),
        rich_help_panel=setting.group,
        show_default=False,
    )
    return inspect.Parameter(
        setting.field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[Optional[str], option],
    )


ConfigFile = Annotated[
    Optional[Path],
    typer.Option("--config", metavar="file", help="A TOML file of settings.", show_default=False),
]


@app.command(epilog=EPILOG)
@_with_settings
def serve(
    *,
    config_file: ConfigFile = None,
    provider: Annotated[str, typer.Option(help="mlx, or scripted: no model.", hidden=True)] = "mlx",
    flags: dict[str, Any],
) -> None:
    """Serve a model, and a page to talk to it."""
    values = _in_force(flags, config_file)
    _set_up_logging(values["log_level"].value)
    settings = configuration.build(Settings, values)
    _run(_serve(settings, _open_provider(provider, values), values["model"].value))


@app.command(epilog=EPILOG)
@_with_settings
def config(*, config_file: ConfigFile = None, flags: dict[str, Any]) -> None:
    """Print the settings in force, and where each comes from, as a file for `--config`."""
    for line in configuration.as_toml(SETTINGS, _in_force(flags, config_file)):
        print(line)  # noqa: T201 - this is the data


def _in_force(flags: dict[str, Any], config_file: Path | None) -> dict[str, Value]:
    given = config_file or os.environ.get(configuration.CONFIG_VARIABLE) or None
    name = "" if given is None else str(given)
    try:
        file = configuration.read_file(Path(name).read_text("utf-8"), name) if name else {}
        return configuration.resolve(
            SETTINGS, flags=flags, environment=os.environ, file=file, file_name=name
        )
    except BadSetting as error:
        hint = "`mlx-gateway config` prints the settings in force"
        raise _tell(Failure(str(error), hint, ExitStatus.USAGE)) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "give `--config` a TOML file that can be read"
        raise _tell(Failure(f"`{name}`: {reason}", hint, ExitStatus.USAGE)) from None


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


def _open_provider(kind: str, values: dict[str, Value]) -> Any:
    if kind == "scripted":
        from provider.scripted import ScriptedProvider  # noqa: PLC0415

        return ScriptedProvider()
    # mlx takes a second to import; nothing but serving needs it.
    with errors.status("starting mlx"):
        from provider import MLXProvider  # noqa: PLC0415

    names = ["model", "draft_model", *(field.name for field in fields(EngineSettings))]
    given = {name: values[name].value for name in names}
    return MLXProvider({name: value for name, value in given.items() if value is not None})


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
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.WARNING, format=form, stream=sys.stderr)
    for name in ("gateway", "provider"):
        logging.getLogger(name).setLevel(level.upper())
