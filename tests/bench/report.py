"""What a benchmark has found: figures, a table, a file."""

import json
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

console = Console(stderr=True)


@dataclass
class Figure:
    """One line of the result."""

    what: str
    value: float
    unit: str
    bound: str = ""  # what is asked for
    holds: bool | None = None  # whether it is met
    detail: str = ""


def said(figure):
    """Say a figure as soon as it is there."""
    console.print(f"  {figure.what}: {figure.value:.4g} {figure.unit} {figure.detail}")
    return figure


def publish(title, figures, file):
    """Print a table of all figures, and write them to a file if one is given."""
    table = Table(title=title)
    for column in ("what", "value", "asked for", "", "detail"):
        table.add_column(column)
    for figure in figures:
        mark = {True: "yes", False: "NO", None: ""}[figure.holds]
        value = f"{figure.value:.3g} {figure.unit}"
        table.add_row(figure.what, value, figure.bound, mark, figure.detail)
    Console(width=150).print(table)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([asdict(f) for f in figures], indent=2) + "\n")
