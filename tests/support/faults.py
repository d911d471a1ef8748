"""An engine in which anything may throw, at random, and who was harmed by it."""

import asyncio
import random
import traceback
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field

from provider.embedded import MODEL_PATH
from provider.engine.engine import Engine
from provider.engine.inbox import AsyncInbox
from provider.engine.messages import RunFailed, RunFinished, RunRequest
from provider.engine.sampling import Sampling
from provider.events import TextDelta
from provider.models.loading import load
from provider.options import GenerationOptions
from provider.settings import EngineSettings
from tests.support.timeouts import TIMEOUT

PLACES = ("sampler", "processor", "detokenizer", "model")
WAVES = 20


class InjectedError(Exception):
    """What is thrown; `place` says where."""

    def __init__(self, place):
        super().__init__(place)
        self.place = place


class Dice:
    """Throws with a given chance, while it is told to, and once in any `2 / chance` rolls."""

    def __init__(self, seed, chance):
        self._random = random.Random(seed)
        self._chance = chance
        self._left = {place: self._wait(place) for place in PLACES}
        self.on = False
        self.thrown = dict.fromkeys(PLACES, 0)

    def _wait(self, place):
        chance = self._chance[place]
        return self._random.randint(1, round(2 / chance) - 1) if chance else float("inf")

    def roll(self, place):
        if not self.on:
            return
        self._left[place] -= 1
        if self._left[place] <= 0:
            self._left[place] = self._wait(place)
            self.thrown[place] += 1
            raise InjectedError(place)


class FaultyModel:
    """A model of which any forward pass may fail."""

    def __init__(self, model, dice):
        self._model = model
        self._dice = dice

    def __call__(self, tokens, **options):
        logits = self._model(tokens, **options)
        self._dice.roll("model")  # after the caches were changed: the worst moment
        return logits

    def __getattr__(self, name):
        return getattr(self._model, name)


class FaultyDetokenizer:
    """A detokenizer of which any token may fail."""

    def __init__(self, detokenizer, dice):
        self._detokenizer = detokenizer
        self._dice = dice

    def add_token(self, token):
        self._dice.roll("detokenizer")
        self._detokenizer.add_token(token)

    def __getattr__(self, name):
        return getattr(self._detokenizer, name)


class FaultyTokenizer:
    """A tokenizer that hands out such detokenizers."""

    def __init__(self, tokenizer, dice):
        self._tokenizer = tokenizer
        self._dice = dice

    @property
    def detokenizer(self):
        return FaultyDetokenizer(self._tokenizer.detokenizer, self._dice)

    @property
    def _detokenizer(self):
        """A detokenizer of a class that nobody knows, so that each token is given to it."""
        return self.detokenizer

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


class FaultySampling(Sampling):
    """Samplers and processors of which any call may fail; half the runs have a processor."""

    def __init__(self, dice):
        self._dice = dice

    def sampler(self, options, vocabulary):
        return FaultySampler(super().sampler(options, vocabulary), self._dice)

    def processors(self, options):
        def process(_context, logits):
            self._dice.roll("processor")
            return logits

        return [*super().processors(options), process] if options.seed % 2 else []


class FaultySampler:
    """A sampler of one run."""

    def __init__(self, sampler, dice):
        self._sampler = sampler
        self._dice = dice

    def seek(self, drawn):
        self._sampler.seek(drawn)

    def __call__(self, logprobs):
        self._dice.roll("sampler")
        return self._sampler(logprobs)


@dataclass
class Outcome:
    """How the runs ended."""

    runs: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PLACES, 0))
    wrong: list[str] = field(default_factory=list)  # what should not be

    @property
    def ended(self):
        return self.finished + self.cancelled + sum(self.failed.values())


class FaultyEngine:
    """The real engine, and dice in every place that can throw."""

    def __init__(self, seed=0, prompts=24, path=MODEL_PATH, **chance):
        common = {"sampler": 0.002, "processor": 0.003, "detokenizer": 0.002, "model": 0.01}
        self.dice = Dice(seed, {**common, **chance})
        self._random = random.Random(seed)
        self._prompts = prompts
        self._path = path
        self._expected = []
        settings = EngineSettings(max_batch=16, max_unread=6, prefix_cache_bytes=0, close_grace=0)
        self.engine = Engine("m", self._load, settings, FaultySampling(self.dice))
        self.engine.load().result()

    def _load(self):
        loaded = copy(load(self._path))
        loaded.model = FaultyModel(loaded.model, self.dice)
        loaded.tokenizer = FaultyTokenizer(loaded.tokenizer, self.dice)
        return loaded

    def request(self, number):
        draw = random.Random(number)
        prompt = [draw.randrange(20, 1500) for _ in range(draw.randrange(3, 60))]
        tokens = draw.randrange(10, 50)
        return RunRequest(
            prompt, GenerationOptions(temperature=0.8, max_tokens=tokens, seed=number)
        )

    async def expected(self):
        """What each prompt gives, alone and undisturbed; found out once."""
        if not self._expected:
            self._expected = await self._undisturbed()
        return self._expected

    async def _undisturbed(self):
        texts = []
        for number in range(self._prompts):
            inbox = AsyncInbox()
            run = self.engine.submit(self.request(number), inbox)
            texts.append(await self._text(inbox, run, None))
        return texts

    async def run(self, count, enough=lambda _outcome: True):
        """Run `count` generations with faults, some cancelled, some read slowly.

        How many faults there are depends on which runs share a batch: as many generations follow
        until `enough` is true of the outcome, `WAVES` times in all at most.
        """
        expected, outcome = await self.expected(), Outcome()
        self.dice.on = True
        width = asyncio.Semaphore(40)

        async def one():
            async with width:
                await self._one(expected, outcome)

        for _ in range(WAVES):
            await asyncio.gather(*(one() for _ in range(count)))
            outcome.runs += count
            if outcome.wrong or enough(outcome):
                break
        self.dice.on = False
        return outcome

    async def _one(self, expected, outcome):
        number = self._random.randrange(self._prompts)
        inbox = AsyncInbox()
        run = self.engine.submit(self.request(number), inbox)
        if self._random.random() < 0.1:
            with suppress(TimeoutError):
                await asyncio.wait_for(inbox.get(), self._random.random() * 0.2)
            self.engine.cancel(run)
            outcome.cancelled += 1
            return
        pause = 0.01 if self._random.random() < 0.2 else None
        try:
            text = await self._text(inbox, run, pause)
        except InjectedError as error:
            outcome.failed[error.place] += 1
        except Exception:  # noqa: BLE001 - none but those thrown should come
            outcome.wrong.append(traceback.format_exc())
        else:
            outcome.finished += 1
            if text != expected[number]:
                outcome.wrong.append(f"prompt {number}: {text!r}, not {expected[number]!r}")
        await asyncio.sleep(0)
        if inbox._events:
            outcome.wrong.append(f"something came after the end: {list(inbox._events)}")

    async def _text(self, inbox, run, pause):
        text = ""
        async with asyncio.timeout(TIMEOUT * 6):
            while True:
                event = await inbox.get()
                if inbox.parked:
                    self.engine.resume(run)
                if isinstance(event, TextDelta):
                    text += event.text
                    if pause:
                        await asyncio.sleep(pause)
                if isinstance(event, RunFailed):
                    raise event.error.original_exception or event.error
                if isinstance(event, RunFinished):
                    return text
