"""The page's rooms and their addresses."""

import asyncio

import pytest

from provider.scripted import Say
from tests.web_demo.conftest import ANSWER, ask, scripted_gateway, wait_for_text

pytestmark = pytest.mark.browser

# Two rooms that write down what happens to them.
START = """async () => {
    const { startRooms } = await import("/shell/rooms.js");
    globalThis.happened = [];
    globalThis.failing = () => { throw new Error("not there"); };
    const room = (id) => ({
        id, label: id.toUpperCase(), style: "/chat/chat.css",
        load: async () => (happened.push(`load ${id}`), {
            open: (root, app) => (root.append(app), {
                show: (rest) => happened.push(`show ${id} ${rest}`),
                hide: () => happened.push(`hide ${id}`),
            }),
        }),
    });
    const [nav, main] = [document.createElement("nav"), document.createElement("main")];
    nav.id = "nav-here";
    main.id = "main-here";
    document.body.append(nav, main);
    await startRooms([room("one"), room("two")], nav, main, "opened");
}"""


async def page_without_its_own_rooms(new_page, url):
    """Open the page without its program: only one table of rooms can own the address."""
    page = await new_page("about:blank", ready=False)
    nothing = {"content_type": "text/javascript", "body": ""}
    await page.route("**/shell/app.js", lambda route: route.fulfill(**nothing))
    await page.goto(url)
    return page


async def went(page, to):
    """Change the address; return what has happened since the last time."""
    await page.evaluate("(to) => { happened.length = 0; location.hash = to; }", to)
    await page.wait_for_function("() => happened.some((what) => what.startsWith('show'))")
    return await page.evaluate("() => happened")


async def test_a_room_is_loaded_when_it_is_first_opened_and_stays(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await page_without_its_own_rooms(new_page, gateway.url)
        await page.evaluate(START)
        assert await page.evaluate("() => happened") == ["load one", "show one "]
        assert await went(page, "two/x/7") == ["load two", "hide one", "show two x/7"]
        assert await page.locator("#main-here > :visible").all_text_contents() == ["opened"]
        assert await page.locator("#nav-here [aria-current=page]").text_content() == "TWO"
        assert await went(page, "two/8") == ["show two 8"]
        assert await went(page, "one") == ["hide two", "show one "]
        assert await went(page, "two") == ["hide one", "show two "]
        assert await went(page, "nowhere/7") == ["hide two", "show one "]


async def test_one_room_needs_no_way_to_another_and_an_address_is_an_id_and_a_rest(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await new_page(gateway.url)
        shown = await page.locator("#rooms a:visible").all_text_contents()
        count = await page.evaluate("async () => (await import('/shell/rooms.js')).ROOMS.length")
        assert len(shown) == (count if count > 1 else 0)
        read = "async (hashes) => hashes.map((await import('/shell/rooms.js')).addressed)"
        parts = await page.evaluate(read, ["", "#chat", "#chat/a/b"])
        assert parts == [["", ""], ["chat", ""], ["chat", "a/b"]]


async def test_a_room_that_can_not_be_loaded_says_so_and_is_tried_again(new_page):
    async with scripted_gateway(Say("x")) as gateway:
        page = await page_without_its_own_rooms(new_page, gateway.url)
        await page.evaluate(START.replace("load: async () =>", "load: async () => failing() &&"))
        said = page.locator("#main-here [role=alert]")
        assert await said.text_content() == "This room could not be loaded."
        await page.evaluate("() => { globalThis.failing = () => true; }")
        assert await went(page, "two/x") == ["load two", "show two x"]
        assert not await said.is_visible()


async def test_no_question_can_be_typed_before_the_page_can_hear_it(new_page):
    go = asyncio.Event()

    async def hold(route):
        await go.wait()
        await route.continue_()

    async with scripted_gateway(Say("heard")) as gateway:
        page = await new_page("about:blank", ready=False)
        await page.route("**/{app,room}.js", hold)
        await page.goto(gateway.url, wait_until="commit")
        await page.locator("#state").wait_for()
        assert await page.locator("input:visible, textarea:visible").count() == 0
        go.set()
        await ask(page, "hi")
        await wait_for_text(page, ANSWER, "heard")
