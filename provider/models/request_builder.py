"""Builds the engine's requests from calls of `generate`, which it checks against the model.

A `RequestBuilder` belongs to one thread, because its tokenizer does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from provider.constraints.answer import AnswerConstraint
from provider.constraints.compiler import GrammarCompiler
from provider.engine.messages import RunRequest
from provider.engine.shared_prompt import SharedPrompt
from provider.formats.chat_template import ChatTemplate
from provider.formats.pieces import Steps
from provider.formats.rendered_prompt import RenderedPrompt
from provider.formats.text_stream import ANSWER_STATE, REASONING_STATE
from provider.inputs.files import files_to_text, images_of
from provider.inputs.images import decoding_images, extract_images
from provider.inputs.messages import conversation
from provider.interface import (
    ContextWindowExceededError,
    FileData,
    InvalidParameterError,
    UnsupportedFeatureError,
)
from provider.models.vision import ImageProcessor, ProcessedImages
from provider.options import MAX_SEED, GenerationOptions

__all__ = ["Call", "RequestBuilder", "ToolsUnsupportedError"]


PLAIN = {"type": "text"}
MAX_QUOTED = 64  # characters of a name, and tools, that an error names
KNOWN_STATES = (ANSWER_STATE, REASONING_STATE)  # any other state is inside a message's header


class ToolsUnsupportedError(UnsupportedFeatureError, ValueError):
    """The model's chat template does not support tools; also a ValueError, as in AbstractLLM."""


@dataclass(frozen=True)
class Call:
    """The arguments of one call of `generate`, checked as far as is possible without a model."""

    prompt: str
    system_prompt: str | None
    files: list[str | Path | FileData]
    tools: list[dict[str, Any]]
    options: GenerationOptions


