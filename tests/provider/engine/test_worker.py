"""The turns of the MLX thread, made one by one."""

import random
import sys
from collections import Counter

import pytest
from mlx_lm import tokenizer_utils

from provider.caches.kinds import size_of
from provider.embedded import MODEL_PATH
from provider.engine.inbox import AsyncInbox, SyncInbox
from provider.engine.memory_pool import MemoryPool
from provider.engine.memory_turn import MAX_PASSED
from provider.engine.messages import RunFailed, RunFinished, RunRequest
from provider.engine.model import LoadedModel
from provider.engine.prompt_share import BURST_S
from provider.engine.run import Run
from provider.engine.run_states import RunState
from provider.engine.sampling import Sampling
from provider.engine.shapes import UNPLANNED
from provider.engine.shared_prompt import SharedPrompt
from provider.engine.step_share import CURVE, LEAST
from provider.engine.worker import TOLD_AT_ONCE, Worker
from provider.events import TextDelta
from provider.formats.chat_template import ChatTemplate
from provider.inputs.messages import conversation
from provider.interface import AnswerTokens, GenerationError, GenerationStarted, PrefillProgress
from provider.models.loading import load, tokenizer_of
from provider.options import GenerationOptions
from provider.runtime.mlx import mx
from provider.settings import EngineSettings

PROMPT = list(range(40, 60))


@pytest.fixture(scope="module")
def small(light):
    return load(light)


@pytest.fixture
def worker(small):
    settings = EngineSettings(max_batch=2, max_unread=4)
    memory = MemoryPool(1 << 40)
    made = Worker("m", lambda: small, settings, Sampling(), memory, lambda: None)
    for _ in made.loading():
        pass
    yield made
    made.free()


def submitted(worker, key, max_tokens=6, client=None, prompt=PROMPT, inbox=SyncInbox, **details):
    options = GenerationOptions(temperature=0.0, max_tokens=max_tokens, client=client)
    run = Run(key, "m", RunRequest(prompt, options, **details), inbox())
    worker.runs.add(run)
    worker.submit(run)
    return run


def events(run):
    """Return what has come, as a reader that takes it."""
    found = []
    while not run.inbox._events.empty():
        found.append(run.inbox.get())
    return found


def turns(worker, most=200):
    for _ in range(most):
        if not worker.busy:
            return
        worker.turn()
    raise AssertionError("the worker comes to no end")


def turn_read_by(worker, runs):
    worker.turn()
    for run in runs:
        events(run)
        worker.resume(run)


def test_a_run_goes_through_its_states_turn_by_turn(worker):
    run = submitted(worker, 1, max_tokens=3)
    assert run.state is RunState.WAITING
    worker.turn()
    assert run.state is RunState.DECODING  # a short prompt is read in the first turn
    found = events(run)
    assert [type(one) for one in found[:2]] == [GenerationStarted, PrefillProgress]
    turns(worker)
    assert run.state is RunState.ENDED
    assert isinstance(events(run)[-1], RunFinished)
    assert len(worker.runs) == 0


def test_those_beyond_the_batch_wait_and_are_told_their_place(worker):
    runs = [submitted(worker, key) for key in range(1, 5)]
    worker.turn()
    assert [run.state for run in runs[2:]] == [RunState.WAITING] * 2
    assert [events(run)[-1].position for run in runs[2:]] == [1, 2]
    worker.cancel(runs[0])
    worker.turn()
    assert runs[2].state is not RunState.WAITING


def test_a_cancelled_run_frees_its_place_and_hears_no_more(worker):
    run = submitted(worker, 1, max_tokens=50)
    worker.turn()
    events(run)
    worker.cancel(run)
    worker.cancel(run)
    assert not worker.busy
    assert worker.statistics(0).cancelled == 1
    assert worker.statistics(0).committed_bytes == 0
    assert events(run) == []


