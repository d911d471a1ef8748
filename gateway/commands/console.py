"""What a command tells the user beside its data, on standard error."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import typer

from gateway.commands.failure import Failure

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["errors", "tell"]


@functools.cache
def errors() -> Console:
    """Return the console of standard error; on a terminal it breaks lines between words."""
    from rich.console import Console  # noqa: PLC0415 - takes long, and most commands need none

    console = Console(stderr=True, highlight=False, emoji=False)
    console.soft_wrap = not console.is_terminal
    return console


def tell(failure: Failure) -> typer.Exit:
    """Print what failed and the hint, and return the exception that ends the program."""
    from rich.markup import escape  # noqa: PLC0415

    errors().print(f"[bold red]error:[/] {escape(str(failure))}\n\n[dim]hint:[/] {failure.hint}")
    return typer.Exit(failure.status)
