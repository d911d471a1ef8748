"""A timeout that fails a test whatever its event loop is doing.

pytest-timeout raises its failure wherever the main thread is at that moment. In an event loop that
is a callback or a task, and asyncio keeps the failure, or the loop's own code, which then loses a
task. So a loop that runs is stopped, and the failure is raised once it has been. It is raised in
the loop only if that doesn't stop, because a callback doesn't return.
"""

import asyncio
import signal

import pytest

PATIENCE, LEAST_S = 0.1, 1.0  # part of the timeout that a loop has to stop; seconds at least
FIXTURES_S = 30.0  # seconds at least that fixtures have to end, after a loop was stopped
LATE = pytest.StashKey[float]()  # the timeout in seconds, once a loop was stopped after it


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item, settings):
    is_set = yield
    fail = signal.getsignal(signal.SIGALRM)
    if settings.method == "signal" and callable(fail):

        def stop_or_fail(number, frame):
            __tracebackhide__ = True
            try:
                fail(number, frame)  # which does nothing under a debugger
            except BaseException:
                if LATE in item.stash or not _stop_loop():
                    raise
                item.stash[LATE] = settings.timeout

        signal.signal(signal.SIGALRM, stop_or_fail)
        between = max(PATIENCE * settings.timeout, LEAST_S)
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, between)
    return is_set


def _stop_loop():
    """Stop the event loop that runs; return whether one does."""
    try:
        asyncio.get_running_loop().stop()
    except RuntimeError:
        return False
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = None
    try:
        result = yield
    except RuntimeError:  # of the loop, if it was stopped
        if LATE not in item.stash:
            raise
    finally:
        if LATE in item.stash:
            signal.setitimer(signal.ITIMER_REAL, max(item.stash[LATE], FIXTURES_S))
    if LATE in item.stash:
        pytest.fail(f"Timeout (>{item.stash[LATE]}s) of a test whose event loop ran")
    return result
