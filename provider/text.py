"""From tokens to text: whole characters, channels, stop strings, tool calls.

Rule 1: a character split over tokens is shown when it is whole.
Rule 2: what may be the start of a marker or a stop string is held back until it is known not to
be; nothing of a marker or a stop string is ever shown.
Rule 3: texts come out in the order in which the model wrote them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mlx_lm.generate import TextStateMachine, make_text_state_machine

import provider.backend  # noqa: F401 - a fast BLAS must be there before mlx_lm brings mlx
from provider.tools import parse_calls

__all__ = ["Channel", "Piece", "TextFormat", "TextStream"]

ANSWER_STATE, REASONING_STATE, TOOL_STATE = "normal", "reasoning", "tool"


class Channel(StrEnum):
    """What a piece of text is part of."""

    ANSWER = "answer"
    REASONING = "reasoning"


@dataclass(frozen=True)
class Piece:
    """Some text of one channel."""

    text: str
    channel: Channel = Channel.ANSWER


class TextFormat:
    """How one model marks its text: made once a model, shared by its streams."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.markers = make_text_state_machine(tokenizer)

    def initial_state(self, prompt: Sequence[int]) -> str:
        """Return the state the prompt leaves the model in; some templates open the thinking."""
        tokenizer = self.tokenizer
        if tokenizer.response_initial_state:
            return str(tokenizer.response_initial_state)
        if not tokenizer.has_thinking:
            return ANSWER_STATE
        opened, closed = tokenizer.rfind_think_start(prompt), tokenizer.rfind_think_end(prompt)
        return REASONING_STATE if opened > closed else ANSWER_STATE


class TextStream:
    """One answer's way from tokens to text."""

    def __init__(
        self,
        form: TextFormat,
        prompt: Sequence[int],
        *,
        stop: Sequence[str] = (),
        tools: Sequence[dict[str, Any]] = (),
    ):
        self.calls: list[dict[str, Any]] = []  # complete tool calls, in order
        self.reasoning_tokens = 0
        self.stopped = False  # whether a stop string has ended the answer
        self._form = form
        self._tools = tools
        self._detokenizer = form.tokenizer.detokenizer
        self._markers = form.markers.make_state(form.initial_state(prompt))
        self._stops = TextStateMachine({ANSWER_STATE: [(word, None) for word in stop]})
        self._stop_state = self._stops.make_state()
        self._tool_text: list[str] = []

    def add(self, token: int) -> list[Piece]:
        """Take one token; return the text that it makes known."""
        self._detokenizer.add_token(token)
        pieces = self._split(self._detokenizer.last_segment)
        self.reasoning_tokens += self._markers[0] == REASONING_STATE
        return pieces

    def finish(self) -> list[Piece]:
        """Return what was held back, now that nothing more comes."""
        if self.stopped:
            return []
        self._detokenizer.finalize()
        pieces = self._split(self._detokenizer.last_segment)
        self._markers, rest, state = TextStateMachine.flush(self._markers)
        pieces += self._route(state, rest)
        pieces += self._close_call(cut=True)
        if not self.stopped:
            self._stop_state, held, _ = TextStateMachine.flush(self._stop_state)
            pieces += _pieces(held, Channel.ANSWER)
        return pieces

    def _split(self, text: str) -> list[Piece]:
        if not text or self.stopped:
            return []
        self._markers, segments = TextStateMachine.split(self._markers, text)
        pieces: list[Piece] = []
        for state, part in segments:
            if state != TOOL_STATE:
                pieces += self._close_call()
            pieces += self._route(state, part)
        return pieces

    def _route(self, state: str, text: str) -> list[Piece]:
        if state == TOOL_STATE:
            self._tool_text.append(text)
            return []
        if state == REASONING_STATE:
            return _pieces(text, Channel.REASONING)
        return self._until_stop(text)

    def _until_stop(self, text: str) -> list[Piece]:
        if self.stopped or not text:
            return []
        self._stop_state, segments = TextStateMachine.split(self._stop_state, text)
        self.stopped = self._stop_state[0] is None
        return _pieces("".join(part for _, part in segments), Channel.ANSWER)

    def _close_call(self, *, cut: bool = False) -> list[Piece]:
        """Read the tool text that has come to its end; what can't be read is shown as it came."""
        text, self._tool_text = "".join(self._tool_text), []
        if not text:
            return []
        tokenizer = self._form.tokenizer
        calls = parse_calls(text, tokenizer.tool_parser, self._tools, len(self.calls))
        self.calls += calls
        if calls:
            return []
        end = "" if cut else tokenizer.tool_call_end or ""
        return self._until_stop(f"{tokenizer.tool_call_start}{text}{end}")


def _pieces(text: str, channel: Channel) -> list[Piece]:
    return [Piece(text, channel)] if text else []
