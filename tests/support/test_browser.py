"""Pages of a profile share a process, and nothing else, with those of the test before."""

import pytest

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
            await shared_profile.clear()
    assert seen[0] == seen[1]
    assert seen[0][:6] == [0, 0, "", None, [], []]
