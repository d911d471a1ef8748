"""From what a caller says to the tokens that the model reads.

One `ChatTemplate` belongs to one thread: Hugging Face's fast tokenizers must not be shared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jinja2

from provider.formats.call_history import CallStyle, style_of
from provider.formats.families import ModelFormat, model_format
from provider.interface import InvalidRequestError

__all__ = [
    "ChatTemplate",
]


# For models without a template: what people write by hand, which models have read most often.
LABELS = {"system": "", "user": "User: ", "assistant": "Assistant: ", "tool": "Tool: "}

DEFAULT_STOP = "\nUser:"  # such a model goes on with the next question by itself

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
        self._style: CallStyle | None = None  # of its calls, once there are some

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

    def tokens(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        *,
        variables: Mapping[str, Any] | None = None,
        go_on: bool = False,
    ) -> list[int]:
        """Return the prompt's tokens, up to where the assistant's turn begins.

        `variables` are what the template reads beyond messages and tools, `enable_thinking` above
        all; what is not among them is as the template has it.
        With `go_on`, up to where the last message ends, which the assistant has begun. A model
        without a template gets the contents with `User:` and `Assistant:` before them.
        Raises InvalidRequestError with the template's own reason if it refuses the messages.
        """
        with _giving_its_reason():
            return self._render(messages, tools, variables or {}, answer=not go_on, go_on=go_on)

    def lets_think(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any],
    ) -> bool:
        """Return whether the model may think before it answers, if it can.

        Where `enable_thinking` is not said, a template that writes another prompt to turn the
        thinking off has it on. Raises InvalidRequestError, as `tokens`.
        """
        told = variables.get("enable_thinking")
        if told is not None or not messages or not self._tokenizer.has_chat_template:
            return bool(told)
        off = {**variables, "enable_thinking": False}
        usual, without = (self.text(messages, tools, variables=v) for v in (variables, off))
        return usual != without

    def boundaries(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        prompt: Sequence[int],
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Return where the system prompt and the last turn end in `prompt`, in tokens.

        Both are beginnings that a later prompt is likely to share: another question under the same
        system prompt, and the next turn of this conversation.
        """
        beginnings = [list(messages)]
        if messages[0]["role"] == "system":
            beginnings.insert(0, list(messages[:1]))
        found = []
        for beginning in beginnings:
            try:
                tokens = self._render(beginning, tools, variables or {}, answer=False)
            except REFUSALS:  # a template may insist on a user's turn
                continue
            if len(tokens) < len(prompt) and tokens == list(prompt[: len(tokens)]):
                found.append(len(tokens))
        return found

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        *,
        variables: Mapping[str, Any] | None = None,
        go_on: bool = False,
    ) -> str:
        """Return the prompt as text, for who makes tokens of it and of images.

        Raises InvalidRequestError, as `tokens`.
        """
        with _giving_its_reason():
            return str(
                self._applied(
                    messages, tools, variables or {}, answer=not go_on, go_on=go_on, tokenize=False
                )
            )

    def begun(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        *,
        variables: Mapping[str, Any] | None = None,
        go_on: bool = False,
    ) -> str:
        """Return the end of a prompt that is the answer's: what is not of the turns before it."""
        if not self._tokenizer.has_chat_template:
            return str(messages[-1]["content"]) if go_on else ""
        whole = self.text(messages, tools, variables=variables, go_on=go_on)
        earlier = messages[:-1] if go_on else messages
        try:
            before = str(self._applied(earlier, tools, variables or {}, tokenize=False))
        except REFUSALS:
            return whole
        pairs = enumerate(zip(whole, before, strict=False))
        common = next((n for n, (one, other) in pairs if one != other), len(before))
        return whole[common:]

    def _render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any],
        *,
        answer: bool,
        go_on: bool = False,
    ) -> list[int]:
        if not self._tokenizer.has_chat_template:
            turns = [f"{LABELS[message['role']]}{message['content']}" for message in messages]
            return self.raw("\n\n".join([*turns, "Assistant:"] if answer else turns))
        return list(self._applied(messages, tools, variables, answer=answer, go_on=go_on))

    def _applied(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]],
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
        if "enable_thinking" in variables or wrapped._chat_template is not None:  # noqa: SLF001
            return wrapped.apply_chat_template  # type: ignore[no-any-return]
        # mlx-lm's wrapper would turn the thinking on.
        return partial(wrapped._tokenizer.apply_chat_template, return_dict=False)  # noqa: SLF001

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
