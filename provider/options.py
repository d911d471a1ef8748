"""What a call may ask for, checked in one place before anything runs.

Every option is one field of `GenerationOptions` with its default, its range and its unit. The
command line, the wire and `generate_async(**kwargs)` all end here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from provider.errors import InvalidParameterError, unlike
from provider.message_types import checked_messages

__all__ = ["MAX_SEED", "GenerationOptions", "parse_options"]

MAX_STOP_STRINGS = 16  # each costs a state machine per stream; OpenAI's interface allows 4
MAX_STOP_LENGTH = 256  # characters; a partial match is held back from the reader
MAX_SEED = 2**64 - 1  # what mlx.random.key takes
MAX_BIASES = 1024  # tokens; as many as anybody has asked for, and no more than a prompt costs
MAX_VARIABLES = 32  # of a chat template; those of today read a handful
MAX_ANSWERS = 32  # to one prompt; as many as decode together by default
MAX_TOKENS = 1_000_000  # a bound on nonsense; the context window is the real one


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """The checked options of one generation."""

    messages: tuple[dict[str, Any], ...] | None = None
    model: str | None = None
    events: bool = False
    raw: bool = False  # the prompt as it is, without the model's chat template
    continue_final_message: bool = False  # the last message is the assistant's, and goes on
    enable_thinking: bool | None = None  # None: as the model's template has it
    max_reasoning_tokens: int | None = None  # then the thinking is closed; the answer begins
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 2048
    seed: int | None = None
    stop: tuple[str, ...] = ()
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None  # added to the logits, by token
    n: int = 1  # answers to the prompt, which is read once
    tool_choice: str | None = None  # "auto", "none", "required", or one by name as `=name`
    logprobs: bool = False  # of each token
    top_logprobs: int = 0  # likeliest tokens beside it
    response_format: Mapping[str, Any] | None = None  # with `type` and what it needs
    chat_template_kwargs: Mapping[str, Any] | None = None  # what else the template reads

    @property
    def goes_on(self) -> bool:
        """Whether the answer goes on from a text, and does not begin a turn."""
        return self.raw or self.continue_final_message

    @property
    def template_variables(self) -> dict[str, Any]:
        """What the chat template reads beyond messages and tools."""
        thinking = {} if self.enable_thinking is None else {"enable_thinking": self.enable_thinking}
        return {**(self.chat_template_kwargs or {}), **thinking}


def parse_options(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> GenerationOptions:
    """Return the options of one call: what is `given`, else the provider's `defaults`.

    A given None means the default. Raises InvalidParameterError, which names the option, for one
    that is unknown or out of its range.
    """
    known = {field.name for field in fields(GenerationOptions)}
    values = {}
    for name, value in given.items():
        if name not in known:
            raise InvalidParameterError(name, value, _unknown(name, known))
        if value is not None:
            values[name] = CHECKS[name](name, value)
    for name in known - values.keys():
        if defaults.get(name) is not None and name in CHECKS and name not in NOT_DEFAULTS:
            values[name] = CHECKS[name](name, defaults[name])
    options = GenerationOptions(**values)
    if options.top_logprobs and not options.logprobs:
        said = "`top_logprobs` needs `logprobs`"
        raise InvalidParameterError("top_logprobs", options.top_logprobs, said)
    return options


NOT_DEFAULTS = frozenset(
    {
        "continue_final_message",
        "events",
        "logit_bias",
        "messages",
        "model",
        "n",
        "raw",
        "response_format",
        "tool_choice",
    }
)  # of a call, never of a configuration


def _unknown(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"unknown option `{name}`" + (f"; did you mean `{near[0]}`?" if near else "")


# Checks: each takes the option's name and value and returns the value to use. ------------------


def _number(low: float, high: float, *, open_low: bool = False) -> Callable[[str, Any], float]:
    sign = "(" if open_low else "["

    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise unlike(name, value, "a number")
        inside = (low < value if open_low else low <= value) and value <= high
        if not inside:  # nor is NaN
            raise unlike(name, value, f"in {sign}{low:g}, {high:g}]")
        return float(value)

    return check


def _integer(low: int, high: int) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise unlike(name, value, "a whole number")
        if not low <= value <= high:
            raise unlike(name, value, f"from {low} to {high}")
        return value

    return check


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise unlike(name, value, "true or false")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise unlike(name, value, "a non-empty string")
    return value


def _stop(name: str, value: Any) -> tuple[str, ...]:
    words = (value,) if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(w, str) and w for w in words):
        raise unlike(name, value, "a non-empty string, or a list of such")
    if len(words) > MAX_STOP_STRINGS or any(len(w) > MAX_STOP_LENGTH for w in words):
        limit = f"at most {MAX_STOP_STRINGS} texts of at most {MAX_STOP_LENGTH} characters"
        raise unlike(name, value, limit)
    return tuple(words)


def _logit_bias(name: str, value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping) or len(value) > MAX_BIASES:
        raise unlike(name, value, f"an object of at most {MAX_BIASES} token ids and their biases")
    return {_token(name, key): BIAS(f"{name}.{key}", bias) for key, bias in value.items()}


def _token(name: str, key: Any) -> int:
    """Return a token's number; JSON's keys are texts."""
    if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 10:
        return int(key)
    if isinstance(key, int) and not isinstance(key, bool) and 0 <= key < 10**9:
        return key
    raise unlike(name, key, "an object whose keys are token ids")


def _tool_choice(name: str, value: Any) -> str:
    """Return a choice as one text; OpenAI's nested form names a tool, and so does the flat one."""
    if value in ("auto", "none", "required"):
        return str(value)
    inner = value.get("function", value) if isinstance(value, Mapping) else None
    if isinstance(inner, Mapping) and isinstance(inner.get("name"), str) and inner["name"]:
        return f"={inner['name']}"
    form = '"auto", "none", "required", or {"type": "function", "function": {"name": …}}'
    raise unlike(name, value, form)


FORMATS = {  # the field that each needs, and what it must hold
    "text": None,
    "json_object": None,
    "json_schema": "schema",
    "regex": "regex",
    "lark": "grammar",
    "choice": "choices",
}


def _response_format(name: str, value: Any) -> dict[str, Any]:
    """Return a format with the field that its type needs; OpenAI's nested form is made flat."""
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
        if not isinstance(key, str) or not key.isidentifier() or key in OF_THE_RENDERER:
            raise unlike(f"{name}.{str(key)[:40]}", value[key], "a variable of the template")
    return dict(value)


# What transformers' apply_chat_template takes for itself; a template's variables are the others.
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


BIAS = _number(-100, 100)
CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "chat_template_kwargs": _chat_template_kwargs,
    "messages": checked_messages,
    "model": _text,
    "events": _boolean,
    "raw": _boolean,
    "continue_final_message": _boolean,
    "enable_thinking": _boolean,
    "max_reasoning_tokens": _integer(0, MAX_TOKENS),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1, open_low=True),
    "top_k": _integer(0, 1_000_000),
    "min_p": _number(0, 1),
    "max_tokens": _integer(1, MAX_TOKENS),
    "n": _integer(1, MAX_ANSWERS),
    "seed": _integer(0, MAX_SEED),
    "stop": _stop,
    "repetition_penalty": _number(0, 10, open_low=True),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "logit_bias": _logit_bias,
    "response_format": _response_format,
    "tool_choice": _tool_choice,
    "logprobs": _boolean,
    "top_logprobs": _integer(0, 20),
}