def test_a_run_whose_reader_is_slow_is_parked_and_goes_on_with_the_same_text(worker):
    whole = submitted(worker, 1, max_tokens=40)
    said = ""
    while not whole.ended:
        worker.turn()
        said += "".join(one.text for one in events(whole) if isinstance(one, TextDelta))
        worker.resume(whole)
    slow, heard = submitted(worker, 2, max_tokens=40), ""
    while not slow.ended:
        turns(worker)
        assert slow.state in (RunState.PARKED, RunState.ENDED)
        assert slow.inbox.parked is (slow.state is RunState.PARKED)
        heard += "".join(one.text for one in events(slow) if isinstance(one, TextDelta))
        worker.resume(slow)
    assert heard == said
    assert worker.statistics(0).parkings > 1


class Drawing(Sampling):
    """Sampling that draws these tokens, whatever the model says."""

    def __init__(self, tokens):
        self.tokens = tokens

    def sampler(self, options, vocabulary):
        return Scripted(self.tokens)


class Scripted:
    """The sampler of one run."""

    def __init__(self, tokens):
        self._tokens = tokens
        self._drawn = 0

    def seek(self, drawn):
        self._drawn = drawn

    def __call__(self, logprobs):
        self._drawn += 1
        return mx.array([self._tokens[self._drawn - 1]] * logprobs.shape[0], mx.uint32)


