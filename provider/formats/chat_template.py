"""Renders messages and tools with a model's chat template, as text and as tokens.

One `ChatTemplate` belongs to one thread, because Hugging Face's fast tokenizers must not be shared.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import jinja2

from provider.formats.call_history import CallStyle, style_of
from provider.formats.families import ModelFormat, model_format
from provider.formats.pieces import PieceEncoder, Steps
from provider.interface import InvalidRequestError
from provider.runtime.mlx_lm import inner_tokenizer, own_renderer, renders_text

__all__ = [
    "ChatTemplate",
]

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]

SWITCH = "thinking"  # part of the name of every template variable that turns thinking on
QUESTION = ({"role": "user", "content": "Hi"},)
MAX_REASON = 512  # characters of a template's reason, which may quote a message
MAX_SWITCHES = 64  # sets of variables whose answer is kept; clients send only a few different ones
# Labels of turns for models without a template, as in the dialogues of their training data.
LABELS = {"system": "", "user": "User: ", "assistant": "Assistant: ", "tool": "Tool: "}

REFUSING = "{{ raise_exception('\\n') }}"  # before a template, keeps it from being rendered
DEFAULT_STOP = "\nUser:"  # stops such a model before it writes the user's next turn


# Exceptions of templates for messages and variables that they do not support.
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
    """Turn a template's exceptions into an InvalidRequestError with the template's reason."""
    try:
        yield
    except REFUSALS as error:
        said = f"the model's chat template refuses these messages: {str(error)[:MAX_REASON]}"
        raise InvalidRequestError(said, original_exception=error) from error


class ChatTemplate:
    """A model's chat template and tokenizer, for the thread that created them."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._format = model_format(tokenizer)
        self._style: CallStyle | None = None  # format of tool calls, found when first needed
        inner = getattr(tokenizer, "_tokenizer", None)
        backend = getattr(inner, "backend_tokenizer", None)
        self._encoder = PieceEncoder(backend, self.encode, self.raw)
        # Results of `has_thinking_switch` by digests of variables, the oldest first.
        self._switches: dict[bytes, bool] = {}

    def warm_up(self) -> None:
        """Import what the first prompt needs, while files can be opened; libraries do so late.

        The template is compiled and not rendered, because rendering it may never end.
        """
        self.encode(str(QUESTION[0]["content"]))
        template, inner = self._tokenizer.chat_template, inner_tokenizer(self._tokenizer)
        if isinstance(template, str) and renders_text(self._tokenizer):
            with suppress(jinja2.TemplateError):
                inner.apply_chat_template(
                    list(QUESTION), chat_template=REFUSING + template, tokenize=False
                )

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, which must be used on this thread only."""
        return self._tokenizer

    @property
    def format(self) -> ModelFormat:
        """The text format of the model's family."""
        return self._format

    @property
    def stop(self) -> tuple[str, ...]:
        """The stop strings that the layout of the prompt requires."""
        return () if self._tokenizer.has_chat_template else (DEFAULT_STOP,)

    @property
    def knows_tools(self) -> bool:
        """Whether the template supports tools."""
        return "tools" in str(self._tokenizer.chat_template) or self._tokenizer.has_tool_calling

    @property
    def encodes_text(self) -> bool:
        """Whether encoding the rendered text gives the prompt's tokens.

        It does not for tokenizers with a renderer of their own, which may distinguish special
        tokens from user text that is spelled the same.
        """
        wrapped = self._tokenizer
        if not wrapped.has_chat_template or own_renderer(wrapped) is not None:
            return bool(wrapped.has_chat_template)
        return renders_text(wrapped)

    def _mentions(self, word: str) -> bool:
        """Return whether the template may read a variable whose name contains `word`."""
        known = self.encodes_text and own_renderer(self._tokenizer) is None
        return not known or word in str(self._tokenizer.chat_template)

    def has_thinking_switch(self, tools: Tools, variables: Mapping[str, Any]) -> bool:
        """Return whether `enable_thinking=False` changes the prompt that the template renders.

        This is found out by rendering a sample question with and without it, once for each set of
        `variables` with or without tools. A template that refuses the question has no switch.
        """
        if not self._tokenizer.has_chat_template or not self._mentions(SWITCH):
            return False
        told = json.dumps([bool(tools), variables], sort_keys=True, default=str)
        key = hashlib.sha256(told.encode()).digest()  # variables may be megabytes
        if key not in self._switches:
            if len(self._switches) == MAX_SWITCHES:
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
        """Return the prompt's tokens, including the beginning of the assistant's turn.

        Without `answer` they end with the last message. With `go_on` the last message is the
        assistant's and stays open, so that the answer continues it.
        `variables` are the template's variables beside messages and tools, such as
        `enable_thinking`; the template has its own defaults for all others. For a model without a
        template, the turns are labelled `User:` and `Assistant:`.
        Raises InvalidRequestError with the template's reason if it refuses the messages.
        """
        answer = answer and not go_on
        if not self._tokenizer.has_chat_template:
            return self.raw(self.labelled(messages, answer=answer))
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
        """Return the prompt as text; arguments and errors are those of `tokens`."""
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

    def labelled(self, messages: Messages, *, answer: bool) -> str:
        """Return the prompt as text for a model without a template; see `tokens`."""
        turns = [f"{LABELS[message['role']]}{message['content']}" for message in messages]
        return "\n\n".join([*turns, "Assistant:"] if answer else turns)

    def least_tokens(self, text: str) -> int:
        """Return a lower bound on the number of a text's tokens, without encoding it."""
        return self._encoder.least(text)

    def encoding(
        self, text: str, check: Callable[[int], None], *, special: bool = False
    ) -> Steps[list[int]]:
        """Do what `encode` does, or with `special` what `raw` does, in steps.

        `check` is called before each with a lower bound on the number of the text's tokens.
        """
        return self._encoder.encoding(text, check, special=special)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text that the template has rendered, without added tokens."""
        wrapped = self._tokenizer
        if own_renderer(wrapped) is not None:  # mlx-lm encodes the text of its renderers so
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
            self._call_style().applied_to(messages) if calls else list(messages),
            tools=list(tools) or None,
            add_generation_prompt=answer,
            tokenize=tokenize,
            **({"continue_final_message": True} if go_on else {}),
            **self._by_all_names(variables),
        )

    def _renderer(self, variables: Mapping[str, Any]) -> Callable[..., Any]:
        """Return the function that applies the template, with its own default for thinking."""
        wrapped = self._tokenizer
        if "enable_thinking" in variables or own_renderer(wrapped) is not None:
            return wrapped.apply_chat_template  # type: ignore[no-any-return]
        # mlx-lm's wrapper would turn thinking on.
        return partial(inner_tokenizer(wrapped).apply_chat_template, return_dict=False)

    def _by_all_names(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the variables, with `enable_thinking` also as `thinking` if the template reads it.

        The templates of Granite, DeepSeek and Kimi do.
        """
        told = variables.get("enable_thinking")
        template = str(getattr(self._tokenizer, "chat_template", None))
        if told is None or not re.search(r"\bthinking\b", template):
            return dict(variables)
        return {"thinking": told, **variables}

    def _call_style(self) -> CallStyle:
        """Return the format in which the template takes calls of earlier turns."""
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
        """Return a text's tokens with those that the tokenizer adds, such as a first BOS token."""
        return list(self._tokenizer.encode(text))
