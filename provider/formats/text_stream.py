"""From tokens to text: whole characters, channels, stop strings, tool calls.

Rule 1: a character split over tokens is shown when it is whole.
Rule 2: what may be the start of a marker or a stop string is held back until it is known not to
be; nothing of a marker or a stop string is ever shown.
Rule 3: texts come out in the order in which the model wrote them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from provider.events import CallDelta, Delta, TextDelta, TokenLogprob
from provider.formats.families import model_format
from provider.formats.tool_calls import ToolText
from provider.interface import ToolCallDelta
from provider.runtime.mlx_lm import TextStateMachine, make_text_state_machine

__all__ = ["ANSWER_STATE", "REASONING_STATE", "TextFormat", "TextStream", "initial_state"]

ANSWER_STATE, REASONING_STATE, TOOL_STATE = "normal", "reasoning", "tool"


class TextFormat:
    """The markers in one model's text; made once a model, and shared by its streams."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.markers = make_text_state_machine(tokenizer)
        # A model whose thinking was closed for it may go on to close it itself.
        ends = [tokenizer.think_end] if tokenizer.has_thinking and tokenizer.think_end else []
        self.strays = [(end, ANSWER_STATE) for end in ends]


def initial_state(tokenizer: Any, prompt: Sequence[int]) -> str:
    """Return the state in which the prompt leaves the text: in thinking, if it is open there."""
    if tokenizer.response_initial_state:
        return _state_in_message(tokenizer, prompt)
    thinking = model_format(tokenizer).thinking(tokenizer)
    if not thinking.start:
        return ANSWER_STATE
    opened, closed = _rfind(prompt, thinking.start), _rfind(prompt, thinking.end)
    return REASONING_STATE if opened > closed else ANSWER_STATE


def _rfind(tokens: Sequence[int], sequence: Sequence[int]) -> int:
    """Return where a sequence begins last in tokens, -1 if it is not in them."""
    backwards, at = list(tokens)[::-1], -1
    while True:
        try:
            at = backwards.index(sequence[0], at + 1)
        except ValueError:
            return -1
        begin = len(backwards) - 1 - at
        if list(tokens[begin : begin + len(sequence)]) == list(sequence):
            return begin


def _state_in_message(tokenizer: Any, prompt: Sequence[int]) -> str:
    """Return the state in the message that a prompt ends in, of a model that writes headers."""
    start = model_format(tokenizer).message_start
    _, started, begun = tokenizer.decode(list(prompt)).rpartition(start)
    if not started:
        return ANSWER_STATE  # a plain text has no header
    state = make_text_state_machine(tokenizer).make_state(tokenizer.response_initial_state)
    (name, *_), _ = TextStateMachine.split(state, begun)
    return str(name)


