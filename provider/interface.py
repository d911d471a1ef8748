"""The interface between gateway and provider: AbstractLLMInterface, its types and its errors.

Names, signatures, field order and defaults follow the package `abstractllm` 1.1.1. So a provider
written for that package works behind the gateway, and `MLXProvider` works through its registry.
Additions (events in a stream, files as data, health, close) are optional for callers and for other
providers.

Rule 1: `generate_async` is a coroutine function; with `stream=True` the awaited value is an async
generator of deltas. Arguments are checked at the await, before anything runs.
Rule 2: a caller cancels by `aclose()` on that generator, or by cancelling the task that awaits a
whole answer. It applies backpressure by not asking for the next delta.
Rule 3: only plain data crosses the interface, so a provider may live in another process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Dict, List, Optional, Union, cast  # noqa: UP035 - the contract's own spelling

from provider.errors import (
    AbstractLLMError,
    AuthenticationError,
    ContentFilterError,
    ContextWindowExceededError,
    FileProcessingError,
    GenerationError,
    HubUnreachableError,
    ImageProcessingError,
    InvalidParameterError,
    InvalidRequestError,
    MemoryExceededError,
    ModelLoadingError,
    ModelNotFoundError,
    ModelStorageError,
    ProviderAPIError,
    ProviderConnectionError,
    QuotaExceededError,
    RequestTimeoutError,
    ResourceExceededError,
    UnsupportedFeatureError,
    UnsupportedModelError,
    UnsupportedOperationError,
    UnsupportedProviderError,
)
from provider.events import (
    AnswerTokens,
    GenerationStarted,
    GenerationTiming,
    ModelLoading,
    PrefillProgress,
    QueuePosition,
    TokenLogprobs,
    ToolCallDelta,
)
from provider.tool_types import (
    ToolCall,
    ToolCallRequest,
    ToolCallResponse,
    ToolDefinition,
    ToolResult,
    new_call_id,
)

__all__ = [
    "CHAT_ABILITIES",
    "COUNTER",
    "AbstractLLMError",
    "AbstractLLMInterface",
    "AnswerTokens",
    "AuthenticationError",
    "ChoiceResponse",
    "ConfigurationManager",
    "ContentFilterError",
    "ContextWindowExceededError",
    "FileData",
    "FileProcessingError",
    "ForeignProvider",
    "GenerateResponse",
    "GenerationError",
    "GenerationStarted",
    "GenerationTiming",
    "Health",
    "HubUnreachableError",
    "ImageProcessingError",
    "InvalidParameterError",
    "InvalidRequestError",
    "MemoryExceededError",
    "Message",
    "MessageRole",
    "ModelCapability",
    "ModelInfo",
    "ModelLoading",
    "ModelLoadingError",
    "ModelNotFoundError",
    "ModelParameter",
    "ModelStorageError",
    "PrefillProgress",
    "ProviderAPIError",
    "ProviderConnectionError",
    "QueuePosition",
    "QuotaExceededError",
    "RequestTimeoutError",
    "ResourceExceededError",
    "TokenLogprobs",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallRequest",
    "ToolCallResponse",
    "ToolDefinition",
    "ToolResult",
    "UnsupportedFeatureError",
    "UnsupportedModelError",
    "UnsupportedOperationError",
    "UnsupportedProviderError",
    "new_call_id",
    "whole_answer",
    "with_defaults",
]


# Configuration ---------------------------------------------------------------------------------


class ModelParameter(StrEnum):
    """Names of configuration entries; each equals its string and has the same hash."""

    TEMPERATURE = "temperature"
    MAX_TOKENS = "max_tokens"
    SYSTEM_PROMPT = "system_prompt"
    TOP_P = "top_p"
    FREQUENCY_PENALTY = "frequency_penalty"
    PRESENCE_PENALTY = "presence_penalty"
    STOP = "stop"
    MODEL = "model"
    API_KEY = "api_key"
    BASE_URL = "base_url"
    TIMEOUT = "timeout"
    RETRY_COUNT = "retry_count"
    LOGIT_BIAS = "logit_bias"
    SEED = "seed"
    TOP_K = "top_k"
    REPETITION_PENALTY = "repetition_penalty"
    MAX_INPUT_TOKENS = "max_input_tokens"
    MAX_OUTPUT_TOKENS = "max_output_tokens"
    CONTEXT_WINDOW = "context_window"
    TRUNCATION_STRATEGY = "truncation_strategy"
    DEVICE = "device"
    DEVICE_MAP = "device_map"
    LOAD_IN_8BIT = "load_in_8bit"
    LOAD_IN_4BIT = "load_in_4bit"
    CACHE_DIR = "cache_dir"
    ORGANIZATION = "organization"
    USER = "user"
    PROXY = "proxy"
    REQUEST_TIMEOUT = "request_timeout"
    MAX_RETRIES = "max_retries"
    IMAGE = "image"
    IMAGES = "images"
    IMAGE_DETAIL = "image_detail"
    TOOLS = "tools"
    TOOL_CHOICE = "tool_choice"
    CONTENT_FILTER = "content_filter"
    MODERATION = "moderation"
    LOGGING_ENABLED = "logging_enabled"


class ModelCapability(StrEnum):
    """Keys of `get_capabilities()`."""

    STREAMING = "streaming"
    MAX_TOKENS = "max_tokens"
    SYSTEM_PROMPT = "supports_system_prompt"
    ASYNC = "supports_async"
    FUNCTION_CALLING = "supports_function_calling"
    TOOL_USE = "supports_tool_use"
    VISION = "supports_vision"
    FINE_TUNING = "supports_fine_tuning"
    EMBEDDINGS = "supports_embeddings"
    MULTILINGUAL = "supports_multilingual"
    RAG = "supports_rag"
    MULTI_TURN = "supports_multi_turn"
    PARALLEL_INFERENCE = "supports_parallel_inference"
    IMAGE_GENERATION = "supports_image_generation"
    AUDIO_PROCESSING = "supports_audio_processing"
    JSON_MODE = "supports_json_mode"


# What every provider of chat models that run in batches is able to do.
CHAT_ABILITIES = (
    ModelCapability.STREAMING,
    ModelCapability.SYSTEM_PROMPT,
    ModelCapability.ASYNC,
    ModelCapability.FUNCTION_CALLING,
    ModelCapability.TOOL_USE,
    ModelCapability.MULTI_TURN,
    ModelCapability.PARALLEL_INFERENCE,
)


class MessageRole(StrEnum):
    """The author of a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class ConfigurationManager:
    """A provider's stored settings; the options of a call never change them."""

    def __init__(self, initial_config: Optional[Dict[Union[str, ModelParameter], Any]] = None):
        self._config: Dict[Union[str, ModelParameter], Any] = dict(initial_config or {})

    def get_param(self, param: Union[str, ModelParameter], default: Optional[Any] = None) -> Any:
        """Return a stored setting, or `default` if there is none; a stored None is returned."""
        return self._config.get(param, default)

    def update_config(self, updates: Dict[Union[str, ModelParameter], Any]) -> None:
        """Store every entry of `updates`."""
        self._config.update(updates)

    def get_config(self) -> Dict[Union[str, ModelParameter], Any]:
        """Return a shallow copy of the settings."""
        return dict(self._config)

    def get_provider_params(
        self,
        kwargs: Dict[str, Any],
        system_prompt: Optional[str] = None,
        tools: Optional[List[Any]] = None,
    ) -> Dict[str, Any]:
        """Return one call's parameters: the stored settings, overridden by `kwargs`."""
        params: Dict[Any, Any] = {**self._config, **kwargs}
        if system_prompt is not None:
            params[ModelParameter.SYSTEM_PROMPT] = system_prompt
        if tools is not None:
            params[ModelParameter.TOOLS] = tools
        return params


