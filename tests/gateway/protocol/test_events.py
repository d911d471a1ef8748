from typing import get_args

import msgspec
import pytest

from gateway.protocol.codes import RETRYABLE, ErrorCode
from gateway.protocol.events import Event, Failed, Refusal, Request
from gateway.protocol.frames import Error, Ready, ServerFrame


@pytest.mark.parametrize("code", ErrorCode)
def test_whether_a_failure_is_worth_a_retry_follows_from_its_code(code):
    assert Failed(code=code, message="m").retryable is RETRYABLE[code]


def test_every_servers_frame_is_an_event_but_the_greeting_and_the_error():
    assert set(get_args(Event)) == set(get_args(ServerFrame)) - {Ready, Error} | {Failed}


def test_an_error_frame_says_all_that_a_failure_knows():
    known = {*Failed.__struct_fields__, "retryable"} - {"fields"}
    assert known == set(Error.__struct_fields__)


def test_a_refusal_and_its_failure_have_the_same_fields():
    refusal = Refusal(ErrorCode.INVALID_REQUEST, "bad", 1.0, ("window",))
    failed = Failed(id="a", **vars(refusal))
    assert msgspec.structs.asdict(failed) == {"id": "a", "seq": None, **vars(refusal)}


def test_every_request_names_what_it_is_about():
    without = {kind.__name__ for kind in get_args(Request) if "id" not in kind.__struct_fields__}
    assert without == {"Hello", "Ping"}
