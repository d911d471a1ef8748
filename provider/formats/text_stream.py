"""Turns an answer's tokens into text, channels and tool calls, and applies stop strings.

Rule 1: a character that is split over several tokens is shown when it is complete.
Rule 2: text that may begin a marker or a stop string is held back until that is decided. No part
of a marker or a stop string is ever shown.
Rule 3: deltas come in the order in which the model wrote their text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Any

from provider.events import CallDelta, Delta, TextDelta, TokenLogprob
from provider.formats.families import model_format
from provider.formats.tool_calls import ToolText
from provider.interface import ToolCallDelta
from provider.runtime.mlx_lm import (
    TextStateMachine,
    decodes_tokens_apart,
    make_text_state_machine,
)

__all__ = ["ANSWER_STATE", "REASONING_STATE", "TextFormat", "TextStream", "initial_state"]

ANSWER_STATE, REASONING_STATE, TOOL_STATE = "normal", "reasoning", "tool"
MAX_PLAIN = 1 << 15  # tokens whose deltas are kept for each channel, some 8 MiB
MAX_ALONE = 1 << 15  # tokens whose text by itself is kept, some 6 MiB


class TextFormat:
    """The markers in one model's text; all text streams of the model share one object.

    It keeps the text by itself of `most_alone` tokens.
    """

    def __init__(self, tokenizer: Any, most_alone: int = MAX_ALONE):
        self.tokenizer = tokenizer
        self.markers = make_text_state_machine(tokenizer)
        # A model may close its thinking once more after the engine has closed it.
        ends = [tokenizer.think_end] if tokenizer.has_thinking and tokenizer.think_end else []
        self.strays = [(end, ANSWER_STATE) for end in ends]
        self.plain: dict[str, PlainDeltas] = {}  # by the state of their text
        if decodes_tokens_apart(tokenizer):
            channels = ((ANSWER_STATE, False), (REASONING_STATE, True))
            self.plain = {state: PlainDeltas(self, reasoning=it) for state, it in channels}
        self._before = tokenizer.encode("a", add_special_tokens=False)  # any text
        self._alone: dict[int, tuple[str, bytes | None]] = {}
        self._most_alone = most_alone

    def alone(self, token: int) -> tuple[str, bytes | None]:
        """Return the text of a token by itself, and its bytes, None for a part of a character.

        The likeliest tokens are mostly the same ones, and decoding takes ten times as long as
        looking them up.
        """
        found = self._alone.get(token)
        if found is None:
            text: str = self.tokenizer.decode([token])
            # A token that is only a part of a character decodes to U+FFFD.
            whole = "\ufffd" not in text
            found = text, text.encode("utf-8", "surrogatepass") if whole else None
            if len(self._alone) >= self._most_alone:
                self._alone.clear()
            self._alone[token] = found
        return found

    def plain_text(self, token: int) -> str:
        """Return the text that a token has after any other text, "" if it depends on that text.

        It does if it may be a part of a character or of a marker.
        """
        detokenizer = self.tokenizer.detokenizer
        for before in self._before:
            detokenizer.add_token(before)
        if not detokenizer.last_segment:
            return ""
        detokenizer.add_token(token)
        text: str = detokenizer.last_segment
        return text if self._marker_begins.isdisjoint(text) else ""

    @cached_property
    def _marker_begins(self) -> frozenset[str]:
        """The characters with which a marker begins, in whatever state it counts."""
        _, _, states, _ = self.markers.make_state()
        edges = chain.from_iterable(trie for trie, _ in states.values())
        return frozenset(edges) | {end[0] for end, _ in self.strays}


class PlainDeltas(dict[int, TextDelta | None]):
    """The deltas of tokens whose text is shown in one channel as it is, made when they first come.

    It is None for a token whose text depends on what is before it.
    """

    def __init__(self, text_format: TextFormat, *, reasoning: bool, most: int = MAX_PLAIN):
        super().__init__()
        self._text_format = text_format
        self._reasoning = reasoning
        self._most = most

    def __missing__(self, token: int) -> TextDelta | None:
        text = self._text_format.plain_text(token)
        if len(self) >= self._most:
            self.clear()
        made = self[token] = TextDelta(text, self._reasoning) if text else None
        return made


def initial_state(tokenizer: Any, prompt: Sequence[int]) -> str:
    """Return the text state in which the answer begins: thinking, if the prompt opens it."""
    if tokenizer.response_initial_state:
        return _state_in_message(tokenizer, prompt)
    thinking = model_format(tokenizer).thinking(tokenizer)
    if not thinking.start:
        return ANSWER_STATE
    opened, closed = _rfind(prompt, thinking.start), _rfind(prompt, thinking.end)
    return REASONING_STATE if opened > closed else ANSWER_STATE


def _rfind(tokens: Sequence[int], sequence: Sequence[int]) -> int:
    """Return the index of the last occurrence of a sequence in tokens, -1 if there is none."""
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
    """Return the text state that a prompt's last message header leads to, such as thinking."""
    start = model_format(tokenizer).message_start
    _, started, begun = tokenizer.decode(list(prompt)).rpartition(start)
    if not started:
        return ANSWER_STATE  # a raw prompt has no header
    state = make_text_state_machine(tokenizer).make_state(tokenizer.response_initial_state)
    (name, *_), _ = TextStateMachine.split(state, begun)
    return str(name)


