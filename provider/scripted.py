"""A provider that answers from a script, without a model, for tests and front-end work.

Rule 1: it follows the rules of provider.interface. Arguments are checked at the await, resources
are taken when the first delta is requested, and one `finally` handles every way to end.
Rule 2: it records all calls (`requests`) and the open streams (`live`), so that a test can check
that a stream was closed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Union  # noqa: UP035 - the contract's own spelling

from provider.inputs.tools import normalise_tools
from provider.interface import (
    AbstractLLMInterface,
    GenerateResponse,
    GenerationStarted,
    GenerationTiming,
    ModelCapability,
    ModelInfo,
    ModelParameter,
    PrefillProgress,
    QueuePosition,
    TokenLogprobs,
    ToolCallDelta,
    new_call_id,
)
from provider.options import parse_options

__all__ = [
    "Call",
    "Fail",
    "Gate",
    "Pause",
    "Prefill",
    "Queue",
    "Reason",
    "Request",
    "Say",
    "ScriptedProvider",
    "Step",
    "default_script",
]

MODEL_NAME = "scripted"
CONTEXT_WINDOW = 8192
DEFAULT_TOKENS_PER_SECOND = 60.0  # about the speed of a mid-sized model on a laptop


@dataclass(frozen=True)
class Say:
    """Step: generate text, one delta per word.

    With `top_logprobs`, each word has a log-probability, and that many likely words beside it.
    """

    text: str
    top_logprobs: Optional[int] = None


@dataclass(frozen=True)
class Reason:
    """Step: generate text on the reasoning channel, one delta per word."""

    text: str


@dataclass(frozen=True)
class Call:
    """Step: call a tool."""

    name: str
    arguments: Dict[str, Any]


@dataclass(frozen=True)
class Pause:
    """Step: wait `seconds` before the next one."""

    seconds: float


@dataclass(frozen=True)
class Gate:
    """Step: wait until a test sets `event`."""

    event: asyncio.Event


@dataclass(frozen=True)
class Fail:
    """Step: raise `error`."""

    error: Exception


@dataclass(frozen=True)
class Queue:
    """Step: report a place in the queue; a wait that follows is a wait there."""

    position: int


@dataclass(frozen=True)
class Prefill:
    """Step: report `done` of `total` prompt tokens as prefilled."""

    done: int
    total: int


Step = Say | Reason | Call | Pause | Gate | Fail | Queue | Prefill


@dataclass
class Request:
    """One call's arguments, and its progress: `produced` counts the deltas with text."""

    prompt: str
    system_prompt: Optional[str]
    files: List[Any]
    tools: List[Any]
    options: Dict[str, Any]
    produced: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def last_user_text(self) -> str:
        """The prompt, or the text of the last user message."""
        users = [m for m in self.options.get("messages") or [] if m.get("role") == "user"]
        return self.prompt or (_text_of(users[-1].get("content")) if users else "")


def _text_of(content: Any) -> str:
    """Return a message's text, joined from its text parts if it has parts."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content or () if "text" in part)


def default_script(request: Request) -> List[Step]:
    """Return the steps of an answer that repeats the user's text, then has about 150 words more."""
    subject = request.last_user_text.strip() or "nothing at all"
    lines = [
        f"You said: {subject}\n\n",
        "This text comes from a script and not from a model. ",
        "It is long enough to be watched, and to be stopped in the middle. ",
    ]
    counted = [f"Sentence {n} of the script is on its way to you. " for n in range(1, 17)]
    top = request.options.get("top_logprobs", 0) if request.options.get("logprobs") else None
    text = "".join([*lines, *counted]) + "The end."
    return [Prefill(8, 16), Prefill(16, 16), Say(text, top)]


