"""How a process that hangs is told from one that is slow."""

import pytest

from provider.sharding.watchdog import FIRST_PASSES, FIRST_TIMES, TOKEN_S, Watchdog


class Scene:
    """A thread that has been in its turn since `since`; `now` is the time."""

    def __init__(self, *, warm=True):
        self.now, self.since = 1000.0, None
        self.watchdog = Watchdog(lambda: self.since, pass_s=60.0, clock=lambda: self.now)
        for _ in range(FIRST_PASSES if warm else 0):
            self.watchdog.begin(1)

    def overdue_after(self, seconds):
        self.now += seconds
        return self.watchdog.overdue()


@pytest.fixture
def scene():
    return Scene()


def test_a_pass_that_never_ends_is_noticed(scene):
    scene.since = scene.now
    scene.watchdog.begin(1)
    assert scene.overdue_after(60.0) == 0.0
    assert scene.overdue_after(1.0) == 61.0


def test_a_pass_of_many_tokens_may_take_longer_and_so_may_the_next(scene):
    scene.since = scene.now
    scene.watchdog.begin(2048)
    assert scene.overdue_after(60.0 + TOKEN_S * 2048) == 0.0
    scene.watchdog.begin(1)
    assert scene.overdue_after(60.0 + TOKEN_S * 2048) == 0.0
    scene.watchdog.begin(1)
    assert scene.overdue_after(61.0) == 61.0


def test_a_thread_that_waits_for_work_does_not_hang(scene):
    scene.watchdog.begin(1)
    assert scene.overdue_after(1e6) == 0.0
    scene.since = scene.now  # it waits for a pass that it launched long ago
    assert scene.overdue_after(60.0) == 0.0
    assert scene.overdue_after(1.0) > 60.0


def test_loading_may_take_any_time(scene):
    scene.since = scene.now
    scene.watchdog.load()
    assert scene.overdue_after(1e6) == 0.0


def test_the_first_passes_may_take_longer():
    scene = Scene(warm=False)
    scene.since = scene.now
    scene.watchdog.begin(0)
    assert scene.overdue_after(60.0 * FIRST_TIMES) == 0.0
    assert scene.overdue_after(1.0) > 600.0
