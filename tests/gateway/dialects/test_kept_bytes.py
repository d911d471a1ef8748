from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.kept_bytes import KeptBytes


def test_a_client_may_need_half_of_what_others_leave():
    kept = KeptBytes(100)
    assert kept.fits("a", 50)
    assert not kept.fits("a", 51)
    kept.need("a", 50)
    assert not kept.fits("a", 1)
    assert kept.fits("b", 25)
    assert not kept.fits("b", 26)
    kept.need("b", 20)
    kept.need("a", -50)
    assert kept.fits("a", 40)
    assert not kept.fits("a", 41)


def test_who_has_too_much_may_still_have_less():
    kept = KeptBytes(100)
    kept.need("a", 90)
    assert kept.fits("a", -1)
    assert not kept.fits("a", 1)


def test_clients_that_cannot_be_told_apart_share_all_of_it():
    kept = KeptBytes(100)
    assert kept.fits(None, 100)
    assert not kept.fits(None, 101)


def test_what_is_kept_gives_way_to_what_is_needed():
    kept, stored = KeptBytes(100), [10] * 10

    def forget():
        if not stored:
            return False
        kept.keep(-stored.pop())
        return True

    kept.on_excess(forget)
    kept.keep(100)
    assert kept.fits("a", 50), "since others are forgotten for it"
    kept.need("a", 45)
    kept.reduce()
    assert (kept.held, len(stored)) == (95, 5)
    kept.need("a", 200)  # by the model
    kept.reduce()
    assert (kept.held, stored) == (245, [])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60)), max_size=60))
def test_as_much_is_needed_as_there_is_at_most_and_a_newcomer_always_gets_some(asked):
    kept, had = KeptBytes(1000), 0
    for client, size in asked:
        if kept.fits(client, size):
            kept.need(client, size)
            had += size
    assert kept.held == had < 1000
    assert kept.fits("new", 1000 // 2**4 - 60)
