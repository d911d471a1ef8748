"""The options of a call: their defaults, ranges and checks.

Every option is one field of `GenerationOptions`, with its default, its check and whether a
provider's configuration may set it; `OPTIONS` has all of them by name. This is the only definition
for the command line, the wire protocol, the demo page and `generate_async(**kwargs)`.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from provider.errors import InvalidParameterError, unlike
from provider.message_types import checked_messages

__all__ = [
    "MAX_SEED",
    "OF_THE_CALLER",
    "OPTIONS",
    "GenerationOptions",
    "Integer",
    "Number",
    "Option",
    "parse_options",
]

# Called with an option's name and value; returns the value to use.
Check = Callable[[str, Any], Any]

MAX_MODEL_CHARS = 4096  # the longest path of a folder; an error repeats the name
MAX_STOP_STRINGS = 16  # each one makes a stream slower; OpenAI's interface allows 4
MAX_STOP_LENGTH = 256  # in characters; a stream holds back that much text at most
MAX_SEED = 2**64 - 1  # the largest seed of mlx.random.key
MAX_BIASES = 1024  # token ids
MAX_VARIABLES = 32  # template variables; known templates read only a few
MAX_VARIABLE_CHARS = 256  # of a variable's name; its letters are looked up one by one
MAX_ANSWERS = 32  # answers to one prompt; by default as many runs as decode in one batch
MAX_TOP_K = 1_000_000  # tokens, more than any vocabulary has
MAX_TOP_LOGPROBS = 20  # tokens, the same limit as in OpenAI's interface
MAX_TOKENS = 1_000_000  # a sanity check, because the context window is the effective limit


# Checks. -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    """A check that a number is in a range; the attributes let other code show the range."""

    low: float
    high: float
    open_low: bool = False  # whether `low` itself is outside the range

    def __call__(self, name: str, value: Any) -> float:
        """Return the number. Raises InvalidParameterError."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise unlike(name, value, "a number")
        inside = (self.low < value if self.open_low else self.low <= value) and value <= self.high
        if not inside:  # NaN is never inside
            sign = "(" if self.open_low else "["
            raise unlike(name, value, f"in {sign}{self.low:g}, {self.high:g}]")
        return float(value)


