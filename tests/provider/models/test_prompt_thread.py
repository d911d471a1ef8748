"""The prompt thread builds in fair turns, within a time, and ends whatever it does."""

import gc
import sys
import threading
import time
import weakref

import pytest

from provider.engine.engine import EngineClosedError
from provider.interface import RequestTimeoutError, ResourceExceededError
from provider.models.prompt_thread import MAX_WAITING_OF_A_CLIENT, TURN_S, PromptThread
from tests.support.timeouts import TIMEOUT


@pytest.fixture
def thread():
    made = PromptThread(max_seconds=TIMEOUT)
    yield made
    made.close()


@pytest.fixture
def hasty():
    made = PromptThread(max_seconds=0.3)  # a step must not take as long on a busy machine
    yield made
    made.close()


def looping():
    """Steps of which one never ends."""
    while True:
        time.sleep(0)
    yield


def steps(number, log=None, name=None):
    for _ in range(number):
        if log is not None:
            log.append(name)
            time.sleep(TURN_S * 1.1)
        yield
    return name


def held(thread):
    """Keep the thread busy until the event is set that is returned."""
    begun, go_on = threading.Event(), threading.Event()

    def wait():
        begun.set()
        go_on.wait(TIMEOUT)

    thread.submit(wait)
    begun.wait(TIMEOUT)
    return go_on


def test_work_and_steps_give_their_results_and_errors(thread):
    assert thread.submit(divmod, 7, 2).result(TIMEOUT) == (3, 1)
    assert thread.build("a", steps(3, name="made")).result(TIMEOUT) == "made"
    with pytest.raises(ZeroDivisionError):
        thread.submit(divmod, 7, 0).result(TIMEOUT)

    def failing():
        yield
        raise KeyError("no")

    with pytest.raises(KeyError):
        thread.build("a", failing()).result(TIMEOUT)
    assert thread.submit(threading.current_thread).result(TIMEOUT).name == "mlx-prompt"


def test_clients_have_their_steps_in_turns(thread):
    log, go_on = [], held(thread)
    made = [thread.build("busy", steps(6, log, "busy")) for _ in range(3)]
    made.append(thread.build("other", steps(2, log, "other")))
    go_on.set()
    for future in made:
        future.result(TIMEOUT)
    assert max(at for at, name in enumerate(log) if name == "other") < 8
    assert len(log) == 20


def test_too_many_prompts_of_one_client_are_refused_and_those_of_another_are_not(thread):
    go_on = held(thread)
    futures = [thread.build("a", steps(1)) for _ in range(MAX_WAITING_OF_A_CLIENT)]
    with pytest.raises(ResourceExceededError, match="too many prompts wait"):
        thread.build("a", steps(1))
    futures.append(thread.build("b", steps(1)))
    loading = thread.submit(divmod, 7, 2)  # what is no prompt is never refused
    go_on.set()
    for future in (*futures, loading):
        future.result(TIMEOUT)


def test_prompts_that_are_built_in_one_turn_keep_their_order(thread):
    ended, go_on = [], held(thread)
    made = [thread.build("a", steps(5, name=name)) for name in "abcd"]
    for future in made:
        future.add_done_callback(lambda done: ended.append(done.result()))
    go_on.set()
    for future in made:
        future.result(TIMEOUT)
    thread.submit(int).result(TIMEOUT)  # after the callbacks of what came before it
    assert "".join(ended) == "abcd"


def test_a_prompt_whose_caller_has_gone_is_dropped(thread):
    log, go_on = [], held(thread)
    waiting = thread.build("a", steps(1, log, "waiting"))
    waiting.cancel()
    reached, left = threading.Event(), threading.Event()

    def paused():
        reached.set()
        left.wait(TIMEOUT)
        yield
        log.append("second step")

    running = thread.build("a", paused())
    go_on.set()
    reached.wait(TIMEOUT)
    running.cancel()
    left.set()
    assert thread.submit(int).result(TIMEOUT) == 0
    assert log == []


def test_a_step_that_loops_is_interrupted_and_the_next_prompt_is_built(hasty):
    looped = hasty.build("a", looping())
    after = hasty.build("a", steps(1, name="after"))
    with pytest.raises(RequestTimeoutError, match="more than the"):
        looped.result(TIMEOUT)
    assert after.result(TIMEOUT) == "after"


def swallowing(times, begun=None):
    """Steps of which one handles so many interruptions as if they were errors, and never ends."""
    for _ in range(times):
        try:
            if begun is not None:
                begun.set()
            next(looping())
        except BaseException:  # noqa: BLE001 - as a bare `except` of a template's extension
            pass
    yield from looping()


