"""The events and objects that a server of Responses sends, as plain data.

Rule 1: every field that the types of OpenAI or Open Responses require is there. One without a value
is null where both allow it, and otherwise has the value that OpenAI's has unless it is asked for.
Rule 2: `stream_id` is there if, and only if, the request had one.
Rule 3: log-probabilities are written once, because several events have them: they are JSON already.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Raw, Struct, UnsetType

__all__ = [
    "NO_LOGPROBS",
    "ArgumentsDelta",
    "ArgumentsDone",
    "CallItem",
    "Completed",
    "Created",
    "ErrorBody",
    "ErrorEvent",
    "FailedEvent",
    "InProgress",
    "Incomplete",
    "IncompleteDetails",
    "InputDetails",
    "Item",
    "ItemAdded",
    "ItemDone",
    "MessageItem",
    "OutputDetails",
    "OutputText",
    "PartAdded",
    "PartDone",
    "QueuedEvent",
    "ReasoningDelta",
    "ReasoningDone",
    "ReasoningItem",
    "ReasoningText",
    "Response",
    "ResponseError",
    "ResponseUsage",
    "ServerEvent",
    "SteerFailed",
    "TextDelta",
    "TextDone",
]

ItemStatus = Literal["in_progress", "completed", "incomplete"]
NO_LOGPROBS = Raw(b"[]")
Status = Literal["queued", "in_progress", "completed", "incomplete", "cancelled", "failed"]


# Output items ------------------------------------------------------------------------------------


class OutputText(Struct, tag="output_text", frozen=True, kw_only=True):
    """A part of a message."""

    text: str
    annotations: tuple[()] = ()
    logprobs: Raw = NO_LOGPROBS


class ReasoningText(Struct, tag="reasoning_text", frozen=True, kw_only=True):
    """The part of a reasoning item."""

    text: str


class MessageItem(Struct, tag="message", frozen=True, kw_only=True):
    """A message of the model."""

    id: str
    status: ItemStatus
    content: list[OutputText]
    role: str = "assistant"


class ReasoningItem(Struct, tag="reasoning", frozen=True, kw_only=True):
    """What the model thinks before it answers."""

    id: str
    status: ItemStatus
    content: list[ReasoningText]
    summary: tuple[()] = ()


class CallItem(Struct, tag="function_call", frozen=True, kw_only=True):
    """A call of a function; `arguments` is JSON text."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


Item = MessageItem | ReasoningItem | CallItem


# The response ------------------------------------------------------------------------------------


class IncompleteDetails(Struct, frozen=True, kw_only=True):
    """Why a response is incomplete."""

    reason: str


class ResponseError(Struct, frozen=True, kw_only=True):
    """Why a response failed."""

    code: str
    message: str


class InputDetails(Struct, frozen=True, kw_only=True):
    """Tokens of the prompt that were read before."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(Struct, frozen=True, kw_only=True):
    """Tokens of the answer that are reasoning."""

    reasoning_tokens: int


class ResponseUsage(Struct, frozen=True, kw_only=True):
    """Tokens of one response."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Response(Struct, frozen=True, kw_only=True):
    """A response: what was asked, and what has been answered so far."""

    id: str
    object: str = "response"
    created_at: int  # seconds since 1970
    completed_at: int | None = None
    status: Status = "in_progress"
    background: bool = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    model: str
    output: list[Item] = []
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: dict[str, Any] | None = None
    safety_identifier: str | None = None
    service_tier: str = "default"
    store: bool = True
    temperature: float = 1.0
    text: dict[str, Any]
    tool_choice: str | dict[str, Any] = "auto"
    tools: list[dict[str, Any]] = []
    top_logprobs: int = 0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    truncation: str = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None
    metadata: dict[str, Any] = {}


# Events ------------------------------------------------------------------------------------------


class _Event(Struct, frozen=True, kw_only=True):
    sequence_number: int
    stream_id: str | UnsetType = UNSET


class _OfResponse(_Event, frozen=True, kw_only=True):
    response: Response


class Created(_OfResponse, tag="response.created", frozen=True, kw_only=True):
    """The first event of a response."""


class QueuedEvent(_OfResponse, tag="response.queued", frozen=True, kw_only=True):
    """The response waits for a model, or for a place beside other responses."""


class InProgress(_OfResponse, tag="response.in_progress", frozen=True, kw_only=True):
    """The model begins."""


class Completed(_OfResponse, tag="response.completed", frozen=True, kw_only=True):
    """The end of a whole answer."""


class Incomplete(_OfResponse, tag="response.incomplete", frozen=True, kw_only=True):
    """The end of an answer that was cut or cancelled."""


class FailedEvent(_OfResponse, tag="response.failed", frozen=True, kw_only=True):
    """The end of a response that failed after it had begun."""


class ItemAdded(_Event, tag="response.output_item.added", frozen=True, kw_only=True):
    """An output item begins."""

    output_index: int
    item: Item


class ItemDone(_Event, tag="response.output_item.done", frozen=True, kw_only=True):
    """An output item has ended."""

    output_index: int
    item: Item


class _OfItem(_Event, frozen=True, kw_only=True):
    item_id: str
    output_index: int


class _OfPart(_OfItem, frozen=True, kw_only=True):
    content_index: int = 0


class PartAdded(_OfPart, tag="response.content_part.added", frozen=True, kw_only=True):
    """A part of an item begins."""

    part: OutputText | ReasoningText


class PartDone(_OfPart, tag="response.content_part.done", frozen=True, kw_only=True):
    """A part of an item has ended."""

    part: OutputText | ReasoningText


class TextDelta(_OfPart, tag="response.output_text.delta", frozen=True, kw_only=True):
    """Some text of a message."""

    delta: str
    logprobs: Raw = NO_LOGPROBS


class TextDone(_OfPart, tag="response.output_text.done", frozen=True, kw_only=True):
    """The whole text of a message."""

    text: str
    logprobs: Raw = NO_LOGPROBS


class ReasoningDelta(_OfPart, tag="response.reasoning_text.delta", frozen=True, kw_only=True):
    """Some text of the reasoning."""

    delta: str


class ReasoningDone(_OfPart, tag="response.reasoning_text.done", frozen=True, kw_only=True):
    """The whole text of the reasoning."""

    text: str


class ArgumentsDelta(
    _OfItem, tag="response.function_call_arguments.delta", frozen=True, kw_only=True
):
    """Some of a call's arguments."""

    delta: str


class ArgumentsDone(
    _OfItem, tag="response.function_call_arguments.done", frozen=True, kw_only=True
):
    """All of a call's arguments."""

    arguments: str


class ErrorBody(Struct, frozen=True, kw_only=True):
    """Why a request is refused."""

    type: str
    code: str = "invalid_value"
    message: str
    param: str | None = None
    headers: dict[str, str] | UnsetType = UNSET


class ErrorEvent(Struct, tag="error", frozen=True, kw_only=True):
    """The refusal of a request; without a number if it belongs to none."""

    status: int
    error: ErrorBody
    sequence_number: int | UnsetType = UNSET
    stream_id: str | UnsetType = UNSET


class SteerFailed(Struct, tag="response.steer.failed", frozen=True, kw_only=True):
    """The answer to `response.steer`, which no model here can do."""

    error: ErrorBody
    steer: dict[str, Any]
    sequence_number: int = 0


ServerEvent = _Event | ErrorEvent | SteerFailed
