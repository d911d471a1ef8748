"""The `chat` command: a conversation in the terminal over the WebSocket.

Ctrl-C while an answer streams stops that answer; at the prompt it clears the line. With standard
input from a pipe each line is one turn, and only answers go to standard output. Tool calls are
answered by the functions of a file, or by the user. With the option `raw` each line is a prompt
without a template, and the answer is its continuation.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from gateway.client import ConnectionLostError, GatewayClient, GatewayError, connect
from gateway.client.blocking import LoopThread
from gateway.client.tool_loop import Toolbox
from gateway.commands.answer import Answer
from gateway.commands.conversation import ask, user_turn
from gateway.commands.prompt import Prompt
from gateway.commands.screens import MarkdownScreen, PlainScreen, Screen, restore_at_sigterm
from gateway.commands.slash import COMMANDS, Conversation, is_command, obey
from gateway.protocol.codes import NotAFrame
from gateway.protocol.frames import ToolCall

__all__ = ["NoGatewayError", "ask_user", "chat_with", "connected", "screen_for"]

GIVE_UP_S = 10.0  # time for reconnecting before the user is told of a lost connection
KEPT_FILES = "the files of `--file` go with your next message; /new leaves them out"
notes = Console(stderr=True, highlight=False, emoji=False)


class NoGatewayError(OSError):
    """No gateway answers at an address."""


def chat_with(
    url: str,
    system: str | None,
    sampling: dict[str, Any],
    typed: TextIO,
    token: str | None = None,
    toolbox: Toolbox | None = None,
    attachments: Sequence[dict[str, Any]] = (),
    *,
    plain: bool = False,
) -> bool:
    """Chat until the input `typed` ends, and return whether every turn was answered.

    In a terminal, where the user has seen each error, return True. `attachments`, made by `attach`,
    begin the first message; `toolbox` answers tool calls; with `plain`, Markdown is not rendered.
    Raises NoGatewayError if none is at `url`, and UnauthorizedError if it refuses the token.
    The connection has a thread of its own, so that it answers pings while the user types.
    """
    restore_at_sigterm(typed)
    with LoopThread() as loop, connected(loop, url, token) as client:
        fields = {"system_prompt": system, **sampling}
        models = list(client.ready.models or ())
        conversation = Conversation(fields, models, attachments=attachments)
        chat = _Chat(loop, client, conversation, typed, toolbox or Toolbox(), plain=plain)
        return chat.run()


@contextmanager
def connected(loop: LoopThread, url: str, token: str | None) -> Iterator[GatewayClient]:
    """Connect on a loop's thread. Raises NoGatewayError, UnauthorizedError."""
    connection = connect(url, token=token, give_up_s=GIVE_UP_S)
    try:
        client = loop.wait(connection.__aenter__())
    except (InvalidHandshake, InvalidURI, ConnectionClosed, NotAFrame, OSError) as error:
        raise NoGatewayError(str(error)) from error
    try:
        yield client
    finally:
        loop.wait(connection.__aexit__(None, None, None))


async def ask_user(typed: TextIO, call: ToolCall) -> str:
    """Ask the user what a tool returns; the answer is the next line of the terminal `typed`.

    Cancelling leaves that line to other readers.
    """
    notes.print(f"[bold]{escape(str(call.name))} returns >[/] ", end="")
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    line = ""
    loop.add_reader(typed, arrived.set)
    try:
        await arrived.wait()
        line = typed.readline()  # doesn't block: a terminal delivers whole lines
    finally:
        loop.remove_reader(typed)
        if not line:
            notes.print()  # ends the line of the question
    if not line:
        raise EOFError("the user ended the input without an answer")
    return line.rstrip("\n")


def screen_for(typed: TextIO, *, plain: bool) -> Screen:
    """Return where an answer is shown: with Markdown on a terminal, unless it is to be plain."""
    console = Console(highlight=False, emoji=False)
    if plain or not sys.stdout.isatty() or console.is_dumb_terminal:
        return PlainScreen(notes)
    return MarkdownScreen(console, typed)


class _Chat:
    """One chat on one connection."""

    def __init__(
        self,
        loop: LoopThread,
        client: GatewayClient,
        conversation: Conversation,
        typed: TextIO,
        toolbox: Toolbox,
        *,
        plain: bool,
    ):
        self._loop = loop
        self._client = client
        self._conversation = conversation
        self._typed = typed
        self._toolbox = toolbox
        self._plain = plain or bool(conversation.fields.get("raw"))
        self._interactive = typed.isatty()
        self._failed = False

    def run(self) -> bool:
        """Take turns until the input ends; return whether every turn was answered."""
        if self._interactive:
            models = ", ".join(self._conversation.models or ["?"])
            notes.print(f"[dim]{escape(models)} · /help lists what you can do · Ctrl-D ends[/]\n")
        prompt = Prompt(self._typed, notes, [*COMMANDS])
        while (text := prompt.read()) is not None:
            if self._interactive and is_command(text):
                if not obey(text, self._conversation, notes):
                    break
                continue
            if not text.strip():
                continue
            try:
                self._take_turn(user_turn(text, self._conversation.attachments))
            except ConnectionLostError:
                return self._offer_to_save()
        return self._interactive or not self._failed

    def _take_turn(self, turn: dict[str, Any]) -> None:
        """Ask, and show the answer. Raises ConnectionLostError, after the user was told."""
        turns = self._conversation.turns
        turns.append(turn)
        run = ask(self._client, self._toolbox, turns, self._conversation.fields)
        screen = screen_for(self._typed, plain=self._plain)
        answer = Answer(run, screen, notes if self._interactive else None)
        try:
            self._loop.wait(answer.show(), answer.stop)
        except GatewayError as error:
            notes.print(f"\n[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
            turns.pop()
            self._failed = True
            if isinstance(error, ConnectionLostError):
                raise
            if self._interactive and self._conversation.attachments:
                notes.print(KEPT_FILES, style="dim", markup=False)
        else:
            turns += answer.run.messages
            self._conversation.attachments = ()

    def _offer_to_save(self) -> bool:
        """Keep a conversation whose gateway is gone; return False."""
        if self._interactive and self._conversation.turns:
            obey("/save", self._conversation, notes)
        return False
