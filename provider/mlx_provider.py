"""MLXProvider: AbstractLLMInterface over the engine.

Streaming or not, with an event loop or without, every generation goes the same way through the
engine, so all four give the same text for greedy decoding and for a fixed seed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Union  # noqa: UP035 - the contract's own spelling

from provider.backend import describe
from provider.engine import Engine
from provider.files import files_to_text
from provider.grammar import Forms, Held
from provider.interface import (
    AbstractLLMInterface,
    ContextWindowExceededError,
    FileData,
    GenerateResponse,
    GenerationError,
    GenerationTiming,
    Health,
    InvalidParameterError,
    InvalidRequestError,
    ModelCapability,
    ModelInfo,
    ModelParameter,
    TokenLogprobs,
    UnsupportedFeatureError,
    UnsupportedModelError,
)
from provider.models import LoadedModel, load, model_name, resolve, tokenizer_of
from provider.options import GenerationOptions, parse_options
from provider.runs import (
    AsyncInbox,
    RunEvent,
    RunFailed,
    RunFinished,
    RunRequest,
    SyncInbox,
    TextDelta,
)
from provider.settings import parse_settings
from provider.statistics import EngineStatistics
from provider.templates import ChatTemplate, conversation
from provider.text import REASONING_STATE, TextFormat
from provider.tools import normalise_tools

__all__ = ["MLXProvider"]

log = logging.getLogger(__name__)

Files = Optional[List[Union[str, Path]]]
Tools = Optional[List[Union[Dict[str, Any], Callable[..., Any]]]]


class ToolsUnsupportedError(UnsupportedFeatureError, ValueError):
    """The model's template knows no tools; a ValueError too, as the interface documents."""