class ScriptedProvider(AbstractLLMInterface):
    """A provider that answers from a script.

    `script` is a list of steps that every call follows, or a function that returns such a list for
    a Request. `tokens_per_second` is the speed of the words; None means no delay.
    """

    def __init__(
        self,
        config: Optional[Dict[Union[str, ModelParameter], Any]] = None,
        *,
        script: Sequence[Step] | Callable[[Request], Sequence[Step]] = default_script,
        tokens_per_second: Optional[float] = DEFAULT_TOKENS_PER_SECOND,
    ):
        super().__init__(config)
        self.script = script
        self.tokens_per_second = tokens_per_second
        self.requests: List[Request] = []  # every accepted call, in order
        self.live: List[Request] = []  # calls whose stream is open

    def models(self) -> List[ModelInfo]:
        """Return the one model of this provider."""
        return [ModelInfo(MODEL_NAME, CONTEXT_WINDOW)]

    def get_capabilities(self) -> Dict[Union[str, ModelCapability], Any]:
        """Return the capabilities of a script."""
        able = (
            ModelCapability.STREAMING,
            ModelCapability.SYSTEM_PROMPT,
            ModelCapability.ASYNC,
            ModelCapability.TOOL_USE,
            ModelCapability.MULTI_TURN,
        )
        return {**super().get_capabilities(), **dict.fromkeys(able, True)}

    def generate(
        self,
        prompt: str,
        system_prompt: Optional[str] = None,
        files: Optional[List[Union[str, Path]]] = None,
        stream: bool = False,
        tools: Optional[List[Union[Dict[str, Any], Callable[..., Any]]]] = None,
        **kwargs: Any,
    ) -> Union[GenerateResponse, Generator[GenerateResponse, None, None]]:
        """Play the whole script, then return the answer, or with `stream=True` its deltas."""

        async def collect() -> List[GenerateResponse]:
            deltas = await self.generate_async(
                prompt, system_prompt, files, stream=True, tools=tools, **kwargs
            )
            assert isinstance(deltas, AsyncGenerator)
            return [delta async for delta in deltas]

        deltas = asyncio.run(collect())
        return (delta for delta in deltas) if stream else _join(deltas)

    async def generate_async(
        self,
        prompt: str,
        system_prompt: Optional[str] = None,
        files: Optional[List[Union[str, Path]]] = None,
        stream: bool = False,
        tools: Optional[List[Union[Dict[str, Any], Callable[..., Any]]]] = None,
        **kwargs: Any,
    ) -> Union[GenerateResponse, AsyncGenerator[GenerateResponse, None]]:
        """Play the script; cancelling stops it before its next step.

        Options and tools are checked, but only `max_tokens` and `events` have an effect, and those
        that the script looks at. Raises InvalidParameterError.
        """
        parse_options(kwargs, {})
        normalise_tools(tools or [])
        request = Request(prompt, system_prompt, list(files or []), list(tools or []), kwargs)
        self.requests.append(request)
        deltas = self._play(request)
        if stream:
            return deltas
        return _join([delta async for delta in deltas])

    async def _play(self, request: Request) -> AsyncGenerator[GenerateResponse, None]:
        script = self.script(request) if callable(self.script) else self.script
        limit = request.options.get("max_tokens") or 10**9
        calls: List[Dict[str, Any]] = []
        finish = "stop"
        begin = time.perf_counter()
        self.live.append(request)
        try:
            async for response in self._events(request, script, calls):
                if response.content or response.reasoning_trace:
                    if request.produced >= limit:
                        finish = "length"
                        break
                    request.produced += 1
                    await self._pace()
                yield response
            yield self._last(request, finish, calls, begin)
        finally:
            self.live.remove(request)
            request.ended.set()

    async def _events(
        self, request: Request, script: Sequence[Step], calls: List[Dict[str, Any]]
    ) -> AsyncGenerator[GenerateResponse, None]:
        started = GenerationStarted(MODEL_NAME, _count_words(request.last_user_text), 0)
        events = bool(request.options.get("events"))
        announced = not events
        queued = False
        for step in script:
            queued = isinstance(step, Queue) or (queued and isinstance(step, Gate | Pause))
            if not announced and not queued:
                announced = True
                yield GenerateResponse(raw_response=started)
            match step:
                case Call(name, arguments):
                    call_id = new_call_id()
                    index = len(calls)
                    calls.append({"id": call_id, "name": name, "arguments": arguments})
                    for response in _parts(index, calls[-1]) if events else ():
                        yield response
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                case Gate(event):
                    await event.wait()
                case Fail(error):
                    raise error
                case _:
                    for response in _responses(step, events=events):
                        yield response

    async def _pace(self) -> None:
        # Without a rate the event loop still gets a turn, as with any real provider.
        await asyncio.sleep(1 / self.tokens_per_second if self.tokens_per_second else 0)

    def _last(
        self, request: Request, finish: str, calls: List[Dict[str, Any]], begin: float
    ) -> GenerateResponse:
        prompt_tokens = _count_words(request.last_user_text)
        total_s = max(time.perf_counter() - begin, 1e-9)
        return GenerateResponse(
            model=MODEL_NAME,
            finish_reason="tool_calls" if calls else finish,
            tool_calls=calls or None,
            usage={
                "prompt_tokens": prompt_tokens,
                "completion_tokens": request.produced,
                "total_tokens": prompt_tokens + request.produced,
                "cached_tokens": 0,
                "reasoning_tokens": 0,
            },
            raw_response=GenerationTiming(
                0.0, 0.0, 0.0, total_s * 1000, request.produced / total_s
            ),
        )


