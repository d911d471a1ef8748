"""The simulated fleet: nothing is lost, and the policy keeps conversations together."""

import pytest

from tests.bench.fleet import HEADINGS, POLICIES, Simulation, World, main


def simulated(policy="ours", **changes):
    changes = {"replicas": 4, "conversations": 300, **changes}
    return Simulation(World(policy=policy, **changes)).run()


@pytest.mark.parametrize("policy", POLICIES)
def test_each_turn_of_each_conversation_ends_though_replicas_fail(policy):
    calm, failing = simulated(policy, fails_every_s=0), simulated(policy, fails_every_s=100)
    for result in (calm, failing):
        assert len(result.waits) == result.turns >= 300
        assert min(result.waits) > 0
    assert calm.moved == 0 < failing.moved


def test_conversations_keep_their_caches():
    one, ours = simulated(replicas=1), simulated()
    assert ours.cached_share > 0.9 * one.cached_share
    assert ours.cached_share > simulated("least busy").cached_share + 0.1
    assert ours.busiest < 1.3


def test_many_fronts_place_nearly_as_well_as_one():
    assert simulated(fronts=8).cached_share > 0.95 * simulated().cached_share


def test_a_front_beyond_its_thread_is_slower_and_more_fronts_are_not():
    one, many = simulated(front_us=400), simulated(front_us=400, fronts=8)
    assert one.used["thread"] > 1 > many.used["thread"]
    assert sum(one.answers) > 1.2 * sum(many.answers)
    assert one.ended == many.ended == 300


def test_conversations_go_to_another_front_before_they_are_refused():
    some = {"connections": 60, "fails_every_s": 0}
    one, many = simulated(**some), simulated(fronts=8, **some)
    assert one.refused > 0 == many.refused
    assert one.ended + one.refused == many.ended == 300
    assert one.used["connections"] == 1


def test_a_refused_turn_comes_again():
    result = simulated(generations=3, fails_every_s=0)
    assert result.refused > 0
    assert (result.ended, result.used["generations"]) == (300, 1)


def test_ended_answers_are_forgotten_early_where_there_is_no_room():
    enough, little = simulated(), simulated(ticket_bytes=200_000)
    assert enough.kept_s == World().ticket_s > little.kept_s
    assert enough.used["tickets"] < 1 < little.used["tickets"]


def test_a_busy_controller_replaces_replicas_later():
    calm = simulated(fails_every_s=200, controller_us=1000)
    busy = simulated(fails_every_s=200, controller_us=1_000_000)
    assert calm.used["controller"] < 1 < busy.used["controller"]
    assert sum(busy.waits) > sum(calm.waits)


def test_fronts_with_replicas_of_their_own_keep_them_evenly_busy():
    shared, own = (simulated(replicas=16, fronts=8, conversations=800, own=one) for one in (0, 1))
    assert own.busiest < shared.busiest
    assert own.queued < shared.queued
    assert own.cached_share > 0.98 * shared.cached_share


def test_the_same_seed_is_the_same_world():
    assert simulated() == simulated()
    assert simulated().waits != simulated(seed=2).waits


def test_it_prints_a_table_and_writes_a_file(tmp_path, capsys):
    file = tmp_path / "fleet.json"
    main(["--replicas", "2", "--conversations", "20", "--policies", "ours", "--json", str(file)])
    printed = capsys.readouterr().out
    assert all(heading in printed for heading in HEADINGS)
    assert '"policy": "ours"' in file.read_text()