def test_a_step_that_swallows_an_interruption_is_interrupted_again(hasty):
    swallowed = hasty.build("a", swallowing(2))
    with pytest.raises(RequestTimeoutError, match="more than the"):
        swallowed.result(TIMEOUT)
    assert hasty.submit(sum, [1, 2]).result(TIMEOUT) == 3


def traced(work):
    """Call this in a thread under a tracer, and return whether it ends."""
    ended = threading.Event()

    def run():
        sys.settrace(lambda *_: None)
        work()
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    return ended.wait(TIMEOUT)


def test_an_interruption_leaves_nothing_to_look_for_in_other_threads(hasty):
    with pytest.raises(RequestTimeoutError):
        hasty.build("a", looping()).result(TIMEOUT)
    assert hasty.submit(int).result(TIMEOUT) == 0
    assert traced(threading.current_thread), "a traced thread looks for an exception for ever"


def test_other_threads_go_on_while_native_code_cannot_be_interrupted(hasty):
    go_on = threading.Event()

    def stuck():
        go_on.wait(TIMEOUT * 3)
        yield

    building = hasty.build("a", stuck())
    while not hasty._worker._interrupting.locked():
        time.sleep(0.001)
    assert traced(threading.current_thread)
    go_on.set()
    building.exception(TIMEOUT)


def test_a_prompt_is_limited_in_all_its_steps_together(hasty):
    def endless():
        while True:
            time.sleep(0.01)
            yield

    with pytest.raises(RequestTimeoutError):
        hasty.build("a", endless()).result(TIMEOUT)


def test_what_is_no_prompt_may_take_longer(hasty):
    assert hasty.submit(time.sleep, 0.5).result(TIMEOUT) is None


def test_an_interruption_never_hits_what_comes_after_its_step():
    """The limit is about as long as a step, so that many of them end while they are interrupted."""
    thread = PromptThread(max_seconds=0.002)

    def short():
        for _ in range(3):  # an interruption may come between two steps, too
            until = time.perf_counter() + 0.0007
            while time.perf_counter() < until:
                pass
            yield

    made = [thread.build("a", short()) for _ in range(250)]
    for future in made:
        assert isinstance(future.exception(TIMEOUT), RequestTimeoutError | None)
    assert thread.submit(sum, [1, 2]).result(TIMEOUT) == 3
    thread.close()


def test_closing_ends_a_step_that_loops_and_all_that_waits(thread):
    running, waiting = thread.build("a", looping()), thread.build("a", steps(1))
    thread.close(TIMEOUT)
    for future in (running, waiting):
        with pytest.raises(EngineClosedError):
            future.result(0)
    with pytest.raises(EngineClosedError):
        thread.submit(int)
    assert not any(one.name == "mlx-prompt" for one in own_threads(thread))


def test_closing_ends_a_step_that_swallows_an_interruption(thread, caplog):
    begun = threading.Event()
    running, own = thread.build("a", swallowing(1, begun)), own_threads(thread)
    begun.wait(TIMEOUT)
    thread.close()
    with pytest.raises(EngineClosedError):
        running.result(0)
    assert not any(one.is_alive() for one in own)
    assert "left behind" not in caplog.text


def test_closing_ends_the_watch_too(thread):
    before = set(threading.enumerate())
    for _ in range(20):
        one = PromptThread(TIMEOUT)
        one.submit(int).result(TIMEOUT)
        one.close(TIMEOUT)
        assert set(threading.enumerate()) <= before


def own_threads(thread):
    worker = thread._worker
    return [one for one in threading.enumerate() if one is worker._thread]


def test_closing_leaves_behind_what_cannot_be_interrupted(caplog):
    thread, go_on = PromptThread(TIMEOUT), threading.Event()
    reached = threading.Event()

    def stuck():  # a lock's acquire is native code, which no exception interrupts
        reached.set()
        go_on.wait(TIMEOUT)
        yield

    future = thread.build("a", stuck())
    reached.wait(TIMEOUT)
    thread.close(0.0)
    with pytest.raises(EngineClosedError):
        future.result(0)
    assert "left behind" in caplog.text
    (left,) = own_threads(thread)
    assert left.daemon
    go_on.set()
    left.join(TIMEOUT)
    assert not left.is_alive()


def test_closing_waits_for_other_work_as_long_as_it_may(thread):
    done = thread.submit(time.sleep, 0.05)
    thread.close(TIMEOUT)
    assert done.done()


def test_the_thread_ends_with_its_object_and_keeps_nothing_of_a_job():
    thread = PromptThread(TIMEOUT)

    class Kept:
        pass

    kept = Kept()
    seen = weakref.ref(kept)
    thread.build("a", steps(2, name=kept)).result(TIMEOUT)
    del kept
    thread.submit(gc.collect).result(TIMEOUT)
    assert seen() is None
    (own,) = own_threads(thread)
    del thread
    gc.collect()
    own.join(TIMEOUT)
    assert not own.is_alive()
