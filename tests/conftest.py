"""What all tests share: property tests without deadlines, Ctrl-C, a browser and its profile."""

import gc
import inspect
import os
import signal

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from tests.support.alarm import pytest_runtest_call, pytest_timeout_set_timer  # noqa: F401
from tests.support.loop import CheckedLoop

# The same examples each time, so that a change is not refused for what another one has brought.
settings.register_profile(
    "default",
    deadline=None,
    max_examples=100,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine is slow
)
settings.load_profile("default")

# What a shell starts in the background ignores Ctrl-C, and so would the programs under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


STARTED = pytest.StashKey[bool]()
LONG = ("browser", "clients", "front_ends", "ray", "real", "slow")
PATIENT = pytest.mark.timeout(600)  # for a machine that is many times as slow
SHARED = pytest.mark.asyncio(loop_scope="session")


def pytest_configure(config):
    """Import mlx-lm before a test imports mlx, or mlx-lm, itself; xdist's controller runs none."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        import provider.runtime.mlx_lm  # noqa: F401
        from provider.runtime.mlx import TOO_LATE

        # pytest imports the conftest.py of a folder that it is given before it calls this.
        assert not TOO_LATE, "a conftest.py imports mlx before provider, which leaves the slow BLAS"


def share_loop(item):
    """Run a test with a browser in one event loop, the browser's, so that they all share it."""
    if item.get_closest_marker("browser") and inspect.iscoroutinefunction(item.function):
        item.add_marker(SHARED, append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    """Tell pytest-asyncio before it chooses how long a test's loop, and the browser, are kept."""
    share_loop(metafunc.definition)


def pytest_collection_modifyitems(items):
    for item in items:
        share_loop(item)
        if item.get_closest_marker("timeout") is None and any(map(item.get_closest_marker, LONG)):
            item.add_marker(PATIENT)


def pytest_collection_finish():
    """Keep the garbage collector from what is imported, which lives as long as the process."""
    gc.collect()
    gc.freeze()


def pytest_asyncio_loop_factories(config, item):
    return {"checked": CheckedLoop}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(request):
    assert not request.config.stash.get(STARTED, False), "each test starts a browser of its own"
    request.config.stash[STARTED] = True
    from playwright.async_api import Error

    from tests.support.browser import SHARING, chromium

    try:
        async with chromium(*SHARING) as browser:
            yield browser
    except Error:
        if os.environ.get("CI"):
            raise
        pytest.skip("no Chromium: `make browser` gets one")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_profile(browser):
    from tests.support.browser import profile_of

    async with profile_of(browser) as profile:
        yield profile


@pytest_asyncio.fixture(loop_scope="session")
async def profile(shared_profile):
    """A browser's profile in which nothing is kept; see `Profile`."""
    yield shared_profile
    await shared_profile.clear()
