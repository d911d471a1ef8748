"""What the page keeps in the browser."""

from contextlib import suppress

import pytest
import pytest_asyncio
from playwright.async_api import Error

from provider.scripted import Say
from tests.web_demo.conftest import scripted_gateway

pytestmark = pytest.mark.browser

OPEN = """
    const { openStore } = await import("/store/database.js");
    const talk = (id, changed = 1) =>
        ({ id, title: id, named: false, made: 1, changed, leaf: null });
    const turn = (id, conversation) =>
        ({ id, conversation, parent: null, role: "user", made: 1, content: `said ${id}` });
    const ids = (some) => some.map(({ id }) => id).sort().join(" ");
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page(browser):
    async with scripted_gateway(Say("x")) as gateway:
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(gateway.url)
        yield page
        await context.close()


async def says(page, body):
    return await page.evaluate(f"async () => {{ {OPEN} {body} }}")


@pytest.mark.parametrize("lasting", [True, False])
async def test_conversations_turns_and_values_are_kept_changed_and_removed(page, lasting):
    blocked = "" if lasting else "indexedDB.open = () => { throw new Error('not here'); };"
    said = await says(
        page,
        f"""
        const before = indexedDB.open;
        {blocked}
        const store = await openStore("test-all").finally(() => (indexedDB.open = before));
        const turns = [turn("t1", "a"), turn("t2", "b"), turn("t3", "a")];
        await store.save([talk("a"), talk("b")], turns);
        await store.save([talk("a", 7)], [turn("t3", "a")]);
        await store.keep("draft", {{ text: "Hi" }});
        const first = [store.lasting, ids(await store.conversations()), ids(await store.turns("a")),
            ids(await store.turns()), await store.value("draft"),
            (await store.conversations()).find(({{ id }}) => id === "a").changed];
        await store.remove("a");
        await store.save([], [turn("late", "a")]);
        await store.keep("draft", undefined);
        const then = [ids(await store.conversations()), ids(await store.turns())];
        then.push(await store.value("draft") ?? null);
        store.close();
        return [first, then];
        """,
    )
    assert said == [
        [lasting, "a b", "t1 t3", "t1 t2 t3", {"text": "Hi"}, 7],
        ["b", "t2", None],
    ]


@pytest.mark.parametrize("lasting", [True, False])
async def test_what_is_kept_is_changed_by_what_it_is_then(page, lasting):
    blocked = "" if lasting else "indexedDB.open = () => { throw new Error('not here'); };"
    said = await says(
        page,
        f"""
        const before = indexedDB.open;
        {blocked}
        const store = await openStore("test-edit").finally(() => (indexedDB.open = before));
        await store.save([talk("a")], [turn("t1", "a")]);
        await Promise.all([
            ...[1, 2, 3].map((more) => store.edit("values", "list", (is = []) => [...is, more])),
            store.edit("conversations", "a", (is, put) => {{
                put(turn("t2", "a"));
                return {{ ...is, title: "A" }};
            }}),
            store.edit("conversations", "b", (is) => is),
        ]);
        const [[kept]] = [await store.conversations()];
        const talks = ids(await store.conversations());
        const said = [talks, kept.title, ids(await store.turns()), await store.value("list")];
        store.close();
        return said;
        """,
    )
    assert said == ["a", "A", "t1 t2", [1, 2, 3]]


async def test_a_store_hears_of_changes_by_other_pages_and_not_of_its_own(page):
    said = await says(
        page,
        """
        const [one, other] = [await openStore("test-two"), await openStore("test-two")];
        let own = 0;
        one.watch(() => (own += 1));
        const heard = new Promise((resolve) => other.watch(resolve));
        await one.save([talk("a")]);
        await heard;
        one.close();
        other.close();
        return own;
        """,
    )
    assert said == 0


async def test_what_is_kept_is_there_after_a_reload(page):
    async with page.expect_event("load"):
        with suppress(Error):  # the page may be gone before it has answered
            await says(
                page,
                """
                const store = await openStore("test-reload");
                setTimeout(() => {
                    store.save([talk("a")], [turn("t1", "a")]);
                    store.keep("draft", "Hi");
                    location.reload(); // nobody waits until it is kept
                });
                """,
            )
    said = await says(
        page,
        """
        const store = await openStore("test-reload");
        const [talks, turns] = await Promise.all([store.conversations(), store.turns()]);
        return [ids(talks), ids(turns), await store.value("draft")];
        """,
    )
    assert said == ["a", "t1", "Hi"]


async def test_a_change_that_fails_changes_nothing(page):
    said = await says(
        page,
        """
        const store = await openStore("test-whole");
        const change = store.save([talk("a"), { title: "without an id" }]);
        const failed = await change.catch((error) => error.name);
        return [failed, ids(await store.conversations())];
        """,
    )
    assert said == ["DataError", ""]
