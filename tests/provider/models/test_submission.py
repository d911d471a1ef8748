"""The runs of one call are counted, and cancelled when the call ends."""

import time

import pytest

from provider.embedded import MODEL_PATH
from provider.engine.engine import Engine, EngineClosedError
from provider.engine.inbox import SyncInbox
from provider.engine.messages import RunRequest
from provider.events import TextDelta
from provider.formats.chat_template import ChatTemplate
from provider.models.loading import load, tokenizer_of
from provider.models.submission import Submission
from provider.options import GenerationOptions
from provider.settings import EngineSettings


class Served:
    """The part of a served model that a submission uses."""

    name = "m"

    def __init__(self, engine):
        self.engine = engine
        self.touched = 0

    def touch(self):
        self.touched += 1


@pytest.fixture(scope="module")
def engine():
    made = Engine("m", lambda: load(MODEL_PATH), EngineSettings(max_unread=4, close_grace=0))
    made.load().result()
    yield made
    made.close(0)


def request(tokens=20, start=30):
    prompt = list(range(start, start + 20))
    return RunRequest(prompt, GenerationOptions(temperature=0.0, max_tokens=tokens))


def texts_of(runs, inbox):
    texts = [""] * len(runs.requests)
    while runs.left:
        event, index = runs.receive(inbox.get())
        texts[index] += event.text if isinstance(event, TextDelta) else ""
    return texts


def test_one_run_goes_on_though_its_reader_is_slow(engine):
    served, inbox = Served(engine), SyncInbox()
    asked = [{"role": "user", "content": "Count from 3 to 40"}]
    prompt = ChatTemplate(tokenizer_of(MODEL_PATH)).tokens(asked, [])
    options = GenerationOptions(temperature=0.0, max_tokens=60)
    with Submission(served, [RunRequest(prompt, options)], inbox) as runs:
        while not inbox.parked:
            time.sleep(0.001)
        (text,) = texts_of(runs, inbox)
    assert text.startswith("3, 4, 5")
    assert served.touched == 1


def test_events_of_several_runs_have_their_index(engine):
    with Submission(Served(engine), [request(), request(start=60)], inbox := SyncInbox()) as runs:
        together = texts_of(runs, inbox)
    alone = []
    for start in (30, 60):
        with Submission(Served(engine), [request(start=start)], inbox := SyncInbox()) as runs:
            alone += texts_of(runs, inbox)
    assert together == alone
    assert together[0] != together[1]


def test_leaving_cancels_running_runs(engine):
    before = engine.statistics().cancelled
    with Submission(Served(engine), [request(2000)] * 2, inbox := SyncInbox()) as runs:
        runs.receive(inbox.get())
    while engine.busy:
        time.sleep(0.001)
    assert engine.runs == []
    assert engine.statistics().cancelled == before + 2


def test_a_call_that_is_only_partly_admitted_is_refused(engine):
    too_large = request(1 << 50)
    with pytest.raises(Exception, match="need up to"):
        Submission(Served(engine), [request(2000), too_large], SyncInbox())
    while engine.busy:
        time.sleep(0.001)
    assert engine.runs == []


def test_an_unloaded_model_accepts_no_runs():
    closed = Engine("m", lambda: load(MODEL_PATH))
    closed.close(0)
    with pytest.raises(EngineClosedError):
        Submission(Served(closed), [request()], SyncInbox())