class MLXProvider(AbstractLLMInterface):
    """Generates with a model that runs on MLX, many generations in one batch.

    `config` takes `model` (a folder or a hub id; absent, the model in the package), the engine's
    settings (see `EngineSettings`, such as `max_batch`, the runs that decode together),
    `draft_model` (a smaller model that proposes tokens; runs then go one by one), and defaults for
    the options of a call: `temperature`, `top_p`, `top_k`, `min_p`, `max_tokens`, `seed`, `stop`,
    `repetition_penalty`, `system_prompt`, `enable_thinking`.

    Making one is cheap; the model is loaded by `load`, or by the first generation. Any thread and
    any number of event loops may use one. `close` frees it; so does the end of the program.
    """

    def __init__(self, config: Optional[Dict[Union[str, ModelParameter], Any]] = None):
        super().__init__(config)
        model = self.get_param(ModelParameter.MODEL)
        self._source: Optional[str] = None if model is None else str(model)
        self._name = model_name(self._source)
        self._engine = Engine(self._name, self._load_weights, parse_settings(self.get_config()))
        # The tokenizer that makes prompts has a thread of its own: a long prompt must hold up
        # neither the event loop nor a decode step, and tokenizers are not shared between threads.
        self._text_worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mlx-prompt")
        self._preparing: Optional[Future[_Ready]] = None
        self._preparing_lock = threading.Lock()
        self._path: Optional[Path] = None
        self._draft: Optional[Path] = None

    # Loading and closing.

    async def load(self) -> None:
        """Load the model, or wait until it is loaded.

        Raises ModelNotFoundError or ModelLoadingError. Cancelling leaves the loading going on.
        """
        await asyncio.shield(asyncio.wrap_future(self._ready()))

    def close(self, grace_s: Optional[float] = None) -> None:
        """Refuse new generations, free the model, join both threads. Idempotent.

        Generations that are there have `grace_s` seconds to come to their ends, by default the
        setting `close_grace`; then they end with a GenerationError.
        """
        self._text_worker.shutdown(wait=True)
        self._engine.close(grace_s)

    async def aclose(self, grace_s: Optional[float] = None) -> None:
        """Do what `close` does without blocking the event loop."""
        await asyncio.to_thread(self.close, grace_s)

    def statistics(self) -> EngineStatistics:
        """Return one look at the engine's numbers; never waits."""
        return self._engine.statistics()

    def health(self) -> Health:
        """Return whether a generation can be taken now."""
        if self._engine.closed:
            return Health(ready=False, reason="closed")
        if self._engine.trouble is not None:
            return Health(ready=False, reason=self._engine.trouble)
        if self._loaded() is not None:
            return Health(ready=True)
        loading = self._preparing
        failed = loading is not None and loading.done()
        return Health(ready=False, reason="no model" if failed else "loading the model")

    def models(self) -> List[ModelInfo]:
        """Return the one model that is served."""
        ready = self._loaded()
        return [ModelInfo(self._name, ready.context_window if ready else None)]

    @property
    def engine(self) -> Engine:
        """The engine, for its counters."""
        return self._engine

    def get_capabilities(self) -> Dict[Union[str, ModelCapability], Any]:
        """Return what this provider can do with any model."""
        able = (
            ModelCapability.STREAMING,
            ModelCapability.SYSTEM_PROMPT,
            ModelCapability.ASYNC,
            ModelCapability.FUNCTION_CALLING,
            ModelCapability.TOOL_USE,
            ModelCapability.MULTI_TURN,
            ModelCapability.PARALLEL_INFERENCE,
        )
        limit = self.get_param(ModelParameter.MAX_TOKENS) or GenerationOptions().max_tokens
        return {
            **super().get_capabilities(),
            **dict.fromkeys(able, True),
            ModelCapability.MAX_TOKENS: limit,
        }

    # Generating.

    def generate(
        self,
        prompt: str,
        system_prompt: Optional[str] = None,
        files: Files = None,
        stream: bool = False,
        tools: Tools = None,
        **kwargs: Any,
    ) -> Union[GenerateResponse, Generator[GenerateResponse, None, None]]:
        """Generate while the calling thread waits, which must not be an event loop's.

        With `stream=True` returns a generator of deltas; closing it ends the generation. Takes
        the options of `generate_async` and raises the same errors.
        """
        call = self._call(prompt, system_prompt, files, tools, kwargs)
        ready = self._ready().result()
        with self._engine.coming():
            request = self._text_worker.submit(ready.request, call).result()
        deltas = self._deltas(request)
        return deltas if stream else _join(list(deltas))

    async def generate_async(
        self,
        prompt: str,
        system_prompt: Optional[str] = None,
        files: Files = None,
        stream: bool = False,
        tools: Tools = None,
        **kwargs: Any,
    ) -> Union[GenerateResponse, AsyncGenerator[GenerateResponse, None]]:
        """Generate without ever blocking the event loop.

        With `stream=True` the awaited value is an async generator of deltas. Closing it, leaving
        its loop, or cancelling the task that awaits takes the run out of the batch before the
        model's next forward pass. Options beyond the named ones: `messages` (turns so far),
        `events` (responses without text for queue, start and prefill), `enable_thinking`, and the
        sampling options that the class names.

        Raises InvalidParameterError, FileProcessingError, UnsupportedFeatureError,
        ContextWindowExceededError and the errors of `load` at the await, GenerationError later.
        """
        call = self._call(prompt, system_prompt, files, tools, kwargs)
        ready = self._loaded()
        if ready is None or self._engine.closed:
            await self.load()
            ready = self._ready().result()
        with self._engine.coming():
            preparing = self._text_worker.submit(ready.request, call)
            deltas = self._deltas_async(await asyncio.wrap_future(preparing))
        if stream:
            return deltas
        async with aclosing(deltas):
            return _join([delta async for delta in deltas])

    def _call(
        self,
        prompt: str,
        system_prompt: Optional[str],
        files: Files,
        tools: Tools,
        kwargs: Dict[str, Any],
    ) -> _Call:
        """Check what can be checked without the model."""
        options = parse_options(kwargs, self.get_config())
        if options.model not in {None, self._name, self._source}:
            raise UnsupportedModelError(f"`{options.model}` is not served; `{self._name}` is")
        if not isinstance(prompt, str):
            raise InvalidParameterError("prompt", prompt, "`prompt` must be a text")
        return _Call(
            prompt=prompt,
            system_prompt=system_prompt or self.get_param(ModelParameter.SYSTEM_PROMPT),
            files=list(files or []),
            tools=normalise_tools(tools or []),
            options=options,
        )

    def _deltas(self, request: RunRequest) -> Generator[GenerateResponse, None, None]:
        inbox = SyncInbox()
        run = self._engine.submit(request, inbox)
        try:
            while True:
                event = inbox.get()
                if inbox.parked:
                    self._engine.resume(run)
                if (response := self._response(event, request)) is not None:
                    yield response
                if isinstance(event, RunFinished):
                    return
        finally:
            self._engine.cancel(run)

    async def _deltas_async(self, request: RunRequest) -> AsyncGenerator[GenerateResponse, None]:
        inbox = AsyncInbox()
        run = self._engine.submit(request, inbox)
        try:
            while True:
                event = await inbox.get()
                if inbox.parked:
                    self._engine.resume(run)
                if (response := self._response(event, request)) is not None:
                    yield response
                if isinstance(event, RunFinished):
                    return
        finally:
            self._engine.cancel(run)

    def _response(self, event: RunEvent, request: RunRequest) -> Optional[GenerateResponse]:
        """Return what the caller gets for an event, None for nothing; raise a run's error."""
        match event:
            case TextDelta(text, reasoning, _, logprobs):
                given = TokenLogprobs(logprobs) if logprobs else None
                if reasoning:
                    return GenerateResponse("", given, None, self._name, reasoning_trace=text)
                return GenerateResponse(text, given, None, self._name)
            case RunFinished(reason, usage, timing, calls):
                return GenerateResponse(
                    content="",
                    raw_response=timing,
                    usage=usage,
                    model=self._name,
                    finish_reason=reason,
                    tool_calls=list(calls) or None,
                )
            case RunFailed(error):
                raise error
            case _:
                return GenerateResponse(raw_response=event) if request.options.events else None

    # Preparing.

    def _ready(self) -> Future[_Ready]:
        """Return the loading of the model, begun now if it has not been or has failed."""
        if self._engine.closed:
            raise GenerationError("the provider is closed")
        with self._preparing_lock:
            loading = self._preparing
            if loading is None or (loading.done() and loading.exception() is not None):
                loading = self._preparing = self._text_worker.submit(self._prepare)
            return loading

    def _prepare(self) -> _Ready:
        """Find the model, then load the weights on the MLX thread, the tokenizer on this one."""
        log.info("mlx on %s", describe())
        draft = self.get_config().get("draft_model")
        self._draft = None if draft is None else resolve(str(draft))
        self._path = resolve(self._source)
        weights = self._engine.load()
        template = ChatTemplate(tokenizer_of(self._path))
        model = weights.result()
        return _Ready(
            template,
            model.context_window,
            model.vocabulary,
            Forms(template.tokenizer, model.vocabulary),
            keep_boundaries=not model.trimmable,
        )

    def _load_weights(self) -> LoadedModel:
        assert self._path is not None
        return load(self._path, self._draft)

    def _loaded(self) -> Optional[_Ready]:
        loading = self._preparing
        if loading is None or not loading.done() or loading.exception() is not None:
            return None
        return loading.result()


