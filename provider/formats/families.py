"""The families of models by how they write: one entry each, and nothing about them elsewhere.

A family that mlx-lm has a tool parser for is one entry under that parser's name. One that mlx-lm
can't read is an entry with `own`, and a file beside this one for its parser, as harmony's.
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

# Takes the text between the markers, and the tools, as mlx-lm's parsers do.
Parser = Callable[..., Any]
Tools = Sequence[Mapping[str, Any]]


def whole_text(_parser: Parser, _tools: Tools) -> Reader:
    """Return a reader that shows calls when they are whole."""
    return WholeText()


def headed(header: str | re.Pattern[str]) -> Callable[[Parser, Tools], Reader]:
    """Return what makes readers of calls that are a header and then JSON; see HeadedCalls."""
    pattern = re.compile(header)
    return lambda _parser, _tools: HeadedCalls(pattern)


def _tagged(tags: Tags) -> Callable[[Parser, Tools], Reader]:
    return lambda parser, tools: TaggedCalls(tags, parser, tools)


@dataclass(frozen=True)
class CallFormat:
    """How a family writes tool calls, between the markers that its parser's module names."""

    # Follows one text of calls while it is written.
    reader: Callable[[Parser, Tools], Reader] = whole_text
    # Holds a model to one call; None where there is no way to.
    grammar: CallGrammar | None = None
    # For a parser that takes a part of a call for a whole one: what ends a call within the text,
    # empty where only the end marker does. None for a parser that refuses parts.
    part_ends_with: str | None = None
    # Says of a text and the call that was read from it that the parser has made the call up.
    is_guess: Callable[[str, Mapping[str, Any]], bool] | None = None


@dataclass(frozen=True)
class OwnReading:
    """The reading of a family that mlx-lm has no parser for, from a file beside this one."""

    tokens: Sequence[str]  # a vocabulary with all of them belongs to this family
    parser: Parser
    call_start: str
    call_end: str
    ends: Sequence[str] = ()  # tokens that end an answer, beside those of the configuration
    response_format: Mapping[str, Any] = field(default_factory=dict)  # states, as mlx-lm has them


@dataclass(frozen=True)
class ModelFormat:
    """How the models of one family write."""

    calls: CallFormat = CallFormat()
    # How thinking opens and closes, by mlx-lm's tokenizer.
    thinking: Callable[[Any], Thinking] = tagged_thinking
    # In which ways its templates may take the calls of earlier turns; the first that works is used.
    call_styles: Sequence[CallStyle] = tuple(STYLES)
    # Before the header of a message, for a model that writes headers.
    message_start: str = "<|start|>"
    # Whether the header of the answer ends its thinking, so that a form can begin there.
    form_after_headers: bool = False
    # For a family that mlx-lm has no parser for.
    own: OwnReading | None = None


def model_format(tokenizer: Any) -> ModelFormat:
    """Return the entry of a tokenizer's family; UNKNOWN's calls are shown when they are whole."""
    return FAMILIES.get(_family(getattr(tokenizer, "tool_parser", None)), UNKNOWN)


def what_is_missing(tokenizer: Any) -> str:
    """Return a sentence (no full stop) on what will not work for a model, or an empty text."""
    name = _family(tokenizer.tool_parser)
    if name and name not in FAMILIES:
        return (
            f"the tool calls of `{name}` are read, but not known here: they are shown only when "
            "they are whole, `tool_choice` can't require one, and one that is cut off may count"
        )
    if not name and "tools" in str(tokenizer.chat_template):
        return "its template takes tools, but its tool calls can't be read: they come as text"
    return ""


def with_own_reading(tokenizer: Any) -> Any:
    """Return a tokenizer whose answers are read as its family's entry says.

    It is the same one if mlx-lm knows how to read them, or if its vocabulary is of no such family.
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
    """Return the name of a parser's family, that of its module; Laguna's is GLM's."""
    return "" if parser is None else parser.__module__.rpartition(".")[2]


def _is_glm_guess(text: str, call: Mapping[str, Any]) -> bool:
    """Whether GLM's parser made a call of any text: its first word, and the others as `raw`."""
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
                quoted("<escape>", r"(?s:.*)\}(?s:.*)"),  # its parser ends at the first brace
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
        form_after_headers=True,
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
                InJson(),  # the only way in which its parser reads a call without arguments
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
            # The older vocabularies have a list of calls in JSON.
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
                in_json,  # its parser reads Python, with true, false and null
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
