import pytest

from gateway.protocol.codes import RETRYABLE, BadFrame, CloseCode, ErrorCode


def test_every_error_says_whether_a_retry_may_help():
    assert set(RETRYABLE) == set(ErrorCode)


@pytest.mark.parametrize("code", CloseCode)
def test_a_close_code_is_one_that_may_be_sent(code):
    # RFC 6455, section 7.4: registered ones, but those that are never sent; and the private range.
    assert 1000 <= code <= 1015 or 4000 <= code <= 4999
    assert code not in {1004, 1005, 1006, 1015}


def test_a_bad_frame_knows_its_id_its_code_and_the_fields_at_fault():
    error = BadFrame("bad", "a", code=ErrorCode.INVALID_REQUEST, fields=("prompt",))
    assert (str(error), error.frame_id, error.fields) == ("bad", "a", ("prompt",))
    assert BadFrame("bad", None, code=ErrorCode.INVALID_FRAME).fields == ()
