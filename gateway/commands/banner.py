"""What `serve` shows on a terminal: where the gateway is once it is ready, and how it stops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.markup import escape

from gateway import __version__
from gateway.commands.provider_start import EXAMPLE
from provider.interface import ModelInfo
from provider.wording import counted

__all__ = ["banner", "finishing"]

EMBEDDED = "embedded"  # the id of the small model in the package
MOST = 3  # models that are named


def banner(
    url: str, seconds: float, models: Sequence[ModelInfo], device: str, *, usual: bool
) -> str:
    """Return the lines that greet the user, in rich's markup.

    `url` is the page, or `unix:` and the path of a socket file; `usual` says that clients find it
    without being told.
    """
    lines = [f"\n[bold]mlx-gateway {__version__}[/] is ready, after {seconds:.1f} s\n"]
    lines += [f"  [dim]{name:<8}[/]{what}" for name, what in _facts(url, models, device, usual)]
    return "\n".join([*lines, ""])


def _facts(
    url: str, models: Sequence[ModelInfo], device: str, usual: bool
) -> Iterator[tuple[str, str]]:
    if url.startswith("unix:"):
        yield "socket", escape(url)
    else:
        yield "page", f"[bold cyan]{escape(url)}[/]"
        yield "stream", escape(f"{url.replace('http', 'ws', 1)}v1/stream")
    for number, model in enumerate(models[:MOST]):
        yield "" if number else "model", _said_of(model)
    if len(models) > MOST:
        yield "", f"and {len(models) - MOST} more"
    if device:
        yield "device", escape(device)
    yield "chat", f"mlx-gateway chat{'' if usual else f' --url {escape(url)}'}"
    yield "stop", "Ctrl-C"
    if [model.id for model in models] == [EMBEDDED]:
        yield "", ""
        yield "next", f"a larger model: mlx-gateway serve {EXAMPLE}"


def _said_of(model: ModelInfo) -> str:
    said = escape(model.id)
    if model.id == EMBEDDED:
        said += ", a small one to try with: stories, counting, tools"
    elif model.context_window:
        said += f", {model.context_window:,} tokens of context"
    return said if model.loaded else f"{said}, loaded when asked for"


def finishing(answers: int, seconds: float) -> str:
    """Return what a gateway that stops waits for."""
    if not answers:
        return "stopping"
    who = counted(answers, "answer", are=True)
    return f"{who} finishing, up to {max(0, round(seconds))} s; Ctrl-C again ends them"
