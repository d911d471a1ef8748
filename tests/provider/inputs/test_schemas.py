import json
import re
import time
import tracemalloc

import pytest

from provider.inputs.schemas import check_schema, large_number, size_of
from provider.interface import InvalidParameterError

GOOD = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Where.", "pattern": "^[A-Z]"},
        "days": {"type": ["integer", "null"], "minimum": 1},
        "units": {"type": "array", "items": {"enum": ["C", "F", 1, None]}, "maxItems": 2},
        "pair": {"items": [{"type": "number"}, True]},
        "place": {"anyOf": [{"$ref": "#/$defs/place"}, {"const": None}]},
        "more": {"type": "object", "additionalProperties": {"type": "number"}},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "object", "properties": {"type": {"type": "string"}}}},
    "x-of-somebody": [3],
}


def seconds_of(check, name):
    fields = {f"field {n}": {"type": "string"} for n in range(4000)}
    begin = time.process_time()
    check("s", {"properties": {name: {"properties": fields}}})
    return time.process_time() - begin


@pytest.mark.parametrize(("check", "length"), [(check_schema, 2_000_000), (large_number, 400_000)])
def test_what_is_below_a_long_name_costs_no_more_than_below_a_short_one(check, length):
    usual = min(seconds_of(check, "a") for _ in range(3))
    assert seconds_of(check, "a" * length) < 20 * usual + 0.02


def test_a_path_has_the_beginning_of_a_long_name():
    with pytest.raises(InvalidParameterError) as caught:
        check_schema("s", {"properties": {"a" * 100_000: {"type": 3}}})
    assert caught.value.parameter == f"s.properties.{'a' * 64}….type"


def test_a_schema_passes():
    check_schema("s", GOOD)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ([], "s"),
        ({"type": 3}, "s.type"),
        ({"type": []}, "s.type"),
        ({"type": ["string", {}]}, "s.type"),
        ({"properties": [["a", {}]]}, "s.properties"),
        ({"properties": {"a": 3}}, "s.properties.a"),
        ({"properties": {"a": {"properties": None}}}, "s.properties.a.properties"),
        ({"required": True}, "s.required"),
        ({"required": [["a"]]}, "s.required"),
        ({"enum": "abc"}, "s.enum"),
        ({"items": 3}, "s.items"),
        ({"items": [{}, {"type": None}]}, "s.items[1].type"),
        ({"anyOf": {}}, "s.anyOf"),
        ({"oneOf": [{"minItems": "1"}]}, "s.oneOf[0].minItems"),
        ({"maxItems": -1}, "s.maxItems"),
        ({"maximum": True}, "s.maximum"),
        ({"$ref": 3}, "s.$ref"),
        ({"$defs": {"a": {"not": "b"}}}, "s.$defs.a.not"),
    ],
)
def test_a_value_that_is_no_schema_is_named_by_its_path(schema, path):
    with pytest.raises(InvalidParameterError, match=re.escape(f"`{path}` must be")) as caught:
        check_schema("s", schema)
    assert caught.value.parameter == path


def test_a_value_that_is_not_json_is_refused():
    ring = {"type": "object"}
    ring["properties"] = {"a": ring}
    for schema in (ring, {"const": b"x"}, {"const": {b"x": 1}}, {"enum": [[{1}]]}):
        with pytest.raises(InvalidParameterError, match="is not JSON"):
            check_schema("s", schema)


def test_a_schema_is_not_written_to_be_checked():
    schema = {"description": "x" * 1_000_000, "enum": ["é" * 1_000_000]}
    tracemalloc.start()
    try:
        check_schema("s", schema)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_the_first_large_number_of_a_value_is_named():
    assert large_number("s", {"a": [2**53, -(2**53), 1.5, True, "9" * 20]}) is None
    found = large_number("s", {"a": [0, {"b": 2**53 + 1}], "c": -1e300})
    assert found.parameter == "s.a[1].b"


def test_the_size_of_a_value_is_about_that_of_its_json_and_counting_ends_at_a_limit():
    schema = {"type": "object", "properties": {"ä": {"enum": ["x" * 500, 1, None, True]}}}
    written = len(json.dumps(schema, ensure_ascii=False).encode())
    assert 0.8 * written < size_of(schema, 10_000) < 1.2 * written
    assert size_of("\ud800", 100) > 0
    endless = []
    endless.append(endless)
    assert 100 < size_of(endless, 100) < 200
