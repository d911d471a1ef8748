"""What is said of a hostile soak."""

from tests.bench.attack.soak import slowness


def test_the_tokens_of_polite_clients_are_shared_out_to_attacks():
    began = [(10.0, "pings"), (12.0, "maps"), (13.0, "pings")]
    got = [(9.0, 50.0), (10.0, 10.0), (11.9, 10.0), (12.5, 2.0), (13.5, 20.0)]
    assert slowness(got, began, 15.0, 10.0) == {"pings": (1.0, 4.0), "maps": (0.2, 1.0)}
