import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import values
from gateway.dialects.values import in_data, in_json, in_msgpack, too_deep

DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.sampled_from('a\\",:[{}]é\n€')),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.sampled_from('k"\\')), inner),
)


def last(counts):
    *_, count = counts
    return count


def size(value):
    """Return the number of keys and values in plain data, itself included."""
    match value:
        case dict():
            return 1 + len(value) + sum(map(size, value.values()))
        case list():
            return 1 + sum(map(size, value))
    return 1


@given(DATA)
def test_decoded_data_is_counted(value):
    assert in_data(value) == size(value)


@given(DATA)
def test_json_is_counted_whatever_its_texts_hold(value):
    count = last(in_json(json.dumps(value)))
    assert size(value) <= count <= 2 * size(value)  # an empty list or map counts as two


def test_json_without_empty_lists_and_maps_is_counted_exactly():
    assert last(in_json(json.dumps({"a": [1, {"b": "c,:[{"}, "\\"], 'd"': None}))) == 10


@given(DATA, st.integers(1, 9))
def test_json_is_counted_the_same_in_pieces_of_any_size(value, size):
    text = json.dumps(value, ensure_ascii=False)
    assert last(in_json(text, size)) == last(in_json(text))


@given(DATA)
def test_msgpack_is_counted_exactly(value):
    assert last(in_msgpack(msgspec.msgpack.encode(value))) == size(value)


KINDS = {
    "small": [0, -1, 1.5, True, None, "", "ab", {}, []],
    "integers": [-200, -40_000, -(2**31), -(2**40), 200, 40_000, 2**31, 2**40],
    "binaries": [b"\x80" * 20, b"\xff" * 300, b"\xc1" * 70_000],
    "texts": ["€" * 10, "€" * 20, "€" * 100, "x" * 70_000],
    "arrays": [[0] * 15, [0] * 16, [0] * 70_000],
    "maps": [{str(n): n for n in range(count)} for count in (15, 16, 70_000)],
    "extensions": [
        msgspec.msgpack.Ext(5, b"\xdc" * length) for length in (1, 2, 4, 8, 16, 3, 300, 70_000)
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_msgpack_value_is_known(kind):
    value = KINDS[kind]
    assert last(in_msgpack(msgspec.msgpack.encode([value, 7]))) == 2 + size(value)


def test_single_floats_of_msgpack_are_known():
    assert last(in_msgpack(b"\x92\xca\x00\x00\x00\x00\x07")) == 3


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"\xdd\xff\xff\xff\xff", 1),
        (b"\xdb\xff\xff\xff\xffab", 1),
        (b"\xc4", 1),
        (b"\x92\xc1\x80", 1),
    ],
)
def test_msgpack_that_is_cut_off_or_wrong_is_counted_up_to_there(data, count):
    assert last(in_msgpack(data)) == count


def test_large_texts_are_few_values_and_few_pieces():
    text = json.dumps({"type": "generate", "prompt": 'a "quoted", {text}\n' * 50_000})
    counts = list(in_json(text))
    assert counts[-1] - 3 * 50_000 // values.ESCAPES == 5
    assert len(counts) == -(-len(text) // values.PIECE)
    packed = msgspec.msgpack.encode([2, "a", text])
    assert list(in_msgpack(packed)) == [4]


def test_many_small_values_are_many_pieces():
    packed = b"\x80" * (3 * values.PIECE)
    assert list(in_msgpack(packed)) == [values.PIECE, 2 * values.PIECE, 3 * values.PIECE]


def test_a_piece_of_msgpack_has_so_many_steps():
    packed = msgspec.msgpack.encode(["ab"] * (3 * values.STEPS))
    assert len(list(in_msgpack(packed))) in {3, 4}


@pytest.mark.parametrize("escape", ["\\n", "\\u00e9", "\\\\"])
def test_escapes_take_time_and_count_for_it(escape):
    text = json.dumps({"type": "generate", "prompt": ""})
    plain, escaped = (text.replace('""', f'"{unit * 100_000}"') for unit in ("x", escape))
    assert last(in_json(plain)) == 5
    assert last(in_json(escaped)) >= 5 + 100_000 // values.ESCAPES


@pytest.mark.parametrize("number", ["1" * 4000, "0." + "1" * 800, f"1{'0' * 500}e-9"])
def test_the_digits_of_long_numbers_take_time_and_count_for_it(number):
    usual = json.dumps({"a": [-1.2345678901234567e-300] * 1000, "b": "1" * 100_000})
    assert last(in_json(usual)) == 1005
    long = f"[{','.join([number] * 1000)}]"
    assert last(in_json(long)) > 1000 * (len(number) - 30) // values.LONG
    assert last(in_json(long, 7)) == last(in_json(long))


@pytest.mark.parametrize(
    ("fields", "most", "deep"),
    [
        ({"a": 1}, 1, None),
        ({"a": [1], "b": [[]]}, 1, "b"),
        ({"a": {"b": {"c": []}}}, 3, None),
        ({"a": {"b": {"c": []}}}, 2, "a"),
    ],
)
def test_the_first_field_that_is_too_deep_is_named(fields, most, deep):
    assert too_deep(fields, most) == deep