@dataclass(frozen=True)
class RequestBuilder:
    """Builds the engine's requests from calls, on the prompt thread of a loaded model."""

    template: ChatTemplate
    context_window: int | None
    vocabulary: int
    compiler: GrammarCompiler
    keep_boundaries: bool
    image_processor: ImageProcessor | None = None
    why_text_only: str = ""  # why a vision model accepts no images, as the end of a sentence

    def building(self, call: Call) -> Steps[list[RunRequest]]:
        """Return a call's requests, one per choice, built in steps.

        Raises the errors of `generate_async`.
        """
        first = yield from self._building_first(call)
        if call.options.n == 1:
            return [first]
        shared_prompt, seed = SharedPrompt(), call.options.seed
        return [
            replace(
                first,
                options=first.options if seed is None else _reseeded(first.options, seed + number),
                constraint=first.constraint if number == 0 else _another(first.constraint),
                constraint_bytes=first.constraint_bytes if number == 0 else 0,
                shared_prompt=shared_prompt,
            )
            for number in range(call.options.n)
        ]

    def _building_first(self, call: Call) -> Steps[RunRequest]:
        call = yield from _with_images(_with_choice(call))
        options = call.options
        if call.tools and not self.template.knows_tools:
            raise ToolsUnsupportedError(
                "tool_use", "this model's chat template does not support tools"
            )
        turns, images = extract_images(self._turns(call))
        prompt = RenderedPrompt(
            self.template,
            turns,
            call.tools,
            variables=options.template_variables,
            go_on=options.continue_final_message,
            raw=call.prompt,
        )
        longest = _LongestPrompt(self.context_window, options.max_input_tokens)
        processed = (yield from self._processing(prompt, images, longest, call)) if images else None
        yield
        if processed is not None:
            prompt.tokens = processed.tokens
        else:
            yield from prompt.tokenizing(longest.refuse_from)
        if not prompt.tokens:
            raise InvalidParameterError("prompt", call.prompt, "the prompt is empty")
        longest.refuse(len(prompt.tokens))
        options = self._with_ends(options, len(prompt.tokens))
        self._check_begun(options)
        keeps = self.keep_boundaries and processed is None
        boundaries = (yield from prompt.finding_boundaries()) if keeps else ()
        yield
        constraint = self._constraint(call, prompt)
        return RunRequest(
            prompt.tokens,
            options,
            call.tools,
            boundaries,
            constraint,
            0 if constraint is None or constraint.simple else constraint.shared.nbytes,
            prompt.state,
            images=processed,
            kind=_digest(images) if images else "",
        )

    def _with_ends(self, options: GenerationOptions, prompt_tokens: int) -> GenerationOptions:
        """Return the options with where the answer ends: at a stop, or with the context window."""
        # A constraint determines by itself where the answer ends.
        constrained = (options.response_format or PLAIN) != PLAIN
        if not options.raw and not constrained:
            options = replace(options, stop=(*options.stop, *self.template.stop))
        if self.context_window is None:
            return options
        left = self.context_window - prompt_tokens
        return replace(options, max_tokens=min(options.max_tokens, left))

    def _check_begun(self, options: GenerationOptions) -> None:
        """Raise InvalidParameterError if the answer can't begin with what is given."""
        begun = options.begun_answer or ()
        if begun and (max(begun) >= self.vocabulary or len(begun) >= options.max_tokens):
            said = "`begun_answer` must be fewer tokens than `max_tokens`, all of this model"
            raise InvalidParameterError("begun_answer", begun, said)
        if begun and options.n > 1:
            said = "`begun_answer` goes with one answer alone"
            raise InvalidParameterError("begun_answer", begun, said)

    def _processing(
        self, prompt: RenderedPrompt, images: list[bytes], longest: _LongestPrompt, call: Call
    ) -> Steps[ProcessedImages]:
        """Return a prompt's images and tokens as the image processor makes them.

        Raises UnsupportedFeatureError for a text model, ImageProcessingError for a bad image,
        ContextWindowExceededError for a text that can't be short enough.
        """
        if self.image_processor is None:
            raise UnsupportedFeatureError(
                "vision", f"this model reads text, not images{self.why_text_only}"
            )
        longest.refuse_from(self.template.least_tokens(prompt.text))
        return (
            yield from self.image_processor.processing(prompt.text, images, _names(images, call))
        )

    def _turns(self, call: Call) -> list[dict[str, Any]]:
        """Return the conversation's messages, none for a raw prompt.

        Raises InvalidParameterError and FileProcessingError.
        """
        options = call.options
        if options.raw:
            if options.messages or call.system_prompt or call.files or call.tools:
                said = "`raw` takes a `prompt`, without messages, system prompt, files or tools"
                raise InvalidParameterError("raw", options.raw, said)
            return []
        texts, images = files_to_text(call.files), images_of(call.files)
        turns = conversation(call.prompt, call.system_prompt, options.messages, texts, images)
        if options.continue_final_message and turns[-1]["role"] != "assistant":
            said = "`continue_final_message` needs the last message to be the assistant's"
            name = "continue_final_message"
            raise InvalidParameterError(name, options.continue_final_message, said)
        return turns

    def _constraint(self, call: Call, prompt: RenderedPrompt) -> AnswerConstraint | None:
        """Return the constraint on an answer, None if there is none.

        Raises InvalidParameterError, and UnsupportedFeatureError if the model can't be constrained.
        """
        options, tokenizer, state = call.options, self.template.tokenizer, prompt.state
        for token in options.logit_bias or ():
            if token >= self.vocabulary:
                said = f"`logit_bias`: the model has {self.vocabulary} tokens, and no token {token}"
                raise InvalidParameterError("logit_bias", token, said)
        asked = options.response_format
        matcher = self.compiler.matcher(asked) if asked else None
        must_call = (options.tool_choice or "").startswith(("=", "required"))
        thinking = self.template.format.thinking(tokenizer)
        headed = state not in KNOWN_STATES
        if matcher is not None and headed and not self.template.format.constraint_after_headers:
            said = "this model's answers begin with headers, which no constraint allows"
            raise UnsupportedFeatureError("response_format", f"`response_format`: {said}")
        calls = tokenizer.tool_call_start_tokens or () if options.tool_choice == "none" else ()
        forbidden = thinking.commentary or calls if matcher is not None else calls
        if must_call:
            matcher = self.compiler.call_matcher(call.tools)
        budget = options.max_reasoning_tokens if thinking.end else None
        if matcher is None and budget is None and not forbidden:
            return None
        # `lets_think` may render the template, so it is read only if the answer depends on it.
        may_think = (
            matcher is None or state == REASONING_STATE or not thinking.start or prompt.lets_think
        )
        return AnswerConstraint(
            matcher,
            tokenizer.eos_token_ids,
            thinking if may_think else replace(thinking, start=()),
            begun=state == REASONING_STATE or (headed and not must_call),
            max_thoughts=budget,
            forbidden=forbidden,
        )


