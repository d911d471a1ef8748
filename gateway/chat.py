"""A chat in the terminal over the WebSocket.

Ctrl-C while an answer streams stops the answer and not the program; at the prompt it ends the
chat, as Ctrl-D does. With standard input from a pipe each line is one turn, and only the answers
go to standard output.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from gateway.client import ConnectionLostError, GatewayClient, GatewayError, Run, connect
from gateway.frames import Done
from gateway.sync_client import LoopThread

__all__ = ["chat_with", "stream_url"]

GIVE_UP_S = 10.0  # after which a user is told that the connection is lost
notes = Console(stderr=True, highlight=False)


def stream_url(url: str) -> str:
    """Return the WebSocket address that belongs to a gateway's address of any form."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path if parts.path not in {"", "/"} else "/v1/stream"
    return f"{scheme}://{parts.netloc}{path}"


def chat_with(
    url: str, system: str | None, sampling: dict[str, Any], token: str | None = None
) -> None:
    """Chat until the input ends.

    Raises OSError if there is no gateway at `url`, UnauthorizedError if it wants another token. The
    connection lives on a thread of its own, so that it answers pings while the user thinks.
    """
    with LoopThread() as loop:
        connection = connect(stream_url(url), token=token, give_up_s=GIVE_UP_S)
        try:
            client = loop.wait(connection.__aenter__())
        except (InvalidHandshake, InvalidURI, ConnectionClosed, TimeoutError) as error:
            raise OSError(str(error)) from error
        try:
            _converse(loop, client, system, sampling)
        finally:
            loop.wait(connection.__aexit__(None, None, None))


def _converse(
    loop: LoopThread, client: GatewayClient, system: str | None, sampling: dict[str, Any]
) -> None:
    interactive = sys.stdin.isatty()
    if interactive:
        models = ", ".join(client.ready.models or ["?"])
        notes.print(f"[dim]{models} · Ctrl-C stops an answer · Ctrl-D ends the chat[/]\n")
    turns: list[dict[str, Any]] = []
    while (text := _next_turn(interactive=interactive)) is not None:
        if not text.strip():
            continue
        turns.append({"role": "user", "content": text})
        answer = _Answer(client, list(turns), system, sampling)
        try:
            turns.append({"role": "assistant", "content": loop.wait(answer.run(), answer.stop)})
        except GatewayError as error:
            notes.print(f"\n[bold red]error:[/] {escape(str(error))}")
            turns.pop()
            if isinstance(error, ConnectionLostError):
                return


def _next_turn(*, interactive: bool) -> str | None:
    """Return the next line, None at the end. Ctrl-C at the prompt counts as the end."""
    if not interactive:
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None
    try:
        return notes.input("[bold cyan]you >[/] ")
    except (EOFError, KeyboardInterrupt):
        notes.print()
        return None


class _Answer:
    """One answer on its way to standard output."""

    def __init__(
        self,
        client: GatewayClient,
        turns: list[dict[str, Any]],
        system: str | None,
        sampling: dict[str, Any],
    ):
        self._client = client
        self._fields = {"messages": turns, "system_prompt": system, **sampling}
        self._run: Run | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def run(self) -> str:
        """Print the answer as it comes and return it, cut where `stop` stopped it."""
        async with self._client.generate(**self._fields) as self._run:
            return await _print_chunks(self._run)

    def stop(self) -> None:
        """Ask the gateway to stop; on the loop's thread."""
        if self._run is not None and self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._run.cancel())


async def _print_chunks(run: Run) -> str:
    text: list[str] = []
    async for chunk in run:
        if chunk.channel == "reasoning":
            notes.print(chunk.text, style="dim italic", end="", markup=False)
            continue
        text.append(chunk.text)
        sys.stdout.write(chunk.text)
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()
    for call in run.tool_calls:
        notes.print(f"tool call: {call.name} {call.arguments}", markup=False)
    if run.done is not None and sys.stdin.isatty():
        notes.print(f"[dim]{_footer(run.done)}[/]\n")
    return "".join(text)


def _footer(done: Done) -> str:
    parts = [f"{done.usage.completion_tokens} tokens"]
    if done.timing.tokens_per_second:
        parts.append(f"{done.timing.tokens_per_second:.0f} a second")
    if done.timing.first_token:
        parts.append(f"first after {done.timing.first_token:.0f} ms")
    if done.finish_reason in {"cancelled", "length"}:
        parts.append({"cancelled": "stopped by you", "length": "cut off"}[done.finish_reason])
    return " · ".join(parts)
