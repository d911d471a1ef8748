"""The engine by itself: its thread, its queue, its memory, its numbers and its end."""

import asyncio
import gc
import threading
from copy import copy
from dataclasses import replace

import pytest

from provider.embedded import MODEL_PATH
from provider.engine.engine import Engine
from provider.engine.inbox import AsyncInbox, SyncInbox
from provider.engine.loading import KeptCosts
from provider.engine.memory_budget import MemoryBudget
from provider.engine.memory_pool import MemoryPool
from provider.engine.messages import RunFailed, RunFinished, RunRequest
from provider.engine.mlx_thread import MlxThread
from provider.engine.model import LoadProgress
from provider.engine.run_states import RunState
from provider.engine.sampling import Sampling
from provider.engine.shared_prompt import SharedPrompt
from provider.events import TextDelta
from provider.interface import GenerationError, MemoryExceededError, ResourceExceededError
from provider.models.loading import load
from provider.options import GenerationOptions
from provider.runtime.mlx import active_memory, tree_flatten
from provider.runtime.mlx_lm import KVCache
from provider.settings import EngineSettings
from tests.support.timeouts import TIMEOUT

PROMPT = list(range(40, 60))
COSTS = KeptCosts()  # what passes of a model cost, measured by the first engine here


def request(max_tokens=8, prompt=PROMPT, seed=1, stop=(), client=None):
    options = GenerationOptions(
        temperature=0.0, max_tokens=max_tokens, seed=seed, stop=stop, client=client
    )
    return RunRequest(prompt, options)


async def read(inbox, *, until=(RunFinished, RunFailed)):
    """Return the events up to the first of a kind."""
    events = []
    async with asyncio.timeout(TIMEOUT * 3):
        while True:
            events.append(await inbox.get())
            if isinstance(events[-1], until):
                return events


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, TextDelta))


class Switchable:
    """A loaded model whose forward pass raises what it is told to."""

    def __init__(self, loaded):
        self.loaded = loaded
        self.error = None

    def __call__(self, *arguments, **options):
        if self.error is not None:
            raise self.error
        return self.loaded.model(*arguments, **options)

    def __getattr__(self, name):
        return getattr(self.loaded.model, name)


class Loader:
    """Loads a model anew each time, wrapped; fails if told to."""

    def __init__(self, path, wrapper=Switchable):
        self.path = path
        self.wrapper = wrapper
        self.models = []
        self.error = None

    def __call__(self):
        if self.error is not None:
            raise self.error
        loaded = load(self.path)
        self.models.append(self.wrapper(loaded))
        loaded.model, self.models[-1].loaded = self.models[-1], type(loaded)(**vars(loaded))
        return loaded


@pytest.fixture
def made(light):
    engines = []

    def make(loader=lambda: load(light), sampling=None, **settings):
        given = EngineSettings(close_grace=0.0, **settings)
        engines.append(Engine("m", loader, given, sampling, costs=COSTS))
        engines[-1].load().result()
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


async def whole(engine, **options):
    inbox = AsyncInbox()
    engine.submit(request(**options), inbox)
    return await read(inbox)


async def until(condition):
    async with asyncio.timeout(TIMEOUT * 2):
        while not condition():
            await asyncio.sleep(0.002)


# Recovery. --------------------------------------------------------------------------------------


async def test_what_is_no_runs_fault_ends_each_run_once_and_the_next_finds_a_new_batch(made, light):
    loader = Loader(light)
    engine = made(loader)
    expected = text_of(await whole(engine))
    inboxes = [AsyncInbox() for _ in range(3)]
    for inbox in inboxes:
        engine.submit(request(max_tokens=500), inbox)
        await read(inbox, until=TextDelta)
    loader.models[-1].error = SystemExit("not an Exception: nothing on the way down catches it")
    await until(lambda: engine.restarts == 1)
    for inbox in inboxes:
        *_, last = await read(inbox)
        assert isinstance(last, RunFailed)
        assert isinstance(last.error, GenerationError)
    assert text_of(await whole(engine)) == expected
    assert engine.trouble is None


