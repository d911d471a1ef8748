"""What a caller has of an answer, so that another replica's answer can go on from there.

The other replica makes the same answer from its beginning. What the caller has is compared with it
and left out. Pure: no I/O.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

from provider.interface import (
    GenerateResponse,
    GenerationStarted,
    ModelLoading,
    PrefillProgress,
    QueuePosition,
    TokenLogprobs,
    ToolCallDelta,
)

__all__ = ["Delivered", "DifferentAnswerError"]

BEFORE_THE_ANSWER = (GenerationStarted, ModelLoading, PrefillProgress, QueuePosition)


class DifferentAnswerError(Exception):
    """The other replica makes another answer than the first one did."""


@dataclass(eq=False)
class _Text:
    """The text of one channel or of a call's arguments: what the caller has, what was compared."""

    parts: list[str] = field(default_factory=list)
    text: str = ""  # the parts joined, while the answer is made again
    compared: int = 0  # characters

    def rewind(self) -> None:
        self.text = "".join([self.text, *self.parts])
        self.parts.clear()
        self.compared = 0

    def new_in(self, text: str) -> str:
        """Return the part of a text that the caller does not have. Raises DifferentAnswerError."""
        end = self.compared + len(text)
        if self.compared < len(self.text):
            had = self.text[self.compared : end]
            if not text.startswith(had):
                raise DifferentAnswerError
            text = text[len(had) :]
        self.compared = end
        if text:
            self.parts.append(text)
        return text


@dataclass(eq=False)
class _Call:
    """A tool call: the first id that it had, and what the caller has of it."""

    id: str
    arguments: _Text = field(default_factory=_Text)
    named: bool = False
    complete: bool = False
    broken: bool = False


@dataclass(eq=False)
class _Count:
    """Log-probabilities of a channel: how many the caller has, how many were left out."""

    had: int = 0
    seen: int = 0


class Delivered:
    """Passes on what the caller of one generation does not have yet.

    With `again` false it keeps no text, and the answer can't be made again once some was passed on.
    """

    def __init__(self, *, again: bool):
        self.began = False  # whether the caller has any part of an answer
        self._again = again
        self._started = False  # whether the caller was told that it started
        self._told = False  # whether that was by an earlier replica
        self._texts: dict[tuple[int, bool], _Text] = defaultdict(_Text)  # by choice and channel
        self._logprobs: dict[tuple[int, bool], _Count] = defaultdict(_Count)
        self._calls: dict[tuple[int, int], _Call] = {}  # by choice and index
        self._made_again = False

    @property
    def may_begin_again(self) -> bool:
        """Whether another replica may make the answer from its beginning."""
        return self._again or not self.began

    def rewind(self) -> None:
        """Expect the answer from its beginning."""
        self._made_again, self._told = self.began, self._started
        for text in self._all_texts():
            text.rewind()
        for count in self._logprobs.values():
            count.seen = 0

    def _all_texts(self) -> list[_Text]:
        return [*self._texts.values(), *(call.arguments for call in self._calls.values())]

    def new_in(self, response: GenerateResponse) -> GenerateResponse | None:
        """Return what the caller does not have of a response, None if it has all of it.

        Raises DifferentAnswerError.
        """
        raw, choice = response.raw_response, getattr(response, "choice", 0)
        if isinstance(raw, BEFORE_THE_ANSWER):
            self._started = self._started or isinstance(raw, GenerationStarted)
            return None if self._told else response
        self.began = True
        if not self._again:
            return response
        if isinstance(raw, ToolCallDelta):
            return self._of_call(response, raw, choice)
        if response.finish_reason is not None:
            return self._last(response, choice)
        return self._of_text(response, choice)

    def _of_text(self, response: GenerateResponse, choice: int) -> GenerateResponse | None:
        reasoning = bool(response.reasoning_trace)
        key = (choice, reasoning)
        given = (response.reasoning_trace if reasoning else response.content) or ""
        text, raw = self._texts[key].new_in(given), response.raw_response
        if isinstance(raw, TokenLogprobs):
            count = self._logprobs[key]
            own = raw.tokens[max(0, count.had - count.seen) :]
            count.seen += len(raw.tokens)
            count.had = max(count.had, count.seen)
            raw = TokenLogprobs(own) if own else None
        if not text and raw is None:
            return None
        if text == given and raw == response.raw_response:
            return response
        changed: dict[str, Any] = {"reasoning_trace" if reasoning else "content": text}
        return replace(response, raw_response=raw, **changed)

    def _of_call(
        self, response: GenerateResponse, part: ToolCallDelta, choice: int
    ) -> GenerateResponse | None:
        call = self._calls.setdefault((choice, part.index), _Call(part.id))
        call.broken = part.error is not None
        arguments = call.arguments.new_in(part.arguments or "") or None
        name = None if call.named else part.name
        ends = part.complete and not call.complete
        if not (arguments or name or ends):
            return None
        call.named, call.complete = call.named or bool(name), call.complete or part.complete
        own = replace(part, id=call.id, name=name, arguments=arguments)
        return replace(response, raw_response=own)

    def _last(self, response: GenerateResponse, choice: int) -> GenerateResponse:
        """Return the end of an answer, with the ids that the caller knows its calls by."""
        if any(text.compared < len(text.text) for text in self._all_texts()):
            raise DifferentAnswerError
        calls = response.tool_calls
        if not self._made_again or not calls:
            return response
        known = [call for key, call in sorted(self._calls.items()) if key[0] == choice]
        ids = [call.id for call in known if not call.broken]
        if len(ids) != len(calls):
            return response
        own = [{**call, "id": first} for call, first in zip(calls, ids, strict=True)]
        return replace(response, tool_calls=own)
