"""The drawer with what the server does now."""

import dataclasses
import json

import pytest

from gateway.server.metrics import Metrics, exposition
from provider.engine.statistics import EngineStatistics, HistogramSnapshot
from provider.interface import ModelInfo
from provider.scripted import Say, ScriptedProvider
from tests.support.servers import running
from tests.web_demo.conftest import in_node, scripted_gateway, wait_for_text, wants_node

NOW = {"connections": 1, "generations": 0, "tickets": 0, "lost_generations": 0, "ready": 1}


def engine(**numbers):
    plain = dict.fromkeys((one.name for one in dataclasses.fields(EngineStatistics)), 0)
    steps = HistogramSnapshot((0.001, 0.002, 0.004), (0, 80, 20, 0), 0.2)
    return EngineStatistics(**{**plain, "step_seconds": steps, **numbers})


def text_of(statistics, metrics=None):
    return exposition(metrics or Metrics(), NOW, statistics).decode()


@wants_node
async def test_metrics_become_rates_means_and_quantiles():
    before = engine(decode_tokens=100)
    steps = HistogramSnapshot((0.001, 0.002, 0.004), (0, 80, 60, 0), 0.32)
    after = engine(decode_tokens=300, step_seconds=steps)
    said = await in_node(
        "engine/metrics.js",
        f"""
        const [before, after] = {json.dumps([text_of(before), text_of(after)])};
        const [was, is] = [m.readMetrics(before, 1000), m.readMetrics(after, 3000)];
        const name = "mlx_gateway_engine_step_seconds";
        console.log(JSON.stringify([
            m.rateOf(was, is, "mlx_gateway_engine_decode_tokens_total"),
            m.rateOf(is, {{...was, at: 4000}}, "mlx_gateway_engine_decode_tokens_total"),
            m.rateOf(null, is, "mlx_gateway_engine_decode_tokens_total"),
            m.meanOf(was, is, name),
            m.quantileOf(was, is, name, 0.5),
            m.quantileOf(null, is, name, 0.5),
            m.quantileOf(is, is, name, 0.5), m.quantileOf(was, is, "none", 0.5),
            m.readMetrics("x{{le=\\"nonsense\\n# y\\n<b> 1", 0).numbers.size,
        ]));
        """,
    )
    assert said[:3] == [100, 0, 0]
    assert said[3:] == [
        pytest.approx(0.003),
        pytest.approx(0.003),
        pytest.approx(0.001875),
        None,
        None,
        0,
    ]


@pytest.mark.browser
async def test_the_drawer_shows_the_batch_and_asks_only_while_it_is_open(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url, alone=True)
        asked = []
        statistics = engine(
            decoding=3, prefilling=1, waiting=2, weights_bytes=4_500_000, decode_tokens=10
        )

        async def answer(route):
            asked.append(route.request.url)
            grown = dataclasses.replace(statistics, decode_tokens=10 + 500 * len(asked))
            await route.fulfill(body=text_of(grown), content_type="text/plain")

        await page.route("**/metrics", answer)
        await page.clock.install(time=0)
        await page.clock.pause_at(1000)
        await page.get_by_role("button", name="Engine", exact=True).click()
        await wait_for_text(
            page, ".engine-said", "3 being written · 1 being read · 2 queued · 1 connection"
        )
        assert await page.locator(".rows [data-state=decoding]").count() == 3
        assert len(asked) == 1
        await page.clock.run_for(1000)
        written = page.get_by_role("region", name="Tokens written a second")
        await written.locator("b", has_text="500").wait_for()
        assert "4.5 MB of weights" in await page.locator(".engine-cards").text_content()
        await page.keyboard.press("Escape")
        await page.clock.run_for(10_000)
        await page.unroute("**/metrics")
        await page.route("**/metrics", lambda route: route.fulfill(status=429, body="later"))
        await page.get_by_role("button", name="Engine", exact=True).click()
        await wait_for_text(page, ".engine-wrong", "answers no more requests")
        assert len(asked) == 2


class Places(ScriptedProvider):
    """Makes eight answers of each of its models at once."""

    def __init__(self, *names):
        super().__init__(script=[Say("x")], tokens_per_second=None)
        self.names = names

    def models(self):
        return [ModelInfo(name, 8192) for name in self.names]

    def places(self):
        return 8


@pytest.mark.browser
@pytest.mark.parametrize(("names", "said", "free"), [(["a"], "3 of 8", 4), (["a", "b"], "3", 28)])
async def test_the_batch_is_shown_beside_the_places_of_the_only_model(new_page, names, said, free):
    async def answer(route):
        body = text_of(engine(decoding=3, prefilling=1))
        await route.fulfill(body=body, content_type="text/plain")

    async with running(Places(*names)) as gateway:
        page = await new_page(gateway.url)
        await page.route("**/metrics", answer)
        await page.get_by_role("button", name="Engine", exact=True).click()
        batch = page.get_by_role("region", name="Answers in the batch", exact=True).locator("b")
        await batch.filter(has_text="3").wait_for()
        assert await batch.text_content() == said
        assert await page.locator(".rows [data-state=free]").count() == free


@pytest.mark.browser
async def test_where_nothing_was_measured_no_curve_falls_to_zero(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        await page.get_by_role("button", name="Engine", exact=True).click()
        line = "document.querySelector(`[aria-label='${name}'] .line`)?.getAttribute('d')"
        sent, first = "Sent over the sockets a second", "Time to the first token"
        await page.wait_for_function(f"(name) => {line}?.includes('L')", arg=sent)
        assert await page.evaluate(f"(name) => {line}", first) == ""
