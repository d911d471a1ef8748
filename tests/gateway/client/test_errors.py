import pytest

from gateway.client.errors import ConnectionLostError, GatewayError, UnauthorizedError, error_of
from gateway.protocol.codes import RETRYABLE, ErrorCode
from gateway.protocol.frames import Error


@pytest.mark.parametrize("code", ErrorCode)
def test_an_error_frame_is_raised_with_all_that_it_says(code):
    frame = Error(code=code, message="m", retryable=RETRYABLE[code], retry_after=1.5)
    error = error_of(frame)
    assert (error.code, str(error), error.retry_after) == (code.value, "m", 1.5)
    assert error.retryable is RETRYABLE[code]


def test_what_a_later_gateway_calls_retryable_is():
    frame = Error(code=ErrorCode.INTERNAL, message="m", retryable=True)
    assert error_of(frame).retryable


def test_the_clients_own_errors_are_gateway_errors_too():
    for error, code, retryable in (
        (ConnectionLostError("gone"), "connection_lost", True),
        (UnauthorizedError(), "unauthorized", False),
    ):
        assert isinstance(error, GatewayError)
        assert (error.code, error.retryable, error.retry_after) == (code, retryable, None)
