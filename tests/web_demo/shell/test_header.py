"""The model in the header."""

import pytest

from provider.interface import ModelInfo
from provider.scripted import Say, ScriptedProvider
from tests.support.servers import running

pytestmark = pytest.mark.browser
LONG = "mlx-community/Qwen3-30B-A3B-Instruct-2507-4bit"
CUT = """(selector) => {
    const one = document.querySelector(selector);
    return one.scrollWidth > one.clientWidth;
}"""


class Serving(ScriptedProvider):
    """Serves models of these names."""

    def __init__(self, *names):
        super().__init__(script=[Say("x")], tokens_per_second=None)
        self.names = names

    def models(self):
        return [ModelInfo(name, 40960) for name in self.names]


async def test_a_models_name_is_not_cut_and_its_owner_only_where_there_is_no_room(new_page):
    async with running(Serving(LONG)) as gateway:
        page = await new_page(gateway.url, viewport={"width": 1600, "height": 800})
        await page.locator("#model .name").wait_for()
        assert await page.locator("#model").text_content() == LONG
        assert not await page.evaluate(CUT, "#model .owner")
        await page.set_viewport_size({"width": 1280, "height": 800})
        assert not await page.evaluate(CUT, "#model .name")
        await page.set_viewport_size({"width": 500, "height": 760})
        assert not await page.evaluate(CUT, "#model .name")
        assert await page.evaluate(CUT, "#model .owner")


async def test_the_meter_makes_room_before_the_models_name_is_cut(new_page):
    async with running(Serving("embedded")) as gateway:
        page = await new_page(gateway.url, viewport={"width": 1000, "height": 800})
        await page.locator("#model .name").wait_for()
        assert not await page.evaluate(CUT, "#model .name")
        assert not await page.evaluate(CUT, "#rooms")
        await page.locator("#meter b").wait_for()


async def test_models_are_chosen_by_the_names_that_tell_them_apart(new_page):
    names = ["a/Fox-4bit", "b/Fox-4bit", "a/Owl-8bit", "./folder/here"]
    async with running(Serving(*names)) as gateway:
        page = await new_page(gateway.url)
        options = page.locator("#models option")
        await options.nth(3).wait_for(state="attached")
        assert await options.all_text_contents() == [names[0], names[1], "Owl-8bit", names[3]]
        assert await options.evaluate_all("(all) => all.map(({ value }) => value)") == names