def _another(constraint: AnswerConstraint | None) -> AnswerConstraint | None:
    return None if constraint is None else constraint.another()


@dataclass(frozen=True)
class _LongestPrompt:
    """The limits on a prompt: the model's context window, and what the caller allows."""

    window: int | None
    allowed: int | None

    def refuse_from(self, least: int) -> None:
        """Raise as `refuse` does if a prompt of at least `least` tokens is too long."""
        self.refuse(least, "at least ")

    def refuse(self, length: int, about: str = "") -> None:
        """Raise ContextWindowExceededError for a prompt of `length` tokens if that is too long."""
        if self.window is not None and length >= self.window:
            said = f"the prompt has {about}{length} tokens, the model's context only {self.window}"
            raise ContextWindowExceededError(self.window, length, said)
        if self.allowed is not None and length > self.allowed:
            said = f"the prompt has {about}{length} tokens, and {self.allowed} are allowed"
            raise ContextWindowExceededError(self.allowed, length, said)


def _with_images(call: Call) -> Steps[Call]:
    """Return a call with the images of its messages as bytes. Raises InvalidParameterError."""
    if call.options.messages is None:
        return call
    messages = yield from decoding_images("messages", call.options.messages)
    return replace(call, options=replace(call.options, messages=messages))


def _names(images: Sequence[bytes], call: Call) -> list[str]:
    """Return for each image the field of the call in which it is, for errors about it."""
    names = {}
    for number, file in enumerate(call.files):
        if isinstance(file, FileData):
            names[id(file.data)] = f"`files[{number}]`"
    for number, message in enumerate(call.options.messages or ()):
        content = message.get("content")
        for place, part in enumerate(content if isinstance(content, list) else ()):
            if "data" in part:
                names[id(part["data"])] = f"`messages[{number}].content[{place}]`"
    return [names.get(id(data), f"image {number + 1}") for number, data in enumerate(images)]


def _digest(images: Sequence[bytes]) -> str:
    """Return a digest of images, which also depends on where one image ends and the next begins."""
    each = (hashlib.sha256(data).digest() for data in images)
    return hashlib.sha256(b"".join(each)).hexdigest()


def _reseeded(options: GenerationOptions, seed: int) -> GenerationOptions:
    return replace(options, seed=seed % (MAX_SEED + 1))


def _with_choice(call: Call) -> Call:
    """Return a call with only the tools that `tool_choice` allows. Raises InvalidParameterError."""
    choice, options = call.options.tool_choice, call.options
    if choice in {None, "auto"}:
        return call
    if choice == "none":
        return replace(call, tools=[])
    if not call.tools:
        raise InvalidParameterError("tool_choice", choice, "`tool_choice`: there are no `tools`")
    if options.response_format and options.response_format["type"] != "text":
        said = "`tool_choice`: a required call can't be combined with a `response_format`"
        raise InvalidParameterError("tool_choice", choice, said)
    if choice == "required":
        return call
    named = [tool for tool in call.tools if f"={tool['function']['name']}" == choice]
    if not named:
        known = ", ".join(f"`{tool['function']['name']}`" for tool in call.tools[:MAX_QUOTED])
        asked = str(choice)[1:MAX_QUOTED]
        said = f"`tool_choice`: no tool is named `{asked}`; tools are {known}"
        raise InvalidParameterError("tool_choice", choice, said)
    return replace(call, tools=named)
