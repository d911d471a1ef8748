"""A timeout that fails a test whatever its event loop is doing.

pytest-timeout raises its failure once, wherever the main thread is at that moment. Where that is a
callback or a task, asyncio keeps the failure, and the test goes on without a timeout. So it is
raised again and again here, and a test that ends by itself after the first time fails all the same.
"""

import signal

import pytest

AGAIN, LEAST_S = (
    0.1,
    1.0,
)  # times the timeout after which it is raised again, and as seconds at least
LATE = pytest.StashKey[float]()  # the timeout in seconds, once it has been raised


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item, settings):
    is_set = yield
    fail = signal.getsignal(signal.SIGALRM)
    if settings.method == "signal" and callable(fail):

        def fail_again(number, frame):
            __tracebackhide__ = True
            try:
                fail(number, frame)  # which does nothing under a debugger
            except BaseException:
                item.stash[LATE] = settings.timeout
                raise

        signal.signal(signal.SIGALRM, fail_again)
        between = max(AGAIN * settings.timeout, LEAST_S)
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, between)
    return is_set


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    if LATE in item.stash:
        pytest.fail(
            f"it ended later than after {item.stash[LATE]} s, of which asyncio kept the failure"
        )
    return result
