"""The table of model families and their text formats: all that is specific to a family is here.

A family for which mlx-lm has a tool parser is one entry under the name of the parser's module. Any
other family is an entry with `own`, and has a file beside this one for its parser, such as
harmony.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from provider.formats import harmony
from provider.formats.call_grammar import (
    IDENTIFIER,
    JSON_LIKE,
    NULL,
    WORD,
    CallGrammar,
    Headed,
    IfRequired,
    IfToken,
    InJson,
    Named,
    bare,
    in_json,
    quoted,
)
from provider.formats.call_history import STYLES, CallStyle
from provider.formats.lark import GAP, NUMBER
from provider.formats.readers import HeadedCalls, JsonCall, Reader, WholeText
from provider.formats.tagged_calls import TaggedCalls, Tags
from provider.formats.thinking import Thinking, tagged_thinking
from provider.runtime.mlx_lm import detokenizer_class, inner_tokenizer

__all__ = [
    "FAMILIES",
    "CallFormat",
    "ModelFormat",
    "OwnReading",
    "headed",
    "model_format",
    "what_is_missing",
    "with_own_reading",
]

# Called, as mlx-lm's parsers are, with the text between the markers and the tools.
Parser = Callable[..., Any]
Tools = Sequence[Mapping[str, Any]]


def whole_text(_parser: Parser, _tools: Tools) -> Reader:
    """Return a reader that shows a call only when it is complete."""
    return WholeText()


def headed(header: str | re.Pattern[str]) -> Callable[[Parser, Tools], Reader]:
    """Return a factory of readers for calls that are a header and then JSON, see HeadedCalls."""
    pattern = re.compile(header)
    return lambda _parser, _tools: HeadedCalls(pattern)


def _tagged(tags: Tags) -> Callable[[Parser, Tools], Reader]:
    return lambda parser, tools: TaggedCalls(tags, parser, tools)


@dataclass(frozen=True)
class CallFormat:
    """The format of a family's tool calls, between the markers that its parser's module names."""

    # Creates a reader that shows calls while the model writes them.
    reader: Callable[[Parser, Tools], Reader] = whole_text
    # Constrains a model to exactly one call; None if the family has no grammar.
    grammar: CallGrammar | None = None
    # For a parser that accepts an incomplete call: the text that ends a call, "" if only the end
    # marker does. None for a parser that refuses incomplete calls.
    part_ends_with: str | None = None
    # Returns whether the parser has invented a call, given the text and the call.
    is_guess: Callable[[str, Mapping[str, Any]], bool] | None = None


@dataclass(frozen=True)
class OwnReading:
    """The parser and markers of a family for which mlx-lm has no parser."""

    tokens: Sequence[str]  # a vocabulary with all of them belongs to this family
    parser: Parser
    call_start: str
    call_end: str
    ends: Sequence[str] = ()  # tokens that end an answer, in addition to the configuration's
    response_format: Mapping[str, Any] = field(default_factory=dict)  # states in mlx-lm's notation


@dataclass(frozen=True)
class ModelFormat:
    """The text format of one model family."""

    calls: CallFormat = CallFormat()
    # Returns the tokens around thinking, given mlx-lm's tokenizer.
    thinking: Callable[[Any], Thinking] = tagged_thinking
    # Formats of earlier calls to try with the chat template; the first one that works is used.
    call_styles: Sequence[CallStyle] = tuple(STYLES)
    # The marker before a message's header, for a model that writes headers.
    message_start: str = "<|start|>"
    # Whether a constrained text can begin after the header of the answer's message.
    constraint_after_headers: bool = False
    # The parser of a family for which mlx-lm has none.
    own: OwnReading | None = None


def model_format(tokenizer: Any) -> ModelFormat:
    """Return the entry of a tokenizer's family, UNKNOWN if it has none."""
    return FAMILIES.get(_family(getattr(tokenizer, "tool_parser", None)), UNKNOWN)


