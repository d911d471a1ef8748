"""MLXProvider: the AbstractLLMInterface of models that run on MLX.

Every generation goes through the engine in the same way, with or without streaming and with or
without asyncio. So all four give the same text for greedy decoding and for a fixed seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional, Union  # noqa: UP035 - the contract's own spelling

from provider.constraints.compiler import refuse_costly, refuse_large
from provider.constraints.sandbox import Sandbox
from provider.engine.engine import Engine, EngineClosedError
from provider.engine.inbox import AsyncInbox, SyncInbox
from provider.engine.messages import RunEvent, RunFailed, RunFinished, RunRequest
from provider.engine.model import LoadProgress
from provider.engine.statistics import EngineStatistics
from provider.events import CallDelta, TextDelta
from provider.inputs.tools import normalise_tools
from provider.interface import (
    CHAT_ABILITIES,
    AbstractLLMInterface,
    ChoiceResponse,
    GenerateResponse,
    Health,
    InvalidParameterError,
    ModelCapability,
    ModelInfo,
    ModelLoading,
    ModelParameter,
    TokenLogprobs,
    whole_answer,
)
from provider.models.library import Library, sources_of
from provider.models.request_builder import Call, RequestBuilder
from provider.models.served_model import ServedModel
from provider.models.sharded import refuse_beside
from provider.models.submission import Submission
from provider.options import GenerationOptions, parse_options
from provider.runtime.mlx import describe
from provider.settings import parse_settings

__all__ = ["MLXProvider"]

Files = Optional[List[Union[str, Path]]]
Tools = Optional[List[Union[Dict[str, Any], Callable[..., Any]]]]


class MLXProvider(AbstractLLMInterface):
    """Generates with models that run on MLX, many generations in one batch.

    `config` may have these entries:
    - `model`: a folder or a hub id; by default the model in the package. It may also be a list of
      these, each as it is or as `NAME=MODEL`. A call chooses by its option `model`; the default is
      the first one.
    - `adapter`: a list of LoRA adapters, each as `NAME=BASE:FOLDER`; they share the weights of the
      model `BASE`.
    - `pin`: names of models that stay loaded. Every other model is loaded by the first call that
      names it, and unloaded when memory is needed, the least recently used idle model first.
    - `idle_unload`: seconds after which an idle model is unloaded.
    - `allow_any_model`: whether a call may name any folder or hub id.
    - `draft_model`: a smaller model that proposes tokens; runs then go one at a time.
    - `shard`: a `Sharded`, where other processes have parts of the only model.
    - the settings of `EngineSettings`, and defaults for the configurable options of a call (see
      `GenerationOptions`) and for `system_prompt`.

    Creating a provider is cheap: `load` or the first generation loads the first model. Any thread
    and any number of event loops may use one provider. `close` frees all resources, as does the end
    of the program.
    """

    def __init__(self, config: Optional[Dict[Union[str, ModelParameter], Any]] = None):
        super().__init__(config)
        given = self.get_config()
        draft, sharded = given.get("draft_model"), given.get("shard")
        if sharded is not None:
            refuse_beside(given)
        sources = sources_of(
            [str(model) for model in _listed(given.get("model"))],
            [str(adapter) for adapter in _listed(given.get("adapter"))],
            None if draft is None else str(draft),
        )
        settings = parse_settings(given)
        self._max_batch = settings.max_batch
        self._library = Library(
            sources,
            settings,
            pinned=[str(name) for name in _listed(given.get("pin"))],
            idle_s=given.get("idle_unload"),
            allow_any=bool(given.get("allow_any_model")),
            sharded=sharded,
        )
        self._sandbox = Sandbox()

    # Loading and closing.

    async def load(self) -> None:
        """Load the first model and the pinned models, and wait until they are loaded.

        Raises ModelNotFoundError or ModelLoadingError. Cancelling does not stop the loading.
        """
        for served in self._library.at_start:
            await _loaded(served)

    def watch_loading(self, tell: Callable[[ModelLoading], None]) -> None:
        """Call `tell` with the progress of the models that `load` loads, on any thread."""
        for served in self._library.at_start:
            served.watch(partial(_pass_on, tell, served.name))

    def close(self, grace_s: Optional[float] = None) -> None:
        """Refuse new generations, free the models, join all threads. Idempotent.

        Running generations have `grace_s` seconds to finish, by default the setting `close_grace`.
        After that they end with a GenerationError.
        """
        self._library.close(grace_s)
        self._sandbox.close()  # last, so that no unchecked grammar is compiled

    async def aclose(self, grace_s: Optional[float] = None) -> None:
        """Do what `close` does without blocking the event loop."""
        await asyncio.to_thread(self.close, grace_s)

    def places(self) -> int:
        """Return how many answers of a model are made at once at most."""
        return self._max_batch

    def device(self) -> str:
        """Return a phrase for the device that computes, and on a CPU its BLAS."""
        return describe()

    def statistics(self) -> EngineStatistics:
        """Return a snapshot of the metrics of all models; never waits."""
        return self._library.statistics()

    def health(self) -> Health:
        """Return whether the first model can accept a generation now.

        A model that was unloaded because it was idle counts as ready.
        """
        default = self._library.default
        if default.loaded() is None and not default.closed:
            if default.unloaded and not default.loading_failed:
                return Health(ready=True)
            reason = "no model" if default.loading_failed else "loading the model"
            return Health(ready=False, reason=reason)
        if default.closed:
            return Health(ready=False, reason="closed")
        if default.engine.trouble is not None:
            return Health(ready=False, reason=default.engine.trouble)
        return Health(ready=True)

    def models(self) -> List[ModelInfo]:
        """Return the models that are served, the default model first."""
        return self._library.infos()

    @property
    def engine(self) -> Engine:
        """The engine of the first model."""
        return self._library.default.engine

    def get_capabilities(self) -> Dict[Union[str, ModelCapability], Any]:
        """Return the provider's capabilities; `VISION` is that of the first model."""
        ready = self._library.default.loaded()
        limit = self.get_param(ModelParameter.MAX_TOKENS) or GenerationOptions().max_tokens
        return {
            **super().get_capabilities(),
            **dict.fromkeys(CHAT_ABILITIES, True),
            ModelCapability.MAX_TOKENS: limit,
            ModelCapability.VISION: ready is not None and ready.image_processor is not None,
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
        """Generate while the calling thread waits; it must not be the thread of an event loop.

        With `stream=True`, return a generator of deltas; closing it ends the generation. The
        options and the errors are those of `generate_async`.
        """
        call = self._call(prompt, system_prompt, files, tools, kwargs)
        served = self._library.find(call.options.model)
        if (check := self._check_of_constraint(call)) is not None:
            check.result()
        deltas = self._deltas(served, self._requests(served, call))
        return deltas if stream else whole_answer(list(deltas))

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

        With `stream=True` the awaited value is an async generator of deltas. Closing it, or
        cancelling the awaiting task, removes the run from the batch before the model's next
        forward pass. `kwargs` are the fields of `GenerationOptions`; with `events`, the stream also
        has responses without text, for queue, start, prefill and the parts of tool calls.

        The await raises InvalidParameterError, FileProcessingError, UnsupportedFeatureError,
        ContextWindowExceededError and the errors of `load`; a running generation raises
        GenerationError.
        """
        call = self._call(prompt, system_prompt, files, tools, kwargs)
        served = self._library.find(call.options.model)
        if (check := self._check_of_constraint(call)) is not None:
            await asyncio.wrap_future(check)
        if stream and call.options.events and served.ready_now() is None:
            return self._after_loading(served, call)
        deltas = self._deltas_async(served, await self._requests_async(served, call))
        if stream:
            return deltas
        async with aclosing(deltas):
            return whole_answer([delta async for delta in deltas])

    def _call(
        self,
        prompt: str,
        system_prompt: Optional[str],
        files: Files,
        tools: Tools,
        kwargs: Dict[str, Any],
    ) -> Call:
        """Return a call's arguments, checked as far as is possible without the model."""
        options = parse_options(kwargs, self.get_config())
        if not isinstance(prompt, str):
            raise InvalidParameterError("prompt", prompt, "`prompt` must be a string")
        return Call(
            prompt=prompt,
            system_prompt=system_prompt or self.get_param(ModelParameter.SYSTEM_PROMPT),
            files=list(files or []),
            tools=normalise_tools(tools or []),
            options=options,
        )

    def _check_of_constraint(self, call: Call) -> Optional[Future[None]]:
        """Start to check the cost of compiling the answer's constraint; return the check's future.

        Returns None for an answer without a constraint. The future raises InvalidParameterError
        for a constraint that is too expensive, ResourceExceededError if none can be tried now.
        """
        options = call.options
        tools = [] if options.tool_choice in {None, "auto", "none"} else call.tools
        if not options.response_format and not tools:
            return None
        refuse_large(options.response_format, tools)
        check = partial(refuse_costly, response_format=options.response_format, tools=tools)
        return self._sandbox.submit(check, options.client)

    # A model may be unloaded between any two of these steps; the loops then load it again.

    def _requests(self, served: ServedModel, call: Call) -> List[RunRequest]:
        while True:
            ready = served.ready().result()
            with suppress(EngineClosedError), served.engine.announced():
                return served.build(ready, call).result()
            served.refuse_if_closed()

    async def _requests_async(self, served: ServedModel, call: Call) -> List[RunRequest]:
        while True:
            ready = served.ready_now() or await _loaded(served)
            with suppress(EngineClosedError), served.engine.announced():
                return await asyncio.wrap_future(served.build(ready, call))
            served.refuse_if_closed()

    async def _after_loading(
        self, served: ServedModel, call: Call
    ) -> AsyncGenerator[GenerateResponse, None]:
        """Yield events on the loading of the model, then generate; raise what the loading raised.

        A model that was unloaded meanwhile is loaded again.
        """
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[LoadProgress | None] = asyncio.Queue()
        preparing = served.ready()
        last = LoadProgress(0, 0)

        def watcher(progress: LoadProgress) -> None:
            nonlocal last
            if progress != last:  # repeated while the model waits for memory
                last = progress
                _tell(loop, told, progress)

        served.watch(watcher)
        preparing.add_done_callback(lambda _: _tell(loop, told, None))
        progress: LoadProgress | None = LoadProgress(0, 0)
        while progress is not None:
            yield GenerateResponse(raw_response=_loading(served.name, progress))
            progress = await told.get()
        failure = preparing.exception()
        if failure is not None and not isinstance(failure, EngineClosedError):
            raise failure  # what follows would load the model once more
        deltas = self._deltas_async(served, await self._requests_async(served, call))
        async with aclosing(deltas):
            async for delta in deltas:
                yield delta

    def _deltas(
        self, served: ServedModel, requests: List[RunRequest]
    ) -> Generator[GenerateResponse, None, None]:
        inbox = SyncInbox()
        while True:
            served.ready().result()
            with suppress(EngineClosedError):
                runs = Submission(served, requests, inbox)
                break
            served.refuse_if_closed()
        with runs:
            while runs.left:
                if (response := self._next_response(runs, inbox.get())) is not None:
                    yield response

    async def _deltas_async(
        self, served: ServedModel, requests: List[RunRequest]
    ) -> AsyncGenerator[GenerateResponse, None]:
        inbox = AsyncInbox()
        while True:
            if served.ready_now() is None:
                await _loaded(served)
            with suppress(EngineClosedError):
                runs = Submission(served, requests, inbox)
                break
            served.refuse_if_closed()
        with runs:
            while runs.left:
                if (response := self._next_response(runs, await inbox.get())) is not None:
                    yield response

    def _next_response(self, runs: Submission, item: Any) -> Optional[GenerateResponse]:
        """Return the response for an item of the runs' inbox, None if the caller gets none."""
        event, choice = runs.receive(item)
        request = runs.requests[choice]
        if choice and not isinstance(event, EVENTS_OF_EACH_CHOICE):
            return None
        response = self._response(event, request, runs.name)
        if response is None or len(runs.requests) == 1:
            return response
        return ChoiceResponse(**vars(response), choice=choice)

    def _response(
        self, event: RunEvent, request: RunRequest, name: str
    ) -> Optional[GenerateResponse]:
        """Return the response for an event of a run, None if the caller gets none.

        Raises the error of a run that has failed.
        """
        match event:
            case TextDelta(text, reasoning, _, logprobs):
                given = TokenLogprobs(logprobs) if logprobs else None
                if reasoning:
                    return GenerateResponse("", given, None, name, reasoning_trace=text)
                return GenerateResponse(text, given, None, name)
            case RunFinished(reason, usage, timing, calls):
                return GenerateResponse(
                    content="",
                    raw_response=timing,
                    usage=usage,
                    model=name,
                    finish_reason=reason,
                    tool_calls=list(calls) or None,
                )
            case RunFailed(error):
                raise error
            case CallDelta(call):
                return GenerateResponse(raw_response=call) if request.options.events else None
            case _:
                return GenerateResponse(raw_response=event) if request.options.events else None


# Events that are delivered for every choice; other events are delivered for the first one only.
EVENTS_OF_EACH_CHOICE = (TextDelta, CallDelta, RunFinished, RunFailed)


async def _loaded(served: ServedModel) -> RequestBuilder:
    """Wait until a model is loaded; cancelling does not stop the loading."""
    return await asyncio.shield(asyncio.wrap_future(served.ready()))


def _pass_on(tell: Callable[[ModelLoading], None], name: str, progress: LoadProgress) -> None:
    tell(_loading(name, progress))


def _loading(name: str, progress: LoadProgress) -> ModelLoading:
    return ModelLoading(name, progress.done, progress.total, progress.warming_up)


def _tell(
    loop: asyncio.AbstractEventLoop,
    told: asyncio.Queue[LoadProgress | None],
    progress: LoadProgress | None,
) -> None:
    with suppress(RuntimeError):  # raised when the loop is closed
        loop.call_soon_threadsafe(told.put_nowait, progress)


def _listed(value: Any) -> List[Any]:
    """Return a list from a list, a single value or None."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
