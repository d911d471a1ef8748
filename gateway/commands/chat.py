"""The `chat` command: a conversation in the terminal over the WebSocket.

Ctrl-C while an answer streams stops that answer; at the prompt it ends the chat, as Ctrl-D does.
With standard input from a pipe each line is one turn, and only answers go to standard output. Tool
calls are answered by the functions of a file, or by the user. With the option `raw` each line is a
prompt without a template, and the answer is its continuation.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import select
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from gateway.client import ConnectionLostError, GatewayClient, GatewayError, connect
from gateway.client.blocking import LoopThread
from gateway.client.tool_loop import Toolbox, ToolResult, ToolRun
from gateway.commands.conversation import Completion, ask, user_turn
from gateway.protocol.frames import Chunk, Done, ToolCall

__all__ = ["ask_user", "chat_with"]

GIVE_UP_S = 10.0  # time for reconnecting before the user is told of a lost connection
PROMPT = "you > "
notes = Console(stderr=True, highlight=False)


def chat_with(
    url: str,
    system: str | None,
    sampling: dict[str, Any],
    typed: TextIO,
    token: str | None = None,
    toolbox: Toolbox | None = None,
    attachments: Sequence[dict[str, Any]] = (),
) -> bool:
    """Chat until the input `typed` ends, and return whether every turn was answered.

    In a terminal, where the user has seen each error, return True. `attachments`, made by `attach`,
    begin the first message; `toolbox` answers tool calls. Raises OSError if there is no gateway at
    `url`, and UnauthorizedError if it refuses the token. The connection has a thread of its own, so
    that it answers pings while the user types.
    """
    with LoopThread() as loop:
        connection = connect(url, token=token, give_up_s=GIVE_UP_S)
        try:
            client = loop.wait(connection.__aenter__())
        except (InvalidHandshake, InvalidURI, ConnectionClosed, TimeoutError) as error:
            raise OSError(str(error)) from error
        try:
            fields = {"system_prompt": system, **sampling}
            return _converse(loop, client, fields, typed, toolbox or Toolbox(), attachments)
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


def _converse(
    loop: LoopThread,
    client: GatewayClient,
    fields: dict[str, Any],
    typed: TextIO,
    toolbox: Toolbox,
    attachments: Sequence[dict[str, Any]],
) -> bool:
    interactive = typed.isatty()
    if interactive:
        models = ", ".join(client.ready.models or ["?"])
        notes.print(f"[dim]{models} · Ctrl-C stops an answer · Ctrl-D ends the chat[/]\n")
    turns: list[dict[str, Any]] = []
    failed = False
    while (text := _next_turn(typed, interactive=interactive)) is not None:
        if not text.strip():
            continue
        turns.append(user_turn(text, () if turns else attachments))
        answer = _Answer(ask(client, toolbox, turns, fields), interactive=interactive)
        try:
            loop.wait(answer.print(), answer.stop)
        except GatewayError as error:
            notes.print(f"\n[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
            turns.pop()
            failed = True
            if isinstance(error, ConnectionLostError):
                return False
        else:
            turns += answer.run.messages
    return interactive or not failed


def _next_turn(typed: TextIO, *, interactive: bool) -> str | None:
    """Return the next line, None at the end. Ctrl-C at the prompt counts as the end."""
    if not interactive:
        return _line_of(typed.readline())
    try:
        if typed is sys.stdin and sys.stdout.isatty():
            return _edited_line(PROMPT)
        line = _line_of(notes.input(f"[bold cyan]{PROMPT}[/]", stream=typed))
    except (EOFError, KeyboardInterrupt):
        line = None
    if line is None:
        notes.print()
    return line


def _line_of(read: str) -> str | None:
    """Return what `readline` gave without its line end, None at the end of the input."""
    return read.rstrip("\n") if read else None


def _edited_line(prompt: str) -> str:
    """Read a line of standard input with editing and history, which need the prompt's width."""
    if _has_ended():
        raise EOFError
    with suppress(ImportError):
        importlib.import_module("readline")  # enables line editing in `input`
    colour = notes.color_system is not None and not notes.no_color
    return input(f"\x01\x1b[1;36m\x02{prompt}\x01\x1b[0m\x02" if colour else prompt)


def _has_ended() -> bool:
    """Return whether Ctrl-D was typed before the prompt; readline would miss it."""
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(ready) and not any(fcntl.ioctl(sys.stdin, termios.FIONREAD, bytes(4)))


class _Answer:
    """Prints one answer to standard output, with its tool calls on standard error.

    With `interactive`, a line below it shows how many tokens it has and how fast they came.
    """

    def __init__(self, run: ToolRun | Completion, *, interactive: bool = False):
        self.run = run
        self._interactive = interactive
        self._stopping: asyncio.Task[None] | None = None
        self._line_open = False  # whether the last line on standard output is unfinished
        self._thinking = False  # whether the last line on standard error is unfinished thinking

    async def print(self) -> None:
        """Print the answer while it streams, up to where `stop` ended it."""
        async for frame in self.run:
            match frame:
                case Chunk(channel="reasoning"):
                    notes.print(frame.text, style="dim italic", end="", markup=False)
                    self._thinking = True
                case Chunk():
                    self._end_thinking()
                    sys.stdout.write(frame.text)
                    sys.stdout.flush()
                    self._line_open = True
                case ToolCall():
                    self._print_call(frame)
                case ToolResult():
                    notes.print(f"  → {frame.content}", style="dim", markup=False)
        self._end_thinking()
        self._end_line(always=True)
        last = self.run.run
        if last is not None and last.done is not None and self._interactive:
            notes.print(f"[dim]{_footer(last.done, stopped=self.run.stopped)}[/]\n")

    def stop(self) -> None:
        """Cancel the answer; to be called on the loop's thread."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self.run.cancel())

    def _print_call(self, part: ToolCall) -> None:
        self._end_thinking()
        self._end_line()
        if part.name:
            notes.print(f"[bold cyan]{escape(part.name)}[/] ", end="")
        notes.print(part.arguments or "", end="", markup=False, soft_wrap=True)
        if part.complete:
            notes.print()
        if part.error:
            said = "cut off" if part.error == "cut_off" else "malformed tool call"
            notes.print(f"  {said}: {part.text}", style="red", markup=False)

    def _end_thinking(self) -> None:
        if self._thinking:
            notes.print()
        self._thinking = False

    def _end_line(self, *, always: bool = False) -> None:
        if self._line_open or always:
            sys.stdout.write("\n")
            sys.stdout.flush()
        self._line_open = False


def _footer(done: Done, *, stopped: bool) -> str:
    parts = [f"{done.usage.completion_tokens} tokens"]
    if done.timing.tokens_per_second:
        parts.append(f"{done.timing.tokens_per_second:.0f} tokens/s")
    if done.timing.first_token:
        parts.append(f"first token after {done.timing.first_token:.0f} ms")
    if stopped and done.finish_reason in {"cancelled", "tool_calls"}:
        parts.append("stopped by you")
    elif done.finish_reason in {"cancelled", "length"}:
        parts.append(
            {"cancelled": "stopped by the gateway", "length": "cut off at its length limit"}[
                done.finish_reason
            ]
        )
    return " · ".join(parts)