async def test_a_model_that_stays_broken_is_loaded_again(made, light):
    loader = Loader(light)
    engine = made(loader)
    expected = text_of(await whole(engine))
    loader.models[-1].error = RuntimeError("the device is lost")
    for _ in range(3):  # each looks like its run's own fault
        *_, last = await whole(engine)
        assert isinstance(last, RunFailed)
    assert text_of(await whole(engine)) == expected
    assert len(loader.models) == 2


async def test_an_engine_that_cannot_recover_says_so_and_tries_again_with_the_next_run(made, light):
    loader = Loader(light)
    engine = made(loader)
    loader.models[-1].error = RuntimeError("the device is lost")
    loader.error = RuntimeError("no memory")
    for _ in range(3):
        await whole(engine)
    await until(lambda: engine.trouble is not None)
    *_, last = await whole(engine)
    assert isinstance(last, RunFailed)
    await until(lambda: "RuntimeError" in engine.trouble)
    loader.error = None
    *_, last = await whole(engine)
    assert isinstance(last, RunFinished)
    assert engine.trouble is None


class Clinging:
    """An engine's batch, from which no row can be taken out."""

    def __init__(self, batch):
        self._batch = batch

    def remove(self, keys, *, faulty=False):
        raise RuntimeError("the row stays")

    def __getattr__(self, name):
        return getattr(self._batch, name)


@pytest.mark.parametrize("end", ["cancel", "close"])
async def test_rows_that_cannot_be_taken_out_leave_no_run_without_an_end(made, end):
    engine = made(max_unread=10**6)
    inboxes = [AsyncInbox() for _ in range(4)]
    runs = [engine.submit(request(max_tokens=4000), inbox) for inbox in inboxes]
    for inbox in inboxes:
        await read(inbox, until=TextDelta)
    engine._worker._batch = Clinging(engine._worker._batch)
    if end == "cancel":
        engine.cancel(runs[0])
    else:
        await asyncio.to_thread(engine.close, 0)
    for inbox in inboxes[end == "cancel" :]:
        assert isinstance((await read(inbox))[-1], RunFailed)
    await until(lambda: not engine.busy)
    assert (engine.runs, engine.statistics().committed_bytes) == ([], 0)
    if end == "cancel":
        assert isinstance((await whole(engine))[-1], RunFinished)
        assert (engine.trouble, engine.restarts) == (None, 1)


class Unrecovered(Engine):
    """An engine that can't recover from what a turn raises."""

    def _recover(self, error):
        raise error


async def test_runs_end_at_once_when_turn_after_turn_raises(light):
    loader = Loader(light)
    engine = Unrecovered("m", loader, EngineSettings(close_grace=0), costs=COSTS)
    try:
        engine.load().result()
        inboxes = [AsyncInbox() for _ in range(3)]
        for inbox in inboxes:
            engine.submit(request(max_tokens=4000), inbox)
            await read(inbox, until=TextDelta)
        loader.models[-1].error = SystemExit("not an Exception: nothing on the way down catches it")
        for inbox in inboxes:
            assert isinstance((await read(inbox))[-1], RunFailed)
        await until(lambda: not engine.busy)
        assert (engine.runs, engine.statistics().committed_bytes) == ([], 0)
        loader.models[-1].error = None
        assert isinstance((await whole(engine))[-1], RunFinished)
        assert (engine.trouble, engine.restarts) == (None, 1)
    finally:
        engine.close()


class Uncopied(KVCache):
    """A KV cache of an unknown class, which can't be kept while memory is short."""

    short = threading.Event()

    @property
    def nbytes(self):
        if self.short.is_set():
            raise MemoryError("no room for a copy")
        return super().nbytes


class OfUncopied(Switchable):
    """A model with such caches."""

    def make_cache(self):
        return [Uncopied() for _ in self.loaded.model.layers]


