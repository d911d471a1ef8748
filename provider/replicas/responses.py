"""The provider's responses for the frames of a replica. Pure: no I/O."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from msgspec.structs import asdict

from gateway.protocol.frames import (
    Chunk,
    Done,
    Loading,
    Progress,
    Queued,
    ServerFrame,
    Started,
    Timing,
    ToolCall,
)
from provider.interface import (
    ChoiceResponse,
    GenerateResponse,
    GenerationStarted,
    GenerationTiming,
    ModelLoading,
    PrefillProgress,
    QueuePosition,
    TokenLogprobs,
    ToolCallDelta,
)

__all__ = ["Responses"]

# Of a generation's usage, what is summed over its answers and not the same for all.
SUMMED = ("completion_tokens", "reasoning_tokens")

REASONS = frozenset({"stop", "length", "tool_calls"})


class Responses:
    """The responses of one generation, made from its frames in order.

    With several `answers`, each response is a ChoiceResponse. The frames have the usage of all
    answers together, which goes with the first one's last response.
    """

    def __init__(self, answers: int):
        self._answers = answers
        self._model: str | None = None
        self._calls: dict[tuple[int, int], ToolCallDelta] = {}  # by choice and index, parts joined

    def of(self, frame: ServerFrame) -> Sequence[GenerateResponse]:
        """Return the responses for one frame, none for a frame that is about no generation."""
        match frame:
            case Chunk():
                return (self._text(frame),)
            case ToolCall():
                return (self._part(frame),)
            case Done():
                return tuple(self._ends(frame))
        event = self._event(frame)
        return () if event is None else (GenerateResponse(raw_response=event),)

    def _event(self, frame: ServerFrame) -> object:
        """Return the event that a frame without text tells of, None for another frame."""
        match frame:
            case Started(model=model, prompt_tokens=prompt, cached_tokens=cached):
                self._model = model
                return GenerationStarted(model, prompt, cached)
            case Queued(position=position):
                return QueuePosition(position)
            case Progress(done=done, total=total):
                return PrefillProgress(done, total)
            case Loading(model=model, done=done, total=total, warming_up=warming):
                return ModelLoading(model, done, total, warming)
        return None

    def _text(self, chunk: Chunk) -> GenerateResponse:
        raw = TokenLogprobs(tuple(chunk.logprobs)) if chunk.logprobs else None
        if chunk.channel is not None:
            one = GenerateResponse("", raw, None, self._model, reasoning_trace=chunk.text)
        else:
            one = GenerateResponse(chunk.text, raw, None, self._model)
        return self._of_choice(one, chunk.choice)

    def _part(self, call: ToolCall) -> GenerateResponse:
        part = ToolCallDelta(
            call.index,
            call.call_id,
            call.name,
            call.arguments,
            complete=call.complete,
            error=call.error,
            text=call.text,
        )
        key = (call.choice, call.index)
        self._calls[key] = _joined(self._calls.get(key), part)
        return self._of_choice(GenerateResponse(raw_response=part), call.choice)

    def _ends(self, done: Done) -> Iterator[GenerateResponse]:
        """Yield the last response of each answer."""
        reasons = [_reason(one, done) for one in done.choices or ()] or [done.finish_reason]
        usage = asdict(done.usage)
        for choice, reason in enumerate(reasons):
            own = [call for key, call in sorted(self._calls.items()) if key[0] == choice]
            broken = tuple(call for call in own if call.error is not None)
            last = GenerateResponse(
                content="",
                raw_response=_timing(done.timing, broken),
                usage=usage,
                model=self._model,
                finish_reason=reason,
                tool_calls=[_whole(call) for call in own if call.error is None] or None,
            )
            yield self._of_choice(last, choice)
            usage = {**usage, **dict.fromkeys(SUMMED, 0), "total_tokens": usage["prompt_tokens"]}

    def _of_choice(self, response: GenerateResponse, choice: int) -> GenerateResponse:
        if self._answers == 1:
            return response
        return ChoiceResponse(**vars(response), choice=max(0, min(choice, self._answers - 1)))


def _reason(choice: dict[str, Any], done: Done) -> str:
    """Return how an answer has ended; what a replica says wrongly is left out."""
    reason = choice.get("finish_reason")
    return reason if isinstance(reason, str) and reason in REASONS else done.finish_reason


def _joined(before: ToolCallDelta | None, part: ToolCallDelta) -> ToolCallDelta:
    if before is None:
        return part
    arguments = f"{before.arguments or ''}{part.arguments or ''}" or None
    return dataclasses.replace(part, name=before.name or part.name, arguments=arguments)


def _whole(call: ToolCallDelta) -> dict[str, Any]:
    arguments: Any = call.arguments or "{}"
    with suppress(ValueError):  # another provider's arguments need not be JSON
        arguments = json.loads(arguments)
    return {"id": call.id, "name": call.name, "arguments": arguments}


def _timing(timing: Timing, broken: tuple[ToolCallDelta, ...]) -> GenerationTiming:
    return GenerationTiming(
        queue_ms=timing.queue,
        prefill_ms=timing.prefill,
        first_token_ms=timing.first_token,
        total_ms=timing.total,
        tokens_per_second=timing.tokens_per_second,
        broken_calls=broken,
    )