def _responses(step: Step, *, events: bool) -> Iterable[GenerateResponse]:
    """Return the responses of a step, one per word of a text; most other steps have none."""
    match step:
        case Say(text, None):
            return (GenerateResponse(content=word) for word in _words(text))
        case Say(text, int(top)):
            return (
                GenerateResponse(content=word, raw_response=_likely(word, top))
                for word in _words(text)
            )
        case Reason(text):
            return (GenerateResponse(reasoning_trace=word) for word in _words(text))
        case Queue(position) if events:
            return [GenerateResponse(raw_response=QueuePosition(position))]
        case Prefill(done, total) if events:
            return [GenerateResponse(raw_response=PrefillProgress(done, total))]
        case _:
            return []


def _likely(word: str, top: int) -> TokenLogprobs:
    """Return made-up log-probabilities of a word and of `top` likely ones, of which it is first."""

    def entry(place: int) -> Dict[str, Any]:
        text = f"{word}{place or ''}"
        return {"token": text, "logprob": -0.5 - place, "bytes": list(text.encode())}

    return TokenLogprobs(({**entry(0), "top_logprobs": [entry(at) for at in range(top)]},))


def _parts(index: int, call: Dict[str, Any]) -> Iterator[GenerateResponse]:
    """Yield the parts of a call: its name, its arguments word by word, its end."""
    part = ToolCallDelta(index, call["id"])
    yield GenerateResponse(raw_response=dataclasses.replace(part, name=call["name"]))
    for word in _words(json.dumps(call["arguments"], ensure_ascii=False)):
        yield GenerateResponse(raw_response=dataclasses.replace(part, arguments=word))
    yield GenerateResponse(raw_response=dataclasses.replace(part, complete=True))


def _words(text: str) -> Iterator[str]:
    """Split a text into words with their white space; joined they are the same text."""
    return (found[0] for found in re.finditer(r"\S+\s*|\s+", text))


def _count_words(text: str) -> int:
    return len(text.split())


def _join(deltas: List[GenerateResponse]) -> GenerateResponse:
    """Return the whole answer that consists of these deltas."""
    last = deltas[-1]
    return GenerateResponse(
        content="".join(d.content or "" for d in deltas),
        reasoning_trace="".join(d.reasoning_trace or "" for d in deltas) or None,
        usage=last.usage,
        model=last.model,
        finish_reason=last.finish_reason,
        tool_calls=last.tool_calls,
        raw_response=last.raw_response,
    )