async def test_caches_that_cannot_be_kept_end_neither_the_thread_nor_other_runs(made, light):
    engine = made(Loader(light, OfUncopied), max_batch=4)
    other, cancelled = AsyncInbox(), AsyncInbox()
    alone = text_of(await whole(engine, max_tokens=60))
    engine.submit(request(max_tokens=60), other)
    run = engine.submit(request(max_tokens=500), cancelled)
    await read(cancelled, until=TextDelta)
    Uncopied.short.set()
    try:
        engine.cancel(run)
        assert text_of(await read(other)) == alone
        assert text_of(await whole(engine, max_tokens=60)) == alone
    finally:
        Uncopied.short.clear()
    assert engine.runs == []
    assert (engine.restarts, engine.statistics().committed_bytes) == (0, 0)


# A run's own faults. ----------------------------------------------------------------------------


class Failing(Sampling):
    """Sampling of which the runs of one seed fail after so many tokens, in several places."""

    def __init__(self, seed, after, places):
        self.seed = seed
        self.after = after
        self.places = places

    def _counted(self, answer):
        count = 0

        def call(*arguments):
            nonlocal count
            count += 1
            if count > self.after:
                raise ValueError(f"token {count}")
            return answer(*arguments)

        return call

    def sampler(self, options, vocabulary):
        real = super().sampler(options, vocabulary)
        fails = options.seed == self.seed and "sampler" in self.places
        return self._counted(real) if fails else real

    def processors(self, options):
        fails = options.seed == self.seed and "processor" in self.places
        return [self._counted(lambda _context, logits: logits)] if fails else []


async def test_two_faults_of_one_run_in_one_step_end_that_run_alone(made):
    engine = made(sampling=Failing(7, 3, ("sampler", "processor")))
    others = [asyncio.create_task(whole(engine, max_tokens=40)) for _ in range(4)]
    *_, last = await whole(engine, max_tokens=40, seed=7)
    assert isinstance(last, RunFailed)
    for other in others:
        assert isinstance((await other)[-1], RunFinished)
    assert engine.restarts == 0


async def test_a_fault_after_a_stop_text_leaves_the_answer_whole(made):
    """The pass after the stop was launched before the text was known to end there."""
    said = text_of(await whole(made(), max_tokens=40))
    events = await whole(made(), max_tokens=40, stop=(said[5:9],))
    tokens = events[-1].usage["completion_tokens"]
    engine = made(sampling=Failing(7, tokens, ("sampler",)))
    events = await whole(engine, max_tokens=40, seed=7, stop=(said[5:9],))
    assert isinstance(events[-1], RunFinished)
    assert text_of(events) == said[: said.index(said[5:9])]
    assert engine.statistics().faults == 0


# The queue. -------------------------------------------------------------------------------------


async def test_a_full_queue_refuses_and_says_when_to_come_back(made):
    engine = made(max_batch=1, max_queue=1)
    inboxes = [AsyncInbox(), AsyncInbox()]
    runs = []
    for inbox in inboxes:
        runs.append(engine.submit(request(max_tokens=500), inbox))
        await until(lambda: len(engine.runs) == len(runs))
    with pytest.raises(ResourceExceededError) as caught:
        engine.submit(request(), AsyncInbox())
    assert caught.value.details["retry_after"] >= 1
    engine.cancel(runs[0])
    await until(lambda: len(engine.runs) == 1)
    engine.cancel(runs[1])
    assert isinstance((await whole(engine))[-1], RunFinished)


async def test_a_client_leaves_room_in_the_queue_for_others(made):
    engine, runs = made(max_batch=1, max_queue=7), []

    def submit(client):
        runs.append(engine.submit(request(max_tokens=500, client=client), AsyncInbox()))

    def submit_all(client):
        with pytest.raises(ResourceExceededError, match="generations live already") as full:
            while True:
                submit(client)
        assert full.value.details["retry_after"] >= 1

    submit_all("a")
    assert len(engine.runs) == 4
    submit_all("b")
    assert len(engine.runs) == 6
    submit("c")
    submit("d")
    with pytest.raises(ResourceExceededError, match="7 generations are waiting already"):
        submit("e")
    for run in runs:
        engine.cancel(run)
    await until(lambda: not engine.runs)


