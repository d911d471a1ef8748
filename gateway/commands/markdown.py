"""Markdown in a terminal, while it is being written.

An answer is shown block by block: a block that something follows is closed, and is printed for
good; only the last one is drawn anew while it grows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.markdown import Markdown

__all__ = ["Rendered", "closed_length", "without_controls"]

CONTROLS = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)))


def without_controls(text: str) -> str:
    """Return a text without the control characters by which a model could steer the terminal."""
    return text.translate(CONTROLS)


def closed_length(text: str) -> int:
    """Return how much of an unfinished Markdown text is in blocks that can't change any more."""
    blocks = [token.map[0] for token in Markdown(text).parsed if not token.level and token.map]
    if not blocks or not blocks[-1]:
        return 0
    return sum(len(line) + 1 for line in text.split("\n")[: blocks[-1]])


class Rendered(Markdown):
    """Markdown as a model means it: its line breaks stay, and HTML is text."""

    def __init__(self, text: str):
        super().__init__(text, code_theme="ansi_dark", justify="left", hyperlinks=False)
        _as_meant(self.parsed)


def _as_meant(tokens: Iterable[Any]) -> None:
    for token in tokens:
        if token.type == "softbreak":
            token.type = "hardbreak"
        elif token.type == "html_inline":
            token.type = "text"
        elif token.type == "html_block":
            token.type, token.tag, token.info = "fence", "code", "html"
        _as_meant(token.children or ())
