"""Tells an answer in Realtime's events; what happens in it is decided as in Responses.

Rule 1: a response that was created ends with one `response.done`; one that was not is refused by
an `error`.
Rule 2: Realtime has no events for reasoning. It is kept in the conversation for the model alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gateway.dialects.openai import server_events as of
from gateway.dialects.openai.errors import Refused
from gateway.dialects.realtime.items import Items
from gateway.dialects.realtime.server_events import (
    ArgumentsDelta,
    ArgumentsDone,
    ConversationItemAdded,
    ConversationItemDone,
    Created,
    Done,
    ErrorBody,
    ErrorEvent,
    Item,
    ItemAdded,
    ItemDone,
    PartAdded,
    PartDone,
    RealtimeEvent,
    Response,
    StatusDetails,
    StatusError,
    TextDelta,
    TextDone,
    TextPart,
    Usage,
)

__all__ = ["Writer", "refusal"]

REASONS = {"cancelled": "client_cancelled", "incomplete": "max_output_tokens"}


def refusal(event_id: str, why: of.ErrorBody, own: str | None) -> ErrorEvent:
    """Return the refusal of a client's event, whose id is `own`."""
    error = ErrorBody(
        type=why.type, code=why.code, message=why.message, param=why.param, event_id=own
    )
    return ErrorEvent(event_id=event_id, error=error)


class Writer:
    """The events of one response.

    `head` is the response as it begins, `items` the conversation that its items join, None for
    none. `own` is the id of the client's event that asks for it.
    """

    def __init__(
        self, head: Response, items: Items | None, own: str | None, new_id: Callable[[], str]
    ):
        self._head = head
        self._items = items
        self._own = own
        self._new_id = new_id  # for events
        self._call: Item = {}  # the newest
        self._output: list[Item] = []
        self._hidden = 0  # items of the answer that are not told
        self._why = Refused("").error  # why it failed

    def told(self, events: Sequence[of.ServerEvent]) -> list[RealtimeEvent]:
        """Return what the client is told of events of Responses."""
        return [told for event in events for told in self._told(event)]

    def failed(self, events: Sequence[of.ServerEvent], why: of.ErrorBody) -> list[RealtimeEvent]:
        """Return what the client is told of a failure."""
        self._why = why
        return self.told(events)

    def _told(self, event: of.ServerEvent) -> Sequence[RealtimeEvent]:
        match event:
            case of.TextDelta(delta=delta):
                return [TextDelta(**self._at(event), delta=delta)]
            case of.ArgumentsDelta(delta=delta):
                at = self._at(event)
                return [ArgumentsDelta(**at, call_id=self._call["call_id"], delta=delta)]
            case of.TextDone(text=text):
                return [TextDone(**self._at(event), text=text)]
            case of.ArgumentsDone(arguments=arguments):
                call = {name: self._call[name] for name in ("call_id", "name")}
                return [ArgumentsDone(**self._at(event), **call, arguments=arguments)]
            case of.PartAdded(part=of.OutputText(text=text)):
                return [PartAdded(**self._at(event), part=TextPart(text=text))]
            case of.PartDone(part=of.OutputText(text=text)):
                return [PartDone(**self._at(event), part=TextPart(text=text))]
            case of.ItemAdded(item=item):
                return self._added(event.output_index, item)
            case of.ItemDone(item=item):
                return self._done(event.output_index, item)
            case of.Created():
                return [Created(event_id=self._new_id(), response=self._head)]
            case of.Completed() | of.Incomplete() | of.FailedEvent():
                return [Done(event_id=self._new_id(), response=self._ended(event.response))]
            case of.ErrorEvent(error=why):
                return [refusal(self._new_id(), why, self._own)]
        return ()

    def _at(self, event: Any) -> dict[str, Any]:
        """Return what an event about an item has in common with others."""
        return {
            "event_id": self._new_id(),
            "response_id": self._head.id,
            "output_index": event.output_index - self._hidden,
            "item_id": event.item_id,
        }

    def _added(self, place: int, item: of.Item) -> Sequence[RealtimeEvent]:
        if isinstance(item, of.ReasoningItem):
            return ()
        told = self._call = _item(item)
        events: list[RealtimeEvent] = [
            ItemAdded(
                event_id=self._new_id(),
                response_id=self._head.id,
                output_index=place - self._hidden,
                item=told,
            )
        ]
        if self._items is not None:
            before = self._items.append(told)
            events.append(
                ConversationItemAdded(event_id=self._new_id(), item=told, previous_item_id=before)
            )
        return events

    def _done(self, place: int, item: of.Item) -> Sequence[RealtimeEvent]:
        if isinstance(item, of.ReasoningItem):
            self._hidden += 1
            if self._items is not None:
                thoughts = [{"type": "reasoning_text", "text": p.text} for p in item.content]
                hidden = {"id": item.id, "type": "reasoning", "status": item.status}
                self._items.append({**hidden, "content": thoughts})
            return ()
        told = _item(item)
        self._output.append(told)
        events: list[RealtimeEvent] = []
        found, before = (False, None) if self._items is None else self._items.replace(told)
        if found:
            events.append(
                ConversationItemDone(event_id=self._new_id(), item=told, previous_item_id=before)
            )
        done = ItemDone(
            event_id=self._new_id(),
            response_id=self._head.id,
            output_index=place - self._hidden,
            item=told,
        )
        return [*events, done]

    def _ended(self, response: of.Response) -> Response:
        head, used, status = self._head, response.usage, response.status
        details = None
        if status == "failed":
            why = self._why
            error = StatusError(type=why.type, code=why.code, message=why.message)
            details = StatusDetails(type=status, error=error)
        elif status in REASONS:
            details = StatusDetails(type=status, reason=REASONS[status])
        usage = None
        if used is not None:
            cached = used.input_tokens_details.cached_tokens
            usage = Usage.of(used.input_tokens, cached, used.output_tokens)
        return Response(
            id=head.id,
            conversation_id=head.conversation_id,
            max_output_tokens=head.max_output_tokens,
            metadata=head.metadata,
            output=self._output,
            status=status,
            status_details=details,
            usage=usage,
        )


def _item(item: of.Item) -> Item:
    told: Item = {"id": item.id, "object": "realtime.item", "status": item.status}
    match item:
        case of.CallItem():
            return {
                **told,
                "type": "function_call",
                "call_id": item.call_id,
                "name": item.name,
                "arguments": item.arguments,
            }
        case of.MessageItem():
            parts = [{"type": "output_text", "text": part.text} for part in item.content]
            return {**told, "type": "message", "role": item.role, "content": parts}
    raise TypeError(type(item))