async def test_a_client_may_use_the_whole_batch_while_nobody_else_does(made):
    engine = made(max_batch=4, max_queue=0)
    inboxes = [AsyncInbox() for _ in range(4)]
    for inbox in inboxes:
        engine.submit(request(max_tokens=20, client="a"), inbox)
    for inbox in inboxes:
        assert isinstance((await read(inbox))[-1], RunFinished)


class ToldAtOnce(SyncInbox):
    """An inbox whose events are told on the MLX thread, which waits for that."""

    def __init__(self, tell):
        super().__init__()
        self._tell = tell

    def put(self, events):
        super().put(events)
        for event in events:
            self._tell(event)

    async def get(self):
        return await asyncio.to_thread(super().get)


async def test_a_newcomer_waits_for_no_run_of_a_client_that_has_the_whole_batch(made):
    # Rows that make steps longer, as they do on a slow machine, would give way too.
    engine = made(max_batch=3, prefix_cache_bytes=0, client_slowdown=100.0)
    alone = text_of(await whole(engine, max_tokens=100))
    runs, seen = [], []

    def come(_event):
        if not runs and engine.statistics().decoding == 3:
            runs.append(engine.submit(request(max_tokens=10, client="b"), newcomer))

    def look(event):
        if isinstance(event, RunFinished):
            seen.append(engine.statistics())

    newcomer = ToldAtOnce(look)
    inboxes = [ToldAtOnce(come) for _ in range(5)]
    for inbox in inboxes:
        engine.submit(request(max_tokens=100, client="a"), inbox)
    assert isinstance((await read(newcomer))[-1], RunFinished)
    (now,) = seen
    assert (now.finished, now.parkings) == (2, 1)  # the one before, the newcomer
    for inbox in inboxes:
        events = await read(inbox)
        assert isinstance(events[-1], RunFinished)
        assert text_of(events) == alone


class Blocker:
    """A lane that keeps the MLX thread busy until it is told to let go."""

    def __init__(self, thread):
        self.begun = threading.Event()
        self.let_go = threading.Event()
        thread.wake(self)
        assert self.begun.wait(30)

    def turn(self, _active_models):
        self.begun.set()
        assert self.let_go.wait(30)

    def idle(self):
        return True

    def fail(self, error):
        raise AssertionError("no turn raised three times") from error

    def end(self):
        pass


@pytest.fixture
def blocked(light):
    """An engine whose thread is busy elsewhere until `let_go` is set."""
    thread = MlxThread()
    settings = EngineSettings(close_grace=0.0, max_batch=3, max_queue=4, prefix_cache_bytes=0)
    engine = Engine("m", lambda: load(light), settings, thread=thread, costs=COSTS)
    engine.load().result()
    blocker = Blocker(thread)
    yield engine, blocker.let_go
    blocker.let_go.set()
    engine.close()
    thread.close()


async def test_runs_count_from_their_submission_however_long_a_turn_takes(blocked):
    engine, let_go = blocked
    inboxes = [AsyncInbox() for _ in range(7)]
    for inbox in inboxes:
        engine.submit(request(), inbox)
    with pytest.raises(ResourceExceededError):
        engine.submit(request(), AsyncInbox())
    assert engine.statistics().waiting == 7
    assert not engine.retire()
    let_go.set()
    for inbox in inboxes:
        assert isinstance((await read(inbox))[-1], RunFinished)
    await until(lambda: not engine.busy)
    assert engine.retire()


async def test_a_sibling_cancelled_before_it_begins_holds_no_caches(blocked):
    engine, let_go = blocked
    shared = SharedPrompt()
    asked = replace(request(prompt=list(range(40, 100))), shared_prompt=shared)
    inboxes = [AsyncInbox() for _ in range(3)]
    runs = [engine.submit(asked, inbox) for inbox in inboxes]
    engine.cancel(runs[2])
    let_go.set()
    for inbox in inboxes[:2]:
        assert isinstance((await read(inbox))[-1], RunFinished)
    assert runs[1].cached == len(asked.prompt) - 2
    assert (shared.others, shared.caches) == (set(), None)


