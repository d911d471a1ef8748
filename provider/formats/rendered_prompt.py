"""A rendered prompt: its text and tokens, and how the answer begins.

Rule: no text is rendered twice. The whole prompt is rendered for its tokens. The turns before the
answer, and the system prompt alone, are rendered only for properties that need them. Whether a
template has a switch for thinking is found out once per model, not once per request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from provider.formats.chat_template import ChatTemplate
from provider.formats.pieces import Steps, at_once
from provider.formats.text_stream import ANSWER_STATE, REASONING_STATE, initial_state
from provider.interface import InvalidRequestError

__all__ = ["RenderedPrompt"]

Messages = Sequence[Mapping[str, Any]]


class RenderedPrompt:
    """One conversation under a template; each property is computed once, at its first use.

    With `go_on` the answer continues the last message, which is the assistant's. Without `messages`
    the prompt is `raw`. Properties raise InvalidRequestError if the template refuses the messages.
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
        """The whole prompt as text."""
        return self._text(self._messages, go_on=self._go_on) if self._messages else self._raw

    @cached_property
    def tokens(self) -> Sequence[int]:
        """The whole prompt as tokens; may be set to an image processor's tokens for the text."""
        return at_once(self._tokenizing(_unbounded))

    def tokenizing(self, check: Callable[[int], None]) -> Steps[None]:
        """Find `tokens` in steps.

        `check` is called before each with a lower bound on the number of the prompt's tokens, if
        one is known. It may raise, which ends the steps.
        """
        self.tokens = yield from self._tokenizing(check)

    def _tokenizing(self, check: Callable[[int], None]) -> Steps[Sequence[int]]:
        template, messages = self._template, self._messages
        if not messages:
            return (yield from template.encoding(self._raw, check, special=True))
        return (yield from self._encoding(messages, check, answer=True))

    def _encoding(
        self, messages: Messages, check: Callable[[int], None], *, answer: bool
    ) -> Steps[list[int]]:
        """Return the tokens of messages, in steps; with `answer`, those of the whole prompt.

        Raises InvalidRequestError if the template refuses them.
        """
        template = self._template
        if template.encodes_text:
            text = self.text if answer else self._text(messages, answer=False)
            yield
            return (yield from template.encoding(text, check))
        if template.tokenizer.has_chat_template:
            go_on = answer and self._go_on
            return self._tokens(messages, answer=answer, go_on=go_on)
        text = template.labelled(messages, answer=answer and not self._go_on)
        return (yield from template.encoding(text, check, special=True))

    @cached_property
    def answer_begins(self) -> int:
        """The index in `text` at which the answer begins.

        The text after it belongs to the answer, such as a marker that opens the thinking.
        """
        before = self._closed if not self._go_on else self._text_or_none(self._messages[:-1])
        if before is None:
            return 0
        return _common(self.text, before)

    @cached_property
    def state(self) -> str:
        """The text state in which the answer begins; earlier turns have no influence on it."""
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
        """Whether the model may think.

        Without `enable_thinking` among the variables, it may if the template has a switch that
        turns thinking off.
        """
        told = self._variables.get("enable_thinking")
        if told is not None or not self._messages:
            return bool(told)
        return self._template.has_thinking_switch(self._tools, self._variables)

    @cached_property
    def boundaries(self) -> Sequence[int]:
        """The numbers of tokens up to the end of the system prompt and of the last turn.

        Later prompts are likely to share these prefixes: another question under the same system
        prompt, and the next turn of this conversation. There is no boundary where the template
        refuses to render the prefix.
        """
        return at_once(self.finding_boundaries())

    def finding_boundaries(self) -> Steps[Sequence[int]]:
        """Return `boundaries`, found in steps."""
        if not self._messages:
            return ()
        beginnings = []
        if self._messages[0]["role"] == "system":
            beginnings.append((yield from self._encoding_or_none(self._messages[:1])))
        if not self._go_on:  # a continued turn has no end yet
            beginnings.append((yield from self._closed_tokens()))
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
        """The text up to the end of the last turn, None if the template refuses it."""
        return self._text_or_none(self._messages)

    def _closed_tokens(self) -> Steps[list[int] | None]:
        if not self._template.encodes_text:
            return (yield from self._encoding_or_none(self._messages))
        if self._closed is None:
            return None
        return (yield from self._template.encoding(self._closed, _unbounded))

    def _text_or_none(self, messages: Messages) -> str | None:
        try:
            return self._text(messages, answer=False)
        except InvalidRequestError:  # some templates require a user's turn
            return None

    def _encoding_or_none(self, messages: Messages) -> Steps[list[int] | None]:
        try:
            return (yield from self._encoding(messages, _unbounded, answer=False))
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


def _unbounded(_: int) -> None:
    """Allow a prompt of any length."""


def _common(one: str, other: str) -> int:
    """Return the length of the common prefix of two texts."""
    if one.startswith(other):  # the usual case, without a loop
        return len(other)
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))
