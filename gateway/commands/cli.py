"""The command line: `serve`, `config`, `models`, `pull`, `token` and `chat`.

Standard output carries data alone; messages go to standard error. An error is one line that says
what failed, followed by a hint that says what to do.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from rich.markup import escape

from gateway import __version__
from gateway.client import UnauthorizedError
from gateway.client.tool_loop import Toolbox
from gateway.commands import serve as serving
from gateway.commands.chat import ask_user, chat_with
from gateway.commands.conversation import attach
from gateway.commands.failure import STOPPED_EARLY, ExitStatus, Failure
from gateway.configuration import sources as configuration
from gateway.configuration.settings import ServeSettings, Settings
from gateway.configuration.sources import BadSetting, Setting, Value
from gateway.protocol.frames import Generate
from gateway.server import tokens as bearer
from provider.interface import FileProcessingError, InvalidParameterError
from provider.settings import EngineSettings

__all__ = ["run"]

DEFAULTS = Settings()
SETTINGS = configuration.settings(ServeSettings, Settings, EngineSettings)
# Other kinds are taken as texts and checked later.
FLAGS: dict[str, Any] = {"bool": bool, "list": list[str]}
METAVARS = {"bool": None, "list": "str"}
NOT_OF_A_CHAT = {  # fields that the chat sets itself, or whose results it can't show
    "continue_final_message",
    "id",
    "logprobs",
    "messages",
    "n",
    "prompt",
    "resumable",
    "stream",
    "system_prompt",
    "top_logprobs",
    "window",
}
OPTIONS = [  # fields of `generate` that a user may set with --option
    name for name in Generate.__struct_fields__ if name not in NOT_OF_A_CHAT
]
EPILOG = (
    "Every setting is a flag (`--write-timeout 30`), an environment variable "
    "(`MLX_GATEWAY_WRITE_TIMEOUT=30`) and a line of the file (`write_timeout = 30`). A flag wins "
    "over a variable, and a variable over the file. Sizes in bytes may be written as `512MiB`."
)
errors = Console(stderr=True, highlight=False, soft_wrap=True)
app = typer.Typer(
    name="mlx-gateway",
    help="Serve MLX language models over a WebSocket, and talk to them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Serve MLX language models over a WebSocket, and talk to them."""
    if version:
        print(f"mlx-gateway {__version__}")  # noqa: T201 - this is the data
        raise typer.Exit


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every setting, and pass their unchecked values to it as `flags`."""

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
        metavar="|".join(map(str, choices))
        if choices
        else METAVARS.get(setting.kind, setting.kind),
        help=escape(f"{setting.why[0].upper()}{setting.why[1:]}.{said}"),
        rich_help_panel=setting.group,
        show_default=False,
    )
    return inspect.Parameter(
        setting.field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[Optional[FLAGS.get(setting.kind, str)], option],
    )


ConfigFile = Annotated[
    Optional[Path],
    typer.Option(
        "--config",
        metavar="file",
        help="TOML file with settings; the variable `MLX_GATEWAY_CONFIG` may name it.",
        show_default=False,
    ),
]


@app.command(epilog=EPILOG)
@_with_settings
def serve(
    *,
    config_file: ConfigFile = None,
    provider: Annotated[
        str, typer.Option(help="mlx, or scripted for fixed answers without a model.", hidden=True)
    ] = "mlx",
    flags: dict[str, Any],
) -> None:
    """Serve models over a WebSocket, with a demo page to try them."""
    try:
        status = serving.serve(_in_force(flags, config_file), provider, errors)
    except Failure as failure:
        raise _tell(failure) from None
    except KeyboardInterrupt:
        errors.print(STOPPED_EARLY)
        raise typer.Exit(ExitStatus.INTERRUPTED) from None
    raise typer.Exit(status)


@app.command(epilog=EPILOG)
@_with_settings
def config(*, config_file: ConfigFile = None, flags: dict[str, Any]) -> None:
    """Print the settings in force, with where each comes from, as a TOML file for `--config`."""
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
        hint = "`mlx-gateway serve --help` explains every setting"
        raise _tell(Failure(str(error), hint, ExitStatus.USAGE)) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "pass `--config` the path of a readable TOML file"
        raise _tell(Failure(f"`{name}`: {reason}", hint, ExitStatus.USAGE)) from None


Address = Annotated[str, typer.Option("--url", help="Address of the gateway.")]
ADDRESS = f"http://{DEFAULTS.host}:{DEFAULTS.port}/"


@app.command()
def models(url: Address = ADDRESS) -> None:
    """List the models that a running gateway serves, and those downloaded to the local cache."""
    token = os.environ.get(configuration.TOKEN_VARIABLE) or None
    try:
        catalogue().list_models(url, token, errors)
    except Failure as failure:
        raise _tell(failure) from None


@app.command()
def pull(
    model: Annotated[
        str, typer.Argument(help="Id on the Hugging Face hub, OWNER/NAME.", show_default=False)
    ],
) -> None:
    """Download what is missing of a model to the local cache, and verify its checksums."""
    try:
        catalogue().pull_model(model, errors)
    except Failure as failure:
        raise _tell(failure) from None
    except KeyboardInterrupt:
        errors.print("stopped")
        raise typer.Exit(ExitStatus.INTERRUPTED) from None


def catalogue() -> ModuleType:
    """Return the module of the hub's commands, whose client takes a while to import."""
    return importlib.import_module("gateway.commands.models")