# Parking. ---------------------------------------------------------------------------------------


async def test_a_run_that_goes_on_after_parking_asks_for_nothing_more(made):
    engine = made(max_unread=4)
    inbox = AsyncInbox()
    run = engine.submit(request(max_tokens=60), inbox)
    await until(lambda: inbox.parked)
    while inbox._events:
        await inbox.get()
    engine.resume(run)
    await until(lambda: run.state is not RunState.PARKED)
    assert not inbox.parked or run.state is RunState.PARKED
    while not isinstance(await inbox.get(), RunFinished):
        if inbox.parked:
            engine.resume(run)
    assert engine.statistics().parkings >= 1


# Memory. ----------------------------------------------------------------------------------------


def test_a_budget_promises_no_more_than_it_has():
    budget = MemoryBudget(10_000)
    budget.learn(1000, 2.0)
    need = budget.need(257)
    assert need == 1000 + 2 * 512
    assert budget.lacking(need, 0) == 0
    budget.commit("a", need)
    budget.commit("a", need)
    assert budget.committed == need
    assert budget.lacking(need, 7000) == 2 * need + 7000 - 10_000
    budget.release("a")
    budget.release("a")
    assert budget.committed == 0


def budget_of(engine):
    return engine._worker._admission.budget


async def test_runs_that_do_not_fit_together_go_one_after_the_other(made):
    engine = made(prefix_cache_bytes=0)
    expected = text_of(await whole(engine, max_tokens=64))
    budget = budget_of(engine)
    budget.limit = int(1.5 * budget.need(len(PROMPT) + 64))
    together = []

    async def one():
        inbox = AsyncInbox()
        engine.submit(request(max_tokens=64), inbox)
        await read(inbox, until=TextDelta)
        together.append(engine.statistics().decoding)
        return text_of(await read(inbox))

    texts = await asyncio.gather(*(one() for _ in range(3)))
    assert all(text and expected.endswith(text) for text in texts)
    assert max(together) == 1


async def test_runs_of_clients_that_need_too_much_memory_take_turns_with_the_same_texts(made):
    engine = made(prefix_cache_bytes=0, memory_turn=0.01)
    given = {
        client: {"max_tokens": 96, "prompt": list(range(at, at + 20)), "client": client}
        for client, at in (("a", 40), ("b", 100))
    }
    alone = [text_of(await whole(engine, **options)) for options in given.values()]
    budget = budget_of(engine)
    budget.limit = int(1.5 * budget.need(20 + 96))
    engine._worker._admission._shared.limit = engine._worker._admission.weights + budget.limit
    events = await asyncio.gather(*(whole(engine, **options) for options in given.values()))
    assert [text_of(some) for some in events] == alone
    assert all(text for text in alone)
    assert engine.statistics().parkings >= 2


async def test_a_run_that_can_never_fit_is_refused_with_both_sizes(made):
    engine = made()
    budget_of(engine).limit = 1 << 20
    with pytest.raises(MemoryExceededError) as caught:
        engine.submit(request(max_tokens=100_000), AsyncInbox())
    assert caught.value.available_memory == 1 << 20
    assert caught.value.required_memory > 1 << 20


async def test_what_is_kept_makes_room_for_what_runs(made):
    engine = made()
    await whole(engine, max_tokens=64)
    assert engine.statistics().prefix_bytes > 0
    budget = budget_of(engine)
    budget.limit = budget.need(20 + 64)
    *_, last = await whole(engine, max_tokens=64, prompt=list(range(100, 120)))
    assert isinstance(last, RunFinished)


