"""A run's own numbers, and the runs that have not ended."""

import pytest

from provider.embedded import MODEL_PATH
from provider.engine.inbox import SyncInbox
from provider.engine.messages import RunRequest
from provider.engine.rows import Token
from provider.engine.run import Run, Runs
from provider.engine.run_states import RunState, Transition
from provider.events import TextDelta
from provider.formats.text_stream import TextFormat, TextStream
from provider.models.loading import tokenizer_of
from provider.options import GenerationOptions


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of(MODEL_PATH)


def run_of(key=1, prompt=(1, 2, 3), **options):
    return Run(key, "m", RunRequest(list(prompt), GenerationOptions(**options)), SyncInbox())


def saying(run, tokenizer, text):
    """Give a run the tokens of a text; return what each made known."""
    run.text = TextStream(TextFormat(tokenizer))
    tokens = tokenizer.encode(text, add_special_tokens=False)
    last = len(tokens) - 1
    return [
        run.add_token(Token(run.key, token, "length" if place == last else None), step=place)
        for place, token in enumerate(tokens)
    ]


def test_deltas_count_every_token_once(tokenizer):
    run = run_of()
    given = saying(run, tokenizer, "The sky is blue, and the sea is as well. Ünïcödé 🙂")
    deltas = [delta for deltas in given for delta in deltas]
    assert sum(delta.tokens for delta in deltas) == run.tokens == run.sent == len(given)
    said = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    assert said == "The sky is blue, and the sea is as well. Ünïcödé 🙂"


def test_what_the_reader_has_not_got_is_known(tokenizer):
    run = run_of()
    saying(run, tokenizer, "The sky is blue")
    assert run.unread == run.tokens
    assert not run.caught_up
    run.inbox.taken = run.tokens
    assert run.unread == 0
    assert run.caught_up


def test_usage_adds_up(tokenizer):
    run = run_of(prompt=range(10))
    run.cached = 8
    saying(run, tokenizer, "The sky is blue")
    usage = run.usage()
    assert usage["prompt_tokens"] == 10
    assert usage["cached_tokens"] == 8
    assert usage["total_tokens"] == 10 + usage["completion_tokens"] == 10 + run.tokens


def test_timing_says_where_the_time_went(tokenizer):
    run = run_of()
    saying(run, tokenizer, "The sky is blue")
    run.submitted, run.admitted, run.first_token, run.tokens = 10.0, 10.5, 11.0, 11
    timing = run.timing(13.0)
    assert (timing.queue_ms, timing.prefill_ms, timing.first_token_ms) == (500, 500, 1000)
    assert timing.total_ms == 3000
    assert timing.tokens_per_second == 5


def test_a_run_takes_no_step_that_its_state_forbids():
    run = run_of()
    with pytest.raises(AssertionError, match="a run that is posted was told to finish"):
        run.move(Transition.FINISH)
    run.move(Transition.QUEUE)
    run.move(Transition.CANCEL)
    assert run.ended


def test_runs_are_counted_by_state_and_can_come_while_they_are_looked_at():
    runs = Runs()
    for key in range(4):
        runs.add(run_of(key))
    runs[0].move(Transition.QUEUE)
    assert runs.count(RunState.POSTED) == 3
    assert runs.count(RunState.POSTED, RunState.WAITING) == len(runs) == 4
    for run in runs:
        runs.add(run_of(run.key + 10))
        runs.remove(run)
    assert sorted(run.key for run in runs) == [10, 11, 12, 13]
    assert 0 not in runs
