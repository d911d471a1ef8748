"""The command line: `serve`, `config`, `models`, `pull`, `token` and `chat`.

Standard output carries data alone; messages go to standard error. An error is one line that says
what failed, followed by a hint that says what to do.

A command imports what it needs when it runs: a server, a client and their libraries take several
times as long to import as all else, and the other commands and `--help` need none of them.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from gateway.commands.failure import STOPPED_EARLY, ExitStatus, Failure
from gateway.configuration import sources as configuration
from gateway.configuration.settings import ServeSettings, Settings
from gateway.configuration.sources import BadSetting, Setting, Value
from gateway.server import tokens as bearer
from provider.settings import EngineSettings

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["run"]

DEFAULTS = Settings()
SETTINGS = configuration.settings(ServeSettings, Settings, EngineSettings)
# Values of other kinds are taken as strings and checked later.
FLAGS: dict[str, Any] = {"bool": bool, "list": list[str]}
METAVARS = {"bool": None, "list": "str"}
EPILOG = (
    "Every setting is a flag (`--write-timeout 30`), an environment variable "
    "(`MLX_GATEWAY_WRITE_TIMEOUT=30`) and a line of the file (`write_timeout = 30`). A flag wins "
    "over a variable, and a variable over the file. Sizes in bytes may be written as `512MiB`."
)
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
        from gateway import __version__  # noqa: PLC0415

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
    said = (
        f" \\[default: {setting.default}]" if setting.default else ""
    )  # escaped, or rich would read a style
    option = typer.Option(
        setting.flag if setting.field.default is not True else _with_opposite(setting.flag),
        metavar="|".join(map(str, choices))
        if choices
        else METAVARS.get(setting.kind, setting.kind),
        help=f"{setting.why[0].upper()}{setting.why[1:]}.{said}",
        rich_help_panel=setting.group,
        show_default=False,
    )
    return inspect.Parameter(
        setting.field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[Optional[FLAGS.get(setting.kind, str)], option],
    )


def _with_opposite(flag: str) -> str:
    return f"{flag}/{flag.replace('--', '--no-', 1)}"


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
    from gateway.commands import serve as serving  # noqa: PLC0415

    try:
        status = serving.serve(_in_force(flags, config_file), provider, _errors())
    except Failure as failure:
        raise _tell(failure) from None
    except KeyboardInterrupt:
        _errors().print(STOPPED_EARLY)
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
    from gateway.commands.models import list_models  # noqa: PLC0415

    token = os.environ.get(configuration.TOKEN_VARIABLE) or None
    try:
        list_models(url, token, _errors())
    except Failure as failure:
        raise _tell(failure) from None


@app.command()
def pull(
    model: Annotated[
        str, typer.Argument(help="Id on the Hugging Face hub, OWNER/NAME.", show_default=False)
    ],
) -> None:
    """Download what is missing of a model to the local cache, and verify its checksums."""
    from gateway.commands.models import pull_model  # noqa: PLC0415

    try:
        pull_model(model, _errors())
    except Failure as failure:
        raise _tell(failure) from None
    except KeyboardInterrupt:
        _errors().print("stopped")
        raise typer.Exit(ExitStatus.INTERRUPTED) from None


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
        "JSON, or else a string; may be repeated.",
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
    from gateway.commands.chat_flags import chat_by_flags  # noqa: PLC0415

    sampling = {"temperature": temperature, "max_tokens": max_tokens}
    given = {name: value for name, value in sampling.items() if value is not None}
    try:
        answered = chat_by_flags(
            url,
            system,
            given,
            sys.stdin,
            options=option or (),
            tools=tools,
            files=file or (),
            token=os.environ.get(configuration.TOKEN_VARIABLE) or None,
        )
    except Failure as failure:
        raise _tell(failure) from None
    if not answered:
        raise typer.Exit(ExitStatus.FAILED)


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
        before = bearer.text_of_file(file.read_bytes(), str(file)) if file.exists() else ""
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


@functools.cache
def _errors() -> Console:
    from rich.console import Console  # noqa: PLC0415

    return Console(stderr=True, highlight=False, soft_wrap=True)


def _tell(failure: Failure) -> typer.Exit:
    from rich.markup import escape  # noqa: PLC0415

    _errors().print(f"[bold red]error:[/] {escape(str(failure))}\n\n[dim]hint:[/] {failure.hint}")
    return typer.Exit(failure.status)
