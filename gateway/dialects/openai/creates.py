"""What a client asks for by `response.create`, checked: all but its input.

Rule 1: a field that would change the answer and can't be honoured is refused by its name.
Rule 2: a field without effect on the answer is taken, and so is one that is not known.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from gateway.dialects.openai.errors import Refused, quoted

__all__ = [
    "Create",
    "Tools",
    "flat",
    "generation_options",
    "read_create",
    "read_tools",
    "response_format",
]

# Fields of which each value but null would change the answer, and why they can't be honoured.
UNSUPPORTED = {
    "conversation": "conversations are not kept; continue one by `previous_response_id`",
    "prompt": "prompt templates are not kept; send their text as `input`",
}
LOGPROBS = "message.output_text.logprobs"
MODES = ("auto", "none", "required")
# What a chat template's `reasoning_effort` knows for each effort.
EFFORTS = {
    "none": None,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
FORMATS = ("text", "json_object", "json_schema")


class Reasoning(Struct, kw_only=True):
    """How much the model should think; no summary is made of it."""

    effort: str | None = None
    summary: str | None = None


class Text(Struct, kw_only=True):
    """The form of the answer's text; `verbosity` is a wish that models here don't know."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class Create(Struct, kw_only=True):
    """The fields of `response.create` that are read."""

    model: str | None = None
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    generate: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: Text | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    truncation: str | None = None
    include: list[str] | None = None
    top_logprobs: int | None = None
    metadata: dict[str, str] | None = None
    max_tool_calls: int | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None

    @property
    def with_logprobs(self) -> bool:
        """Whether the log-probabilities of the answer's tokens are included."""
        return LOGPROBS in (self.include or ())


def flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an event with those that it has in `response`, as Realtime's has."""
    nested = fields.get("response")
    return {**fields, **nested} if isinstance(nested, dict) else fields


def read_create(fields: dict[str, Any]) -> Create:
    """Return the fields that are read. Raises Refused."""
    for name, why in UNSUPPORTED.items():
        if fields.get(name) is not None:
            raise Refused(f"`{name}`: {why}", name, "unsupported_parameter")
    try:
        create = msgspec.convert(fields, Create)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        param = re.sub(r"^\.|`$|\[\.\.\.\]", "", path.rstrip("`"))[:256]
        said = what[:1].lower() + what[1:]
        raise Refused(f"`{param}`: {said}", param, "invalid_type") from error
    _one_of("truncation", create.truncation, ("auto", "disabled"))
    return create


def _one_of(name: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        said = f"`{name}`: must be one of {', '.join(known)}"
        raise Refused(said, name, "invalid_value")


def generation_options(create: Create) -> dict[str, Any]:
    """Return the fields of a `generate` for the options of sampling. Raises Refused."""
    options = {
        "temperature": create.temperature,
        "top_p": create.top_p,
        "max_tokens": create.max_output_tokens,
        "presence_penalty": create.presence_penalty,
        "frequency_penalty": create.frequency_penalty,
        "seed": create.seed,
        "response_format": response_format(create.text),
    }
    if create.with_logprobs:
        options |= {"logprobs": True, "top_logprobs": create.top_logprobs}
    effort = create.reasoning.effort if create.reasoning is not None else None
    if effort is not None:
        _one_of("reasoning.effort", effort, tuple(EFFORTS))
        told = EFFORTS[effort]
        options["enable_thinking"] = told is not None
        if told is not None:
            options["chat_template_kwargs"] = {"reasoning_effort": told}
    return {name: value for name, value in options.items() if value is not None}


def response_format(text: Text | None) -> dict[str, Any] | None:
    """Return the constraint on the answer's text. Raises Refused."""
    given = text.format if text is not None else None
    if given is None:
        return None
    kind = given.get("type")
    if kind not in FORMATS:
        said = f"`text.format.type`: must be one of {', '.join(FORMATS)}"
        raise Refused(said, "text.format.type", "invalid_value")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": kind}
    if not isinstance(given.get("schema"), dict):
        said = "`text.format.schema`: must be a JSON Schema"
        raise Refused(said, "text.format.schema", "invalid_value")
    return {"type": kind, "schema": given["schema"]}


class Tools(Struct, frozen=True, kw_only=True):
    """The tools of a request, and the choice among them."""

    given: dict[int, dict[str, Any]]  # by their places in the request, where others are left out
    choice: str | dict[str, Any]
    left_out: list[str]  # the types of the others

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The tools as a response has them."""
        names = ("name", "description", "parameters", "strict")
        return [
            {"type": "function", **{n: tool.get(n) for n in names}} for tool in self.given.values()
        ]

    @property
    def called(self) -> str | dict[str, Any] | None:
        """The choice as a `generate` has it."""
        if isinstance(self.choice, dict) and self.choice["type"] == "allowed_tools":
            return str(self.choice["mode"])
        return None if self.choice == "auto" else self.choice

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The tools as a `generate` has them."""
        tools = [self.given[place] for place in self.places]
        return [
            {"type": "function", **{n: tool[n] for n in FUNCTION if tool.get(n) is not None}}
            for tool in tools
        ]

    @property
    def places(self) -> list[int]:
        """The place in the request of each tool that is asked with."""
        allowed = _allowed(self.choice)
        return [
            place
            for place, tool in self.given.items()
            if allowed is None or tool.get("name") in allowed
        ]


FUNCTION = ("name", "description", "parameters")


def read_tools(create: Create) -> Tools:
    """Return the tools and the choice among them. Raises Refused."""
    given: dict[int, dict[str, Any]] = {}
    left_out = []
    for place, tool in enumerate(create.tools or ()):
        kind = tool.get("type", "function")
        if kind != "function":
            left_out.append(quoted(kind))
            continue
        nested = tool.get("function")  # as Chat Completions have it
        given[place] = nested if isinstance(nested, dict) else tool
    choice = _choice(create.tool_choice)
    return Tools(given=given, choice=choice, left_out=left_out)


def _choice(given: str | dict[str, Any] | None) -> str | dict[str, Any]:
    match given:
        case None:
            return "auto"
        case str() if given in MODES:
            return given
        case {"type": "function", "name": str(name)}:
            return {"type": "function", "name": name}
        case {"type": "function", "function": {"name": str(name)}}:
            return {"type": "function", "name": name}
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(tools)}:
            return {"type": "allowed_tools", "mode": mode, "tools": tools}
    said = "must be auto, none, required, a function by its name, or allowed_tools with a mode"
    raise Refused(f"`tool_choice`: {said}", "tool_choice", "unsupported_value")


def _allowed(choice: str | dict[str, Any]) -> list[str] | None:
    """Return the names of allowed tools, None for all."""
    if isinstance(choice, str) or choice["type"] != "allowed_tools":
        return None
    named = (tool.get("name") for tool in choice["tools"] if isinstance(tool, dict))
    return [name for name in named if isinstance(name, str)]
