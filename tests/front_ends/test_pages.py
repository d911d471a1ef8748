"""The apps as built by their own tools, from another origin than the gateway's, in a browser."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import expect

from tests.front_ends.conftest import BUILT, HERE, scripted
from tests.front_ends.pages import MS
from tests.support.proxy import proxied
from tests.support.servers import eventually
from tests.support.timeouts import STARTING

# These connect for the first question.
LAZY = ("next", "ai-sdk", "tanstack", "assistant-ui", "ai-sdk-alone", "tanstack-alone")
APPS = ("plain", "react", "vue", "svelte", "worker", *LAZY)
FIREFOX = [("firefox", "plain"), ("firefox", "react")]
IN_BROWSERS = [*(("chromium", app) for app in APPS), *FIREFOX]
# The AI SDK's own transport ends an answer with its connection.
GOING_ON = [one for one in IN_BROWSERS if one[1] != "ai-sdk-alone"]
RESUMING = ("plain", "react", "ai-sdk", "assistant-ui", "ai-sdk-alone", "tanstack-alone")
KEPT = [("chromium", app) for app in RESUMING]
SOURCES = {
    **dict.fromkeys(("react", "ai-sdk", "tanstack"), "App.jsx"),
    "vue": "App.vue",
    "svelte": "App.svelte",
}
NUMBERS = " ".join(map(str, range(20)))
pytestmark = [pytest.mark.front_ends, pytest.mark.browser, pytest.mark.timeout(4 * STARTING)]


@pytest.mark.parametrize(("browser_name", "app"), GOING_ON)
async def test_text_streams_and_a_cut_connection_goes_on(browser_name, app, url_of, open_page):
    async with scripted() as served, proxied(served.gateway) as proxy:
        page = await open_page(await url_of(app), proxy.address, browser_name)
        await page.ask("story")
        await page.answers("Once")
        proxy.cut()
        await served.counts("resumed_total", 1)
        served.gate.set()
        await page.answers("Once upon a time.")


@asynccontextmanager
async def modules_held(page):
    """Load a page again, and keep its modules from it until the block ends."""
    go = asyncio.Event()

    async def hold(route):
        await go.wait()
        await route.continue_()

    await page.page.route("**/*.js", hold)
    await page.page.reload(wait_until="commit")
    yield
    go.set()


@pytest.mark.parametrize("app", ["plain", "worker"])
async def test_a_page_takes_no_question_that_would_leave_it(app, url_of, open_page):
    async with scripted() as served:
        page = await open_page(await url_of(app), served.gateway.url)
        async with modules_held(page):
            await expect(page.page.locator("form")).to_be_attached(timeout=MS)
            assert not await page.page.get_by_label("Message").is_visible()
        await page.ask("story")
        await page.answers("Once")


async def test_a_question_to_a_page_from_a_server_waits_for_its_modules(url_of, open_page):
    async with scripted() as served:
        page = await open_page(await url_of("next"), served.gateway.url)
        async with modules_held(page):
            await page.page.wait_for_load_state("domcontentloaded")
            await page.ask("story")
        await page.answers("Once")


@pytest.mark.parametrize(("browser_name", "app"), IN_BROWSERS)
async def test_stop_stops_the_model(browser_name, app, url_of, open_page):
    async with scripted() as served:
        page = await open_page(await url_of(app), served.gateway.url, browser_name)
        await page.ask("endless")
        await page.answers("On and on")
        assert await served.metric("generations") == 1
        await page.stop()
        await served.counts("generations", 0)
        await served.counts('generations_ended_total{reason="cancelled"}', 1)
        await eventually(lambda: not served.provider.live)


@pytest.mark.parametrize("app", [app for app in APPS if app != "worker"])
async def test_a_tool_runs_in_the_page(app, url_of, open_page):
    async with scripted() as served:
        page = await open_page(await url_of(app), served.gateway.url)
        await page.ask("title")
        await page.answers(f"It is {await page.page.title()}.")


@pytest.mark.parametrize(("browser_name", "app"), [*KEPT, *FIREFOX])
async def test_an_answer_goes_on_after_a_reload(browser_name, app, url_of, open_page):
    async with scripted() as served:
        page = await open_page(await url_of(app), served.gateway.url, browser_name)
        await page.ask("story")
        await page.answers("Once")
        await page.reload()
        await page.answers("Once")
        served.gate.set()
        await page.answers("Once upon a time.")
        assert len(served.provider.requests) == 1


@pytest.mark.parametrize(("browser_name", "app"), IN_BROWSERS)
async def test_a_page_of_a_refused_origin_shows_the_reason(browser_name, app, url_of, open_page):
    async with scripted(dev=False) as served:
        page = await open_page(await url_of(app), served.gateway.url, browser_name)
        if app in LAZY:
            await page.ask("story")
        await page.says("pages of this origin are refused; start the gateway with `--dev`")


def save(path, text):
    """Replace a file as editors do, since Vite would show one that is half written."""
    whole = path.with_name(path.name + ".new")
    whole.write_text(text)
    whole.replace(path)


@pytest.mark.parametrize("app", SOURCES)
async def test_three_hot_updates_leave_one_socket(app, developing, open_page):
    source, shown = HERE / app / SOURCES[app], BUILT / app / SOURCES[app]
    async with scripted() as served:
        page = await open_page(f"{developing}/{app}/", served.gateway.url)
        await page.page.evaluate("globalThis.loadedAgain = false")
        for version in range(3):
            await page.ask("numbers")
            await page.answers(NUMBERS)
            save(shown, source.read_text().replace("</h1>", f" {version}</h1>"))
            heading = page.page.get_by_role("heading")
            await expect(heading).to_contain_text(f" {version}", timeout=MS)
        await page.ask("numbers")
        await page.answers(NUMBERS)
        assert await page.page.evaluate("globalThis.loadedAgain") is False
        await served.counts("connections", 1)
