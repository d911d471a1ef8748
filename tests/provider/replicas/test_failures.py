"""An error of a replica has the same code and field for the client as it had there."""

import pytest

from gateway.client.errors import GatewayError
from gateway.dialects.native import worded
from gateway.protocol.codes import RETRYABLE, ErrorCode
from gateway.server.generation_task import _refusal
from provider.replicas.failures import BUSY, failure_of, lost, none_ready

# What has another code for the client, who has nothing to do with it.
OTHERS = {
    ErrorCode.RATE_LIMITED: ErrorCode.OVERLOADED,
    ErrorCode.SHUTTING_DOWN: ErrorCode.OVERLOADED,
    ErrorCode.SLOW_CLIENT: ErrorCode.OVERLOADED,
}
FAULTS_OF_OURS = {
    ErrorCode.INVALID_FRAME,
    ErrorCode.UNAUTHORIZED,
    ErrorCode.FORBIDDEN,
    ErrorCode.DUPLICATE_ID,
    ErrorCode.NOT_RESUMABLE,
}


@pytest.mark.parametrize("code", ErrorCode)
def test_an_error_has_the_code_that_it_had(code):
    got = _refusal(failure_of(GatewayError(code, "it is so", retry_after=2.0)), None)
    expected = ErrorCode.INTERNAL if code in FAULTS_OF_OURS else OTHERS.get(code, code)
    assert got.code == expected
    if got.code is not ErrorCode.INTERNAL:
        assert got.message == "it is so"
    if RETRYABLE[got.code]:
        assert got.retry_after == 2.0


@pytest.mark.parametrize(
    "said", ["`$.max_tokens`: must be at most 5", "`$.tools[0].function.name` must be short"]
)
def test_the_field_at_fault_is_named_again(said):
    got = _refusal(failure_of(GatewayError("invalid_request", said)), None)
    assert worded(got.message, got.fields).replace(":", "") == said.replace(":", "")


def test_a_lost_replica_and_none_at_all_are_worth_a_retry():
    for error in (lost("there"), none_ready("all are busy")):
        got = _refusal(error, None)
        assert RETRYABLE[got.code]
        assert got.retry_after
    assert all(RETRYABLE[code] for code in BUSY)
