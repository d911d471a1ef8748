"""The commands `token new`, `token list` and `token revoke`, which edit a file of tokens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Optional

import typer

from gateway.commands.console import errors, tell
from gateway.commands.failure import ExitStatus, Failure
from gateway.commands.setting_flags import PlainCommand, PlainGroup
from gateway.server import tokens as bearer

__all__ = ["token_app"]

RELOAD = "a running gateway reads the file again on `kill -HUP`"
STOP = "it was the last: stop a running gateway, which reads no file without tokens"
token_app = typer.Typer(
    no_args_is_help=True,
    help="Make, list and revoke access tokens.",
    rich_markup_mode="rich",
    cls=PlainGroup,
)
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Name of the token's owner, for logs and limits.", show_default=False
    ),
]
TokenFile = Annotated[
    Path, typer.Option(metavar="FILE", help="Token file; pass the same to `serve --token-file`.")
]
FILE = Path("tokens.toml")


@token_app.callback()
def token() -> None:
    """Make, list and revoke access tokens."""


@token_app.command(cls=PlainCommand)
def new(
    name: Name,
    file: TokenFile = FILE,
    days: Annotated[
        Optional[float],
        typer.Option(
            min=0.001, max=36500, metavar="N", help="Days until it expires. Default: never."
        ),
    ] = None,
) -> None:
    """Make a token, print it once, and add its digest to a token file.

    A running gateway reads the file again on SIGHUP.
    """
    secret = bearer.new_secret()
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with _telling(file):
        before = _text(file) if file.exists() else ""
        if name in _names(before, file):
            hint = f"choose another name, or revoke it: `mlx-gateway token revoke {name}`"
            raise tell(Failure(f"`{file}` has a token `{name}` already", hint, ExitStatus.USAGE))
        after = f"{before.rstrip()}\n\n{bearer.as_toml(name, secret, expires)}".lstrip()
        bearer.from_file(after, str(file))
        _write_private(file, after)
    print(secret)  # noqa: T201 - this is the data
    if sys.stdout.isatty():
        said = f"shown this once; `mlx-gateway serve --token-file {file}` lets in who has it"
        errors().print(said, style="dim", markup=False)


@token_app.command("list", cls=PlainCommand)
def list_tokens(file: TokenFile = FILE) -> None:
    """List the tokens of a file: names, expiry and limits. The tokens themselves are not in it."""
    with _telling(file):
        tokens = bearer.from_file(_text(file), str(file))
    rows = [_row(token, datetime.now(UTC)) for token in tokens]
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))  # noqa: T201 - this is the data
        return
    from rich.console import Console  # noqa: PLC0415 - takes long, and only a terminal needs it
    from rich.table import Table  # noqa: PLC0415

    table = Table("name", "expires", "connections", "generations", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table if rows else f"no tokens in {file}")


@token_app.command(cls=PlainCommand)
def revoke(name: Name, file: TokenFile = FILE) -> None:
    """Remove a token from a token file.

    A running gateway reads the file again on SIGHUP, and closes the token's connections.
    """
    with _telling(file):
        before = _text(file)
        names = _names(before, file)
        if name not in names:
            hint = f"it has {', '.join(f'`{one}`' for one in names)}" if names else "it has none"
            raise tell(Failure(f"`{file}` has no token `{name}`", hint, ExitStatus.USAGE))
        after = bearer.without(before, name)
        if _names(after, file) != [one for one in names if one != name]:
            hint = f"remove `tokens.{name}` from it in an editor"
            said = f"`{file}` is written in a way that this command can't change"
            raise tell(Failure(said, hint, ExitStatus.FAILED))
        _write_private(file, after)
    last = len(names) == 1
    errors().print(f"revoked `{name}`; {STOP if last else RELOAD}")


@contextmanager
def _telling(file: Path) -> Iterator[None]:
    """Tell the user of a file that can't be used, and exit."""
    try:
        yield
    except bearer.BadTokens as error:
        hint = "repair the file, or choose another name"
        raise tell(Failure(str(error), hint, ExitStatus.USAGE)) from None
    except FileNotFoundError:
        hint = "make it with `mlx-gateway token new NAME`, or name another with `--file`"
        raise tell(Failure(f"there is no file `{file}`", hint, ExitStatus.USAGE)) from None
    except OSError as error:
        hint = "pass `--file` a path that you can read and write"
        raise tell(Failure(f"`{file}`: {error.strerror}", hint, ExitStatus.FAILED)) from None


def _text(file: Path) -> str:
    return bearer.text_of_file(file.read_bytes(), str(file))


def _names(text: str, file: Path) -> list[str]:
    return [token.name for token in bearer.from_file(text, str(file))]


def _row(token: bearer.Token, now: datetime) -> tuple[str, str, str, str]:
    expires = "never" if token.expires is None else f"{token.expires:%Y-%m-%d %H:%M}"
    limits = (token.max_connections, token.max_generations)
    connections, generations = ("" if limit is None else str(limit) for limit in limits)
    return token.name, expires if token.valid_at(now) else "expired", connections, generations


def _write_private(file: Path, text: str) -> None:
    """Write a file atomically, readable by its owner alone."""
    beside = file.with_name(f".{file.name}.new")
    beside.touch(mode=0o600)
    beside.write_text(text, "utf-8")
    beside.replace(file)
