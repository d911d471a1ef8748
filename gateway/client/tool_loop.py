"""Functions that a model may call over the gateway, and the loop that calls them.

    toolbox = Toolbox([get_weather])
    answer = toolbox.run(client, [{"role": "user", "content": "What is the weather in Ulm?"}])
    async for frame in answer:  # chunks, parts of calls, results
        if isinstance(frame, Chunk):
            print(frame.text, end="")
    messages += answer.messages

Functions run one after the other, those without `async` on a thread. The model gets an error as the
result if a function raises, or if it calls a tool that does not exist. A `tool_choice` that forces
a call applies to the first answer only, because otherwise the model could never answer in text.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple, Self

from gateway.client.asynchronous import GatewayClient
from gateway.client.run import Run
from gateway.protocol.frames import Chunk, ToolCall
from provider.inputs.tools import normalise_tools

__all__ = ["ToolResult", "ToolRun", "Toolbox"]

MAX_ROUNDS = 8  # answers with tool calls before the loop gives up

Definition = Mapping[str, Any] | Callable[..., Any]
Ask = Callable[[ToolCall], Awaitable[str]]


class ToolResult(NamedTuple):
    """The result of a function, as the model gets it."""

    call: ToolCall
    content: str


class Toolbox:
    """The tools that a model may call: Python functions, and definitions without a function.

    A function is described to the model by its signature and docstring. Calls of other tools are
    answered by `ask`; without `ask`, the loop ends there, and the caller must answer them. Raises
    InvalidParameterError for a tool that is neither a function nor a definition.
    """

    def __init__(self, tools: Iterable[Definition] = (), ask: Ask | None = None):
        given = list(tools)
        self.definitions = normalise_tools(given)
        self._names = [definition["function"]["name"] for definition in self.definitions]
        self._ask = ask
        self._functions: dict[str, Callable[..., Any]] = {
            name: tool for name, tool in zip(self._names, given, strict=True) if callable(tool)
        }

    @classmethod
    def from_file(cls, path: Path, ask: Ask | None = None, more: Iterable[Definition] = ()) -> Self:
        """Return a toolbox of the public functions of a Python file, and of `more` tools.

        Runs the file. Raises OSError if it can't be read, and any error that running it raises.
        """
        path.open().close()  # raises a clearer error than the import would
        spec = importlib.util.spec_from_file_location(f"tools_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise ValueError(f"`{path}` is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # needed by dataclasses to resolve their annotations
        spec.loader.exec_module(module)
        functions = [
            function
            for name, function in inspect.getmembers(module, inspect.isfunction)
            if not name.startswith("_") and function.__module__ == module.__name__
        ]
        return cls([*functions, *more], ask)

    def can_answer(self, call: ToolCall) -> bool:
        """Return whether a function or `ask` can answer a call."""
        return call.name in self._functions or self._ask is not None or self._is_wrong(call)

    def _is_wrong(self, call: ToolCall) -> bool:
        """Return whether a call names a tool that the model was not given."""
        return bool(self._names) and call.name not in self._names

    async def answer(self, call: ToolCall) -> str:
        """Call the tool, and return its result as text, encoded as JSON if it is not a string."""
        function = self._functions.get(call.name or "")
        if self._is_wrong(call):
            return _error(f"there is no tool `{call.name}`, only {', '.join(self._names)}")
        try:
            if function is None:
                assert self._ask is not None
                return await self._ask(call)
            arguments = json.loads(call.arguments or "{}")
            if inspect.iscoroutinefunction(function):
                value = await function(**arguments)
            else:
                value = await asyncio.to_thread(function, **arguments)
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        # The model gets the error. A SystemExit would end the loop's thread without a message.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            return _error(f"{type(error).__name__}: {error}")

    def run(
        self,
        client: GatewayClient,
        messages: Iterable[dict[str, Any]],
        *,
        max_rounds: int = MAX_ROUNDS,
        **fields: Any,
    ) -> ToolRun:
        """Return the run that answers `messages`; `fields` are further fields of `generate`."""
        return ToolRun(client, self, list(messages), max_rounds, fields)


class ToolRun:
    """Several generations, with calls of functions in between; made by `Toolbox.run`.

    `messages` are the messages added so far, `run` is the newest generation.
    """

    def __init__(
        self,
        client: GatewayClient,
        toolbox: Toolbox,
        messages: list[dict[str, Any]],
        max_rounds: int,
        fields: Mapping[str, Any],
    ):
        self.messages: list[dict[str, Any]] = []
        self.run: Run | None = None
        self.stopped = False
        self._client = client
        self._toolbox = toolbox
        self._asked = messages
        self._max_rounds = max_rounds
        self._fields = {**fields, "tools": toolbox.definitions or None}
        self._calling: asyncio.Task[str] | None = None

    async def __aiter__(self) -> AsyncGenerator[Chunk | ToolCall | ToolResult, None]:
        """Iterate over chunks, calls and results; leaving the loop cancels. Raises GatewayError."""
        for number in range(1, self._max_rounds + 1):
            asked = [*self._asked, *self.messages]
            self.run = run = self._client.generate(messages=asked, **self._fields)
            async with run, aclosing(run.frames()) as frames:
                if self.stopped:  # before the generation could be cancelled
                    await run.cancel()
                async for frame in frames:
                    yield frame
            self.messages.append(_assistant_turn(run))
            calls = run.tool_calls
            answered = all(self._toolbox.can_answer(call) for call in calls)
            if not calls or not answered or self.stopped or number == self._max_rounds:
                return
            for call in calls:
                content = await self._answer(call)
                self.messages.append(
                    {
                        "role": "tool",
                        "tool_call_id": call.call_id,
                        "name": call.name,
                        "content": content,
                    }
                )
                yield ToolResult(call, content)
            if self.stopped:
                return
            if self._fields.get("tool_choice") not in ("auto", "none"):
                self._fields["tool_choice"] = None

    async def cancel(self) -> None:
        """Cancel the generation and stop waiting for functions; the iteration ends normally."""
        self.stopped = True
        if self._calling is not None:
            self._calling.cancel()
        if self.run is not None:
            await self.run.cancel()

    async def _answer(self, call: ToolCall) -> str:
        """Return a call's result; cancelling also cancels the function, and waits for its end."""
        if self.stopped:
            return _error("stopped")
        calling = self._calling = asyncio.ensure_future(self._toolbox.answer(call))
        # Awaiting the task itself could not tell a cancelled function from a cancelled caller.
        try:
            await asyncio.wait([calling])
        except asyncio.CancelledError:
            calling.cancel()
            await asyncio.wait([calling])
            raise
        if self.stopped and calling.cancelled():
            return _error("stopped")
        return calling.result()


def _error(what: str) -> str:
    """Return the text that the model gets instead of a result."""
    return json.dumps({"error": what}, ensure_ascii=False)


def _assistant_turn(run: Run) -> dict[str, Any]:
    """Return an answer as a message of the conversation."""
    turn: dict[str, Any] = {"role": "assistant", "content": run.text}
    calls = [
        {
            "type": "function",
            "id": call.call_id,
            "function": {"name": call.name, "arguments": call.arguments or "{}"},
        }
        for call in run.tool_calls
    ]
    if not calls:
        return turn
    # Models that think between calls need their earlier thinking.
    thoughts = {"reasoning_content": run.reasoning} if run.reasoning else {}
    return {**turn, **thoughts, "tool_calls": calls}
