"""Which replica gets a generation."""

import random

from provider.replicas.prefixes import Prefix
from provider.replicas.routing import HOLDERS, WORTH_OF_PREFIX, Router


def prefixes(*names):
    """Return the prefixes of a conversation with these messages, of 100 bytes each."""
    return tuple(
        Prefix("/".join(names[: n + 1]).encode(), 100 * (n + 1)) for n in range(len(names))
    )


def router(count=3, places=4, **options):
    made = Router(**options)
    for number in range(count):
        made.put(f"r{number}", places)
    return made


def placed(found):
    return None if found is None else found.name


def test_new_conversations_go_to_the_least_busy_replica():
    made = router()
    names = [made.place(prefixes(f"c{n}")).name for n in range(6)]
    assert sorted(names) == ["r0", "r0", "r1", "r1", "r2", "r2"]
    made.leave("r1")
    assert made.place(prefixes("another")).name == "r1"


def test_a_conversation_stays_with_the_replica_that_has_its_prefix():
    made = router()
    first = made.place(prefixes("a"))
    made.leave(first.name)
    for other in "bcd":
        made.place(prefixes(other))
    again = made.place(prefixes("a", "answer", "more"))
    assert (again.name, again.known) == (first.name, 1 / 3)


def test_a_prefix_is_worth_less_than_a_long_queue():
    made = router(places=4)
    home = made.place(prefixes("a")).name
    names = [made.place(prefixes("a", "b")).name for _ in range(12)]
    assert names[0] == home
    assert set(names) == {"r0", "r1", "r2"}
    assert max(names.count(name) for name in names) <= 6


def test_a_short_common_beginning_does_not_gather_all_conversations():
    made = router(count=4, places=8)
    for number in range(32):
        made.place(prefixes("system", *[f"c{number}.{turn}" for turn in range(9)]))
    assert {made.live(f"r{n}") for n in range(4)} <= {7, 8, 9}


def test_answers_count_each_and_a_full_replica_gets_none():
    made = Router()
    made.put("small", places=2, most=2)
    assert made.place(prefixes("a"), answers=3) is None
    assert placed(made.place(prefixes("a"), answers=2)) == "small"
    assert made.place(prefixes("a")) is None
    made.leave("small", 2)
    assert placed(made.place(prefixes("a"))) == "small"


def test_a_replica_that_takes_none_keeps_what_runs_there():
    made = router(count=2)
    home = made.place(prefixes("a")).name
    made.let_take(home, takes=False)
    assert made.place(prefixes("a")).name != home
    assert made.live(home) == 1
    made.let_take(home, takes=True)
    assert made.place(prefixes("a", "b")).name in {"r0", "r1"}


def test_a_replica_that_comes_back_has_read_nothing():
    made = router(count=1)
    made.place(prefixes("a"))
    made.remove("r0")
    assert made.place(prefixes("a")) is None
    assert made.live("r0") == 0
    made.leave("r0")
    made.put("r0", 4)
    assert made.place(prefixes("a")).known == 0


def test_a_replica_to_avoid_is_not_taken_even_with_the_prefix():
    made = router(count=2)
    home = made.place(prefixes("a")).name
    assert made.place(prefixes("a"), avoid=[home]).name != home
    assert made.place(prefixes("a"), avoid=["r0", "r1"]) is None


def test_a_model_is_asked_of_those_that_serve_it():
    made = Router()
    made.put("one", 4, ["", "small"])
    made.put("other", 4, ["large"])
    assert {made.place((), "large").name for _ in range(3)} == {"other"}
    assert {made.place(()).name for _ in range(3)} == {"one"}
    assert made.place((), "unheard of").name == "one"  # which will say that it has none


def test_what_is_remembered_is_bounded():
    made = router(count=HOLDERS + 3, kept_prefixes=10)
    for number in range(100):
        made.place(prefixes("common", f"c{number}"))
    assert len(made._holders) == 10
    assert len(made._holders[b"common"]) == HOLDERS
    assert all(len(heap) < 100 for heap in made._heaps.values())


class Counted(list):
    """Prefixes that count how often one of them is looked at."""

    looks = 0

    def __iter__(self):
        for one in super().__iter__():
            self.looks += 1
            yield one

    def __reversed__(self):
        for one in super().__reversed__():
            self.looks += 1
            yield one


def test_a_turn_of_a_long_conversation_costs_no_more_than_of_a_short_one():
    made, names = router(), [str(n) for n in range(200)]
    first = made.place(prefixes(*names))
    made.leave(first.name)
    turn = Counted(prefixes(*names, "answer", "more"))
    assert made.place(turn).name == first.name
    assert turn.looks <= 8
    early = made.place(prefixes(*names[:100], "fork"))
    assert early.name == first.name
    assert early.known > 0.9


def test_no_other_replica_would_have_been_better():
    chance, places = random.Random(3), 6
    made, live = router(count=HOLDERS, places=places), []
    has_read = {f"r{n}": set() for n in range(HOLDERS)}
    for _ in range(500):
        own = prefixes(*[str(chance.randrange(4)) for _ in range(chance.randrange(1, 9))])

        def cost(name, own=own):
            longest = max((one.size for one in own if one.digest in has_read[name]), default=0)
            return made.live(name) / places + WORTH_OF_PREFIX * (1 - longest / own[-1].size)

        costs = {name: cost(name) for name in has_read}
        found = made.place(own).name
        assert costs[found] == min(costs.values())
        has_read[found] |= {one.digest for one in own}
        live.append(found)
        while live and chance.random() < len(live) / 20:
            made.leave(live.pop(chance.randrange(len(live))))


def test_counts_are_right_whatever_happens():
    chance = random.Random(7)
    made, live, names = router(count=5, places=3), [], [f"r{n}" for n in range(5)]
    for step in range(3000):
        match chance.randrange(6):
            case 0 | 1 | 2:
                own = prefixes(*[str(chance.randrange(9)) for _ in range(chance.randrange(1, 5))])
                if (found := made.place(own, avoid=chance.sample(names, 2))) is not None:
                    live.append(found.name)
            case 3 | 4 if live:
                made.leave(live.pop(chance.randrange(len(live))))
            case 5 if step % 10 == 0:
                name = chance.choice(names)
                live = [one for one in live if one != name]
                made.put(name, 3)
            case _:
                made.let_take(chance.choice(names), takes=chance.random() < 0.8)
        assert [made.live(name) for name in names] == [live.count(name) for name in names]
    for name in names:
        made.let_take(name, takes=True)
    least = min(made.live(name) for name in names)
    assert made.live(made.place(prefixes("nobody's")).name) == least + 1
