"""The command line: `serve`, `chat`, `run`, `models`, `pull`, `config` and `token`.

Standard output carries data alone; messages go to standard error. An error is one line that says
what failed, followed by a hint that says what to do.

A command imports what it needs when it runs: a server, a client and their libraries take several
times as long to import as all else, and the other commands and `--help` need none of them.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, Optional

import typer

from gateway.commands.chat_commands import ADDRESS, Address, chat, run_prompt
from gateway.commands.console import errors, tell
from gateway.commands.failure import STOPPED_EARLY, ExitStatus, Failure
from gateway.commands.setting_flags import (
    SETTINGS,
    ConfigFile,
    HelpAll,
    PlainCommand,
    PlainGroup,
    in_force,
    with_settings,
)
from gateway.commands.streams import make_usable
from gateway.commands.token_commands import token_app
from gateway.configuration import sources as configuration

__all__ = ["run"]

HELP = """Serve MLX language models over a WebSocket, and talk to them.

[bold]Examples[/]
  mlx-gateway serve --open           a small model, and a page to try it in
  mlx-gateway serve mlx-community/Qwen3-0.6B-4bit
                                     a real one, from the hub
  mlx-gateway chat                   talk to it, from another terminal
  mlx-gateway run "Tell me a joke"   one answer, with or without a gateway
"""

AS_A_FILE = (
    "`mlx-gateway config > gateway.toml` writes them to a file to change, and `mlx-gateway serve "
    "--config gateway.toml` reads it; `mlx-gateway serve --help-all` explains each"
)

app = typer.Typer(
    name="mlx-gateway",
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    cls=PlainGroup,
)


@app.callback(invoke_without_command=True, help=HELP)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Serve MLX language models over a WebSocket, and talk to them."""
    if version:
        from gateway import __version__  # noqa: PLC0415

        print(f"mlx-gateway {__version__}")  # noqa: T201 - this is the data
        raise typer.Exit


SERVE = """Serve a model over a WebSocket, with a page to try it in.

[bold]Examples[/]
  mlx-gateway serve                  the small model in the package
  mlx-gateway serve --open           the same, and show the page
  mlx-gateway serve mlx-community/Qwen3-0.6B-4bit     from the hub
  mlx-gateway serve ./model.gguf     a file, or a folder
  mlx-gateway serve --host 0.0.0.0 --token-file tokens.toml
                                     for other machines too
"""
ServedModel = Annotated[
    Optional[str],
    typer.Argument(
        metavar="MODEL",
        help="Folder, GGUF file, or OWNER/NAME on the Hugging Face hub. Without one, the small "
        "model in the package.",
        show_default=False,
    ),
]


@app.command(cls=PlainCommand, help=SERVE)
@with_settings
def serve(
    *,
    context: typer.Context,
    model_given: ServedModel = None,
    browse: Annotated[
        bool, typer.Option("--open", help="Open the page in a browser.", show_default=False)
    ] = False,
    config_file: ConfigFile = None,
    help_all: HelpAll = False,
    provider: Annotated[
        str, typer.Option(help="mlx, or scripted for fixed answers without a model.", hidden=True)
    ] = "mlx",
    flags: dict[str, Any],
) -> None:
    """Serve a model over a WebSocket, with a page to try it in."""
    from gateway.commands import serve as serving  # noqa: PLC0415

    if model_given is not None:
        flags["model"] = [model_given, *(flags["model"] or ())]
    values = in_force(flags, config_file)
    try:
        status = serving.serve(values, provider, errors(), began=context.obj, browse=browse)
    except Failure as failure:
        raise tell(failure) from None
    except KeyboardInterrupt:
        errors().print(STOPPED_EARLY)
        raise typer.Exit(ExitStatus.INTERRUPTED) from None
    raise typer.Exit(status)


app.command(cls=PlainCommand)(chat)
app.command("run", cls=PlainCommand)(run_prompt)


@app.command(cls=PlainCommand)
def models(url: Address = ADDRESS) -> None:
    """List the models that a running gateway serves, and those downloaded to the local cache."""
    from gateway.commands.models import list_models  # noqa: PLC0415

    token = os.environ.get(configuration.TOKEN_VARIABLE) or None
    try:
        list_models(url, token, errors())
    except Failure as failure:
        raise tell(failure) from None


@app.command(cls=PlainCommand)
def pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Id on the Hugging Face hub, OWNER/NAME.", show_default=False
        ),
    ],
) -> None:
    """Download what is missing of a model to the local cache, and verify its checksums."""
    from gateway.commands.models import pull_model  # noqa: PLC0415

    try:
        pull_model(model, errors())
    except Failure as failure:
        raise tell(failure) from None
    except KeyboardInterrupt:
        errors().print("stopped")
        raise typer.Exit(ExitStatus.INTERRUPTED) from None


@app.command(cls=PlainCommand)
@with_settings
def config(
    *, config_file: ConfigFile = None, help_all: HelpAll = False, flags: dict[str, Any]
) -> None:
    """Print the settings in force, with where each comes from, as a file for `--config`."""
    for line in configuration.as_toml(SETTINGS, in_force(flags, config_file)):
        print(line)  # noqa: T201 - this is the data
    if sys.stdout.isatty():
        errors().print(f"\n[dim]{AS_A_FILE}[/]")


app.add_typer(token_app, name="token")


def run(began: float) -> None:
    """Run the command line; its exit status is an ExitStatus.

    `began` is the time at which the process did, by the monotonic clock.
    """
    make_usable()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # this command line shows its own
    app(prog_name="mlx-gateway", obj=began)
