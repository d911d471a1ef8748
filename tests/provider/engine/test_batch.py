"""The batch by itself: rows that come and go, and rows at fault."""

import itertools
import random
import threading

import pytest
from mlx_lm.sample_utils import greedy_sampler
from mlx_lm.utils import load_model

from provider.constraints import mask_maker
from provider.constraints.masks import allow_only
from provider.constraints.matcher import PROVEN, SharedGrammar
from provider.engine.batch import Batch
from provider.engine.rows import Row
from provider.engine.sampling import SeededSampler
from provider.engine.shapes import ANY_SHAPE, STEP, Shapes
from provider.engine.speculative import SingleRowSettings
from provider.interface import GenerationError
from provider.runtime.mlx import mx
from tests.support.tiny_models import ARCHITECTURES, write_model

TOKENS = 16


@pytest.fixture(scope="module", params=["llama", "gemma3", "qwen3_next"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / request.param
    model, _ = load_model(write_model(folder, ARCHITECTURES[request.param]))
    return model


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    model, _ = load_model(
        write_model(tmp_path_factory.mktemp("llama") / "llama", ARCHITECTURES["llama"])
    )
    return model


def prompt(key):
    return [random.Random(key).randrange(20, 1500) for _ in range(3 + 7 * (key % 5))]


def row(key, *, tokens=TOKENS, sampler=greedy_sampler, processors=(), text=None):
    text = prompt(key) if text is None else text
    return Row(key, list(text), len(text), tokens, sampler, processors)


class Scene:
    """A batch, what waits to be read in it, and what came out."""

    def __init__(self, model, ends=(), single_row=None, shapes=ANY_SHAPE, keep=None):
        self.batch = Batch(model, ends, keep, single_row=single_row, shapes=shapes)
        self.left = {}
        self.tokens = {}
        self.faults = {}

    def add(self, *rows):
        for one in rows:
            self.tokens[one.key] = []
            self.left[one.key] = self.batch.add(one)

    def record(self, result):
        for token in result.tokens:
            self.tokens[token.key].append(token.token)
        for chunk in result.chunks:
            self.left[chunk.key] = chunk.left
        self.faults.update(result.faults)
        for key in self.faults:
            self.left.pop(key, None)

    def step(self, chunk=2048):
        self.record(self.batch.decode())
        if self.batch.waits:
            self.batch._masks.wait(0.01)
        waiting = [(key, left) for key, left in self.left.items() if left]
        if waiting and self.batch.together and chunk == 2048:
            self.record(self.batch.prefill(waiting))
        elif waiting:
            key, left = waiting[0]
            self.record(self.batch.prefill([(key, min(left, chunk))]))

    def finish(self, **options):
        for _ in range(1000):
            if not len(self.batch):
                return self.tokens
            self.step(**options)
        raise AssertionError("the batch does not end")


@pytest.fixture(scope="module")
def alone(model):
    return alone_on(model)


def alone_on(model, keys=range(8)):
    expected = {}
    for key in keys:
        scene = Scene(model)
        scene.add(row(key))
        expected |= scene.finish()
    return expected


def test_rows_together_give_what_they_give_alone(model, alone):
    scene = Scene(model)
    scene.add(*map(row, alone))
    assert scene.finish() == alone


def test_rows_that_come_and_go_leave_the_others_as_they_are(model, alone):
    """Rows join every few steps, some end early, some are removed: slots are freed and reused."""
    scene, rng = Scene(model), random.Random(1)
    passing = itertools.count(100)
    for key in alone:
        scene.add(row(key))
        brief, removed = next(passing), next(passing)
        scene.add(row(brief, tokens=rng.randrange(1, 6)), row(removed))
        for _ in range(rng.randrange(2, 7)):
            scene.step(chunk=5)
        scene.batch.remove([removed])
        scene.left.pop(removed, None)
    tokens = scene.finish(chunk=5)
    assert {key: tokens[key] for key in alone} == alone


FEW = Shapes(STEP)


def read(scene, key):
    """Read one prompt to its end in chunks of few shapes."""
    while left := scene.left[key]:
        done = len(prompt_of(scene, key)) - 1 - left
        scene.record(scene.batch.prefill([(key, FEW.tokens(done, left, ends=True))]))


def prompt_of(scene, key):
    return scene.batch._rows[key].sequence


LONG = [random.Random(9).randrange(20, 1500) for _ in range(333)]


@pytest.mark.parametrize("together", [False, True])
def test_padding_changes_no_tokens_and_stays_in_no_cache(model, together):
    texts = [LONG[:n] for n in (333, 20, 150, 2)]
    rows = [row(key, text=text) for key, text in enumerate(texts)]
    plain, padded = Scene(model), Scene(model, shapes=FEW)
    plain.add(*rows)
    padded.add(*(row(key, text=text) for key, text in enumerate(texts)))
    for key in () if together else range(4):
        read(padded, key)
    assert padded.finish() == plain.finish()


def test_a_padded_prompt_can_be_read_on_and_its_caches_be_kept(model):
    """A chunk that ends where its caches are to be kept is padded, and the prompt goes on."""
    plain, padded = Scene(model), Scene(model, shapes=FEW)
    plain.add(row(0, text=LONG))
    padded.add(row(0, text=LONG))
    padded.record(padded.batch.prefill([(0, 40)]))
    assert padded.batch._rows[0].done == 40
    assert max(getattr(cache, "offset", 40) for cache in padded.batch._rows[0].caches) == 40
    assert padded.finish() == plain.finish()


class Measured:
    """A model that notes the shape of each pass: tokens, and how many came before them."""

    def __init__(self, model):
        self._model = model
        self.shapes = []

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __call__(self, tokens, cache):
        offset = cache[0].offset
        before = offset if isinstance(offset, int) else tuple(offset.tolist())
        self.shapes.append((*tokens.shape, before))
        return self._model(tokens, cache=cache)


def test_fifty_prompts_of_random_lengths_are_read_in_few_shapes(llama):
    rng, seen = random.Random(6), {}
    lengths = [rng.randrange(5, 333) for _ in range(50)]
    for shapes in (ANY_SHAPE, FEW):
        measured = Measured(llama)
        scene = Scene(measured, shapes=shapes)
        for key, length in enumerate(lengths):
            scene.add(row(key, text=LONG[:length], tokens=1))
            while left := scene.left[key]:
                n = shapes.tokens(length - 1 - left, left, ends=True)
                scene.record(scene.batch.prefill([(key, n)]))
            scene.batch.remove([key])
        seen[shapes] = set(measured.shapes)
    assert len(seen[ANY_SHAPE]) > 40
    assert len(seen[FEW]) <= 8


def test_a_pass_says_how_much_it_has_computed(llama):
    scene = Scene(llama, shapes=FEW)
    scene.add(row(0, text=LONG[:101]), row(1, text=LONG[:91]), row(2, text=LONG[:50]))
    assert scene.batch.prefill([(0, 100), (1, 90)]).computed == 2 * 128
    assert scene.batch.prefill([(2, 49)]).computed == 64


def test_parked_rows_go_on_where_they_were(model, alone):
    scene = Scene(model)
    scene.add(*map(row, alone))
    while len(scene.tokens[3]) < 5:
        scene.step()
    parked = [scene.batch.park(key) for key in (0, 3, 6)]
    for _ in range(4):
        scene.step()
    for one in parked:
        if one.pending is not None:
            scene.tokens[one.row.key].append(scene.batch.deliver(one).token)
        scene.left[one.row.key] = scene.batch.add(one.row)
        scene.step()
    assert scene.finish() == alone


def test_a_parked_row_without_its_caches_is_read_again(model, alone):
    scene = Scene(model)
    scene.add(*map(row, alone))
    while len(scene.tokens[3]) < 5:
        scene.step()
    parked = scene.batch.park(3)
    scene.tokens[3].append(scene.batch.deliver(parked).token)
    parked.row.caches = None
    scene.left[3] = scene.batch.add(parked.row)
    assert scene.left[3] > 0
    assert scene.finish() == alone


def test_an_end_token_ends_a_row(llama):
    expected = alone_on(llama, [0])[0]
    end = expected[4]
    scene = Scene(llama, ends=[end])
    scene.add(row(0), row(1))
    assert scene.finish()[0] == expected[: expected.index(end) + 1]


def test_a_row_of_one_token_takes_part_in_one_pass(llama):
    counted = Counted(llama)
    scene = Scene(counted)
    scene.add(row(0, tokens=1))
    scene.finish()
    assert counted.rows == [1, 1]  # the prompt but its last token, then that


def test_a_removed_row_takes_part_in_no_later_pass(llama):
    counted = Counted(llama)
    scene = Scene(counted)
    scene.add(row(0), row(1))
    for _ in range(4):
        scene.step()
    scene.batch.remove([0])
    counted.rows.clear()
    scene.finish()
    assert set(counted.rows) == {1}


def test_caches_that_cannot_be_kept_are_dropped_and_every_row_ends_as_it_should(model, caplog):
    def keep(_row, _make, _tokens):
        raise MemoryError("no room for a copy")

    scene, undisturbed = Scene(model, keep=keep), Scene(model)
    for one in (scene, undisturbed):
        one.add(row(1), row(2), row(3, tokens=4), row(4))
        while len(one.tokens[1]) < 2:
            one.step()
        one.batch.remove([2])
        one.add(row(9))
        one.batch.prefill([(9, 10)])
        one.batch.remove([9])
        del one.left[9]
        one.finish()
    assert scene.tokens == undisturbed.tokens
    assert scene.faults == {}
    assert len(scene.batch) == 0
    assert caplog.text.count("no room for a copy") >= 4


class Unread:
    """Tokens of a launched pass that can't be read."""

    def tolist(self):
        raise RuntimeError("the device is lost")


def without_last_token(model, *rows):
    """Return a scene in which the first row's last token, and the others' beside it, are lost."""
    scene = Scene(model)
    scene.add(*rows)
    while rows[0].drawn < rows[0].max_tokens:
        scene.step()
    (group,) = scene.batch._groups
    group._launched = (Unread(), group._launched[1])
    return scene


def test_a_last_token_that_cannot_be_read_is_drawn_again(model, alone):
    scene = without_last_token(model, row(1, tokens=5), row(2))
    assert scene.finish() == {1: alone[1][:5], 2: alone[2]}
    assert scene.faults == {}


def test_a_row_alone_whose_last_token_cannot_be_read_fails(model):
    scene = without_last_token(model, row(1, tokens=5))
    scene.finish()
    assert "the device is lost" in str(scene.faults[1])


class Counted:
    """A model that notes how many rows each pass had."""

    def __init__(self, model):
        self._model = model
        self.rows = []

    def __getattr__(self, name):
        return getattr(self._model, name)

    def __call__(self, tokens, cache):
        self.rows.append(tokens.shape[0])
        return self._model(tokens, cache=cache)


class BrokenError(Exception):
    """What staged faults raise."""


class Poisoned(Counted):
    """A model that breaks whenever it is fed a certain token."""

    def __init__(self, model, token):
        super().__init__(model)
        self.token = token

    def __call__(self, tokens, cache):
        if self.token in mx.array(tokens).reshape(-1).tolist():
            raise BrokenError
        return self._model(tokens, cache=cache)


class Flaky(Counted):
    """A model that breaks at certain passes, in the middle, with some layers' caches written."""

    def __init__(self, model, passes):
        super().__init__(model)
        self.passes = set(passes)
        self.count = 0

    def __call__(self, tokens, cache):
        self.count += 1
        logits = self._model(tokens, cache=cache)
        if self.count in self.passes:
            raise BrokenError
        return logits


@pytest.mark.parametrize("passes", [[1], [2], [5], [4, 12], [1, 2, 6, 7]])
def test_a_pass_that_fails_once_harms_nobody(model, alone, passes):
    """Passes in which two rows or more took part; alone, a failing row is at fault."""
    flaky = Flaky(model, [])
    scene = Scene(flaky)
    scene.add(*map(row, alone))
    for step in itertools.count():
        flaky.passes = {flaky.count + 1} if step in passes else set()
        if not scene.batch.together:
            flaky.passes = set()
        if not len(scene.batch):
            break
        scene.step()
    assert not scene.faults
    assert scene.tokens == alone


def test_rows_whose_pass_has_failed_can_be_parked_and_are_read_again(model, alone):
    """The token of the pass before is delivered beside the fault, and may be one too many."""
    flaky = Flaky(model, [])
    scene = Scene(flaky)
    scene.add(*map(row, alone))
    while len(scene.tokens[3]) < 5:
        scene.step()
    flaky.passes = {flaky.count + 1}
    scene.record(scene.batch.decode())
    assert all(scene.left[key] > 0 for key in (0, 3, 6))
    parked = [scene.batch.park(key) for key in (0, 3, 6)]
    for one in parked:
        assert one.pending is None
        scene.left.pop(one.row.key)
    scene.step()
    for one in parked:
        scene.left[one.row.key] = scene.batch.add(one.row)
    assert scene.finish() == alone


def test_the_row_that_breaks_a_prefill_fails_alone(model, alone):
    scene = Scene(Poisoned(model, 1501))
    scene.add(*map(row, alone), row(50, text=[30, 1501, 31, 32]))
    tokens = scene.finish()
    assert list(scene.faults) == [50]
    assert isinstance(scene.faults[50], BrokenError)
    assert {key: tokens[key] for key in alone} == alone


def seeded(key):
    return row(key, sampler=SeededSampler(key, 1.0, 1.0, 0.0, 0))


def test_the_row_that_breaks_a_decode_step_fails_alone(llama):
    scene = Scene(llama)
    scene.add(*map(seeded, range(8)))
    expected = scene.finish()
    heard = [token for key in expected for token in [*prompt(key), *expected[key]]]
    victim, place = next(
        (key, place)
        for key, said in expected.items()
        for place, token in enumerate(said)
        if place > 2 and heard.count(token) == 1
    )
    scene = Scene(Poisoned(llama, expected[victim][place]))
    scene.add(*map(seeded, range(8)))
    tokens = scene.finish()
    assert list(scene.faults) == [victim]
    assert tokens.pop(victim) == expected.pop(victim)[: place + 1]
    assert tokens == expected


def failing(after):
    count = 0

    def fail(*arguments):
        nonlocal count
        count += 1
        if count > after:
            raise BrokenError
        return greedy_sampler(arguments[0]) if len(arguments) == 1 else arguments[1]

    return fail


@pytest.mark.parametrize("part", ["sampler", "processors"])
@pytest.mark.parametrize("after", [0, 3])
def test_a_sampler_or_processor_that_fails_ends_its_row_alone(model, alone, part, after):
    fault = failing(after)
    scene = Scene(model)
    scene.add(*map(row, alone))
    scene.add(row(50, **{part: fault if part == "sampler" else [fault]}))
    tokens = scene.finish()
    assert list(scene.faults) == [50]
    assert len(tokens[50]) == after
    assert {key: tokens[key] for key in alone} == alone


def test_a_seeded_row_draws_the_same_after_a_pass_that_failed(llama):
    expected = Scene(llama)
    expected.add(*map(seeded, range(4)))
    flaky = Flaky(llama, [4])
    scene = Scene(flaky)
    scene.add(*map(seeded, range(4)))
    assert scene.finish() == expected.finish()
    assert not scene.faults


def test_a_row_with_two_faults_in_one_step_fails_once(model, alone):
    scene = Scene(model)
    scene.add(*map(row, alone))
    scene.add(row(50, sampler=failing(3), processors=[failing(3)]))
    tokens = scene.finish()
    assert list(scene.faults) == [50]
    assert {key: tokens[key] for key in alone} == alone


def test_a_fault_after_the_last_token_is_no_fault(llama):
    """The pass after an end token was launched before that token was read."""
    scene = Scene(llama)
    scene.add(row(0))
    expected = scene.finish()[0]
    scene = Scene(llama, ends=expected[:1])
    scene.add(row(0, sampler=failing(1)))
    assert scene.finish() == {0: expected[:1]}
    assert not scene.faults


# Constraints. -----------------------------------------------------------------------------------

END = 1535


class Constraint:
    """A constraint on an answer that is satisfied from a number of tokens on."""

    bound, violated, simple, slow = False, False, True, False
    masks, mask_seconds = 0, 0.0

    def __init__(self, enough):
        self.enough = enough
        self.shared = SharedGrammar()

    def follow(self, length, last, answer):
        assert len(answer()) == length

    def satisfied(self, length):
        return length >= self.enough


def drawing(*tokens):
    """Return a sampler that draws these tokens, whatever the model says."""
    left = list(tokens)
    return lambda logits: mx.full(logits.shape[:1], left.pop(0) if left else END, mx.uint32)


def held(key, drawn, enough):
    one = row(key, sampler=drawing(*[7] * drawn))
    one.constraint = Constraint(enough)
    return one


@pytest.mark.parametrize("alone", [True, False])
def test_an_answer_that_ends_before_its_constraint_is_satisfied_fails_and_no_other(llama, alone):
    scene = Scene(llama, [END])
    scene.add(held(0, 3, 4), *([] if alone else [held(1, 4, 4), held(2, 0, 1)]))
    scene.finish()
    failed = {0} if alone else {0, 2}
    assert scene.faults.keys() == failed
    for error in scene.faults.values():
        assert isinstance(error, GenerationError)
        assert "before it satisfies its constraint" in str(error)
    assert scene.tokens == {0: [7] * 3} | ({} if alone else {1: [*[7] * 4, END], 2: []})


def test_a_parked_answer_does_not_end_before_its_constraint_is_satisfied(llama):
    scene = Scene(llama, [END])
    scene.add(held(0, 1, 2))
    while not scene.tokens[0]:
        scene.step()
    parked = scene.batch.park(0)
    assert parked.pending == END
    with pytest.raises(GenerationError, match="before it satisfies its constraint"):
        scene.batch.deliver(parked)


def test_a_drafted_answer_does_not_end_before_its_constraint_is_satisfied(llama):
    settings = SingleRowSettings(draft=llama)
    scene = Scene(llama, [END], settings)
    one = held(0, 0, 1)
    one.sampler = lambda logits: mx.full(logits.shape[:1], END, mx.uint32)
    scene.add(one)
    scene.finish()
    assert "before it satisfies its constraint" in str(scene.faults[0])
    assert scene.tokens == {0: []}


class Late(Constraint):
    """A constraint whose mask, that only one token fits, is late in some steps."""

    bound, simple = True, False

    def __init__(self, lengths, wanted):
        super().__init__(0)
        self.lengths, self.wanted = lengths, wanted
        self.waiting, self.free = threading.Event(), threading.Event()

    def follow(self, length, last, answer):
        assert len(answer()) == length
        self.length = length
        if length in self.lengths:
            self.waiting.set()
            assert self.free.wait(timeout=30)

    def write(self, mask):
        allow_only(mask, [self.wanted[self.length]])


def late_row(key, wanted, lengths, **options):
    one = row(key, tokens=len(wanted), **options)
    one.constraint = Late(lengths, wanted)
    return one


@pytest.mark.parametrize("count", [1, 3])
def test_a_row_whose_mask_is_late_sits_out_and_no_text_changes(model, count, monkeypatch):
    """The other rows go on meanwhile; what the late one writes is what it writes alone."""
    monkeypatch.setattr(mask_maker, "MAX_WAIT_S", 0.01)
    plain = Scene(model)
    plain.add(*(row(key) for key in range(count)))
    alone = plain.finish()
    wanted = [random.Random(9).randrange(20, 1500) for _ in range(8)]
    seeded = {n: SeededSampler(3, 1.0, 1.0, 0.0, 0) for n in (5, 6)}
    scene = Scene(model)
    late = [late_row(key, wanted, {0, 3}, sampler=seeded[key]) for key in (5, 6)]
    scene.add(*(row(key) for key in range(count)), *late)
    for _ in range(500):
        scene.step()
        waiting = [one for one in late if one.constraint.waiting.is_set()]
        if len(waiting) == len(late) and all(len(scene.tokens[key]) > 9 for key in range(count)):
            break
    assert all(scene.tokens[one.key] == [] for one in late)
    for one in late:
        one.constraint.free.set()
    scene.finish()
    assert scene.faults == {}
    assert {key: scene.tokens[key] for key in range(count)} == alone
    assert all(scene.tokens[one.key] == wanted for one in late)


@pytest.mark.parametrize("leaves", ["park", "remove"])
def test_a_row_that_waits_for_its_mask_can_leave(model, leaves, monkeypatch):
    monkeypatch.setattr(mask_maker, "MAX_WAIT_S", 0.01)
    wanted = [random.Random(9).randrange(20, 1500) for _ in range(8)]
    scene, late = Scene(model), late_row(5, wanted, {2})
    scene.add(row(0), late)
    while not (late.constraint.waiting.is_set() and len(scene.tokens[5]) == 2):
        scene.step()
    scene.step()
    if leaves == "remove":
        scene.batch.remove([5])
        late.constraint.free.set()
        assert len(scene.finish()[0]) == TOKENS
        assert scene.tokens[5] == wanted[:2]
        return
    parked = scene.batch.park(5)
    assert parked.pending is None
    late.constraint.free.set()
    scene.left[5] = scene.batch.add(parked.row)
    scene.finish()
    assert scene.faults == {}
    assert scene.tokens[5] == wanted


def test_a_batch_waits_where_all_masks_are_late(llama, monkeypatch):
    monkeypatch.setattr(mask_maker, "MAX_WAIT_S", 0.01)
    scene, late = Scene(llama), late_row(5, [9, 9], {0})
    scene.add(late)
    assert not scene.batch.waits
    while not scene.batch.waits:
        scene.step()
    assert late.constraint.waiting.is_set()
    late.constraint.free.set()
    assert scene.finish()[5] == [9, 9]
    assert not scene.batch.waits


class LateAndFree(Late):
    """A constraint whose masks allow everything, and are late in some steps."""

    def write(self, mask):
        pass


@pytest.fixture
def drafted(llama, monkeypatch):
    monkeypatch.setattr(mask_maker, "MAX_WAIT_S", 0.01)
    scene = Scene(llama, single_row=SingleRowSettings(draft=llama))
    one = row(5)
    one.constraint = LateAndFree({0, 3}, None)
    scene.add(one)
    scene.one = one
    return scene


def test_a_drafted_row_whose_mask_is_late_sits_out_and_no_text_changes(llama, drafted):
    alone = alone_on(llama, [0, 5])
    drafted.add(row(0))
    while len(drafted.tokens[0]) < TOKENS:
        drafted.step()
    assert drafted.one.constraint.waiting.is_set()
    assert drafted.tokens[5] == []
    drafted.step()
    assert drafted.batch.waits
    drafted.one.constraint.free.set()
    assert drafted.finish() == alone
    assert drafted.faults == {}


def test_a_drafted_row_proposes_until_its_masks_are_late_and_no_text_changes(llama, drafted):
    constraint = drafted.one.constraint
    constraint.free.set()
    constraint.shared.masks = PROVEN
    most, sat_out = 0, 0
    for number in range(1000):
        if not len(drafted.batch):
            break
        before = len(drafted.tokens[5])
        if number % 3 == 2:
            with constraint.shared.lock:  # another thread makes a mask of the same grammar
                drafted.step()
                sat_out += drafted.batch.waits
        else:
            drafted.step()
        most = max(most, len(drafted.tokens[5]) - before)
    assert drafted.tokens == alone_on(llama, [5])
    assert most > 1
    assert sat_out > 1


@pytest.mark.parametrize("leaves", ["park", "remove"])
def test_a_drafted_row_that_waits_for_its_mask_can_leave(llama, drafted, leaves):
    while not drafted.batch.waits:
        drafted.step()
    if leaves == "remove":
        drafted.batch.remove([5])
        drafted.one.constraint.free.set()
        assert drafted.finish() == {5: []}
        return
    parked = drafted.batch.park(5)
    drafted.one.constraint.free.set()
    drafted.left[5] = drafted.batch.add(parked.row)
    assert drafted.finish() == alone_on(llama, [5])
