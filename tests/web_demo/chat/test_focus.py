"""Where the focus goes when what had it is gone: to where a person goes on by keys."""

import itertools

import pytest

from provider.scripted import Say
from tests.web_demo.conftest import ANSWER, answered, scripted_gateway, wait_for_text

pytestmark = pytest.mark.browser

TALKS = ".talks a"
FOCUSED = """() => {
    const { tagName, ariaLabel, textContent } = document.activeElement;
    return ariaLabel ?? (tagName === "BODY" ? "nothing" : textContent);
}"""


async def wait_for_focus(page, name):
    await page.wait_for_function(f"(name) => ({FOCUSED})() === name", arg=name)


async def press(page, name):
    """Press a button by its key."""
    button = page.get_by_role("button", name=name)
    await button.first.focus()
    await page.keyboard.press("Enter")


async def test_a_question_that_is_left_as_it_is_gives_the_focus_back(new_page):
    async with scripted_gateway(Say("There.")) as gateway:
        page = await new_page(gateway.url)
        await answered(page, "Hi")
        for leave in ("Escape", "Tab Enter"):
            await press(page, "Edit")
            await wait_for_focus(page, "Edit message")
            for key in leave.split():
                await page.keyboard.press(key)
            await wait_for_focus(page, "Edit")
        await page.get_by_label("Message", exact=True).press("ArrowUp")
        await wait_for_focus(page, "Edit message")
        await page.keyboard.press("Escape")
        await wait_for_focus(page, "Message")


@pytest.mark.parametrize("button", ["Edit", "Regenerate"])
async def test_what_is_asked_again_gives_the_focus_to_the_message(new_page, button):
    async with scripted_gateway(Say("There.")) as gateway:
        page = await new_page(gateway.url)
        await answered(page, "Hi")
        await press(page, button)
        if button == "Edit":
            await wait_for_focus(page, "Edit message")
            await page.keyboard.press("Enter")
        await page.locator(".version", has_text="2/2").wait_for()
        await wait_for_focus(page, "Message")


async def test_versions_are_gone_through_by_one_button_and_by_one_key(new_page):
    count = itertools.count(1)
    async with scripted_gateway(script=lambda _: [Say(f"answer {next(count)}")]) as gateway:
        page = await new_page(gateway.url)
        await answered(page, "Question")
        for number in (2, 3):
            await page.get_by_role("button", name="Regenerate").click()
            await page.locator(".version", has_text=f"{number}/{number}").wait_for()
        await press(page, "Earlier version")
        await wait_for_text(page, ANSWER, "answer 2")
        await wait_for_focus(page, "Earlier version")
        await page.keyboard.press("Enter")
        await wait_for_text(page, ANSWER, "answer 1")
        await wait_for_focus(page, "Later version")
        await page.locator(".assistant").focus()
        await page.keyboard.press("]")
        await wait_for_text(page, ANSWER, "answer 2")
        assert await page.evaluate("() => document.activeElement.closest('.assistant') !== null")


async def test_the_list_keeps_the_focus_where_it_is_renamed_and_deleted(new_page):
    async with scripted_gateway(Say("There.")) as gateway:
        page = await new_page(gateway.url)
        for question in ("One", "Two", "Three"):
            await page.get_by_role("button", name="New chat").click()
            await answered(page, question)
        await page.locator(TALKS).nth(2).wait_for()
        link = page.locator(TALKS, has_text="Two")
        for title, key in (("Second", "Enter"), ("Other", "Escape")):
            await link.focus()
            await page.keyboard.press("Tab")
            await page.keyboard.press("Enter")
            await page.get_by_label("Title").fill(title)
            await page.keyboard.press(key)
            link = page.locator(TALKS, has_text="Second")
            await wait_for_focus(page, "Second")
        for _ in range(3):
            await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.locator(".undo", has_text="Deleted “Second”").wait_for()
        await wait_for_focus(page, "One")
        await page.get_by_role("button", name="Undo").press("Enter")
        await wait_for_focus(page, "Second")
