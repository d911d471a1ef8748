"""A flag for every setting, and help that shows the dozen that people use before the others."""

from __future__ import annotations

import errno
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from gateway.commands.console import tell
from gateway.commands.failure import ExitStatus, Failure
from gateway.commands.streams import usable
from gateway.commands.usage import usage_failure
from gateway.configuration import sources as configuration
from gateway.configuration.settings import ServeSettings, Settings
from gateway.configuration.sources import BadSetting, Setting, Value
from provider.settings import EngineSettings

__all__ = [
    "SETTINGS",
    "ConfigFile",
    "HelpAll",
    "PlainCommand",
    "PlainGroup",
    "in_force",
    "with_settings",
]

UsageError: Any = typer.BadParameter.__base__  # typer has no name for it
SETTINGS = configuration.settings(ServeSettings, Settings, EngineSettings)
COMMON = (
    "model",
    "adapter",
    "idle_unload_s",
    "log_level",
    "host",
    "port",
    "tls_cert",
    "token_file",
    "origins",
    "dev",
    "max_batch",
    "memory_bytes",
)
# Values of other kinds are taken as strings and checked later.
FLAGS: dict[str, Any] = {"bool": bool, "list": list[str]}
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
METAVARS = {"bool": "", "int": "N", "float": "N", "str": "TEXT", "list": "TEXT"}


class PlainCommand(TyperCommand):
    """A command whose help shows no type beside a switch."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, `--help` included."""
        return _without_types(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """A group of commands whose help shows no type beside a switch, and whose errors are lines."""

    def main(self, args: Any = None, *, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]
        """Run the command that the arguments name; raises SystemExit with its exit status."""
        try:
            status = super().main(args, standalone_mode=False, **extra)
        except UsageError as error:
            if not standalone_mode:
                raise
            if type(error).__name__ == "NoArgsIsHelpError":
                sys.exit(ExitStatus.USAGE)  # the help is printed
            sys.exit(tell(usage_failure(error)).exit_code)
        except typer.Abort:
            if not standalone_mode:
                raise
            sys.exit(ExitStatus.FAILED)  # a prompt has no input any more
        except OSError as error:
            if not standalone_mode or error.errno not in NO_ROOM:
                raise
            sys.stdout = usable(None, "w")  # what is left can't be written either
            said = f"the output can't be written: {error.strerror}"
            hint = "free some space, or write to another disk"
            sys.exit(tell(Failure(said, hint, ExitStatus.FAILED)).exit_code)
        if standalone_mode:
            sys.exit(status or ExitStatus.OK)
        return status

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, `--help` included."""
        return _without_types(super().get_params(ctx))


def _without_types(parameters: list[Any]) -> list[Any]:
    for one in parameters:
        if isinstance(one, TyperArgument):
            one.display_type_rich = _nothing  # type: ignore[method-assign]
        if getattr(one, "is_flag", False) and one.metavar is None:
            one.metavar = ""
    return parameters


def _nothing(ctx: Any) -> None:
    return None


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
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
    parameters += [_flag(setting) for setting in sorted(SETTINGS, key=_is_rare)]
    flagged.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flagged.__annotations__ = {one.name: one.annotation for one in parameters}
    flagged.__name__, flagged.__doc__ = command.__name__, command.__doc__
    return flagged


def _is_rare(setting: Setting) -> bool:
    return setting.field.name not in COMMON


def _flag(setting: Setting) -> inspect.Parameter:
    choices = setting.field.metadata.get("choices")
    said = f" ({', '.join(map(str, choices))})" if choices else ""
    if setting.default:
        said += f" \\[default: {setting.default}]"  # escaped, or rich would read a style
    option = typer.Option(
        setting.flag if setting.field.default is not True else _with_opposite(setting.flag),
        metavar=METAVARS[setting.kind],
        help=f"{setting.why[0].upper()}{setting.why[1:]}.{said}",
        rich_help_panel=setting.group if _is_rare(setting) else None,
        hidden=_is_rare(setting) and "_MLX_GATEWAY_COMPLETE" not in os.environ,
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


def _show_all(context: typer.Context, wanted: bool) -> None:
    """Print the help with every setting, those that people use in their groups too, and exit."""
    if not wanted:
        return
    groups = {setting.field.name: setting.group for setting in SETTINGS}
    for one in context.command.params:
        if one.name in groups:
            one.hidden = False  # type: ignore[attr-defined]
            one.rich_help_panel = groups[one.name]  # type: ignore[attr-defined]
    context.command.epilog = EPILOG
    print(context.get_help(), end="")  # noqa: T201 - with rich, the help is printed by itself
    raise typer.Exit


EPILOG = (
    "Every setting is a flag (`--write-timeout 30`), an environment variable "
    "(`MLX_GATEWAY_WRITE_TIMEOUT=30`) and a line of the file (`write_timeout = 30`). A flag wins "
    "over a variable, and a variable over the file. Sizes in bytes may be written as `512MiB`."
)
HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all",
        callback=_show_all,
        is_eager=True,
        expose_value=False,
        help="Show all settings: limits, timeouts, the engine.",
    ),
]
ConfigFile = Annotated[
    Optional[Path],
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file with settings; the variable `MLX_GATEWAY_CONFIG` may name it.",
        show_default=False,
    ),
]


def in_force(flags: dict[str, Any], config_file: Path | None) -> dict[str, Value]:
    """Return the settings in force, by field name; tell the user of one that is wrong, and exit."""
    given = config_file or os.environ.get(configuration.CONFIG_VARIABLE) or None
    name = "" if given is None else str(given)
    try:
        file = configuration.read_file(Path(name).read_text("utf-8"), name) if name else {}
        return configuration.resolve(
            SETTINGS, flags=flags, environment=os.environ, file=file, file_name=name
        )
    except BadSetting as error:
        hint = "`mlx-gateway serve --help-all` explains every setting"
        raise tell(Failure(str(error), hint, ExitStatus.USAGE)) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "pass `--config` the path of a readable TOML file"
        raise tell(Failure(f"`{name}`: {reason}", hint, ExitStatus.USAGE)) from None