@pytest.mark.parametrize("end", ["length", "end token", "stop text"])
@pytest.mark.parametrize("count", [TOLD_AT_ONCE - 1, TOLD_AT_ONCE, 2 * TOLD_AT_ONCE])
def test_the_token_that_ends_an_answer_is_not_told_to_whoever_would_let_it_go_on(small, end, count):
    usual, last = (small.tokenizer.encode(text)[-1] for text in ("and", "X"))
    last = min(small.tokenizer.eos_token_ids) if end == "end token" else last
    tokens = [*[usual] * (count - 1), last, *[usual] * 9]
    settings = EngineSettings(max_unread=10**6, warmup=False)
    sampling, memory = Drawing(tokens), MemoryPool(1 << 40)
    made = Worker("m", lambda: small, settings, sampling, memory, lambda: None)
    for _ in made.loading():
        pass
    options = GenerationOptions(
        temperature=0.0,
        max_tokens=count if end == "length" else 200,
        stop=(small.tokenizer.decode([last]),) if end == "stop text" else (),
        tell_tokens=True,
    )
    run = Run(1, "m", RunRequest(PROMPT, options), SyncInbox())
    made.runs.add(run)
    made.submit(run)
    turns(made)
    found = events(run)
    told = [token for one in found if isinstance(one, AnswerTokens) for token in one.tokens]
    assert found[-1].usage["completion_tokens"] == count
    assert found[-1].finish_reason == ("length" if end == "length" else "stop")
    assert told == tokens[: (count - 1) // TOLD_AT_ONCE * TOLD_AT_ONCE]
    made.free()


@pytest.mark.parametrize("end", ["cancelled", "read", "failed"])
def test_what_a_parked_run_keeps_is_held_until_it_goes_on_or_ends(worker, end):
    def others_lack():
        seen = worker.statistics(0)
        now = seen.weights_bytes + seen.committed_bytes + seen.parked_bytes + seen.prefix_bytes
        assert worker._slot._memory.held_by_others(None) == now
        return seen.parked_bytes

    slow, other = submitted(worker, 1, max_tokens=6), submitted(worker, 2, max_tokens=60)
    while slow.state is not RunState.PARKED:
        turn_read_by(worker, [other])
    assert others_lack() > 0
    submitted(worker, 3, max_tokens=2)  # admitted while the other one is parked
    while not other.ended:
        turn_read_by(worker, [other])
        assert others_lack() > 0
    if end == "read":
        events(slow)
        worker.resume(slow)
        turns(worker)
    elif end == "cancelled":
        worker.cancel(slow)
    else:
        worker.fail_all(GenerationError("the engine failed"))
    assert others_lack() == 0


def bytes_in_batch(worker):
    """Return the size of the KV caches of the rows that decode."""
    layers = [layer for group in worker._batch._groups for layer in group._caches.layers]
    return sum(
        layer.keys.nbytes + layer.values.nbytes for layer in layers if layer.keys is not None
    )


def texts_together(worker, prompts):
    """Answer prompts in one batch; return the texts and the most bytes that it has taken."""
    runs = [
        submitted(worker, number, max_tokens=40 + number, prompt=one)
        for number, one in enumerate(prompts)
    ]
    most = 0
    while worker.busy:
        worker.turn()
        most = max(most, bytes_in_batch(worker))
    said = [[one.text for one in events(run) if isinstance(one, TextDelta)] for run in runs]
    return ["".join(one) for one in said], most


@pytest.mark.parametrize("kept", [False, True], ids=["read", "kept"])
def test_short_rows_beside_a_long_one_take_no_more_memory_than_was_promised(small, kept):
    """With slots as long as the longest row's, seven short rows would take that seven times."""
    drawn = random.Random(1)
    prompts = [[drawn.randrange(20, 1500) for _ in range(n)] for n in (2000, *range(20, 90, 10))]
    settings = EngineSettings(
        max_batch=8, max_unread=10**6, warmup=False, prefix_cache_bytes=(1 << 40) * kept
    )
    pool = MemoryPool(1 << 40)
    made = Worker("m", lambda: small, settings, Sampling(), pool, lambda: None)
    for _ in made.loading():
        pass
    budget = made._admission.budget
    needs = sum(budget.need(len(one) + 40 + number) for number, one in enumerate(prompts))
    expected, most = texts_together(made, prompts)
    assert most > 2 * needs  # as long as memory is plentiful, there is one pass for all of them
    pool.limit = made._admission.held + needs
    budget.limit = pool.limit - made._admission.weights
    said, most = texts_together(made, prompts)
    assert said == expected
    assert most <= needs
    made.free()


def test_giving_the_batch_up_ends_what_was_taken_and_leaves_what_is_posted(worker):
    taken = submitted(worker, 1, max_tokens=3)
    posted = Run(2, "m", taken.request, SyncInbox())
    worker.runs.add(posted)
    worker._scheduler.submit(99)  # as a fault of the engine's own might leave it behind
    worker.fail_all(GenerationError("the engine failed"))
    assert isinstance(events(taken)[-1], RunFailed)
    assert not worker.busy
    assert posted.state is RunState.POSTED
    worker.revive()
    worker.submit(posted)
    turns(worker)
    assert isinstance(events(posted)[-1], RunFinished)


class Clinging:
    """The worker's batch, from which a row can't be taken out."""

    def __init__(self, batch):
        self._batch = batch

    def remove(self, keys, *, faulty=False):
        raise RuntimeError("the row stays")

    def __getattr__(self, name):
        return getattr(self._batch, name)


@pytest.mark.parametrize("end", ["cancelled", "finished"])
def test_a_run_that_cannot_be_taken_out_has_ended_once_and_the_next_goes_on(worker, end):
    run = submitted(worker, 1, max_tokens=5)
    while run.state is not RunState.PARKED:  # with its last token unread
        worker.turn()
    worker._batch = Clinging(worker._batch)
    events(run)
    if end == "finished":
        worker.resume(run)
    with pytest.raises(RuntimeError, match="the row stays"):
        worker.turn() if end == "finished" else worker.cancel(run)
    assert run.ended
    assert (len(worker.runs), worker.statistics(0).committed_bytes) == (0, 0)
    worker.fail_all(GenerationError("the engine failed"))
    assert [type(one) for one in events(run)[-1:]] == [RunFinished] * (end == "finished")
    worker.revive()
    after = submitted(worker, 2, max_tokens=3)
    turns(worker)
    assert isinstance(events(after)[-1], RunFinished)


def test_runs_of_one_client_that_slow_others_wait_and_go_on_with_the_same_text(small):
    settings = EngineSettings(max_batch=8, max_unread=10**6, client_slowdown=1.0)
    made = Worker("m", lambda: small, settings, Sampling(), MemoryPool(1 << 40), lambda: None)
    for _ in made.loading():
        pass
    prompts = [[40 + key, *PROMPT] for key in range(6)]
    for rows in range(1, 9):
        for _ in range(CURVE + LEAST):
            made._share.took(rows, 1000.0 * rows)
    many = [submitted(made, key, 40, "a", prompt) for key, prompt in enumerate(prompts)]
    made.turn()
    assert made.statistics(0).decoding == 6
    one = submitted(made, 9, 20, "b", prompts[0])
    beside = []
    while not one.ended:
        made.turn()
        beside.append(sum(run.state is RunState.DECODING for run in many))
    assert set(beside[6:-1]) == {1}
    turns(made)
    again = [submitted(made, 10 + key, 40, "a", prompt) for key, prompt in enumerate(prompts)]
    turns(made)
    texts = [[event.text for event in events(run) if isinstance(event, TextDelta)] for run in many]
    assert ["".join(one) for one in texts] == [
        "".join(event.text for event in events(run) if isinstance(event, TextDelta))
        for run in again
    ]
    made.free()


class Slow:
    """The model, whose clock moves on by 50 ms for each token of a chunk, and for a step."""

    def __init__(self, model):
        self._model = model
        self.now = self.reading = 0.0

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __call__(self, tokens, cache=None, **extras):
        seconds = 0.05 * tokens.shape[1]
        self.now += seconds
        self.reading += seconds * (tokens.shape[1] > 1)
        return self._model(tokens, cache=cache, **extras)


@pytest.mark.parametrize("other", ["b", "a"])
def test_prompt_after_prompt_leaves_others_most_of_the_engines_time(small, other):
    slow, rng = Slow(small.model), random.Random(3)
    settings = EngineSettings(max_token_gap=1.0, warmup=False, max_unread=10**6)
    loaded = LoadedModel(**{**vars(small), "model": slow})
    memory = MemoryPool(1 << 40)
    made = Worker("m", lambda: loaded, settings, Sampling(), memory, lambda: None, lambda: slow.now)
    for _ in made.loading():
        pass
    stream = submitted(made, 1, max_tokens=400, client=other)
    while not stream.tokens:
        made.turn()
    begin, slow.reading, key = slow.now, 0.0, 2
    while not stream.ended:
        prompt = [rng.randrange(40, 1400) for _ in range(100)]
        run = submitted(made, key, max_tokens=1, prompt=prompt, client="a")
        while not (run.ended or stream.ended):
            made.turn()
        key += 1
    share = settings.client_prompt_share
    bounded = slow.reading <= BURST_S + share * (slow.now - begin) + 2 * settings.max_token_gap
    assert bounded is (other == "b"), "a client that is alone is not bounded"
    made.free()


@pytest.fixture
def limit(worker):
    """Return a function that leaves the worker's runs the memory of a run of so many tokens."""

    def limited(tokens):
        budget = worker._admission.budget
        budget.limit = budget.need(tokens)
        worker._slot._memory.limit = budget.limit + worker._admission.weights

    return limited


def test_a_run_that_waits_for_memory_does_not_hold_up_other_clients(worker, limit):
    limit(512)
    first = submitted(worker, 1, max_tokens=100, client="a")
    large = submitted(worker, 2, max_tokens=492, client="b")
    small = submitted(worker, 3, max_tokens=3, client="c")
    while not small.ended:
        worker.turn()
        events(first)
        worker.resume(first)
    assert large.state is RunState.WAITING
    assert not first.ended


def test_a_run_that_needs_all_memory_is_not_starved_by_small_ones(worker, limit):
    limit(512)
    submitted(worker, 1, max_tokens=3, client="a")
    large = submitted(worker, 2, max_tokens=492, client="b")
    small = []
    while large.state is RunState.WAITING:
        while sum(not one.ended for one in small) < 2:  # they begin and end by turns
            small.append(submitted(worker, 3 + len(small), max_tokens=6, client="c"))
        turn_read_by(worker, small[-3:])
    assert MAX_PASSED <= sum(one.ended for one in small) <= MAX_PASSED + 1
    worker.cancel(large)
    while worker.busy:
        turn_read_by(worker, small[-3:])
    assert all(one.ended for one in small)


def long_prompts(count):
    """Return requests' prompts, and boundaries by which each is read in several chunks."""
    rng = random.Random(5)
    prompts = [[rng.randrange(40, 1400) for _ in range(400)] for _ in range(count)]
    return prompts, {"boundaries": tuple(range(50, 400, 50))}


def worker_of(small, **settings):
    settings = EngineSettings(max_unread=10**6, warmup=False, **settings)
    made = Worker("m", lambda: small, settings, Sampling(), MemoryPool(1 << 40), lambda: None)
    for _ in made.loading():
        pass
    return made


def said(run):
    return "".join(one.text for one in events(run) if isinstance(one, TextDelta))


def test_a_question_does_not_wait_until_a_prompt_of_a_full_batch_is_read(small):
    made, (prompts, chunks) = worker_of(small, max_batch=3), long_prompts(3)
    many = [submitted(made, key, 6, "a", one, **chunks) for key, one in enumerate(prompts, 1)]
    made.turn()
    question = submitted(made, 9, 2, "b")
    while not question.tokens:
        made.turn()
    assert [run.state for run in many] == [RunState.READING] * 2 + [RunState.WAITING]
    turns(made)
    total = sum(len(prompt) - 1 for prompt in [*prompts, PROMPT])
    assert made.counters.prefill_tokens == total, "a prompt was read again"
    again = [submitted(made, 20 + key, 6, "a", one) for key, one in enumerate(prompts)]
    turns(made)
    assert [said(run) for run in many] == [said(run) for run in again]
    made.free()


def test_short_questions_one_after_the_other_let_long_prompts_get_on(small):
    made, (prompts, chunks) = worker_of(small, max_batch=2), long_prompts(3)
    many = [submitted(made, key, 2, "a", one, **chunks) for key, one in enumerate(prompts, 1)]
    made.turn()
    key, question = 10, submitted(made, 10, 2, "b")
    while not all(run.ended for run in many):
        made.turn()
        if question.ended:
            key += 1
            question = submitted(made, key, 2, "b", prompt=[key, *PROMPT])
    turns(made)
    of_questions = (key - 9) * len(PROMPT)
    assert made.counters.prefill_tokens <= sum(map(len, prompts)) + of_questions
    made.free()


def test_a_prompt_that_gave_its_place_away_and_is_found_read_is_shared_at_once(small):
    made, ((prompt, other), chunks) = worker_of(small, max_batch=2), long_prompts(2)
    first, shared = submitted(made, 1, 30, "a", other, **chunks), SharedPrompt()
    answers = [submitted(made, key, 30, "a", prompt, shared_prompt=shared) for key in (2, 3)]
    made.turn()
    same = submitted(made, 4, 2, "b", prompt)
    while not same.ended:
        made.turn()
    assert (answers[0].state, answers[0].cached) == (RunState.WAITING, 0)
    made.cancel(first)
    while answers[1].state is RunState.WAITING:
        made.turn()
    assert not answers[0].ended
    made.turn()
    assert made.counters.prefill_tokens < 2 * len(prompt)
    turns(made)
    assert said(answers[0]) == said(answers[1])
    made.free()


def test_what_is_kept_for_further_answers_is_counted_and_given_up_for_other_runs(small):
    made, ((prompt, other), _) = worker_of(small, max_batch=2), long_prompts(2)
    stream, shared = submitted(made, 1, 200, "a", prompt=other), SharedPrompt()
    answers = [submitted(made, key, 60, "a", prompt, shared_prompt=shared) for key in (2, 3, 4)]
    while answers[0].tokens < 3:
        made.turn()
    seen = made.statistics(0)
    counted = seen.weights_bytes + seen.committed_bytes + seen.parked_bytes + seen.prefix_bytes
    kept = size_of(shared.caches)
    assert kept > 0
    assert made._slot._memory.held_by_others(None) == counted + kept
    budget, pool = made._admission.budget, made._slot._memory
    budget.limit = budget.committed
    pool.limit = budget.limit + made._admission.weights
    turns(made, 1000)
    assert stream.ended
    texts = [said(run) for run in answers]
    assert texts == texts[:1] * 3
    assert made._admission.held == made._admission.weights + made.prefixes.nbytes
    made.free()


def test_a_question_that_does_not_fit_gets_the_memory_of_a_prompt_that_is_hardly_read(small):
    made, (prompts, chunks) = worker_of(small, max_batch=8, memory_turn=0.01), long_prompts(4)
    budget = made._admission.budget
    budget.limit = 4 * budget.need(406)
    made._slot._memory.limit = budget.limit + made._admission.weights
    many = [submitted(made, key, 6, "a", one, **chunks) for key, one in enumerate(prompts, 1)]
    made.turn()
    question = submitted(made, 9, 2, "b")
    while not question.tokens:
        made.turn()
    assert [run.state for run in many[1:]] == [RunState.READING] * 2 + [RunState.WAITING]
    turns(made, 1000)
    again = submitted(made, 20, 6, "a", prompts[-1])
    turns(made)
    assert said(many[-1]) == said(again)
    made.free()


class Measured:
    """The model, which notes the shape of each planned pass: its tokens, and those before."""

    def __init__(self, model):
        self._model = model
        self.shapes = set()

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __call__(self, tokens, cache=None, **extras):
        offset = cache[0].offset
        if tokens.shape[1] > UNPLANNED and isinstance(offset, int):
            self.shapes.add((tokens.shape[1], offset))
        return self._model(tokens, cache=cache, **extras)


def test_prompts_of_random_lengths_are_read_in_few_shapes_beside_a_stream(small):
    measured, rng = Measured(small.model), random.Random(2)
    settings = EngineSettings(max_batch=2, few_shapes="on", warmup=False, max_unread=10**6)
    loaded = LoadedModel(**{**vars(small), "model": measured})
    made = Worker("m", lambda: loaded, settings, Sampling(), MemoryPool(1 << 40), lambda: None)
    for _ in made.loading():
        pass
    stream = submitted(made, 1, max_tokens=1500)
    while not stream.tokens:
        made.turn()
    measured.shapes.clear()
    for key in range(2, 17):
        prompt = [rng.randrange(40, 1400) for _ in range(rng.randrange(10, 200))]
        run = submitted(made, key, max_tokens=1, prompt=prompt)
        while not run.ended:
            made.turn()
    assert not stream.ended
    # Each size is at a multiple of itself.
    assert all(size in (32, 64, 128, 256) for size, _ in measured.shapes)
    assert all(at % size == 0 for size, at in measured.shapes)
    made.free()


def calls_of_a_step(worker, runs, steps=10):
    """Return the calls of Python's functions and of C's in a decode step of streams.

    Those of mlx-lm's detokenizer are left out, since they depend on the text that comes.
    """
    while any(run.tokens < 3 for run in runs):
        worker.turn()
    calls = Counter()

    def count(frame, event, _argument):
        if frame.f_code.co_filename != tokenizer_utils.__file__:
            calls[event] += 1

    sys.setprofile(count)
    for _ in range(steps):
        worker.turn()
    sys.setprofile(None)
    return calls["call"] / steps, calls["c_call"] / steps


# A little more than was counted on the embedded model with Python 3.11; the model's pass is in it.
CALLS, CALLS_OF_C = 328, 172  # in a step of one stream
MORE_CALLS, MORE_CALLS_OF_C = 14, 14  # for each further one


async def test_a_decode_step_calls_no_more_functions_than_before():
    embedded = load(MODEL_PATH)
    settings = EngineSettings(max_batch=8, max_unread=10**6, warmup=False)
    made = Worker("m", lambda: embedded, settings, Sampling(), MemoryPool(1 << 40), lambda: None)
    for _ in made.loading():
        pass
    # Of counts, how much text a token makes is no matter of chance.
    template = ChatTemplate(tokenizer_of(MODEL_PATH))
    asked = [conversation(f"Count from {11 + key} to 90", None, None) for key in range(8)]
    prompts = [template.tokens(one, [], variables={"enable_thinking": False}) for one in asked]
    runs = [submitted(made, 0, 60, None, prompts[0], AsyncInbox)]
    one, one_of_c = calls_of_a_step(made, runs)
    assert one < CALLS
    assert one_of_c < CALLS_OF_C
    runs += [submitted(made, key, 60, None, prompts[key], AsyncInbox) for key in range(1, 8)]
    eight, eight_of_c = calls_of_a_step(made, runs)
    assert (eight - one) / 7 < MORE_CALLS
    assert (eight_of_c - one_of_c) / 7 < MORE_CALLS_OF_C
    made.free()
