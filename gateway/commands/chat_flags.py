"""Checks the flags of `chat`, runs it, and reports its errors as Failures."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from gateway.client import UnauthorizedError
from gateway.client.tool_loop import Toolbox
from gateway.commands.chat import NoGatewayError, ask_user, chat_with
from gateway.commands.conversation import attach
from gateway.commands.failure import ExitStatus, Failure, address_given
from gateway.configuration.sources import TOKEN_VARIABLE
from gateway.protocol.address import without_token
from gateway.protocol.frames import Generate
from provider.interface import FileProcessingError, InvalidParameterError

__all__ = [
    "NOT_OF_A_CHAT",
    "OPTIONS",
    "attachments_of",
    "chat_by_flags",
    "no_gateway",
    "options_of",
    "refused",
]

NOT_OF_A_CHAT = {  # fields that the chat sets itself, or whose results it can't show
    "continue_final_message",
    "id",
    "keep_on_close",
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


def chat_by_flags(
    url: str,
    system: str | None,
    sampling: dict[str, Any],
    typed: TextIO,
    *,
    options: Iterable[str] = (),
    tools: Path | None = None,
    files: Sequence[Path] = (),
    token: str | None = None,
    plain: bool = False,
) -> bool:
    """Chat until the input `typed` ends, and return whether every turn was answered.

    `options` are strings NAME=VALUE, `tools` is a Python file of functions, `files` go with the
    first message. Raises Failure.
    """
    address_given(url)
    given = sampling | options_of(options)
    toolbox = _toolbox(tools, given.pop("tools", None) or [], typed)
    try:
        attached = attachments_of(files)
        return chat_with(url, system, given, typed, token, toolbox, attached, plain=plain)
    except UnauthorizedError:
        raise refused(url, token) from None
    except NoGatewayError:
        raise no_gateway(url) from None


def refused(url: str, token: str | None) -> Failure:
    """Return what the user is told of a gateway that wants a token, or another one."""
    what = "another token" if token else "a token"
    hint = f"put it into the variable `{TOKEN_VARIABLE}`"
    return Failure(f"`{without_token(url)}` wants {what}", hint, ExitStatus.UNAUTHORIZED)


def no_gateway(url: str) -> Failure:
    """Return what the user is told of an address without a gateway."""
    hint = "start one with `mlx-gateway serve`, or pass its address with `--url`"
    return Failure(f"no gateway at `{without_token(url)}`", hint, ExitStatus.NO_GATEWAY)


def options_of(given: Iterable[str]) -> dict[str, Any]:
    """Return the fields of `generate` that strings NAME=VALUE set. Raises Failure."""
    return dict(_option(text) for text in given)


def attachments_of(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Return files as parts of a message. Raises Failure."""
    try:
        return attach(files)
    except FileProcessingError as error:
        hint = "`--file` takes text files and images"
        raise Failure(str(error), hint, ExitStatus.USAGE) from None


def _toolbox(file: Path | None, definitions: Any, typed: TextIO) -> Toolbox:
    """Return the tools of a chat; calls of those without a function are answered by the user."""
    ask = partial(ask_user, typed) if typed.isatty() else None
    more = definitions if isinstance(definitions, list) else [definitions]
    try:
        return Toolbox(more, ask) if file is None else Toolbox.from_file(file, ask, more)
    except OSError as error:
        said = f"`{file}`: {error.strerror}"
    except InvalidParameterError as error:
        said = str(error)
    except Exception as error:  # noqa: BLE001 - whatever the file raises
        said = f"`{file}`: {type(error).__name__}: {error}"
    hint = "pass `--tools` a Python file of functions with annotations and docstrings"
    raise Failure(said, hint, ExitStatus.USAGE)


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or name not in OPTIONS:
        near = difflib.get_close_matches(name, OPTIONS, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"options are {', '.join(OPTIONS)}"
        raise Failure(f"`--option {text}`: no such option", hint, ExitStatus.USAGE)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