@dataclass(frozen=True)
class _Call:
    """One call's arguments, checked as far as they can be without a model."""

    prompt: str
    system_prompt: Optional[str]
    files: List[Union[str, Path, FileData]]
    tools: List[Dict[str, Any]]
    options: GenerationOptions


@dataclass(frozen=True)
class _Ready:
    """What makes requests of calls once the model is there; for the prompt thread."""

    template: ChatTemplate
    context_window: Optional[int]
    vocabulary: int
    forms: Forms
    keep_boundaries: bool

    def request(self, call: _Call) -> RunRequest:
        """Turn a call into tokens; raises what `generate_async` documents."""
        call = _with_choice(call)
        options = call.options
        if call.tools and not self.template.knows_tools:
            raise ToolsUnsupportedError("tool_use", "this model's chat template knows no tools")
        turns = self._turns(call)
        if options.raw:
            prompt = self.template.raw(call.prompt)
        else:
            prompt = self.template.tokens(
                turns,
                call.tools,
                enable_thinking=options.enable_thinking,
                go_on=options.continue_final_message,
            )
        if not prompt:
            raise InvalidRequestError("the prompt is empty")
        window = self.context_window
        if window is not None:
            if len(prompt) >= window:
                raise ContextWindowExceededError(window, len(prompt))
            options = replace(options, max_tokens=min(options.max_tokens, window - len(prompt)))
        boundaries = (
            self.template.boundaries(turns, call.tools, prompt)
            if self.keep_boundaries and turns
            else ()
        )
        return RunRequest(prompt, options, call.tools, boundaries, self._form(call, prompt))

    def _turns(self, call: _Call) -> List[Dict[str, Any]]:
        """Return the conversation, nothing for a raw prompt. Raises InvalidParameterError."""
        options = call.options
        if options.raw:
            if options.messages or call.system_prompt or call.files or call.tools:
                said = "`raw` goes with a `prompt` and no messages, system prompt, files or tools"
                raise InvalidParameterError("raw", options.raw, said)
            return []
        turns = conversation(
            call.prompt, call.system_prompt, options.messages, files_to_text(call.files)
        )
        if options.continue_final_message and turns[-1]["role"] != "assistant":
            said = "`continue_final_message` needs a last message of the assistant's"
            name = "continue_final_message"
            raise InvalidParameterError(name, options.continue_final_message, said)
        return turns

    def _form(self, call: _Call, prompt: List[int]) -> Optional[Held]:
        """Return what holds an answer to its form. Raises InvalidParameterError."""
        options, tokenizer = call.options, self.template.tokenizer
        for token in options.logit_bias or ():
            if token >= self.vocabulary:
                said = f"`logit_bias`: the model knows {self.vocabulary} tokens, and no {token}"
                raise InvalidParameterError("logit_bias", token, said)
        matcher = self.forms.matcher(options.response_format) if options.response_format else None
        if options.tool_choice == "required" or (options.tool_choice or "").startswith("="):
            matcher = self.forms.call_matcher(call.tools)
        thinks = tokenizer.has_thinking
        budget = options.max_reasoning_tokens if thinks else None
        if matcher is None and budget is None:
            return None
        unasked = thinks and options.enable_thinking
        return Held(
            matcher,
            tokenizer.eos_token_ids,
            thinking=TextFormat(tokenizer).initial_state(prompt) == REASONING_STATE,
            think_start=tokenizer.think_start_tokens if unasked else (),
            think_end=tokenizer.think_end_tokens if thinks else (),
            most_thoughts=budget,
        )