def what_is_missing(tokenizer: Any) -> str:
    """Return a sentence, without a full stop, on a model's unsupported features; "" if none."""
    name = _family(tokenizer.tool_parser)
    if name and name not in FAMILIES:
        return (
            f"the format `{name}` of its tool calls is only partly supported: calls are shown only "
            "when they are complete, `tool_choice` can't require one, and one that is cut off may "
            "count as complete"
        )
    if not name and "tools" in str(tokenizer.chat_template):
        return "its template supports tools, but its tool calls can't be read and come as text"
    return ""


def with_own_reading(tokenizer: Any) -> Any:
    """Return a tokenizer with the parser of its family's `own` entry.

    A tokenizer for which mlx-lm has a parser, or whose family has no such entry, is returned as is.
    """
    if tokenizer.response_initial_state:
        return tokenizer
    vocabulary = tokenizer.get_vocab()
    for family in FAMILIES.values():
        if family.own is not None and all(token in vocabulary for token in family.own.tokens):
            return _read_by(family.own, tokenizer, vocabulary)
    return tokenizer


def _read_by(own: OwnReading, tokenizer: Any, vocabulary: Mapping[str, int]) -> Any:
    return type(tokenizer)(
        inner_tokenizer(tokenizer),
        detokenizer_class(tokenizer),
        eos_token_ids={*tokenizer.eos_token_ids, *(vocabulary[end] for end in own.ends)},
        tool_call_start=own.call_start,
        tool_call_end=own.call_end,
        tool_parser=own.parser,
        response_format=dict(own.response_format),
    )


def _family(parser: Parser | None) -> str:
    """Return the name of a parser's family, which is that of the parser's module."""
    return "" if parser is None else parser.__module__.rpartition(".")[2]


def _is_glm_guess(text: str, call: Mapping[str, Any]) -> bool:
    """Return whether GLM's parser made a call of plain text: a word as name, the rest as `raw`."""
    return "<arg_key>" not in text and list(call["arguments"]) == ["raw"]


# The table. -------------------------------------------------------------------------------------

