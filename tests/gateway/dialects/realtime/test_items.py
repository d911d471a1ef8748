import pytest

from gateway.dialects.kept_bytes import KeptBytes
from gateway.dialects.openai.errors import Refused
from gateway.dialects.realtime.items import ITEM_BYTES, MAX_PARTS, Items
from tests.gateway.dialects.realtime.clients import output, user

CALL = {"type": "function_call", "name": "f", "call_id": "c", "arguments": "{}"}


def conversation(*items, kept=None):
    made = Items(kept or KeptBytes(1 << 20), "client")
    for item in items:
        made.insert(made.read(item, "item"), None)
    return made


def ids(items):
    return [item["id"] for item in items]


def test_items_are_in_the_order_in_which_they_are_put():
    items = conversation(user("a", id="a"))
    assert items.insert(items.read(user("b", id="b"), "item"), None) == "a"
    assert items.insert(items.read(user("c", id="c"), "item"), "root") is None
    assert items.insert(items.read(user("d", id="d"), "item"), "a") == "a"
    assert ids(items) == ["c", "a", "d", "b"]
    items.remove("a")
    assert ids(items) == ["c", "d", "b"]


def test_an_item_is_kept_as_it_was_sent_and_completed():
    items = conversation()
    call = items.read({"type": "function_call", "name": "f"}, "item")
    assert call["call_id"].startswith("call_")
    assert (call["arguments"], call["status"], call["object"]) == (
        "{}",
        "completed",
        "realtime.item",
    )
    told = items.read({"role": "developer", "content": "x", "novelty": 1}, "item")
    assert (told["type"], told["role"]) == ("message", "system")
    assert told["content"] == [{"type": "input_text", "text": "x"}]
    assert "novelty" not in told
    assert items.read({"role": "assistant", "content": "x"}, "item")["content"] == [
        {"type": "output_text", "text": "x"}
    ]


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (None, "item.type"),
        ({"type": "mcp_call"}, "item.type"),
        ({"type": ["message"]}, "item.type"),
        ({"type": "message", "role": "judge"}, "item.role"),
        ({"type": "message", "role": "user"}, "item.content"),
        (user("x", content=[{"type": "input_audio", "audio": "AA"}]), "item.content[0].type"),
        ({"type": "function_call"}, "item.name"),
        (output("nobody", "x"), "item.call_id"),
        (user("x", id="taken"), "item.id"),
        (user("x", id=""), "item.id"),
        (user("x", id="root"), "item.id"),
        (user("x", id=7), "item.id"),
    ],
)
def test_what_no_model_can_be_shown_is_refused(item, param):
    items = conversation(user("a", id="taken"), CALL)
    with pytest.raises(Refused) as refused:
        items.read(item, "item")
    assert refused.value.error.param == param


def test_an_output_needs_its_call():
    items = conversation(CALL, output("c", "1"))
    assert [item["type"] for item in items] == ["function_call", "function_call_output"]


def test_an_own_input_may_refer_to_items_and_is_not_kept():
    items = conversation(user("a", id="a"))
    own = [{"type": "item_reference", "id": "a"}, user("b"), CALL, output("c", "1")]
    assert [item["type"] for item in items.read_input(own, "response.input")] == [
        "message",
        "message",
        "function_call",
        "function_call_output",
    ]
    assert ids(items) == ["a"]
    for wrong, param in (({}, "x"), ([1], "x[0].type"), ([{"type": "item_reference"}], "x[0].id")):
        with pytest.raises(Refused) as refused:
            items.read_input(wrong, "x")
        assert refused.value.error.param == param


def test_what_conversations_hold_is_bounded_and_given_back():
    kept = KeptBytes(4 * ITEM_BYTES + 4000)
    items = conversation(user("x" * 1000, id="a"), kept=kept)
    held = kept.held
    with pytest.raises(Refused, match="too much"):
        items.insert(items.read(user("x" * 2000), "item"), None)
    assert kept.held == held
    items.append({"id": "m", "type": "message", "content": "x" * 9000})  # the model's own
    assert kept.held > held + 9000
    assert not kept.fits("other", 1)
    assert items.replace({"id": "m", "type": "message", "content": ""}) == (True, "a")
    assert items.replace({"id": "n", "type": "message"}) == (False, None)
    assert kept.fits("other", ITEM_BYTES)
    items.remove("a")
    items.close()
    items.append({"id": "late", "type": "message", "content": "x"})
    assert kept.held == 0


def test_so_many_items_and_parts_has_a_conversation_at_most():
    items = conversation(kept=KeptBytes(8 << 20))
    many = [{"type": "input_text", "text": "x"}] * (MAX_PARTS - 3)
    items.insert(items.read(user("x", content=many, id="many"), "item"), None)
    items.insert(items.read({"type": "function_call", "name": "f"}, "item"), None)
    for refused in (user("x"), user("x", content=many)):
        with pytest.raises(Refused, match="too many items"):
            items.insert(items.read(refused, "item"), None)
    items.append({"id": "m", "type": "message", "content": many})  # the model's own
    with pytest.raises(Refused, match="too many items"):
        items.check_room()
    items.replace({"id": "m", "type": "message", "content": []})
    items.remove("many")
    items.insert(items.read(user("x", content=many[:-5]), "item"), None)


def test_an_own_input_refers_to_an_item_once():
    items = conversation(user("a", id="a"))
    refers = {"type": "item_reference", "id": "a"}
    with pytest.raises(Refused) as refused:
        items.read_input([refers, refers], "x")
    assert refused.value.error.param == "x[1].id"


def test_a_call_that_is_deleted_has_no_output_any_more():
    items = conversation({**CALL, "id": "first"}, {**CALL, "id": "second"})
    items.remove("first")
    items.read(output("c", "1"), "item")
    items.remove("second")
    with pytest.raises(Refused, match="No tool call"):
        items.read(output("c", "1"), "item")


def test_reasoning_is_not_shown_to_the_client():
    items = conversation(user("a", id="a"))
    assert items.append({"id": "r", "type": "reasoning"}) == "a"
    assert items.append({"id": "m", "type": "message"}) == "a"
    for own in ("r", "nobody", None, []):
        with pytest.raises(Refused) as refused:
            items.find(own, "item_id")
        assert refused.value.error.param == "item_id"


def test_the_reasoning_of_an_item_that_is_deleted_goes_with_it():
    kept = KeptBytes(1 << 20)
    items = conversation(user("a", id="a"), kept=kept)
    held = kept.held
    for own, kind in (("r", "reasoning"), ("s", "reasoning"), ("m", "message"), ("c", "message")):
        items.append({"id": own, "type": kind})
    items.remove("c")
    assert ids(items) == ["a", "r", "s", "m"]
    items.remove("m")
    assert (ids(items), kept.held) == (["a"], held)
