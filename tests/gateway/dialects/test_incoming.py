import re

import pytest

from gateway.dialects.base import FrameLimits
from gateway.dialects.incoming import check, event_in, object_in
from gateway.protocol.codes import BadFrame, ErrorCode, NotAFrame

LIMITS = FrameLimits(values=10)
OWN = re.compile(r'"own": "(\w+)"')
LARGE = '{"own": "me", "a": [1, 2, 3, 4, 5, 6, 7, 8]}'


def test_a_small_message_is_checked_in_pieces():
    assert len(list(check('{"a": 1}', LIMITS))) == 1
    assert list(check(b"binary", LIMITS)) == []


@pytest.mark.parametrize(("pattern", "own"), [(None, None), (OWN, "me"), (re.compile("(x)"), None)])
def test_too_many_values_are_refused_with_the_message_s_id(pattern, own):
    with pytest.raises(BadFrame, match="10 keys and values") as raised:
        list(check(LARGE, LIMITS, pattern))
    assert (raised.value.frame_id, raised.value.code) == (own, ErrorCode.INVALID_REQUEST)


def test_an_object_is_read():
    assert object_in('{"a": 1}') == event_in('{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("text", ["[]", "1", "{"])
def test_a_text_that_is_no_object_is_no_frame_or_a_bad_one(text):
    with pytest.raises(NotAFrame):
        object_in(text)
    with pytest.raises(BadFrame) as raised:
        event_in(text)
    assert (raised.value.frame_id, raised.value.code) == (None, ErrorCode.INVALID_FRAME)


@pytest.mark.parametrize("read", [object_in, event_in])
def test_a_binary_message_is_no_frame(read):
    with pytest.raises(NotAFrame, match="text messages"):
        read(b"{}")