async def test_a_parked_run_gives_its_caches_up_and_goes_on_with_the_same_text(made):
    engine = made(max_unread=4)
    expected = text_of(await whole(made(), max_tokens=64))
    inbox = AsyncInbox()
    run = engine.submit(request(max_tokens=64), inbox)
    await until(lambda: inbox.parked)
    budget = budget_of(engine)
    budget.limit = budget.need(len(PROMPT) + 64)  # no room for another's caches beside a run's
    await whole(engine, max_tokens=3, prompt=list(range(100, 120)))  # fewer than would park it
    assert run.parked.row.caches is None
    said = ""
    while not isinstance(event := await asyncio.wait_for(inbox.get(), TIMEOUT * 2), RunFinished):
        said += text_of([event])
        engine.resume(run)
    assert said == expected


# Its numbers. -----------------------------------------------------------------------------------


async def test_statistics_count_what_happened(made):
    engine = made()
    before = engine.statistics()
    await whole(engine)
    await whole(engine)
    await until(lambda: not engine.busy)
    after = engine.statistics()
    assert after.finished - before.finished == 2
    assert after.decode_tokens - before.decode_tokens == 16
    assert after.prefill_tokens + after.cached_tokens == 2 * len(PROMPT) - 2
    assert (after.prefix_hits, after.prefix_entries) == (1, 1)
    assert after.step_seconds.count == after.steps
    assert 0 < after.step_seconds.total < 60
    inbox = AsyncInbox()
    run = engine.submit(request(max_tokens=500), inbox)
    await read(inbox, until=TextDelta)
    during = engine.statistics()
    assert (during.decoding, during.waiting, during.parked) == (1, 0, 0)
    assert during.committed_bytes > 0
    engine.cancel(run)
    await until(lambda: not engine.runs)
    assert engine.statistics().cancelled == 1
    assert engine.statistics().committed_bytes == 0


async def test_nothing_is_held_after_a_recovery_nor_at_the_end():
    gc.collect()
    before = active_memory()
    engine = Engine("m", lambda: load(MODEL_PATH), EngineSettings(close_grace=0), costs=COSTS)
    engine.load().result()
    await whole(engine)
    with_one = active_memory()
    await until(lambda: not engine._thread.works_for(engine))  # its last turn is over
    engine._worker._batch = None  # whatever comes next finds no batch: no run's fault
    *_, last = await whole(engine)
    assert isinstance(last, RunFailed)
    assert engine.restarts == 1
    await whole(engine)

    def freed(since):  # by the MLX thread, with its last turn
        gc.collect()
        return active_memory() < since + (1 << 20)

    await until(lambda: freed(with_one))
    engine.close()
    await until(lambda: freed(before))


# What was read. ---------------------------------------------------------------------------------


class FailsLate:
    """A model that empties the engine's prefix cache and fails in its second chunk of a prompt."""

    def __init__(self, model):
        self.model = model
        self.engine = None
        self.chunks = 0

    def __call__(self, tokens, **options):
        logits = self.model(tokens, **options)
        if self.engine is not None and tokens.shape[1] > 1:
            self.chunks += 1
            if self.chunks == 2:
                self.engine._worker.prefixes.take_all()
                raise ValueError("after the caches were changed")
        return logits

    def __getattr__(self, name):
        return getattr(self.model, name)


async def test_nothing_is_kept_of_a_prompt_whose_reading_failed(made, light):
    models = []

    def loader():
        loaded = copy(load(light))
        models.append(FailsLate(loaded.model))
        loaded.model = models[-1]
        return loaded

    engine = made(loader)
    models[-1].engine = engine
    asked = replace(request(prompt=list(range(40, 120))), boundaries=(32, 64))
    inbox = AsyncInbox()
    engine.submit(asked, inbox)
    assert isinstance((await read(inbox))[-1], RunFailed)
    assert models[-1].chunks == 2
    await until(lambda: not engine.busy)
    assert engine.statistics().prefix_entries == 0


# Its end. ---------------------------------------------------------------------------------------


