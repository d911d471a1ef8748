"""Errors have a class for what is at fault, and details for programs."""

import pickle

import pytest

from provider import errors
from provider.errors import (
    AbstractLLMError,
    ContextWindowExceededError,
    FileProcessingError,
    InvalidParameterError,
    InvalidRequestError,
    MemoryExceededError,
    ModelLoadingError,
    ModelNotFoundError,
    ResourceExceededError,
    UnsupportedFeatureError,
    UnsupportedOperationError,
    unlike,
)

EVERY = [
    one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)
]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_error_is_an_abstract_llm_error_with_a_sentence(kind):
    assert issubclass(kind, AbstractLLMError)
    assert kind.__doc__.endswith(".")


def test_an_error_keeps_its_cause_and_its_own_details():
    cause, details = ValueError("inner"), {"retry_after": 5.0}
    error = ResourceExceededError("later", "mlx", cause, details)
    assert str(error) == "[mlx] later"
    assert error.original_exception is cause
    assert error.details == details
    assert error.details is not details
    assert str(AbstractLLMError("plain")) == "plain"


def test_the_class_says_what_is_at_fault():
    assert issubclass(InvalidParameterError, InvalidRequestError)
    assert issubclass(ContextWindowExceededError, InvalidRequestError)
    assert issubclass(MemoryExceededError, ResourceExceededError)
    assert not issubclass(ResourceExceededError, InvalidRequestError)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModelNotFoundError("m"), "Model 'm' not found"),
        (ModelNotFoundError("m", "why"), "Model 'm' not found: why"),
        (ModelNotFoundError("m", "why", "/x"), "Model 'm' not found: why (searched in: /x)"),
        (InvalidParameterError("seed", -1), "Invalid value '-1' for parameter 'seed'"),
        (InvalidParameterError("seed", -1, "`seed`: no"), "`seed`: no"),
        (
            ContextWindowExceededError(10, 20),
            "Content length (20) exceeds maximum context window (10)",
        ),
        (UnsupportedFeatureError("x"), "Feature 'x' is not supported by this provider/model"),
        (UnsupportedOperationError("x"), "Operation 'x' is not supported"),
        (UnsupportedOperationError("x", "why"), "Operation 'x' is not supported: why"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_default_message_has_all_known_arguments(error, message):
    assert str(error) == message


def test_structured_arguments_are_among_the_details():
    assert ModelNotFoundError("m", search_path="/x").details == {"search_path": "/x"}
    assert ModelLoadingError("no", model_name="m").details == {"model_name": "m"}
    memory = MemoryExceededError("no", required_memory=2, available_memory=0)
    assert memory.details == {"required_memory": 2, "available_memory": 0}
    file = FileProcessingError("no", file_path="a.pdf", file_type="pdf")
    assert file.details == {"file_path": "a.pdf", "file_type": "pdf"}
    assert MemoryExceededError("no").details == FileProcessingError("no").details == {}


def test_a_long_refused_value_is_shortened():
    error = unlike("seed", "x" * 500, "a whole number")
    assert (error.parameter, error.value) == ("seed", "x" * 500)
    assert str(error) == f"`seed` must be a whole number, not '{'x' * 39}…"
    assert str(unlike("seed", 1.5, "a whole number")) == "`seed` must be a whole number, not 1.5"


class Counted:
    def __init__(self):
        self.shown = 0

    def __repr__(self):
        self.shown += 1
        return "counted"


@pytest.mark.parametrize("several", [list, lambda values: {"a": list(values)}])
def test_of_a_large_refused_value_only_the_beginning_is_made(several):
    one = Counted()
    error = unlike("stop", several([one] * 100_000), "a text")
    assert "[counted, counted" in str(error)
    assert one.shown < 10


@pytest.mark.parametrize("value", [None, [], {}, [1, "a", {"b": [None]}], {"a": 1, "b": 2.5}, ()])
def test_a_short_refused_value_is_shown_as_python_shows_it(value):
    assert str(unlike("stop", value, "a text")) == f"`stop` must be a text, not {value!r}"


def test_a_plain_error_crosses_processes():
    again = pickle.loads(pickle.dumps(ResourceExceededError("later")))
    assert (type(again), str(again)) == (ResourceExceededError, "later")