UNKNOWN = ModelFormat()
GLM = ModelFormat(
    CallFormat(
        reader=_tagged(
            Tags(
                re.compile(r"\s*([^\s<]+)\s*(?=<arg_key>)"),
                re.compile(r"\s*<arg_key>\s*([^\s<]+)\s*</arg_key>\s*<arg_value>"),
                "</arg_value>",
            )
        ),
        grammar=Named(
            f"{{name}}{GAP}",
            f"<arg_key>{{key}}</arg_key>{GAP}<arg_value>",
            bare(),
            f"</arg_value>{GAP}",
        ),
        part_ends_with="",
        is_guess=_is_glm_guess,
    )
)
FAMILIES: dict[str, ModelFormat] = {
    "function_gemma": ModelFormat(
        CallFormat(
            grammar=Named(
                "call:{name}{{",
                "{key}:",
                quoted("<escape>", r"(?s:.*)\}(?s:.*)"),  # the parser stops at the first brace
                after="}",
                between=",",
                names=WORD,
                keys=WORD,
            )
        )
    ),
    "gemma4": ModelFormat(
        CallFormat(
            grammar=Named(
                "call:{name}{{",
                "{key}:",
                quoted('<|"|>', nested=True),
                after="}",
                between=",",
                names=r"[\w-]+",
                keys=WORD,
            )
        )
    ),
    "glm47": GLM,
    "harmony": ModelFormat(
        CallFormat(
            reader=headed(harmony.CALL_HEADER),
            grammar=Headed("functions.{name} <|constrain|>json<|message|>"),
        ),
        thinking=harmony.harmony_thinking,
        constraint_after_headers=True,
        own=OwnReading(
            harmony.TOKENS,
            harmony.parse_tool_call,
            harmony.CALL_START,
            harmony.CALL_END,
            harmony.ENDS,
            harmony.RESPONSE_FORMAT,
        ),
    ),
    "json_tools": ModelFormat(
        CallFormat(reader=lambda _parser, _tools: JsonCall(), grammar=InJson())
    ),
    "kimi_k2": ModelFormat(
        CallFormat(
            reader=headed(
                r"\s*(<\|tool_call_end\|>\s*)?<\|tool_call_begin\|>\s*"
                r"(?P<id>(functions\.)?(?P<name>[^\s:<]+):\d+)"
                r"\s*<\|tool_call_argument_begin\|>\s*(?=\{)"
            ),
            grammar=Headed(
                f"<|tool_call_begin|>functions.{{name}}:{NUMBER}<|tool_call_argument_begin|>",
                "<|tool_call_end|>",
            ),
            part_ends_with="<|tool_call_end|>",
        )
    ),
    "kimi_k3": ModelFormat(
        CallFormat(
            grammar=Named(
                '<|open|>call tool="{name}" index="1"<|sep|>',
                '<|open|>argument key="{key}" type="{type}"<|sep|>',
                bare(),
                "<|close|>argument<|sep|>",
                "<|close|>call<|sep|>",
            )
        )
    ),
    "laguna": GLM,
    "longcat": ModelFormat(
        CallFormat(
            reader=_tagged(
                Tags(
                    re.compile(r"\s*([^\s<]+)\s*(?=<longcat_arg_key>)"),
                    re.compile(
                        r"\s*<longcat_arg_key>\s*([^\s<]+)\s*</longcat_arg_key>"
                        r"\s*<longcat_arg_value>"
                    ),
                    "</longcat_arg_value>",
                )
            ),
            grammar=IfRequired(
                Named(
                    f"{{name}}{GAP}",
                    f"<longcat_arg_key>{{key}}</longcat_arg_key>{GAP}<longcat_arg_value>",
                    bare(),
                    f"</longcat_arg_value>{GAP}",
                ),
                InJson(),  # the only format in which the parser reads a call without arguments
            ),
            part_ends_with="",
        )
    ),
    "minicpm5": ModelFormat(
        CallFormat(
            grammar=Named('"{name}">', '<param name="{key}">', bare(NULL), "</param>"),
            part_ends_with="",
        )
    ),
    "minimax_m2": ModelFormat(
        CallFormat(
            reader=_tagged(
                Tags(
                    re.compile(r'\s*<invoke name="([^">\s]+)">'),
                    re.compile(r'\s*<parameter name="([^">\s]+)">'),
                    "</parameter>",
                    re.compile(r"\s*</invoke>"),
                    "</invoke>",
                    several=True,
                )
            ),
            grammar=Named(
                f'{GAP}<invoke name="{{name}}">{GAP}',
                '<parameter name="{key}">',
                bare(NULL),
                f"</parameter>{GAP}",
                f"</invoke>{GAP}",
            ),
        )
    ),
    "mistral": ModelFormat(
        CallFormat(
            reader=headed(r"\s*(?P<name>[\w-]+)\s*\[ARGS\]\s*(?=\{)"),
            # Models with an older vocabulary write a list of calls in JSON.
            grammar=IfToken("[ARGS]", Headed("{name}[ARGS]"), InJson(f"{GAP}[", "]")),
        )
    ),
    "muse_spark": ModelFormat(
        CallFormat(
            grammar=Named(
                f'{GAP}<atem:invoke name="{{name}}">{GAP}',
                '<atem:parameter name="{key}">',
                bare(NULL, JSON_LIKE),
                f"</atem:parameter>{GAP}",
                f"</atem:invoke>{GAP}",
            ),
            part_ends_with="</atem:invoke>",
        )
    ),
    "pythonic": ModelFormat(
        CallFormat(
            grammar=Named(
                "[{name}(",
                "{key}=",
                in_json,  # the parser reads Python literals, and also true, false and null
                after=")]",
                between=", ",
                names=rf"{IDENTIFIER}(\.{IDENTIFIER})*",
                keys=IDENTIFIER,
            )
        )
    ),
    "qwen3_coder": ModelFormat(
        CallFormat(
            reader=_tagged(
                Tags(
                    re.compile(r"\s*<function=([^\s<>]+)>"),
                    re.compile(r"\s*<parameter=([^\s<>]+)>"),
                    "</parameter>",
                    re.compile(r"\s*</function>"),
                    "</function>",
                    strips=False,
                )
            ),
            grammar=Named(
                "\n<function={name}>\n",
                "<parameter={key}>\n",
                bare(NULL),
                "\n</parameter>\n",
                "</function>\n",
            ),
        )
    ),
}