@dataclass(frozen=True)
class Integer:
    """A check that a whole number is from `low` to `high`, both inclusive."""

    low: int
    high: int

    def __call__(self, name: str, value: Any) -> int:
        """Return the number. Raises InvalidParameterError."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise unlike(name, value, "a whole number")
        if not self.low <= value <= self.high:
            raise unlike(name, value, f"from {self.low} to {self.high}")
        return value


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise unlike(name, value, "true or false")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise unlike(name, value, "a non-empty string")
    return value


def _model(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_MODEL_CHARS:
        raise unlike(name, value, f"a string of 1 to {MAX_MODEL_CHARS} characters")
    return value


def _stop(name: str, value: Any) -> tuple[str, ...]:
    words = (value,) if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(w, str) and w for w in words):
        raise unlike(name, value, "a non-empty string, or a list of such")
    if len(words) > MAX_STOP_STRINGS or any(len(w) > MAX_STOP_LENGTH for w in words):
        limit = f"at most {MAX_STOP_STRINGS} texts of at most {MAX_STOP_LENGTH} characters"
        raise unlike(name, value, limit)
    return tuple(words)


BIAS = Number(-100, 100)


def _logit_bias(name: str, value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping) or len(value) > MAX_BIASES:
        raise unlike(name, value, f"an object of at most {MAX_BIASES} token ids and their biases")
    return {_token(name, key): BIAS(f"{name}.{key}", bias) for key, bias in value.items()}


def _token(name: str, key: Any) -> int:
    """Return a token id from a key of an object, which in JSON is a string."""
    if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 10:
        return int(key)
    if isinstance(key, int) and not isinstance(key, bool) and 0 <= key < 10**9:
        return key
    raise unlike(name, key, "an object whose keys are token ids")


def _tokens(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_TOKENS:
        raise unlike(name, value, f"a list of at most {MAX_TOKENS} token ids")
    if not all(type(token) is int and 0 <= token < 2**31 for token in value):
        raise unlike(name, value, "a list of token ids")
    return tuple(value)


def _tool_choice(name: str, value: Any) -> str:
    """Return a tool choice as one string: a mode, or `=name` for a tool by name.

    A tool is named by `{"type": "function", "name": …}` or by OpenAI's nested form.
    """
    if value in ("auto", "none", "required"):
        return str(value)
    inner = value.get("function", value) if isinstance(value, Mapping) else None
    if isinstance(inner, Mapping) and isinstance(inner.get("name"), str) and inner["name"]:
        return f"={inner['name']}"
    expected = '"auto", "none", "required", or {"type": "function", "function": {"name": …}}'
    raise unlike(name, value, expected)


FORMATS = {  # the field that each type of response format needs
    "text": None,
    "json_object": None,
    "json_schema": "schema",
    "regex": "regex",
    "lark": "grammar",
    "choice": "choices",
}


def _response_format(name: str, value: Any) -> dict[str, Any]:
    """Return a response format as its `type` and the field that this type needs.

    OpenAI's nested form, `{"type": "json_schema", "json_schema": {"schema": …}}`, becomes flat.
    """
    named = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(named, str) or named not in FORMATS:
        raise unlike(name, value, "an object with a `type` of " + ", ".join(FORMATS))
    kind = named
    nested = value.get("json_schema")
    given = {**value, **nested} if kind == "json_schema" and isinstance(nested, Mapping) else value
    field = FORMATS[kind]
    if field is None:
        return {"type": kind}
    held, path = given.get(field), f"{name}.{field}"
    if kind == "json_schema":
        if not isinstance(held, Mapping | bool):
            raise unlike(path, held, "a JSON Schema")
    elif kind == "choice":
        if not isinstance(held, list | tuple) or not held:
            raise unlike(path, held, "a non-empty list of strings")
        held = tuple(_text(path, choice) for choice in held)
    else:
        held = _text(path, held)
    return {"type": kind, field: held}


def _chat_template_kwargs(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or len(value) > MAX_VARIABLES:
        raise unlike(name, value, f"an object of at most {MAX_VARIABLES} template variables")
    for key in value:
        named = isinstance(key, str) and len(key) <= MAX_VARIABLE_CHARS and key.isidentifier()
        if not named or key in OF_THE_RENDERER:
            raise unlike(f"{name}.{str(key)[:40]}", value[key], "a variable of the template")
    return dict(value)


# Parameters of transformers' apply_chat_template, which can't be variables of a template.
OF_THE_RENDERER = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "sanitize_control_tokens",
        "self",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)


# The options. ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """One option of a call."""

    name: str
    default: Any
    check: Check  # a Number or Integer for an option that is a number
    configurable: bool  # whether a provider's configuration may set its default


def _option(default: Any, check: Check, *, configurable: bool = True) -> Any:
    return field(default=default, metadata={"check": check, "configurable": configurable})


def _of_call(default: Any, check: Check) -> Any:
    """Return a dataclass field for an option that a provider's configuration can't set."""
    return _option(default, check, configurable=False)


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """The checked options of one generation."""

    messages: tuple[dict[str, Any], ...] | None = _of_call(None, checked_messages)
    model: str | None = _of_call(None, _model)
    events: bool = _of_call(default=False, check=_boolean)
    # Any name for the client that the call is made for. The calls of one client share the places
    # that a client may have in queues, and take turns with those of other clients.
    client: str | None = _of_call(None, _text)
    # The tokens with which the answer begins, because another provider has made them. Their text is
    # in the stream too; the run goes on after them as it would have there.
    begun_answer: tuple[int, ...] | None = _of_call(None, _tokens)
    # Whether the events have the answer's tokens now and then, for a later `begun_answer`.
    tell_tokens: bool = _of_call(default=False, check=_boolean)
    # Limit of the prompt, in tokens; None means the model's own.
    max_input_tokens: int | None = _of_call(None, Integer(1, sys.maxsize))
    # Whether the prompt goes to the model unchanged, without the chat template.
    raw: bool = _of_call(default=False, check=_boolean)
    # Whether the answer continues the last message, which must be the assistant's.
    continue_final_message: bool = _of_call(default=False, check=_boolean)
    # None leaves the decision to the chat template.
    enable_thinking: bool | None = _option(None, _boolean)
    # Limit in tokens, after which the thinking is closed and the answer begins.
    max_reasoning_tokens: int | None = _option(None, Integer(0, MAX_TOKENS))
    temperature: float = _option(0.7, Number(0, 2))
    top_p: float = _option(1.0, Number(0, 1, open_low=True))
    top_k: int = _option(0, Integer(0, MAX_TOP_K))  # number of tokens; 0 means all
    min_p: float = _option(0.0, Number(0, 1))
    max_tokens: int = _option(2048, Integer(1, MAX_TOKENS))
    seed: int | None = _option(None, Integer(0, MAX_SEED))
    stop: tuple[str, ...] = _option((), _stop)
    repetition_penalty: float | None = _option(None, Number(0, 10, open_low=True))
    presence_penalty: float | None = _option(None, Number(-2, 2))
    frequency_penalty: float | None = _option(None, Number(-2, 2))
    # Values that are added to the logits, by token id.
    logit_bias: Mapping[int, float] | None = _of_call(None, _logit_bias)
    # Number of answers to the prompt, which is prefilled once.
    n: int = _of_call(1, Integer(1, MAX_ANSWERS))
    # "auto", "none", "required", or `=name` for the tool of that name.
    tool_choice: str | None = _of_call(None, _tool_choice)
    # Whether each token's log-probability is returned.
    logprobs: bool = _option(default=False, check=_boolean)
    # Number of most likely tokens that are returned for each token of the answer.
    top_logprobs: int = _option(0, Integer(0, MAX_TOP_LOGPROBS))
    # The constraint on the answer: `type`, and the field that this type needs.
    response_format: Mapping[str, Any] | None = _of_call(None, _response_format)
    # Further variables of the chat template.
    chat_template_kwargs: Mapping[str, Any] | None = _option(None, _chat_template_kwargs)

    @property
    def goes_on(self) -> bool:
        """Whether the answer continues a text instead of beginning a turn."""
        return self.raw or self.continue_final_message

    @property
    def template_variables(self) -> dict[str, Any]:
        """The variables of the chat template beside messages and tools."""
        thinking = {} if self.enable_thinking is None else {"enable_thinking": self.enable_thinking}
        return {**(self.chat_template_kwargs or {}), **thinking}


# The options that the program that calls a provider decides, never the client that it serves.
OF_THE_CALLER = frozenset({"begun_answer", "client", "events", "max_input_tokens", "tell_tokens"})

OPTIONS: Mapping[str, Option] = {
    one.name: Option(one.name, one.default, one.metadata["check"], one.metadata["configurable"])
    for one in fields(GenerationOptions)
}


def parse_options(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> GenerationOptions:
    """Return the checked options of one call: those `given`, else the provider's `defaults`.

    None as a value means the default. Raises InvalidParameterError, with the option's name, for an
    unknown option or an invalid value.
    """
    values = {}
    for name, value in given.items():
        if name not in OPTIONS:
            raise InvalidParameterError(name, value, _unknown(name))
        if value is not None:
            values[name] = OPTIONS[name].check(name, value)
    for name, option in OPTIONS.items():
        if name not in values and option.configurable and defaults.get(name) is not None:
            values[name] = option.check(name, defaults[name])
    options = GenerationOptions(**values)
    if options.top_logprobs and not options.logprobs:
        said = "`top_logprobs` needs `logprobs`"
        raise InvalidParameterError("top_logprobs", options.top_logprobs, said)
    return options


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, OPTIONS, 1)
    return f"unknown option `{name}`" + (f"; did you mean `{near[0]}`?" if near else "")
