from gateway.dialects.refusals import Refused, said
from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Failed

NAMES = {"max_tokens": "body.maxTokens", "messages[1].content": "messages[0].parts"}


def text(message, *fields, **more):
    failed = Failed(code=ErrorCode.INVALID_REQUEST, message=message, fields=fields, **more)
    return said(failed, lambda field: NAMES.get(field, field))


def test_a_field_is_named_as_the_client_names_it():
    assert text("must be 5", "max_tokens") == "`body.maxTokens`: must be 5"
    assert text("give {} or {}", "max_tokens", "b") == "give `body.maxTokens` or `b`"
    assert text("`messages[1].content` is {}") == "`messages[0].parts` is {}"


def test_the_time_until_a_retry_is_told():
    assert text("full", retry_after=2.0) == "full (retry after 2 s)"


def test_a_path_is_cut():
    assert len(text("bad", "x" * 1000)) < 300
    assert len(str(Refused("bad", "x" * 1000))) < 300
    assert str(Refused("bad")) == "bad"
