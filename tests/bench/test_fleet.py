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


def test_the_same_seed_is_the_same_world():
    assert simulated() == simulated()
    assert simulated().waits != simulated(seed=2).waits


def test_it_prints_a_table_and_writes_a_file(tmp_path, capsys):
    file = tmp_path / "fleet.json"
    main(["--replicas", "2", "--conversations", "20", "--policies", "ours", "--json", str(file)])
    printed = capsys.readouterr().out
    assert all(heading in printed for heading in HEADINGS)
    assert '"policy": "ours"' in file.read_text()
