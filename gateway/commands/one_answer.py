"""The `run` command: one answer, by a gateway that runs, or by one of its own for that long.

A gateway of its own listens on a socket file in a private folder, so that no other program finds
it, and an answer comes the same way as any other.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape

from gateway.client import GatewayClient, GatewayError, UnauthorizedError
from gateway.client.blocking import LoopThread
from gateway.client.tool_loop import Toolbox
from gateway.commands.answer import Answer
from gateway.commands.chat import NoGatewayError, connected, notes, screen_for
from gateway.commands.chat_flags import attachments_of, no_gateway, options_of, refused
from gateway.commands.conversation import ask, user_turn
from gateway.commands.failure import ExitStatus, Failure
from gateway.commands.provider_start import load_failure, open_provider, progress
from gateway.commands.screens import restore_at_sigterm
from gateway.commands.setting_flags import in_force
from gateway.configuration import sources as configuration
from gateway.configuration.settings import Settings
from gateway.server import logs
from gateway.server.server import Gateway
from provider.interface import AbstractLLMError

__all__ = ["Question", "answer_once"]

HINT = "`mlx-gateway run --help` lists what can be set"


@dataclass(frozen=True)
class Question:
    """What the user asks, and how: the flags of `run`."""

    prompt: str | None
    piped: TextIO  # standard input
    files: Sequence[Path]
    options: Sequence[str]
    fields: dict[str, Any]
    model: str | None

    def text(self) -> str:
        """Return the prompt and what was piped in. Raises Failure if there is neither."""
        piped = self.piped.read().strip() if _is_piped(self.piped) else ""
        text = "\n\n".join(part for part in (self.prompt, piped) if part)
        if text.strip():
            return text
        asked = '`mlx-gateway run "Why is the sky blue?"`'
        hint = f"pass it: {asked}, or pipe it in; for a conversation, `mlx-gateway chat`"
        raise Failure("there is no prompt", hint, ExitStatus.USAGE)


def answer_once(
    question: Question,
    url: str | None,
    usual: str,
    token: str | None,
    errors: Console,
    *,
    plain: bool,
) -> ExitStatus:
    """Print one answer.

    By the gateway at `url`; without one, by that at the `usual` address, or by one of its own if
    none is there or it doesn't serve the model. Raises Failure.
    """
    fields = {**question.fields, **options_of(question.options)}
    restore_at_sigterm(question.piped)
    turn = user_turn(question.text(), attachments_of(question.files))
    with LoopThread() as loop, ExitStack() as opened:
        client = _running(opened, loop, url or usual, token, needed=url is not None)
        if client is not None and question.model is not None:
            fields["model"] = question.model
            if url is None and question.model not in (client.ready.models or ()):
                client = None
        if client is None:
            fields.pop("model", None)
            client = opened.enter_context(_own(loop, question.model, errors))
        run = ask(client, Toolbox(), [turn], fields)
        screen = screen_for(question.piped, plain=plain or bool(fields.get("raw")))
        answer = Answer(run, screen, notes if errors.is_terminal else None)
        try:
            loop.wait(answer.show(), answer.stop)
        except GatewayError as error:
            raise Failure(str(error), HINT, ExitStatus.FAILED) from None
    return ExitStatus.INTERRUPTED if answer.run.stopped else ExitStatus.OK


def _is_piped(given: TextIO) -> bool:
    """Return whether the input is a pipe or a file, which end; a terminal or a device may not."""
    try:
        mode = os.fstat(given.fileno()).st_mode
    except (OSError, ValueError):
        return not given.isatty()
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _running(
    opened: ExitStack, loop: LoopThread, url: str, token: str | None, *, needed: bool
) -> GatewayClient | None:
    """Connect to a gateway that runs; None if none is there and none is needed. Raises Failure."""
    try:
        return opened.enter_context(connected(loop, url, token))
    except UnauthorizedError:
        raise refused(url, token) from None
    except NoGatewayError:
        if needed:
            raise no_gateway(url) from None
        return None
    except ValueError as error:
        hint = "pass the address that `mlx-gateway serve` prints"
        raise Failure(str(error), hint, ExitStatus.USAGE) from None


@contextmanager
def _own(loop: LoopThread, model: str | None, errors: Console) -> Iterator[GatewayClient]:
    """Serve a model to this program alone. Raises Failure."""
    values = in_force({"model": [model] if model else None}, None)
    logs.set_up("warning", "text")
    logging.getLogger("gateway").setLevel("ERROR")
    said = f"loading {model or 'the model in the package'}"
    with tempfile.TemporaryDirectory(prefix="mlx-gateway-") as folder, ExitStack() as opened:
        with errors.status(said) as status:
            provider = open_provider("mlx", values)
            provider.watch_loading(lambda event: status.update(escape(progress(said, event))))
            opened.callback(lambda: loop.wait(provider.aclose()))
            try:
                loop.wait(provider.load())
            except AbstractLLMError as error:
                raise load_failure(error) from error
        settings = configuration.build(Settings, values)
        gateway = Gateway(provider, _private(settings, Path(folder)))
        loop.wait(gateway.__aenter__())
        opened.callback(lambda: loop.wait(gateway.close()))
        yield opened.enter_context(connected(loop, gateway.url, None))


def _private(settings: Settings, folder: Path) -> Settings:
    """Return settings of a gateway that only this program finds."""
    limits = {
        name: getattr(settings, name)
        for name in ("max_prompt_tokens", "max_answer_tokens", "generation_timeout_s")
    }
    return Settings(unix=str(folder / "socket"), shutdown_grace_s=0, **limits)