class TextStream:
    """The text of one answer, made token by token; `state` is its first state.

    `after` is the token before it, if it goes on from a text: then a space that it begins with is
    of the text, and not of how tokens are written.
    """

    def __init__(
        self,
        form: TextFormat,
        *,
        state: str = ANSWER_STATE,
        after: int | None = None,
        stop: Sequence[str] = (),
        tools: Sequence[dict[str, Any]] = (),
    ):
        self.calls: list[dict[str, Any]] = []  # complete tool calls, in order
        self.broken: list[ToolCallDelta] = []  # tool calls that could not be read
        self.reasoning_tokens = 0
        self.stopped = False  # whether a stop string has ended the answer
        self._form = form
        self._tools = tools
        self._detokenizer = form.tokenizer.detokenizer
        if after is not None:
            self._detokenizer.add_token(after)
            self._detokenizer.finalize()
            _ = self._detokenizer.last_segment  # the text before the answer, not shown
        self._markers = form.markers.make_state(state)
        self._stops = TextStateMachine({ANSWER_STATE: [*form.strays, *((s, None) for s in stop)]})
        self._stop_state = self._stops.make_state()
        self._tool_text: ToolText | None = None  # tool call that has begun and not ended

    def add(self, token: int) -> list[Delta]:
        """Take one token; return the deltas that it produces."""
        self._detokenizer.add_token(token)
        deltas = self._split(self._detokenizer.last_segment)
        self.reasoning_tokens += self._markers[0] == REASONING_STATE
        return deltas

    def described(self, token: int, drawn: TokenLogprob) -> dict[str, Any]:
        """Return a token's log-probability as OpenAI's interface has it."""
        top = [self._one(other, logprob) for other, logprob in drawn.top]
        return {**self._one(token, drawn.logprob), "top_logprobs": top}

    def _one(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._form.tokenizer.decode([token])
        # A token may be a part of a character, which is no text by itself.
        whole = "\ufffd" not in text
        bytes_of = list(text.encode("utf-8", "surrogatepass")) if whole else None
        return {"token": text, "logprob": logprob, "bytes": bytes_of}

    def finish(self, *, cut: bool = False) -> list[Delta]:
        """Return what was held back, now that the answer has ended; `cut` if a limit ended it."""
        if self.stopped:
            return []
        self._detokenizer.finalize()
        deltas = self._split(self._detokenizer.last_segment)
        self._markers, rest, state = TextStateMachine.flush(self._markers)
        deltas += self._route(state, rest)
        deltas += self._close_call(cut=cut)
        return deltas + self._let_go()

    def _split(self, text: str) -> list[Delta]:
        if not text or self.stopped:
            return []
        self._markers, segments = _split(self._markers, text)
        deltas: list[Delta] = []
        for state, part in segments:
            if self._tool_text is not None and state != TOOL_STATE:
                deltas += self._close_call(self._form.tokenizer.tool_call_end or "")
            deltas += self._route(state, part)
        return deltas

    def _route(self, state: str, text: str) -> list[Delta]:
        if state == ANSWER_STATE:
            return self._until_stop(text)
        if self.stopped or not text:
            return []
        # No stop string goes on behind what is no answer.
        held = self._let_go()
        if state == TOOL_STATE:
            return held + self._call(text)
        # In any other state the model writes to whom it speaks, and nothing to show.
        return held + (_deltas(text, reasoning=True) if state == REASONING_STATE else [])

    def _let_go(self) -> list[Delta]:
        """Return the text held back as the possible start of a stop string."""
        if self.stopped:
            return []
        self._stop_state, held, _ = TextStateMachine.flush(self._stop_state)
        return _deltas(held)

    def _call(self, text: str) -> list[Delta]:
        if self._tool_text is None:
            first = len(self.calls) + len(self.broken)
            taken = {call["id"] for call in self.calls}
            self._tool_text = ToolText(self._form.tokenizer, self._tools, first, taken)
        return _of_calls(self._tool_text.add(text))

    def _until_stop(self, text: str) -> list[Delta]:
        if self.stopped or not text:
            return []
        self._stop_state, segments = _split(self._stop_state, text)
        self.stopped = self._stop_state[0] is None
        return _deltas("".join(part for _, part in segments))

    def _close_call(self, end: str = "", *, cut: bool = False) -> list[Delta]:
        """Read the calls in the tool text, which has ended."""
        text, self._tool_text = self._tool_text, None
        if text is None:
            return []
        deltas = text.close(end, cut=cut)
        self.calls += text.calls
        self.broken += text.broken
        return _of_calls(deltas)


def _split(state: Any, text: str) -> tuple[Any, list[tuple[str, str]]]:
    """Split as TextStateMachine does; without its loop where no character can begin a marker."""
    name, node, _, held = state
    if not held and node.keys().isdisjoint(text):
        return state, [(name, text)]
    return TextStateMachine.split(state, text)  # type: ignore[no-any-return]


def _deltas(text: str, *, reasoning: bool = False) -> list[Delta]:
    return [TextDelta(text, reasoning)] if text else []


def _of_calls(deltas: Sequence[ToolCallDelta]) -> list[Delta]:
    return [CallDelta(delta) for delta in deltas]