def _with_choice(call: _Call) -> _Call:
    """Return a call with the tools that may be chosen. Raises InvalidParameterError."""
    choice, options = call.options.tool_choice, call.options
    if choice in {None, "auto"}:
        return call
    if choice == "none":
        return replace(call, tools=[])
    if not call.tools:
        raise InvalidParameterError("tool_choice", choice, "`tool_choice`: there are no `tools`")
    if options.response_format and options.response_format["type"] != "text":
        said = "`tool_choice`: a call that has to come leaves no room for a `response_format`"
        raise InvalidParameterError("tool_choice", choice, said)
    if choice == "required":
        return call
    named = [tool for tool in call.tools if f"={tool['function']['name']}" == choice]
    if not named:
        known = ", ".join(f"`{tool['function']['name']}`" for tool in call.tools)
        said = f"`tool_choice`: no tool is named `{str(choice)[1:]}`; there is {known}"
        raise InvalidParameterError("tool_choice", choice, said)
    return replace(call, tools=named)


def _join(deltas: List[GenerateResponse]) -> GenerateResponse:
    """Return the whole answer that a stream's deltas make up."""
    last, drawn = deltas[-1], [d.raw_response for d in deltas]
    tokens = [token for one in drawn if isinstance(one, TokenLogprobs) for token in one.tokens]
    if tokens and isinstance(last.raw_response, GenerationTiming):
        timing = replace(last.raw_response, logprobs=TokenLogprobs(tuple(tokens)))
        last = replace(last, raw_response=timing)
    return replace(
        last,
        content="".join(delta.content or "" for delta in deltas),
        reasoning_trace="".join(delta.reasoning_trace or "" for delta in deltas) or None,
    )
