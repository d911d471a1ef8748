"""The events and objects that a server of Realtime sends, as plain data.

Items are plain data too, because a client's come back as it has sent them.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

__all__ = [
    "ArgumentsDelta",
    "ArgumentsDone",
    "ConversationItemAdded",
    "ConversationItemDeleted",
    "ConversationItemDone",
    "ConversationItemRetrieved",
    "Created",
    "Done",
    "ErrorBody",
    "ErrorEvent",
    "Item",
    "ItemAdded",
    "ItemDone",
    "PartAdded",
    "PartDone",
    "RealtimeEvent",
    "Response",
    "Session",
    "SessionCreated",
    "SessionUpdated",
    "StatusDetails",
    "StatusError",
    "TextDelta",
    "TextDone",
    "TextPart",
    "Usage",
]

Item = dict[str, Any]
TEXT = ("text",)


# Objects -----------------------------------------------------------------------------------------


class Session(Struct, frozen=True, kw_only=True):
    """The session of a connection, as its client has set it."""

    id: str
    model: str
    type: str = "realtime"
    object: str = "realtime.session"
    output_modalities: tuple[str, ...] = TEXT
    instructions: str = ""
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"
    max_output_tokens: int | str = "inf"
    truncation: str = "auto"
    parallel_tool_calls: bool = True


class TextPart(Struct, tag="text", frozen=True, kw_only=True):
    """A part of a message."""

    text: str


class StatusError(Struct, frozen=True, kw_only=True):
    """Why a response failed."""

    type: str
    code: str | None
    message: str


class StatusDetails(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a response is not complete."""

    type: str
    reason: str | None = None
    error: StatusError | None = None


class Cached(Struct, frozen=True, kw_only=True):
    """Tokens of the prompt that were read before, by their kinds."""

    text_tokens: int
    audio_tokens: int = 0
    image_tokens: int = 0


class InputDetails(Struct, frozen=True, kw_only=True):
    """Tokens of the prompt by their kinds."""

    text_tokens: int
    cached_tokens: int
    cached_tokens_details: Cached
    audio_tokens: int = 0
    image_tokens: int = 0


class OutputDetails(Struct, frozen=True, kw_only=True):
    """Tokens of the answer by their kinds."""

    text_tokens: int
    audio_tokens: int = 0


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens of one response."""

    input_tokens: int
    input_token_details: InputDetails
    output_tokens: int
    output_token_details: OutputDetails
    total_tokens: int

    @classmethod
    def of(cls, prompt: int, cached: int, answer: int) -> Usage:
        """Return the usage of a response whose tokens are all of text."""
        kinds = Cached(text_tokens=cached)
        return cls(
            input_tokens=prompt,
            input_token_details=InputDetails(
                text_tokens=prompt, cached_tokens=cached, cached_tokens_details=kinds
            ),
            output_tokens=answer,
            output_token_details=OutputDetails(text_tokens=answer),
            total_tokens=prompt + answer,
        )


class Response(Struct, frozen=True, kw_only=True):
    """A response; without a `conversation_id`, its items are in no conversation."""

    id: str
    conversation_id: str | None
    max_output_tokens: int | str = "inf"
    metadata: dict[str, str] | None = None
    object: str = "realtime.response"
    output: list[Item] = []
    output_modalities: tuple[str, ...] = TEXT
    status: str = "in_progress"
    status_details: StatusDetails | None = None
    usage: Usage | None = None


# Events ------------------------------------------------------------------------------------------


class RealtimeEvent(Struct, frozen=True, kw_only=True):
    """What all events have."""

    event_id: str


class SessionCreated(RealtimeEvent, tag="session.created", frozen=True, kw_only=True):
    """The first event of a connection."""

    session: Session


class SessionUpdated(RealtimeEvent, tag="session.updated", frozen=True, kw_only=True):
    """The session is changed."""

    session: Session


class _OfConversation(RealtimeEvent, frozen=True, kw_only=True):
    item: Item
    previous_item_id: str | None


class ConversationItemAdded(
    _OfConversation, tag="conversation.item.added", frozen=True, kw_only=True
):
    """An item is in the conversation."""


class ConversationItemDone(
    _OfConversation, tag="conversation.item.done", frozen=True, kw_only=True
):
    """An item of the conversation is as it stays."""


class ConversationItemDeleted(
    RealtimeEvent, tag="conversation.item.deleted", frozen=True, kw_only=True
):
    """An item is no longer in the conversation."""

    item_id: str


class ConversationItemRetrieved(
    RealtimeEvent, tag="conversation.item.retrieved", frozen=True, kw_only=True
):
    """An item that the client wants to see."""

    item: Item


class Created(RealtimeEvent, tag="response.created", frozen=True, kw_only=True):
    """The first event of a response."""

    response: Response


class Done(RealtimeEvent, tag="response.done", frozen=True, kw_only=True):
    """The only end of a response."""

    response: Response


class _OfOutput(RealtimeEvent, frozen=True, kw_only=True):
    response_id: str
    output_index: int


class ItemAdded(_OfOutput, tag="response.output_item.added", frozen=True, kw_only=True):
    """An item of the answer begins."""

    item: Item


class ItemDone(_OfOutput, tag="response.output_item.done", frozen=True, kw_only=True):
    """An item of the answer has ended."""

    item: Item


class _OfItem(_OfOutput, frozen=True, kw_only=True):
    item_id: str


class _OfPart(_OfItem, frozen=True, kw_only=True):
    content_index: int = 0


class PartAdded(_OfPart, tag="response.content_part.added", frozen=True, kw_only=True):
    """A part of a message begins."""

    part: TextPart


class PartDone(_OfPart, tag="response.content_part.done", frozen=True, kw_only=True):
    """A part of a message has ended."""

    part: TextPart


class TextDelta(_OfPart, tag="response.output_text.delta", frozen=True, kw_only=True):
    """Some text of a message."""

    delta: str


class TextDone(_OfPart, tag="response.output_text.done", frozen=True, kw_only=True):
    """The whole text of a message."""

    text: str


class ArgumentsDelta(
    _OfItem, tag="response.function_call_arguments.delta", frozen=True, kw_only=True
):
    """Some of a call's arguments."""

    call_id: str
    delta: str


class ArgumentsDone(
    _OfItem, tag="response.function_call_arguments.done", frozen=True, kw_only=True
):
    """All of a call's arguments."""

    call_id: str
    name: str
    arguments: str


class ErrorBody(Struct, frozen=True, kw_only=True):
    """Why something is refused; `event_id` is that of the client's event at fault."""

    type: str
    code: str | None
    message: str
    param: str | None = None
    event_id: str | None = None


class ErrorEvent(RealtimeEvent, tag="error", frozen=True, kw_only=True):
    """The refusal of a client's event; the session goes on."""

    error: ErrorBody