async def test_close_lets_runs_finish_within_the_grace_and_takes_no_new_ones(light):
    engine = Engine("m", lambda: load(light))
    engine.load().result()
    inbox = AsyncInbox()
    engine.submit(request(max_tokens=100), inbox)
    await read(inbox, until=TextDelta)
    endless = (threading.TIMEOUT_MAX,)  # whoever waits for its end never comes back
    closing = threading.Thread(target=engine.close, args=endless, daemon=True)
    closing.start()
    await until(lambda: engine.closed)
    with pytest.raises(GenerationError):
        engine.submit(request(), AsyncInbox())
    *_, last = await read(inbox)
    assert isinstance(last, RunFinished)
    await asyncio.to_thread(closing.join, TIMEOUT * 3)
    assert not closing.is_alive(), "it waited for the end of the grace"


async def test_close_ends_what_outlasts_the_grace_with_one_error_each(light):
    before = set(threading.enumerate())
    engine = Engine("m", lambda: load(light), EngineSettings(max_unread=8))
    engine.load().result()
    inboxes = [AsyncInbox(), AsyncInbox()]  # nobody reads: both are parked and would stay so
    for inbox in inboxes:
        engine.submit(request(max_tokens=5000), inbox)
    await until(lambda: all(inbox.parked for inbox in inboxes))
    await asyncio.to_thread(engine.close, 0.2)
    for inbox in inboxes:
        *_, last = await read(inbox)
        assert isinstance(last, RunFailed)
        assert not inbox._events
    own = set(threading.enumerate()) - before
    assert not [thread for thread in own if thread.name.startswith("mlx-engine")]


def test_close_stops_a_loading_and_the_thread_rests(light):
    begun = threading.Event()

    def loading():
        while True:
            begun.set()
            yield LoadProgress(0, 1)

    thread = MlxThread()
    engine = Engine("endless", loading, thread=thread)
    loaded = engine.load()
    assert begun.wait(60)
    engine.close(0)
    with pytest.raises(GenerationError, match="closed"):
        loaded.result()
    other = Engine("embedded", lambda: load(light), thread=thread)
    assert other.load().result().vocabulary > 0
    other.close(0)
    thread.close()  # waits for every lane
    assert not engine.busy


class LeakyPool(MemoryPool):
    """A memory pool that a model can't leave once it has entered."""

    def enter(self, member):
        super().enter(member)
        self.entered = True

    def leave(self, member):
        if getattr(self, "entered", False):
            raise RuntimeError("cannot be freed")
        super().leave(member)


class LeakyOnce(MemoryPool):
    """A memory pool whose first model can leave it only at the second attempt."""

    refusals = 1

    def leave(self, member):
        if member in self._members and self.refusals:
            self.refusals -= 1
            raise RuntimeError("cannot be freed")
        super().leave(member)


def test_an_engine_that_ends_does_not_load_its_model_again(light):
    loader, pool = Loader(light), LeakyOnce(1 << 40)
    pool.refusals = 0
    engine = Engine("m", loader, EngineSettings(close_grace=0), memory=pool, costs=COSTS)
    engine.load().result()
    pool.refusals = 1
    engine.close()
    assert (len(loader.models), engine.model) == (1, None)


class NoDisk:
    """A store on disk for which a snapshot takes too much memory."""

    def longest(self, kind, tokens):
        return None

    def save(self, tokens, caches, kind):
        raise MemoryError("no room for a snapshot")

    def close(self):
        pass

    wait_closed = close


class Unclosed(NoDisk):
    """A store that can't be closed either."""

    def close(self):
        raise OSError("the disk is gone")


@pytest.mark.parametrize("store", [NoDisk, Unclosed])
async def test_a_model_is_freed_though_what_it_has_kept_cannot_be_saved(light, store):
    loader, pool = Loader(light), MemoryPool(1 << 40)
    engine = Engine("m", loader, EngineSettings(close_grace=0), memory=pool, costs=COSTS)
    engine.load().result()
    engine._worker.prefixes.store = store()
    await whole(engine)
    await asyncio.to_thread(engine.close)
    assert (len(loader.models), engine.model, len(engine._worker.prefixes)) == (1, None, 0)
    assert pool.held_by_others(None) == 0


