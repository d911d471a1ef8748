"""With forced colours, backgrounds and shadows are gone: what they told must be told otherwise."""

import asyncio
import json

import pytest

from provider.scripted import Gate, Prefill, Say
from tests.web_demo.conftest import answered, scripted_gateway

pytestmark = pytest.mark.browser

# How an element, what stands beside it and what it is in look.
LOOK = """const look = (one) => {
    const all = [one, one.nextElementSibling, one.parentElement, one.parentElement?.parentElement];
    return JSON.stringify(all.filter(Boolean).map((each) => {
        const style = getComputedStyle(each);
        const outline = style.outlineStyle === "none" ? "" : style.outline;
        const border = style.borderStyle === "none" ? "" : style.border;
        return [outline, border, style.backgroundColor, style.fontWeight, style.textDecoration];
    }));
};"""
FOCUSED = (
    """() => {
    %s
    const all = [...document.querySelectorAll(
        "a[href], button, input, select, textarea, summary, [tabindex='0']")];
    const seen = (one) => one.checkVisibility({ visibilityProperty: true }) && !one.disabled;
    return all.filter(seen).filter((one) => {
        document.activeElement.blur();
        const before = look(one);
        one.focus({ preventScroll: true });
        return document.activeElement === one && look(one) === before;
    }).map((one) => one.outerHTML.slice(0, 90));
}"""
    % LOOK
)
ALIKE = (
    """([chosen, other]) => {
    %s
    document.activeElement.blur();
    const alone = (selector) => JSON.parse(look(document.querySelector(selector)))[0];
    return JSON.stringify(alone(chosen)) === JSON.stringify(alone(other));
}"""
    % LOOK
)
# Elements without text that can't be told from the page behind them.
UNSEEN = """(selectors) => {
    const page = getComputedStyle(document.body).color;
    const behind = getComputedStyle(document.documentElement).backgroundColor;
    const nothing = new Set(["rgba(0, 0, 0, 0)", behind]);
    return selectors.filter((selector) => {
        const one = document.querySelector(selector);
        const style = getComputedStyle(one);
        if (one.matches(".curve")) return nothing.has(style.color);
        const bordered = parseFloat(style.borderTopWidth) > 0 && !nothing.has(style.borderTopColor);
        return !bordered && nothing.has(style.backgroundColor) && style.backgroundImage === "none";
    });
}"""


async def unseen_focus(page):
    await page.keyboard.press("Shift")  # from now on, the focus is a keyboard's
    return await page.evaluate(FOCUSED)


async def alike(page, *pairs):
    """Return those pairs of selectors that can't be told from each other."""
    return [pair for pair in pairs if await page.evaluate(ALIKE, pair)]


DARK = pytest.param("dark", marks=pytest.mark.slow("the same on a dark page"))


@pytest.mark.parametrize("scheme", ["light", DARK])
async def test_nothing_is_told_by_a_background_or_a_shadow_alone(new_page, scheme):
    read, wrote = asyncio.Event(), asyncio.Event()
    colours = {"forced_colors": "active", "color_scheme": scheme}
    found = {}
    async with scripted_gateway(Say("one **two** three")) as gateway:
        page = await new_page(gateway.url, **colours)
        assert await page.evaluate("() => matchMedia('(forced-colors: active)').matches")
        await page.locator(".card").first.wait_for()
        await page.locator("#settings-button").click()
        await page.locator("#settings .field").first.wait_for()
        found["settings"] = await unseen_focus(page)
        found["settings chosen"] = await alike(
            page,
            ("#rooms [aria-current]", "#rooms a:not([aria-current])"),
            ("#settings-button", "#wire-button"),
            (".preset[aria-pressed=true]", ".preset[aria-pressed=false]"),
        )
        await page.keyboard.press("Escape")
        await answered(page, "Hi")
        found["chat"] = await unseen_focus(page)
        found["meter"] = await page.evaluate(UNSEEN, ["#meter .curve"])
        await page.keyboard.press("Control+k")
        await page.locator("#palette [aria-selected=true]").wait_for()
        found["palette"] = await unseen_focus(page)
        found["palette chosen"] = await alike(
            page, ("#palette [aria-selected=true]", "#palette [aria-selected=false]")
        )
        await page.keyboard.press("Escape")

        gateway.provider.script = [
            Prefill(0, 60), Prefill(30, 60), Gate(read), Say("one "), Gate(wrote), Say("two"),
        ]  # fmt: skip
        await page.evaluate("() => { location.hash = 'wall/8/start'; }")
        await page.locator(".tile[data-state=reading]").nth(7).wait_for()
        await page.wait_for_function(
            "() => document.querySelector('.tile-bar').style.width === '50%'"
        )
        await page.locator(".cell[data-state=reading]").nth(7).wait_for()
        found["wall reading"] = await page.evaluate(
            UNSEEN, [".tile-bar", ".cell[data-state=reading]", ".wall-curve"]
        )
        read.set()
        await page.locator(".tile[data-state=writing]").nth(7).wait_for()
        await page.locator(".tile-act").first.press("s")
        await page.locator(".tile").nth(1).click()
        await page.locator(".cell[data-state=stopped]").wait_for()
        await page.locator(".cell[data-state=slow]").wait_for()
        found["wall"] = await unseen_focus(page)
        states = [f".cell[data-state={state}]" for state in ("writing", "slow", "stopped")]
        found["wall cells"] = await page.evaluate(UNSEEN, states)
        found["wall chosen"] = await alike(
            page,
            (states[0], states[1]),
            (states[0], states[2]),
            (".tile[data-state=writing]", ".tile[data-state=slow]"),
            (".tile[data-state=writing]", ".tile[data-state=stopped]"),
            (".wall-choice :checked + span", ".wall-choice :not(:checked) + span"),
        )
        wrote.set()
        await page.locator(".tile[data-state=done]").first.wait_for()

        wrote.clear()
        await page.locator("#wire-button").click()
        await page.locator(".wire-empty").wait_for()
        await page.evaluate("() => { location.hash = 'race/Hi'; }")
        await page.get_by_role("button", name="Race", exact=True).click()
        await page.locator(".lane[data-state=writing]").nth(2).wait_for()
        found["race"] = await unseen_focus(page)
        found["race bars"] = await page.evaluate(UNSEEN, [".lane-track i", ".lane-track"])
        await page.locator(".race-go").click()
        await page.locator(".lane[data-state=stopped]").nth(2).wait_for()
        await page.locator(".wire-row:visible").first.click()
        await page.locator(".wire-row[aria-selected=true]").wait_for()
        found["wire"] = await alike(
            page, (".wire-row[aria-selected=true]", ".wire-row[aria-selected=false]")
        )
        await page.get_by_role("button", name="Replay").click()
        await page.locator(".tapes .tile[data-state=stopped]").first.wait_for()
        found["tape"] = await unseen_focus(page)
        await page.locator("#engine-button").click()
        await page.locator(".rows i").first.wait_for()
        found["engine"] = await unseen_focus(page)
        found["engine rows"] = await page.evaluate(UNSEEN, [".rows i", ".engine-card .curve"])
    found = {name: wrong for name, wrong in found.items() if wrong}
    assert not found, json.dumps(found, indent=1)