# Messages, tools and answers -------------------------------------------------------------------


@dataclass
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    name: Optional[str] = None
    tool_results: Optional[List[Dict[str, Any]]] = None

    def to_dict(self) -> Dict[str, Any]:
        """Return the message as a dict without its empty optional fields."""
        fields = {"role": self.role, "content": self.content}
        optional = {"name": self.name, "tool_results": self.tool_results}
        return {**fields, **{key: value for key, value in optional.items() if value}}


@dataclass
class GenerateResponse:
    """A whole answer, or one delta of it in a stream.

    `content` is text of the answer, `reasoning_trace` text of the reasoning channel. In a stream
    only the last response has `finish_reason`, `usage` and `tool_calls`.
    """

    content: Optional[str] = None
    raw_response: Any = None
    usage: Optional[Dict[str, int]] = None
    model: Optional[str] = None
    finish_reason: Optional[str] = None
    tool_calls: Optional[List[Dict[str, Any]]] = None
    image_paths: Optional[List[str]] = None
    react_cycle_id: Optional[str] = None
    tools_executed: Optional[List[Dict[str, Any]]] = None
    facts_extracted: Optional[List[str]] = None
    reasoning_trace: Optional[str] = None
    total_reasoning_time: Optional[float] = None
    scratchpad_file: Optional[str] = None
    scratchpad_manager: Optional[Any] = None

    def has_tool_calls(self) -> bool:
        """Return whether the answer has tool calls."""
        return bool(self.tool_calls)