def test_a_loading_that_fails_says_so_even_if_freeing_fails_too():
    def loading():
        yield LoadProgress(0, 1)
        raise OSError("no such file")

    engine = Engine("m", loading, EngineSettings(close_grace=0), memory=LeakyPool(1 << 40))
    with pytest.raises(OSError, match="no such file"):
        engine.load().result(30)
    with pytest.raises(RuntimeError):
        engine.load().result(30)
    engine.close()


async def test_a_watcher_that_raises_harms_nobody_and_is_logged_once(caplog, light):
    loaded, seen = [], {"first": [], "bad": [], "last": []}

    def loader():
        yield LoadProgress(0, 2)
        yield LoadProgress(1, 2)
        loaded.append(load(light))
        return loaded[-1]

    def bad(progress):
        seen["bad"].append(progress.done)
        raise LookupError("of a watcher")

    engine, inbox = Engine("m", loader, EngineSettings(close_grace=0.0)), AsyncInbox()
    try:
        engine.watch(lambda progress: seen["first"].append(progress.done))
        engine.watch(bad)
        engine.watch(lambda progress: seen["last"].append(progress.done))
        loading = engine.load()
        engine.submit(request(), inbox)
        assert isinstance((await read(inbox))[-1], RunFinished)
        await asyncio.wrap_future(loading)
        assert seen["first"] == seen["last"]
        assert (seen["bad"], seen["last"][:2]) == ([0], [0, 1])
        assert (len(loaded), engine.restarts) == (1, 0)
        assert caplog.text.count("a watcher of the loading of `m` failed") == 1
    finally:
        engine.close()


class Neighbour:
    """Another user of the MLX thread, which has work until the engine is freed."""

    def __init__(self, engine, acts=None):
        self.engine = engine
        self.acts = acts  # what the first turn does
        self.turns = 0

    def turn(self, _active_models):
        self.turns += self.engine.closed
        if self.acts is not None:
            acts, self.acts = self.acts, None
            acts()

    def idle(self):
        return self.engine._freed.is_set()

    def fail(self, error):
        raise AssertionError("no turn raised three times") from error

    def end(self):
        pass


def test_other_models_have_turns_while_one_is_freed(monkeypatch, light):
    monkeypatch.setattr("provider.engine.loading.FREED_AT_ONCE", 1)
    thread = MlxThread()
    engine = Engine("m", Loader(light), thread=thread)
    try:
        engine.load().result(TIMEOUT)
        arrays = len(tree_flatten(engine.model.parameters))
        neighbour = Neighbour(engine)
        thread.wake(neighbour)
        engine.close(0)
        assert neighbour.turns >= arrays > 10
    finally:
        engine.close(0)
        thread.close()


def test_a_model_that_is_unloaded_for_another_leaves_its_memory_and_frees_it_in_turns(
    monkeypatch, light
):
    monkeypatch.setattr("provider.engine.loading.FREED_AT_ONCE", 1)
    thread, pool = MlxThread(), MemoryPool(1 << 40)
    engine = Engine("m", Loader(light), thread=thread, memory=pool)
    seen = []

    def unload():
        engine.let_go()
        seen.extend([engine.model, pool.held_by_others(None), engine._freed.is_set()])

    try:
        engine.load().result(TIMEOUT)
        arrays = len(tree_flatten(engine.model.parameters))
        neighbour = Neighbour(engine, unload)
        thread.wake(neighbour)
        assert engine._freed.wait(TIMEOUT)
        assert seen == [None, 0, False]
        assert neighbour.turns >= arrays - 2
    finally:
        engine.close(0)
        thread.close()


def test_a_model_that_cannot_be_freed_harms_no_model_that_needs_its_memory(light):
    thread, pool, after = MlxThread(), LeakyOnce(1 << 40), []
    pool.refusals = 0
    engine = Engine("m", Loader(light), thread=thread, memory=pool, costs=COSTS)

    def unload():
        pool.refusals = 1
        engine.let_go()
        after.append(engine.model)

    try:
        engine.load().result(TIMEOUT)
        thread.wake(Neighbour(engine, unload))
        assert engine._freed.wait(TIMEOUT)
    finally:
        engine.close(0)
        thread.close()
    assert after == [None]