class TextStream:
    """The text of one answer, token by token; `state` is its first state.

    `after` is the token before an answer that continues a text. The detokenizer needs it to keep a
    space at the beginning of the answer.
    """

    def __init__(
        self,
        text_format: TextFormat,
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
        self._text_format = text_format
        self._tools = tools
        self._detokenizer = text_format.tokenizer.detokenizer
        if after is not None:
            self._detokenizer.add_token(after)
            self._detokenizer.finalize()
            _ = self._detokenizer.last_segment  # the text before the answer, not shown
        self._markers = text_format.markers.make_state(state)
        self._stops = TextStateMachine(
            {ANSWER_STATE: [*text_format.strays, *((s, None) for s in stop)]}
        )
        self._stop_state = self._stops.make_state()
        self._stop_begins = frozenset(text[0] for text in stop)
        self._plain: PlainDeltas | None = None  # those that may be shown at once, where any may
        self._tool_text: ToolText | None = None  # text of a tool call that has not ended

    def add(self, token: int) -> list[Delta]:
        """Add one token; return the deltas that it produces."""
        plain = None if self._plain is None else self._plain[token]
        if plain and (not self._stop_begins or self._stop_begins.isdisjoint(plain.text)):
            self.reasoning_tokens += plain.reasoning
            return [plain]
        self._detokenizer.add_token(token)
        text = self._detokenizer.last_segment
        deltas = self._split(text)
        self.reasoning_tokens += self._markers[0] == REASONING_STATE
        self._plain = self._plain_deltas() if text else None
        return deltas

    def _plain_deltas(self) -> PlainDeltas | None:
        """Return the deltas that may be shown without a look at what is held back; None if it is.

        The detokenizer holds nothing back after it has given text.
        """
        state, _, _, held = self._markers
        if held or self.stopped or self._stop_state[-1]:
            return None
        return self._text_format.plain.get(state)

    def described(self, token: int, drawn: TokenLogprob) -> dict[str, Any]:
        """Return a token's log-probability in the format of OpenAI's interface."""
        top = [self._one(other, logprob) for other, logprob in drawn.top]
        return {**self._one(token, drawn.logprob), "top_logprobs": top}

    def _one(self, token: int, logprob: float) -> dict[str, Any]:
        text, content = self._text_format.alone(token)
        bytes_of = None if content is None else [*content]
        return {"token": text, "logprob": logprob, "bytes": bytes_of}

    def finish(self, *, cut: bool = False) -> list[Delta]:
        """Return the deltas of the text that was held back, at the end of the answer.

        `cut` says that a limit ended the answer, so that a tool call may be incomplete.
        """
        if self.stopped:
            return []
        self._detokenizer.finalize()
        deltas = self._split(self._detokenizer.last_segment)
        self._markers, rest, state = TextStateMachine.flush(self._markers)
        deltas += self._route(state, rest)
        deltas += self._close_call(cut=cut)
        return deltas + self._release_held_text()

    def _split(self, text: str) -> list[Delta]:
        if not text or self.stopped:
            return []
        self._markers, segments = _split(self._markers, text)
        deltas: list[Delta] = []
        for state, part in segments:
            if self._tool_text is not None and state != TOOL_STATE:
                deltas += self._close_call(self._text_format.tokenizer.tool_call_end or "")
            deltas += self._route(state, part)
        return deltas

    def _route(self, state: str, text: str) -> list[Delta]:
        if state == ANSWER_STATE:
            return self._until_stop(text)
        if self.stopped or not text:
            return []
        # A stop string does not continue across text of another channel.
        held = self._release_held_text()
        if state == TOOL_STATE:
            return held + self._call(text)
        # In any other state the text is a message's header, which is not shown.
        return held + (_deltas(text, reasoning=True) if state == REASONING_STATE else [])

    def _release_held_text(self) -> list[Delta]:
        """Return the text that was held back because it could begin a stop string."""
        if self.stopped:
            return []
        self._stop_state, held, _ = TextStateMachine.flush(self._stop_state)
        return _deltas(held)

    def _call(self, text: str) -> list[Delta]:
        if self._tool_text is None:
            first = len(self.calls) + len(self.broken)
            taken = {call["id"] for call in self.calls}
            self._tool_text = ToolText(self._text_format.tokenizer, self._tools, first, taken)
        return _of_calls(self._tool_text.add(text))

    def _until_stop(self, text: str) -> list[Delta]:
        if self.stopped or not text:
            return []
        self._stop_state, segments = _split(self._stop_state, text)
        self.stopped = self._stop_state[0] is None
        return _deltas("".join(part for _, part in segments))

    def _close_call(self, end: str = "", *, cut: bool = False) -> list[Delta]:
        """Parse the calls in the open tool text, which the marker `end` or a limit (`cut`) ends."""
        text, self._tool_text = self._tool_text, None
        if text is None:
            return []
        deltas = text.close(end, cut=cut)
        self.calls += text.calls
        self.broken += text.broken
        return _of_calls(deltas)


def _split(state: Any, text: str) -> tuple[Any, list[tuple[str, str]]]:
    """Do the same as TextStateMachine.split, but faster if no character can begin a marker."""
    name, node, _, held = state
    if not held and node.keys().isdisjoint(text):
        return state, [(name, text)]
    return TextStateMachine.split(state, text)  # type: ignore[no-any-return]


def _deltas(text: str, *, reasoning: bool = False) -> list[Delta]:
    return [TextDelta(text, reasoning)] if text else []


def _of_calls(deltas: Sequence[ToolCallDelta]) -> list[Delta]:
    return [CallDelta(delta) for delta in deltas]