@dataclass
class ChoiceResponse(GenerateResponse):
    """A response to a request for several answers, which are called choices.

    In a stream, `choice` is the index of the choice that a delta belongs to, and every choice has a
    last response of its own. Without a stream the response is the first choice, and `choices` has
    all of them.
    """

    choice: int = 0
    choices: Optional[List[GenerateResponse]] = None


@dataclass(frozen=True)
class FileData:
    """A file's contents, for callers whose paths the provider can't read."""

    name: str
    mime: Optional[str]
    data: bytes


@dataclass(frozen=True)
class Health:
    """Whether the provider can accept a generation now, and the reason or the circumstances."""

    ready: bool
    reason: str = ""


@dataclass(frozen=True)
class ModelInfo:
    """A model that requests name by `id`; `context_window` is in tokens, None if unknown.

    A model that is not `loaded` is loaded by the first request for it. `base` is the id of an
    adapter's base model, None for other models. `vision`, `tools` and `thinking` say whether it
    reads images, calls tools and thinks before it answers; None is unknown.
    """

    id: str
    context_window: Optional[int] = None
    loaded: bool = True
    base: Optional[str] = None
    vision: Optional[bool] = None
    tools: Optional[bool] = None
    thinking: Optional[bool] = None


def whole_answer(deltas: List[GenerateResponse]) -> GenerateResponse:
    """Return the whole answer that consists of these deltas, with all choices if there are any."""
    choices = sorted({delta.choice for delta in deltas if isinstance(delta, ChoiceResponse)})
    if not choices:
        return _whole_one(deltas)
    whole = [_whole_one([d for d in deltas if getattr(d, "choice", 0) == one]) for one in choices]
    return ChoiceResponse(**{**vars(whole[0]), "choices": whole})


def _whole_one(deltas: List[GenerateResponse]) -> GenerateResponse:
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


# The interface ---------------------------------------------------------------------------------


