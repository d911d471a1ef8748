"""One `response.create`, from its coming to the request that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.dialects.openai.answer import Answer
from gateway.dialects.openai.conversation import Conversation, FindItem
from gateway.dialects.openai.creates import (
    Create,
    Tools,
    generation_options,
    read_create,
    read_tools,
)
from gateway.dialects.openai.errors import Refused
from gateway.dialects.openai.server_events import Response
from gateway.dialects.responses.memory import Kept
from gateway.dialects.shortening import Shortening
from gateway.protocol.frames import Generate

__all__ = ["Turn"]

NO_TOOLS = Tools(given={}, choice="auto", left_out=[])
PLAIN_TEXT: dict[str, Any] = {"format": {"type": "text"}}
NO_REASONING: dict[str, Any] = {"effort": None, "summary": None}


@dataclass(eq=False)
class Turn:
    """A `response.create` that waits, or runs."""

    id: str
    stream_id: str | None = None
    previous: str | None = None  # the response that it continues
    size: int = 0  # bytes that are counted: of its message, of log-probabilities
    logprobs_bytes: int = 0  # those of the latter
    prompt_tokens: int = 0  # once it has begun
    stopping: bool = False  # whether its client has cancelled it
    create: Create = field(default_factory=Create)
    tools: Tools = NO_TOOLS
    refused: Refused | None = None
    parent: Kept | None = None
    find_item: FindItem = lambda own: None  # of earlier responses, by its id
    conversation: Conversation = field(default_factory=Conversation)
    paths: Sequence[str] = ()  # for each message of the prompt, the field that it comes from
    shortening: Shortening = field(default_factory=Shortening)

    def read(self, fields: dict[str, Any]) -> None:
        """Read what is asked for. Raises Refused."""
        self.create = read_create(fields)
        self.tools = read_tools(self.create)

    def refuse(self, why: Refused) -> None:
        """Let it end with an error when its turn comes; what it asks for is not needed then."""
        self.refused = why
        self.create, self.tools = Create(), NO_TOOLS

    @property
    def stored(self) -> bool:
        """Whether other connections may continue it."""
        return self.create.store is not False

    @property
    def prepares_only(self) -> bool:
        """Whether its prompt is read, and nothing is answered."""
        return self.create.generate is False

    def answer(self, model: str, clock: Callable[[], float]) -> Answer:
        """Return its answer, which has not begun; `model` answers those that name none."""
        return Answer(
            self._head(model, int(clock())),
            self.stream_id,
            clock,
            prepared_only=self.prepares_only,
            one_call=self.create.parallel_tool_calls is False,
        )

    def request(self, most_values: int) -> Generate | None:
        """Return the request for the model, None if it needs none. Raises Refused.

        `most_values` are those of what it continues.
        """
        create = self.create
        self.conversation = Conversation(self._earlier(most_values), find=self.find_item)
        self.conversation.add_input(create.input)
        whole = self.conversation.messages(create.instructions)
        messages, self.paths = self.shortening.applied_to(*whole)
        options = generation_options(create)
        if self.prepares_only:
            if not messages:
                return None
            options |= {"max_tokens": 1, "stream": False}
        elif not messages:
            said = "`input`: there is nothing to answer"
            raise Refused(said, "input", "missing_required_parameter")
        return Generate(
            id=self.id,
            model=create.model,
            messages=messages,
            tools=self.tools.asked or None,
            tool_choice=self.tools.called,
            **options,
        )

    def _earlier(self, most_values: int) -> Sequence[dict[str, Any]]:
        if self.parent is None:
            return ()
        earlier, whole = self.parent.messages(most_values)
        if not whole and self.create.truncation != "auto":
            said = "the conversation is too long to be continued without `truncation`: `auto`"
            raise Refused(said, "previous_response_id", "context_length_exceeded")
        return earlier

    def shorten(self) -> bool:
        """Leave out more of the oldest messages from now on; return False if that may not be."""
        return self.create.truncation == "auto" and self.shortening.more()

    def _head(self, model: str, now: int) -> Response:
        create, tools = self.create, self.tools
        reasoning = NO_REASONING if create.reasoning is None else _fields(create.reasoning)
        text = {} if create.text is None else _fields(create.text)
        return Response(
            id=self.id,
            created_at=now,
            instructions=create.instructions,
            max_output_tokens=create.max_output_tokens,
            max_tool_calls=create.max_tool_calls,
            metadata=create.metadata or {},
            model=create.model or model,
            parallel_tool_calls=create.parallel_tool_calls is not False,
            previous_response_id=self.previous,
            prompt_cache_key=create.prompt_cache_key,
            reasoning=reasoning,
            safety_identifier=create.safety_identifier,
            store=self.stored,
            temperature=1.0 if create.temperature is None else create.temperature,
            text={**PLAIN_TEXT, **{k: v for k, v in text.items() if v is not None}},
            tool_choice=tools.choice,
            tools=tools.shown,
            top_logprobs=create.top_logprobs or 0,
            top_p=1.0 if create.top_p is None else create.top_p,
            presence_penalty=create.presence_penalty or 0.0,
            frequency_penalty=create.frequency_penalty or 0.0,
            truncation=create.truncation or "disabled",
            user=create.user,
        )


def _fields(struct: msgspec.Struct) -> dict[str, Any]:
    return msgspec.structs.asdict(struct)
