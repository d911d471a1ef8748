"""The error classes of AbstractLLM, with its names and arguments.

Rule 1: the class says what is at fault: the request, a limit, the model, or the provider.
Rule 2: a message can be shown to the caller; everything else goes into `original_exception`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Dict, Optional, Union  # noqa: UP035 - the contract's own spelling

SHOWN = 40  # characters of a wrong value that its error shows


class AbstractLLMError(Exception):
    """The base class of every error that a provider raises on purpose."""

    def __init__(
        self,
        message: str,
        provider: Optional[str] = None,
        original_exception: Optional[Exception] = None,
        details: Optional[Dict[str, Any]] = None,
    ):
        self.provider = provider
        self.original_exception = original_exception
        self.details: Dict[str, Any] = dict(details or {})
        super().__init__(f"[{provider}] {message}" if provider else message)


class AuthenticationError(AbstractLLMError):
    """The credentials are missing, wrong or expired."""


class QuotaExceededError(AbstractLLMError):
    """A quota or rate limit is used up."""


class UnsupportedProviderError(AbstractLLMError):
    """No provider of that name is available."""


class UnsupportedModelError(AbstractLLMError):
    """The provider does not serve that model."""


class ModelNotFoundError(AbstractLLMError):
    """The model was not found."""

    def __init__(
        self,
        model_name: str,
        reason: Optional[str] = None,
        search_path: Optional[str] = None,
        provider: Optional[str] = None,
        original_exception: Optional[Exception] = None,
        details: Optional[Dict[str, Any]] = None,
    ):
        self.model_name = model_name
        self.reason = reason
        self.search_path = search_path
        message = f"Model '{model_name}' not found"
        if reason:
            message += f": {reason}"
        if search_path:
            message += f" (searched in: {search_path})"
            details = {**(details or {}), "search_path": search_path}
        super().__init__(message, provider, original_exception, details)


class HubUnreachableError(ModelNotFoundError):
    """The model may be on the hub, which cannot be reached."""


class ModelLoadingError(AbstractLLMError):
    """The model was found but cannot be loaded."""

    def __init__(
        self,
        message: str,
        provider: Optional[str] = None,
        model_name: Optional[str] = None,
        original_exception: Optional[Exception] = None,
        details: Optional[Dict[str, Any]] = None,
    ):
        self.model_name = model_name
        if model_name:
            details = {**(details or {}), "model_name": model_name}
        super().__init__(message, provider, original_exception, details)


class ModelStorageError(ModelLoadingError):
    """The model's files cannot be kept on this machine, as for lack of space."""


class InvalidRequestError(AbstractLLMError):
    """The request cannot be carried out as it was made."""


class InvalidParameterError(InvalidRequestError):
    """An option is unknown or has a value that is not allowed."""

    def __init__(
        self,
        parameter: str,
        value: Any,
        message: Optional[str] = None,
        provider: Optional[str] = None,
        original_exception: Optional[Exception] = None,
        details: Optional[Dict[str, Any]] = None,
    ):
        self.parameter = parameter
        self.value = value
        message = message or f"Invalid value '{value}' for parameter '{parameter}'"
        super().__init__(message, provider, original_exception, details)


class ContextWindowExceededError(InvalidRequestError):
    """The prompt is longer than the model's context window; both lengths are in tokens."""

    def __init__(
        self,
        context_window: int,
        content_length: int,
        message: Optional[str] = None,
        provider: Optional[str] = None,
        original_exception: Optional[Exception] = None,
        details: Optional[Dict[str, Any]] = None,
    ):
        self.context_window = context_window
        self.content_length = content_length
        message = message or (
            f"Content length ({content_length}) exceeds maximum context window ({context_window})"
        )
        super().__init__(message, provider, original_exception, details)


class ProviderConnectionError(AbstractLLMError):
    """The provider's service cannot be reached."""


class ProviderAPIError(AbstractLLMError):
    """The provider's service answered with an error."""


class GenerationError(AbstractLLMError):
    """The generation failed after it was accepted."""


class RequestTimeoutError(AbstractLLMError):
    """The request took longer than its time limit."""


class ContentFilterError(AbstractLLMError):
    """A filter refused the content."""


class UnsupportedFeatureError(AbstractLLMError):
    """The model or the provider cannot do what was asked for."""

    def __init__(
        self,
        feature: Union[str, Any],
        message: Optional[str] = None,
        provider: Optional[str] = None,
        original_exception: Optional[Exception] = None,
        details: Optional[Dict[str, Any]] = None,
    ):
        self.feature = feature
        message = message or f"Feature '{feature}' is not supported by this provider/model"
        super().__init__(message, provider, original_exception, details)


class UnsupportedOperationError(AbstractLLMError):
    """The operation does not exist for this provider."""

    def __init__(
        self,
        operation: str,
        reason: Optional[str] = None,
        provider: Optional[str] = None,
        original_exception: Optional[Exception] = None,
        details: Optional[Dict[str, Any]] = None,
    ):
        self.operation = operation
        self.reason = reason
        message = f"Operation '{operation}' is not supported" + (f": {reason}" if reason else "")
        super().__init__(message, provider, original_exception, details)


class ImageProcessingError(AbstractLLMError):
    """An image cannot be read."""


class FileProcessingError(AbstractLLMError):
    """A file cannot be read, has an unknown type, or is too large."""

    def __init__(
        self,
        message: str,
        provider: Optional[str] = None,
        original_exception: Optional[Exception] = None,
        details: Optional[Dict[str, Any]] = None,
        file_path: Optional[str] = None,
        file_type: Optional[str] = None,
    ):
        super().__init__(message, provider, original_exception, details)
        self.file_path = file_path
        self.file_type = file_type
        if file_path:
            self.details["file_path"] = file_path
        if file_type:
            self.details["file_type"] = file_type


class ResourceExceededError(AbstractLLMError):
    """A limit on resources is reached; a later attempt may succeed."""


class MemoryExceededError(ResourceExceededError):
    """The operation needs more memory than is available; both sizes are in bytes."""

    def __init__(
        self,
        message: str,
        provider: Optional[str] = None,
        original_exception: Optional[Exception] = None,
        details: Optional[Dict[str, Any]] = None,
        required_memory: Optional[int] = None,
        available_memory: Optional[int] = None,
    ):
        super().__init__(message, provider, original_exception, details)
        self.required_memory = required_memory
        self.available_memory = available_memory
        if required_memory is not None:
            self.details["required_memory"] = required_memory
        if available_memory is not None:
            self.details["available_memory"] = available_memory


def unlike(name: str, value: Any, expected: str) -> InvalidParameterError:
    """Return the error for an option `name` whose value does not fit the text `expected`."""
    said = f"`{name}` must be {expected}, not {_shown(value)}"
    return InvalidParameterError(name, value, said)


def _shown(value: Any) -> str:
    """Return the beginning of a value's repr, without making all of it, which may be megabytes."""
    shown = ""
    for piece in _pieces(value):
        shown += piece
        if len(shown) > SHOWN:
            return shown[:SHOWN] + "…"
    return shown


def _pieces(value: Any) -> Iterator[str]:
    """Yield the repr of a value bit by bit."""
    match value:
        case str() | bytes():
            yield repr(value[: SHOWN + 1])
        case dict() | list():
            yield "{" if isinstance(value, dict) else "["
            for number, item in enumerate(value):
                yield ", " if number else ""
                yield from _pieces(item)
                if isinstance(value, dict):
                    yield ": "
                    yield from _pieces(value[item])
            yield "}" if isinstance(value, dict) else "]"
        case _:
            yield repr(value)