SystemPrompt = Annotated[
    Optional[str],
    typer.Option(help="System prompt."),
]
Temperature = Annotated[
    Optional[float],
    typer.Option(
        min=0.0,
        max=2.0,
        help="Sampling temperature; 0 takes the likeliest token. Default: the gateway's.",
    ),
]
MaxTokens = Annotated[
    Optional[int],
    typer.Option(min=1, help="Length limit of an answer, in tokens. Default: the gateway's."),
]
ToolFile = Annotated[
    Optional[Path],
    typer.Option(
        metavar="file.py",
        help="Python file to run, whose functions the model may call.",
        show_default=False,
    ),
]
Attached = Annotated[
    Optional[list[Path]],
    typer.Option(
        "--file",
        "-f",
        metavar="PATH",
        help="Text file, or image for a vision model, to send with the first message; "
        "may be repeated.",
        show_default=False,
    ),
]
OtherOptions = Annotated[
    Optional[list[str]],
    typer.Option(
        "--option",
        "-o",
        metavar="NAME=VALUE",
        help="Another field of the protocol's `generate`, such as `-o top_p=0.9`; the value is "
        "JSON, or else a text; may be repeated.",
    ),
]


@app.command()
def chat(
    url: Address = ADDRESS,
    system: SystemPrompt = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    tools: ToolFile = None,
    file: Attached = None,
    option: OtherOptions = None,
) -> None:
    """Chat with a running gateway. Ctrl-C stops an answer, Ctrl-D ends the chat."""
    sampling = {"temperature": temperature, "max_tokens": max_tokens}
    given = {name: value for name, value in sampling.items() if value is not None}
    given |= dict(_option(text) for text in option or ())
    toolbox = _toolbox(tools, given.pop("tools", None) or [])
    token = os.environ.get(configuration.TOKEN_VARIABLE) or None
    try:
        answered = chat_with(url, system, given, token, toolbox, _attachments(file or []))
    except UnauthorizedError:
        what = "another token" if token else "a token"
        hint = f"put it into the variable `{configuration.TOKEN_VARIABLE}`"
        failure = Failure(f"`{url}` wants {what}", hint, ExitStatus.UNAUTHORIZED)
        raise _tell(failure) from None
    except OSError:
        hint = "start one with `mlx-gateway serve`, or pass its address with `--url`"
        failure = Failure(f"no gateway at `{url}`", hint, ExitStatus.NO_GATEWAY)
        raise _tell(failure) from None
    if not answered:
        raise typer.Exit(ExitStatus.FAILED)


def _attachments(files: list[Path]) -> list[dict[str, Any]]:
    try:
        return attach(files)
    except FileProcessingError as error:
        hint = "`--file` takes text files and images"
        raise _tell(Failure(str(error), hint, ExitStatus.USAGE)) from None


def _toolbox(file: Path | None, definitions: Any) -> Toolbox:
    """Return the tools of a chat; calls of those without a function are answered by the user."""
    ask = ask_user if sys.stdin.isatty() else None
    more = definitions if isinstance(definitions, list) else [definitions]
    hint = "pass `--tools` a Python file of functions with annotations and docstrings"
    try:
        return Toolbox(more, ask) if file is None else Toolbox.from_file(file, ask, more)
    except OSError as error:
        failure = Failure(f"`{file}`: {error.strerror}", hint, ExitStatus.USAGE)
    except InvalidParameterError as error:
        failure = Failure(str(error), hint, ExitStatus.USAGE)
    except Exception as error:  # noqa: BLE001 - whatever the file raises
        failure = Failure(f"`{file}`: {type(error).__name__}: {error}", hint, ExitStatus.USAGE)
    raise _tell(failure)


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or name not in OPTIONS:
        near = difflib.get_close_matches(name, OPTIONS, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"options are {', '.join(OPTIONS)}"
        failure = Failure(f"`--option {text}`: no such option", hint, ExitStatus.USAGE)
        raise _tell(failure)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


token_app = typer.Typer(no_args_is_help=True, help="Make access tokens.", rich_markup_mode="rich")
app.add_typer(token_app, name="token")


@token_app.callback()
def token() -> None:
    """Make access tokens for a gateway."""


@token_app.command()
def new(
    name: Annotated[
        str,
        typer.Argument(help="Name of the token's owner, for logs and limits.", show_default=False),
    ],
    file: Annotated[
        Path,
        typer.Option(
            help="Token file to add the digest to; pass the same to `serve --token-file`."
        ),
    ] = Path("tokens.toml"),
    days: Annotated[
        Optional[float],
        typer.Option(min=0.001, max=36500, help="Days until the token expires. Default: never."),
    ] = None,
) -> None:
    """Make a token, print it once, and add its digest to a token file.

    A running gateway reads the file again on SIGHUP.
    """
    secret = bearer.new_secret()
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    try:
        before = file.read_text("utf-8") if file.exists() else ""
        after = f"{before.rstrip()}\n\n{bearer.as_toml(name, secret, expires)}".lstrip()
        bearer.Tokens(bearer.from_file(after, str(file)))
        _write_private(file, after)
    except bearer.BadTokens as error:
        hint = "choose another name, or repair the file"
        raise _tell(Failure(str(error), hint, ExitStatus.USAGE)) from None
    except OSError as error:
        hint = "pass `--file` a path that you can write to"
        raise _tell(Failure(f"`{file}`: {error.strerror}", hint, ExitStatus.FAILED)) from None
    print(secret)  # noqa: T201 - this is the data


def _write_private(file: Path, text: str) -> None:
    """Write a file atomically, readable by its owner alone."""
    beside = file.with_name(f".{file.name}.new")
    beside.touch(mode=0o600)
    beside.write_text(text, "utf-8")
    beside.replace(file)


def run() -> None:
    """Run the command line; its exit status is an ExitStatus."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # this command line shows its own
    app(prog_name="mlx-gateway")


def _tell(failure: Failure) -> typer.Exit:
    errors.print(f"[bold red]error:[/] {escape(str(failure))}\n\n[dim]hint:[/] {failure.hint}")
    return typer.Exit(failure.status)
