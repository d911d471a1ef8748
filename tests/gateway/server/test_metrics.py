"""What is counted, as Prometheus reads it, and the dashboard that shows it."""

import asyncio
import dataclasses
import hashlib
import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from gateway.protocol.frames import Cancel, Generate, Resume
from gateway.server.metrics import BURST, SHARE, Histogram, KeptText, Metrics, exposition
from gateway.server.tokens import Token, Tokens
from provider import MLXProvider
from provider.engine.statistics import Counters, EngineStatistics
from provider.interface import COUNTER, GenerationError
from provider.scripted import Fail, Gate, Pause, Say, ScriptedProvider
from tests.support.servers import eventually, get, metrics_of, running, scripted, wired

DASHBOARD = Path(__file__).parents[3] / "gateway" / "grafana.json"


async def scrape(gateway):
    """Return every sample by its name and labels."""
    status, body, headers = await metrics_of(gateway)
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name.removeprefix("mlx_gateway_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


async def test_what_happens_is_counted():
    gate = asyncio.Event()
    provider = ScriptedProvider(
        script=lambda request: {
            "say": [Say("one two three")],
            "wait": [Say("one"), Gate(gate)],
            "fail": [Fail(GenerationError("broken"))],
        }[request.prompt],
        tokens_per_second=None,
    )
    async with running(provider) as gateway, wired(gateway) as wire:
        before = await scrape(gateway)
        assert (before[("connections",)], before[("generations",)]) == (1, 0)
        await wire.send(Generate(id="a", prompt="say"))
        await wire.until("done")
        await wire.send(Generate(id="b", prompt="wait"))
        await wire.until("chunk")
        assert (await scrape(gateway))[("generations",)] == 1
        await wire.send(Cancel(id="b"))
        await wire.until("done")
        await wire.send(Generate(id="c", prompt="fail"))
        await wire.until("error")
        await eventually(lambda: gateway._generations.live == 0)
        found = await scrape(gateway)
    assert found[("generations_ended_total", "stop")] == 1
    assert found[("generations_ended_total", "cancelled")] == 1
    assert found[("generations_ended_total", "model_error")] == 1
    assert found[("completion_tokens_total",)] == 4
    assert found[("time_to_first_token_seconds_count",)] == 2
    assert found[("inter_token_latency_seconds_count",)] == 2
    assert found[("cancel_latency_seconds_count",)] == 1
    assert found[("generation_duration_seconds_count",)] == 3
    assert found[("connections_opened_total", "json")] == 1
    assert found[("received_frames_total",)] == 4
    assert found[("sent_frames_total",)] >= 9
    assert found[("sent_bytes_total",)] > 500
    assert found[("ready",)] == 1


async def test_losses_returns_and_refusals_are_counted():
    provider = scripted(Say("x"), Pause(3600))
    async with running(provider) as gateway:
        async with wired(gateway) as wire:
            await wire.send(Generate(id="a", prompt="hi", resumable=True))
            frames = await wire.until("chunk")
            wire.socket.transport.abort()
            await eventually(lambda: gateway.connections == 0)
        lost = await scrape(gateway)
        assert (lost[("lost_generations",)], lost[("tickets",)]) == (1, 1)
        ticket = next(f["ticket"] for f in frames if f["type"] == "started")
        async with wired(gateway) as wire:
            await wire.send(Resume(id="a", ticket=ticket, after=0))
            await wire.until("chunk")
            assert (await scrape(gateway))[("resumed_total",)] == 1
        await get(gateway, "/healthz", Host="evil.example")
        assert (await scrape(gateway))[("connections_refused_total", "403")] == 1


async def test_numbers_are_for_those_with_a_token():
    tokens = Tokens([Token("alice", hashlib.sha256(b"sesame").hexdigest())])
    async with running(scripted(), tokens) as gateway:
        assert (await get(gateway, "/metrics"))[0] == 401
        assert (await get(gateway, "/metrics", Authorization="Bearer sesame"))[0] == 200


def test_a_histogram_counts_by_magnitude():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 99.0):
        histogram.add(value)
    assert (histogram.counts, histogram.total) == ([2, 1, 1], 102.0)
    metrics = Metrics(cancels=histogram)
    text = exposition(metrics, {}, None).decode()
    assert 'mlx_gateway_cancel_latency_seconds_bucket{le="2"} 3.0' in text
    assert 'mlx_gateway_cancel_latency_seconds_bucket{le="+Inf"} 4.0' in text


class Writer:
    """Makes a text in 2 ms of a processor's time, on clocks of its own."""

    def __init__(self, waits=0.0):
        self.now = self.processor = 0.0
        self.made = 0
        self._waits = waits  # seconds for a processor

    def clock(self):
        return self.now

    def used(self):
        return self.processor

    def make(self):
        self.processor += 0.002
        self.now += 0.002 + self._waits
        self.made += 1
        return str(self.made).encode()


def test_requests_without_end_take_a_twentieth_of_the_time():
    writer = Writer()
    kept = KeptText(writer.clock, writer.used)
    while writer.now < 1:
        kept.get(writer.make)
        writer.now += 0.0001
    assert 0 < writer.made * 0.002 - BURST <= SHARE * 1.1


def test_a_request_gets_what_is_true_now_if_there_are_few():
    writer = Writer()
    kept = KeptText(writer.clock, writer.used)
    for number in range(1, 20):
        assert kept.get(writer.make) == str(number).encode()
    writer.now += 10
    assert kept.get(writer.make) == b"20"


def test_what_a_busy_machine_adds_to_the_time_does_not_count():
    writer = Writer(waits=0.2)
    kept = KeptText(writer.clock, writer.used)
    for number in range(1, 20):
        assert kept.get(writer.make) == str(number).encode()


@dataclasses.dataclass(frozen=True)
class Numbers:
    read: int = dataclasses.field(metadata=COUNTER)
    held: int


def test_a_providers_number_says_itself_whether_it_only_grows():
    text = exposition(Metrics(), {}, Numbers(read=3, held=2)).decode()
    assert "# TYPE mlx_gateway_engine_read_total counter" in text
    assert "mlx_gateway_engine_read_total 3.0" in text
    assert "# TYPE mlx_gateway_engine_held gauge" in text


def test_every_number_that_the_engine_counts_is_a_counter():
    counted = {one.name for one in dataclasses.fields(Counters)}
    kinds = {one.name: one.metadata.get("kind") for one in dataclasses.fields(EngineStatistics)}
    assert {name for name in kinds if kinds[name] == "counter"} == counted | {
        "prefix_hits",
        "prefix_misses",
        "restarts",
    }


async def test_the_dashboard_shows_every_metric_and_no_other():
    provider = MLXProvider()
    try:
        async with running(provider) as gateway:
            _, body, _ = await get(gateway, "/metrics")
    finally:
        await provider.aclose()
    counted = set(re.findall(r"^# TYPE (mlx_gateway_\w+)", body.decode(), re.MULTILINE))
    panels = json.loads(DASHBOARD.read_text())["panels"]
    exprs = [target["expr"] for panel in panels for target in panel["targets"]]
    used = {name for expr in exprs for name in re.findall(r"mlx_gateway_\w+", expr)}
    assert {name.removesuffix("_bucket") for name in used} == counted


def test_no_two_panels_of_the_dashboard_overlap():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len({panel["id"] for panel in panels}) == len(set(places)) == len(panels)
