"""A prompt as the model reads it, and what follows from it for the answer.

Rule: no text is rendered twice. The first gives the tokens; a second, of the turns before the
answer, and a third, of the system prompt alone, are rendered when something is asked that the first
doesn't say. Whether a template has a switch for thinking is found once a model, not once a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from provider.formats.chat_template import ChatTemplate
from provider.formats.text_stream import ANSWER_STATE, REASONING_STATE, initial_state
from provider.interface import InvalidRequestError

__all__ = ["RenderedPrompt"]

Messages = Sequence[Mapping[str, Any]]


class RenderedPrompt:
    """One conversation under a template, each property made when it is asked for, once.

    With `go_on` the assistant has begun the last message. Without `messages` the prompt is `raw`.
    Every property that renders raises InvalidRequestError if the template refuses.
    """

    def __init__(
        self,
        template: ChatTemplate,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        variables: Mapping[str, Any] | None = None,
        go_on: bool = False,
        raw: str = "",
    ):
        self._template = template
        self._messages = list(messages)
        self._tools = list(tools)
        self._variables = dict(variables or {})
        self._go_on = go_on
        self._raw = raw

    @cached_property
    def text(self) -> str:
        """The whole prompt, as the template writes it."""
        return self._text(self._messages, go_on=self._go_on) if self._messages else self._raw

    @cached_property
    def tokens(self) -> Sequence[int]:
        """The whole prompt. May be set to what an image processor makes of the text."""
        if not self._messages:
            return self._template.raw(self._raw)
        if self._template.encodes_text:
            return self._template.encode(self.text)
        return self._tokens(self._messages, go_on=self._go_on)

    @cached_property
    def answer_begins(self) -> int:
        """The index in `text` at which the turns before the answer have ended.

        A template writes the beginning of an answer too, above all what opens its thinking.
        """
        before = self._closed if not self._go_on else self._text_or_none(self._messages[:-1])
        if before is None:
            return 0
        return _common(self.text, before)

    @cached_property
    def state(self) -> str:
        """What the answer's text begins as; no earlier turn opens its thinking."""
        tokenizer = self._template.tokenizer
        state = initial_state(tokenizer, self.tokens)
        if state != REASONING_STATE or not self._messages:
            return state
        thinking = self._template.format.thinking(tokenizer)
        opened, closed = (
            self._answer.rfind(mark or tokenizer.decode(list(tokens)))
            for mark, tokens in (
                (tokenizer.think_start, thinking.start),
                (tokenizer.think_end, thinking.end),
            )
        )
        return REASONING_STATE if opened > closed else ANSWER_STATE

    @cached_property
    def lets_think(self) -> bool:
        """Whether the model may open its thinking, if it can think.

        Where `enable_thinking` is not given, thinking is on if the template has a switch to turn
        it off.
        """
        told = self._variables.get("enable_thinking")
        if told is not None or not self._messages:
            return bool(told)
        return self._template.has_thinking_switch(self._tools, self._variables)

    @cached_property
    def boundaries(self) -> Sequence[int]:
        """Where the system prompt and the last turn end in `tokens`, as numbers of tokens.

        Both are beginnings that a later prompt is likely to share: another question under the same
        system prompt, and the next turn of this conversation. A template that refuses a beginning
        has no boundary there.
        """
        if not self._messages:
            return ()
        beginnings = []
        if self._messages[0]["role"] == "system":
            beginnings.append(self._tokens_or_none(self._messages[:1]))
        if not self._go_on:  # a turn that goes on has no end yet
            beginnings.append(self._closed_tokens)
        prompt = self.tokens
        return [
            len(tokens)
            for tokens in beginnings
            if tokens is not None
            and len(tokens) < len(prompt)
            and tokens == list(prompt[: len(tokens)])
        ]

    @property
    def _answer(self) -> str:
        """The part of the prompt that belongs to the answer."""
        if not self._template.tokenizer.has_chat_template:
            return str(self._messages[-1]["content"]) if self._go_on else ""
        return self.text[self.answer_begins :]

    @cached_property
    def _closed(self) -> str | None:
        """The text up to where the last turn ends."""
        return self._text_or_none(self._messages)

    @property
    def _closed_tokens(self) -> list[int] | None:
        if not self._template.encodes_text:
            return self._tokens_or_none(self._messages)
        return None if self._closed is None else self._template.encode(self._closed)

    def _text_or_none(self, messages: Messages) -> str | None:
        try:
            return self._text(messages, answer=False)
        except InvalidRequestError:  # a template may insist on a user's turn
            return None

    def _tokens_or_none(self, messages: Messages) -> list[int] | None:
        try:
            return self._tokens(messages, answer=False)
        except InvalidRequestError:
            return None

    def _text(self, messages: Messages, *, answer: bool = True, go_on: bool = False) -> str:
        return self._template.text(
            messages, self._tools, variables=self._variables, answer=answer, go_on=go_on
        )

    def _tokens(self, messages: Messages, *, answer: bool = True, go_on: bool = False) -> list[int]:
        return self._template.tokens(
            messages, self._tools, variables=self._variables, answer=answer, go_on=go_on
        )


def _common(one: str, other: str) -> int:
    """Return the length of the beginning that two texts share."""
    if one.startswith(other):  # the usual case, without a loop
        return len(other)
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))
