"""A model's chat template: from messages and tools to the prompt's text and tokens.

One `ChatTemplate` belongs to one thread: Hugging Face's fast tokenizers must not be shared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jinja2

from provider.formats.call_history import CallStyle, style_of
from provider.formats.families import ModelFormat, model_format
from provider.interface import InvalidRequestError
from provider.runtime.mlx_lm import inner_tokenizer, own_renderer, renders_text

__all__ = [
    "ChatTemplate",
]

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]

SWITCH = "thinking"  # part of every variable by which templates turn thinking on
QUESTION = ({"role": "user", "content": "Hi"},)
MOST_SWITCHES = 64  # sets of variables; those that clients send differ in a handful of ways
# For models without a template: what people write by hand, which models have read most often.
LABELS = {"system": "", "user": "User: ", "assistant": "Assistant: ", "tool": "Tool: "}

DEFAULT_STOP = "\nUser:"  # without it such a model writes the next question itself


# What templates raise, on messages and variables that they were not written for.
REFUSALS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


@contextmanager
def _giving_its_reason() -> Iterator[None]:
    """Raise InvalidRequestError with the template's own reason where it refuses."""
    try:
        yield
    except REFUSALS as error:
        raise InvalidRequestError(
            f"the model's chat template refuses these messages: {error}", original_exception=error
        ) from error


class ChatTemplate:
    """A model's chat template and tokenizer, on the thread that made them."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._format = model_format(tokenizer)
        self._style: CallStyle | None = None  # of calls, found with the first ones
        self._switches: dict[str, bool] = {}  # answers of `has_thinking_switch`, the oldest first

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, for this thread."""
        return self._tokenizer

    @property
    def format(self) -> ModelFormat:
        """How the model's family writes."""
        return self._format

    @property
    def stop(self) -> tuple[str, ...]:
        """The stop strings that go with the form of the prompt."""
        return () if self._tokenizer.has_chat_template else (DEFAULT_STOP,)

    @property
    def knows_tools(self) -> bool:
        """Whether the template has a place for tools."""
        return "tools" in str(self._tokenizer.chat_template) or self._tokenizer.has_tool_calling

    @property
    def encodes_text(self) -> bool:
        """Whether the prompt's tokens are those of its text; some tokenizers go a way of their own.

        Those have a renderer that may keep text apart from the tokens that are written the same.
        """
        wrapped = self._tokenizer
        if not wrapped.has_chat_template or own_renderer(wrapped) is not None:
            return bool(wrapped.has_chat_template)
        return renders_text(wrapped)

    def _mentions(self, word: str) -> bool:
        """Whether the template may read a variable whose name has that word in it."""
        known = self.encodes_text and own_renderer(self._tokenizer) is None
        return not known or word in str(self._tokenizer.chat_template)

    def has_thinking_switch(self, tools: Tools, variables: Mapping[str, Any]) -> bool:
        """Return whether the template writes another prompt with `enable_thinking` set to false.

        Found by rendering one question both ways, once for each set of `variables`, and with tools
        or without. A template that refuses the question has no switch.
        """
        if not self._tokenizer.has_chat_template or not self._mentions(SWITCH):
            return False
        key = json.dumps([bool(tools), variables], sort_keys=True, default=str)
        if key not in self._switches:
            if len(self._switches) == MOST_SWITCHES:
                del self._switches[next(iter(self._switches))]
            self._switches[key] = self._writes_another_without_thinking(tools, variables)
        return self._switches[key]

    def _writes_another_without_thinking(self, tools: Tools, variables: Mapping[str, Any]) -> bool:
        off = {**variables, "enable_thinking": False}
        try:
            usual, without = (self.text(QUESTION, tools, variables=v) for v in (variables, off))
        except InvalidRequestError:
            return False
        return usual != without

    def tokens(
        self,
        messages: Messages,
        tools: Tools,
        *,
        variables: Mapping[str, Any] | None = None,
        answer: bool = True,
        go_on: bool = False,
    ) -> list[int]:
        """Return the prompt's tokens, up to where the assistant's turn begins.

        `variables` are what the template reads beyond messages and tools, `enable_thinking` above
        all; what is not among them is as the template has it.
        Without `answer`, up to where the last message ends; with `go_on`, up to where it goes on,
        which the assistant has begun. A model without a template gets the contents with `User:`
        and `Assistant:` before them.
        Raises InvalidRequestError with the template's own reason if it refuses the messages.
        """
        answer = answer and not go_on
        if not self._tokenizer.has_chat_template:
            turns = [f"{LABELS[message['role']]}{message['content']}" for message in messages]
            return self.raw("\n\n".join([*turns, "Assistant:"] if answer else turns))
        if self.encodes_text:
            text = self.text(messages, tools, variables=variables, answer=answer, go_on=go_on)
            return self.encode(text)
        with _giving_its_reason():
            return list(self._applied(messages, tools, variables or {}, answer=answer, go_on=go_on))

    def text(
        self,
        messages: Messages,
        tools: Tools,
        *,
        variables: Mapping[str, Any] | None = None,
        answer: bool = True,
        go_on: bool = False,
    ) -> str:
        """Return the prompt as text. Raises InvalidRequestError, as `tokens`."""
        with _giving_its_reason():
            return str(
                self._applied(
                    messages,
                    tools,
                    variables or {},
                    answer=answer and not go_on,
                    go_on=go_on,
                    tokenize=False,
                )
            )

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text that the template has written, and no others."""
        wrapped = self._tokenizer
        if own_renderer(wrapped) is not None:  # as mlx-lm does after its own
            return list(wrapped.encode(text, add_special_tokens=False))
        return list(inner_tokenizer(wrapped)(text, add_special_tokens=False)["input_ids"])

    def _applied(
        self,
        messages: Messages,
        tools: Tools,
        variables: Mapping[str, Any],
        *,
        answer: bool = False,
        go_on: bool = False,
        tokenize: bool = True,
    ) -> Any:
        calls = any(message.get("tool_calls") for message in messages)
        return self._renderer(variables)(
            self._calls().told(messages) if calls else list(messages),
            tools=list(tools) or None,
            add_generation_prompt=answer,
            tokenize=tokenize,
            **({"continue_final_message": True} if go_on else {}),
            **self._by_all_names(variables),
        )

    def _renderer(self, variables: Mapping[str, Any]) -> Callable[..., Any]:
        """Return what applies the template, and leaves it its own default of thinking or not."""
        wrapped = self._tokenizer
        if "enable_thinking" in variables or own_renderer(wrapped) is not None:
            return wrapped.apply_chat_template  # type: ignore[no-any-return]
        # mlx-lm's wrapper would turn the thinking on.
        return partial(inner_tokenizer(wrapped).apply_chat_template, return_dict=False)

    def _by_all_names(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the variables, the switch of the thinking by its other name too if it has that.

        Granite's, DeepSeek's and Kimi's templates read `thinking`.
        """
        told = variables.get("enable_thinking")
        template = str(getattr(self._tokenizer, "chat_template", None))
        if told is None or not re.search(r"\bthinking\b", template):
            return dict(variables)
        return {"thinking": told, **variables}

    def _calls(self) -> CallStyle:
        """Return how the template takes calls of earlier turns."""
        if self._style is None:
            self._style = style_of(
                lambda messages: str(
                    self._tokenizer.apply_chat_template(
                        list(messages), add_generation_prompt=True, tokenize=False
                    )
                ),
                self._format.call_styles,
            )
        return self._style

    def raw(self, text: str) -> list[int]:
        """Return a text's tokens, with what the tokenizer puts before any text and no more."""
        return list(self._tokenizer.encode(text))
