"""Pages of a profile share a process, and nothing else, with those of the test before."""

import pytest

from tests.support.browser import profile_of
from tests.support.servers import running, scripted

pytestmark = pytest.mark.browser

KEEP = """async () => {
    localStorage.setItem("kept", "yes");
    sessionStorage.setItem("kept", "yes");
    document.cookie = "kept=yes";
    globalThis.kept = "yes";
    await (await caches.open("kept")).put("/kept", new Response("yes"));
    await new Promise((resolve, reject) => {
        const opening = indexedDB.open("kept");
        opening.onsuccess = resolve;
        opening.onerror = reject;
    });
}"""
KEPT = """async () => [
    localStorage.length, sessionStorage.length, document.cookie, globalThis.kept ?? null,
    await caches.keys(), await indexedDB.databases(),
    (await navigator.permissions.query({ name: "clipboard-read" })).state,
]"""


async def test_a_test_finds_nothing_that_pages_of_another_have_kept(shared_profile):
    async with running(scripted()) as gateway:
        seen = []
        for _ in range(2):
            page = await shared_profile.new_page()
            await page.goto(f"{gateway.url}healthz")
            seen.append(await page.evaluate(KEPT))
            await page.evaluate(KEEP)
            await page.context.grant_permissions(["clipboard-read"])
            assert await page.evaluate(KEPT) != seen[-1]
            further = await page.context.new_page()
            await shared_profile.clear()
            assert page.is_closed()
            assert further.is_closed()
    assert seen[0] == seen[1]
    assert seen[0][:6] == [0, 0, "", None, [], []]


async def test_what_a_test_answers_itself_comes_from_the_gateway_again(shared_profile):
    async with running(scripted()) as gateway:
        for said in ("own", "ok\n"):
            page = await shared_profile.new_page()
            if said == "own":
                await page.context.route("**/*", lambda route: route.fulfill(body="own"))
            response = await page.goto(f"{gateway.url}healthz")
            assert await response.text() == said
            await shared_profile.clear()


async def test_a_clock_that_all_pages_would_have_is_refused(browser):
    async with profile_of(browser) as profile:
        page = await profile.new_page()
        await page.clock.install()
        with pytest.raises(AssertionError, match="opened `alone`"):
            await profile.clear()