class AbstractLLMInterface(ABC):
    """A provider, which generates answers with or without asyncio."""

    def __init__(self, config: Optional[Dict[Union[str, ModelParameter], Any]] = None):
        self.config_manager = ConfigurationManager(config or {})

    @abstractmethod
    def generate(
        self,
        prompt: str,
        system_prompt: Optional[str] = None,
        files: Optional[List[Union[str, Path]]] = None,
        stream: bool = False,
        tools: Optional[List[Union[Dict[str, Any], Callable[..., Any]]]] = None,
        **kwargs: Any,
    ) -> Union[GenerateResponse, Generator[GenerateResponse, None, None]]:
        """Return an answer, or with `stream=True` a generator of its deltas.

        `kwargs` override the configuration for this call only. Raises an `AbstractLLMError`.
        """

    @abstractmethod
    async def generate_async(
        self,
        prompt: str,
        system_prompt: Optional[str] = None,
        files: Optional[List[Union[str, Path]]] = None,
        stream: bool = False,
        tools: Optional[List[Union[Dict[str, Any], Callable[..., Any]]]] = None,
        **kwargs: Any,
    ) -> Union[GenerateResponse, AsyncGenerator[GenerateResponse, None]]:
        """Return an answer, or with `stream=True` an async generator of its deltas.

        `kwargs` override the configuration for this call only. Raises an `AbstractLLMError`.
        Cancelling the awaiting task, or closing the generator, ends the generation.

        The gateway also passes `events=True`, for a stream with responses on the progress, and
        `client`, a name of whoever the call is made for, by which a provider may be fair between
        clients. A provider may ignore both.
        """

    def get_capabilities(self) -> Dict[Union[str, ModelCapability], Any]:
        """Return the provider's capabilities; by default it has none."""
        return {
            ModelCapability.STREAMING: False,
            ModelCapability.MAX_TOKENS: 2048,
            ModelCapability.SYSTEM_PROMPT: False,
            ModelCapability.ASYNC: False,
            ModelCapability.FUNCTION_CALLING: False,
            ModelCapability.TOOL_USE: False,
            ModelCapability.VISION: False,
        }

    def set_config(self, **kwargs: Any) -> None:
        """Store settings given by name."""
        self.config_manager.update_config(dict(kwargs))

    def update_config(self, config: Dict[Union[str, ModelParameter], Any]) -> None:
        """Store settings given as a dict."""
        self.config_manager.update_config(config)

    def get_config(self) -> Dict[Union[str, ModelParameter], Any]:
        """Return a shallow copy of the settings."""
        return self.config_manager.get_config()

    def get_param(self, param: Union[str, ModelParameter], default: Optional[Any] = None) -> Any:
        """Return one setting, or `default` if it was never stored."""
        return self.config_manager.get_param(param, default)

    def get_provider_params(
        self,
        kwargs: Dict[str, Any],
        system_prompt: Optional[str] = None,
        tools: Optional[List[Any]] = None,
    ) -> Dict[str, Any]:
        """Return one call's parameters: the stored settings, overridden by `kwargs`."""
        return self.config_manager.get_provider_params(kwargs, system_prompt, tools)

    # The gateway calls the following methods, which the package `abstractllm` does not have.

    async def load(self) -> None:  # noqa: B027 - a default
        """Load all that is needed to generate; by default nothing. Raises an `AbstractLLMError`."""

    def watch_loading(self, tell: Callable[[ModelLoading], None]) -> None:  # noqa: B027 - a default
        """Call `tell` with the progress of a later `load`, on any thread; by default never."""

    async def aclose(self) -> None:  # noqa: B027 - a default
        """Free all resources; by default there are none."""

    def health(self) -> Health:
        """Return whether the provider can accept a generation now; by default it can."""
        return Health(ready=True)

    def models(self) -> List[ModelInfo]:
        """Return the models that requests can name; by default the configured one."""
        name = self.get_param(ModelParameter.MODEL)
        return [ModelInfo(str(name) if name else "default")]

    def replicas(self) -> Optional[int]:
        """Return how many replicas take generations now, None for a provider without any."""
        return None

    def places(self) -> Optional[int]:
        """Return how many answers at most are made at once, None if that is not known."""
        return None

    def device(self) -> str:
        """Return a phrase for the device that computes, "" if it is unknown."""
        return ""

    def statistics(self) -> Optional[object]:
        """Return a snapshot of the provider's metrics, None if it has none; never waits.

        The snapshot is a dataclass whose fields are numbers, or histograms with `bounds`, `counts`
        and `total`. The field of a number that only grows has the metadata COUNTER. A field that
        is a mapping of such numbers has the metadata `label`, which says what its keys are.
        """
        return None


COUNTER: Mapping[str, str] = MappingProxyType({"kind": "counter"})


class ForeignProvider(AbstractLLMInterface):
    """An adapter for a provider of the package `abstractllm`, with defaults for the additions."""

    def __init__(self, provider: Any):
        super().__init__(provider.get_config())
        self._provider = provider

    def generate(self, *given: Any, **kwargs: Any) -> Any:
        """Call the provider's `generate`."""
        return self._provider.generate(*given, **kwargs)

    async def generate_async(self, *given: Any, **kwargs: Any) -> Any:
        """Call the provider's `generate_async`."""
        return await self._provider.generate_async(*given, **kwargs)

    def get_capabilities(self) -> Dict[Union[str, ModelCapability], Any]:
        """Return the provider's capabilities."""
        return dict(self._provider.get_capabilities())


def with_defaults(provider: Any) -> AbstractLLMInterface:
    """Return a provider that has every method that the gateway calls, wrapping it if necessary."""
    if AbstractLLMInterface in type(provider).__mro__:  # a registered class inherits no defaults
        return cast("AbstractLLMInterface", provider)
    return ForeignProvider(provider)
