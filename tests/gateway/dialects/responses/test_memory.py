from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.kept_bytes import KeptBytes
from gateway.dialects.responses import memory as module
from gateway.dialects.responses.memory import ITEM_BYTES, KEPT_BYTES, Memory, Place

HERE, THERE = Place("here", "alice", "a"), Place("there", "alice", "a")
MALLORY = Place("here", "mallory", "m")
SAID = [{"role": "user", "content": "x" * 100}]


def keep(memory, own, *, parent=None, place=HERE, stored=True, now=0.0, said=SAID, items=()):
    kept = {name: {"type": "message", "content": name} for name in items}
    memory.keep(own, said, kept, parent=parent, place=place, stream_id=None, stored=stored, now=now)
    return memory.find(own, place, now)


def contents(kept):
    messages, whole = kept.messages(1000)
    assert whole
    return [message["content"] for message in messages]


def test_a_conversation_is_the_messages_of_its_turns_in_order():
    memory = Memory(KeptBytes(10_000), 60)
    first = keep(memory, "a", said=[{"role": "user", "content": "1"}])
    second = keep(memory, "b", parent=first, said=[{"role": "assistant", "content": "2"}])
    fork = keep(memory, "c", parent=first, said=[{"role": "assistant", "content": "3"}])
    assert contents(second) == ["1", "2"]
    assert contents(fork) == ["1", "3"]


def test_what_is_stored_is_found_on_all_connections_of_its_owner():
    memory = Memory(KeptBytes(10_000), 60)
    keep(memory, "a")
    keep(memory, "b", stored=False)
    assert memory.find("a", THERE, 1)
    assert not memory.find("a", MALLORY, 1)
    assert memory.find("b", HERE, 1)
    assert not memory.find("b", THERE, 1)
    assert not memory.find("c", HERE, 1)


def test_an_item_is_found_where_its_response_is():
    memory = Memory(KeptBytes(20_000), 60)
    first = keep(memory, "a", items=["a1", "a2"])
    keep(memory, "b", stored=False, parent=first, items=["b1"])
    assert memory.find_item("a2", THERE, 1) == {"type": "message", "content": "a2"}
    assert memory.find_item("b1", HERE, 1)
    assert not memory.find_item("b1", THERE, 1)
    assert not memory.find_item("a1", MALLORY, 1)
    assert not memory.find_item("c1", HERE, 1)
    memory.forget(first)
    assert not memory.find_item("a1", HERE, 1)
    assert not memory.find_item("b1", HERE, 100)
    assert (memory._by_item, memory.held_bytes) == ({}, 0)


def test_a_connection_that_ends_takes_with_it_what_is_not_stored():
    memory = Memory(KeptBytes(10_000), 60)
    keep(memory, "a")
    keep(memory, "b", stored=False)
    keep(memory, "c", stored=False, place=THERE)
    memory.leave("here")
    assert [bool(memory.find(own, THERE, 1)) for own in "abc"] == [True, False, True]
    memory.leave("here")
    assert len(memory) == 2


def test_what_nobody_uses_is_forgotten():
    memory = Memory(KeptBytes(10_000), 60)
    keep(memory, "a", now=0)
    keep(memory, "b", now=30)
    assert memory.find("a", HERE, 59)
    assert not memory.find("b", HERE, 90)
    assert memory.find("a", HERE, 100)
    assert not memory.find("a", HERE, 160)
    assert (len(memory), memory.held_bytes) == (0, 0)


def test_the_client_that_holds_most_loses_what_it_used_least():
    memory = Memory(KeptBytes(4 * (KEPT_BYTES + 200)), 60)
    keep(memory, "m", place=MALLORY)
    for own in "abcd":
        keep(memory, own)
        memory.find("a", HERE, 0)
    assert memory.find("m", MALLORY, 0)
    assert [bool(memory.find(own, HERE, 0)) for own in "abcd"] == [True, False, True, True]


def test_a_predecessor_is_held_until_its_successors_are_gone():
    memory = Memory(KeptBytes(1 << 20), 60)
    first = keep(memory, "a")
    one = memory.held_bytes
    second = keep(memory, "b", parent=first)
    assert memory.held_bytes == 2 * one
    memory.forget(first)
    assert not memory.find("a", HERE, 0)
    assert memory.held_bytes == 2 * one
    assert len(contents(second)) == 2
    memory.forget(second)
    memory.forget(second)
    assert memory.held_bytes == 0


def test_a_predecessor_that_was_forgotten_meanwhile_counts_again():
    memory = Memory(KeptBytes(1 << 20), 60)
    first = keep(memory, "a")
    one = memory.held_bytes
    memory.forget(first)
    assert memory.held_bytes == 0
    assert len(contents(keep(memory, "b", parent=first))) == 2
    assert memory.held_bytes == 2 * one


def test_of_a_long_conversation_the_last_turns_are_told_from_a_question_on():
    memory, last = Memory(KeptBytes(1 << 24), 60), None
    for turn in range(4):
        said = [
            {"role": "tool", "content": "0", "tool_call_id": "c"},
            {"role": "user", "content": f"ask {turn}"},
            {"role": "assistant", "content": f"say {turn}"},
        ]
        last = keep(memory, f"r{turn}", parent=last, said=said)
    values = last.values
    assert values == 1 + 3 * 5 + 2
    told, whole = last.messages(4 * values)
    assert (len(told), whole) == (12, True)
    told, whole = last.messages(3 * values)
    assert ([one["content"] for one in told][:3], whole) == (["ask 1", "say 1", "0"], False)
    assert len(last.messages(1)[0]) == 2, "the last turn in any case"


def test_a_conversation_that_has_too_many_bytes_is_not_told_as_a_whole():
    memory = Memory(KeptBytes(1 << 26), 60)
    large = [{"role": "user", "content": "x" * (module.MAX_BYTES // 2)}]
    first = keep(memory, "a", said=large)
    second = keep(memory, "b", parent=first, said=large)
    assert second.messages(1000) == (large, False)


def test_conversations_elsewhere_take_what_is_not_used():
    kept = KeptBytes(4 * (KEPT_BYTES + 200))
    memory = Memory(kept, 60)
    for own in "abc":
        keep(memory, own)
    kept.need("m", 2 * KEPT_BYTES)
    kept.reduce()
    assert [bool(memory.find(own, HERE, 0)) for own in "abc"] == [False, True, True]
    kept.need("m", 9 * KEPT_BYTES)
    kept.reduce()
    assert len(memory) == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["keep", "forget", "leave", "wait"]),
        st.integers(0, 9),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=50)
def test_no_more_is_held_than_allowed_and_nothing_remains(steps):
    most, now, kept = 6 * (KEPT_BYTES + ITEM_BYTES + 200), 0.0, {}
    places = [Place(n, "o", "c" if n else None) for n in range(3)]
    memory = Memory(KeptBytes(most), 100)
    for number, (step, which, where, stored) in enumerate(steps):
        found = memory.find(f"r{which}", places[where], now)
        match step:
            case "keep":
                own = f"r{number}"
                kept[own] = keep(
                    memory,
                    own,
                    parent=found,
                    place=places[where],
                    stored=stored,
                    now=now,
                    items=[f"{own}-{n}" for n in range(which % 3)],
                )
            case "forget" if found:
                memory.forget(found)
            case "leave":
                memory.leave(where)
            case "wait":
                now += 20
        assert memory.held_bytes <= most
    now += 1000
    memory.find("r0", places[0], now)
    assert (len(memory), memory.held_bytes) == (0, 0)
    assert memory._by_client == memory._bytes == memory._by_item == {}
