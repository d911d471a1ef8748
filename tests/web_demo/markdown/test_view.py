"""Markdown on a page: its elements, its code, its formulas, and nothing that runs."""

import pytest
import pytest_asyncio

from provider.scripted import Say
from tests.web_demo.conftest import TIMEOUT_MS, scripted_gateway

pytestmark = pytest.mark.browser

TEXT = """# Title

A *soft* and **loud** `code` ~~no~~ line
with a second one.

1. one
   - inner
2. two

- [x] done

| a | b |
|:--|--:|
| 1 | **2** |

```python
def fox():
    return "Zorvan"
```

> said

$$
x^2
$$

[site](https://example.org) ![picture](https://example.org/a.png)
"""

# What must stay text, or lead nowhere: markup, handlers, addresses, and ways around a filter.
VECTORS = [
    "<script>hacked=1</script>",
    "<img src=x onerror=hacked=1>",
    "<svg onload=hacked=1>",
    "<svg><script>hacked=1</script></svg>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "<iframe src=javascript:parent.hacked=1></iframe>",
    "<object data=javascript:hacked=1></object>",
    "<embed src=javascript:hacked=1>",
    "<a href=javascript:hacked=1>x</a>",
    "<body onload=hacked=1>",
    "<input autofocus onfocus=hacked=1>",
    "<details open ontoggle=hacked=1>",
    "<video><source onerror=hacked=1></video>",
    "<math><mtext><script>hacked=1</script></mtext></math>",
    "<style>@import 'javascript:hacked=1'</style>",
    "<link rel=stylesheet href=//evil.example>",
    "<meta http-equiv=refresh content='0;url=javascript:hacked=1'>",
    "<base href=//evil.example>",
    "<form action=javascript:hacked=1><button>x</button></form>",
    "<template><script>hacked=1</script></template>",
    "<!--><script>hacked=1</script>-->",
    "<![CDATA[<script>hacked=1</script>]]>",
    "<scr<script>ipt>hacked=1</script>",
    "&lt;script&gt;hacked=1&lt;/script&gt;",
    "[a](javascript:hacked=1)",
    "[a](JaVaScRiPt:hacked=1)",
    "[a](  javascript:hacked=1)",
    "[a](java&#115;cript:hacked=1)",
    "[a](&#x6A;avascript:hacked=1)",
    "[a](javascript&colon;hacked=1)",
    "[a](data:text/html,<script>hacked=1</script>)",
    "[a](vbscript:hacked=1)",
    "[a](<javascript:hacked=1>)",
    '[a](https://a.b "x\\" onmouseover=hacked=1 y=\\"")',
    '[a](https://a.b" onmouseover="hacked=1)',
    "[a]: javascript:hacked=1\n\n[a]",
    "<javascript:hacked=1>",
    "![a](javascript:hacked=1)",
    '![a](x" onerror="hacked=1)',
    "![<img src=x onerror=hacked=1>](https://a.b)",
    "[![a](javascript:hacked=1)](javascript:hacked=1)",
    "# <img src=x onerror=hacked=1>",
    "- <img src=x onerror=hacked=1>",
    "> <script>hacked=1</script>",
    "| <img src=x onerror=hacked=1> |\n|---|\n| <svg onload=hacked=1> |",
    "```html\n<script>hacked=1</script>\n```",
    '```"><img src=x onerror=hacked=1>\nx\n```',
    "    <script>hacked=1</script>",
    "`<img src=x onerror=hacked=1>`",
    "$$\\href{javascript:hacked=1}{x}$$",
    "$$\\html{<img src=x onerror=hacked=1>}$$",
    "$$\\htmlStyle{background:url(javascript:hacked=1)}{x}$$",
    "$$\\includegraphics{javascript:hacked=1}$$",
    "$<img src=x onerror=hacked=1>$",
    "$$\\text{<img src=x onerror=hacked=1>}$$",
    "$$\\url{javascript:hacked=1}$$",
    "__proto__ <b id=__proto__>x</b> [constructor][constructor]",
]

SHOW = """async ([text, sizes]) => {
    const { createView } = await import("/markdown/view.js");
    const root = document.createElement("div");
    root.className = "markdown";
    document.body.append(root);
    const view = createView(root);
    let at = 0;
    for (const size of sizes) {
        view.write(text.slice(at, at += size));
        view.paint();
    }
    view.write(text.slice(at));
    view.end();
    return root.innerHTML;
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page(browser):
    """One page for all of the tests here."""
    async with scripted_gateway(Say("x")) as gateway:
        page = await browser.new_page()
        wrong = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        await page.goto(gateway.url)
        await page.wait_for_selector('#state[data-state="open"]')
        yield page
        await page.close()
        assert wrong == []


async def test_markdown_becomes_elements(page):
    await page.evaluate(SHOW, [TEXT, []])
    root = page.locator(".markdown").last
    assert await root.locator("h3").text_content() == "Title"
    assert await root.locator("p :is(em, strong, code, del)").all_text_contents() == [
        "soft",
        "loud",
        "code",
        "no",
    ]
    assert await root.locator("ol > li > ul > li").text_content() == "inner"
    assert await root.locator("input[type=checkbox]").is_checked()
    assert await root.locator("th").all_text_contents() == ["a", "b"]
    assert await root.locator("td.to-right strong").text_content() == "2"
    assert await root.locator("blockquote p").text_content() == "said"
    links = await root.locator("a").evaluate_all(
        "(all) => all.map((one) => [one.textContent, one.href, one.target, one.rel])"
    )
    apart = ["_blank", "noopener noreferrer nofollow"]
    assert links == [
        ["site", "https://example.org/", *apart],
        ["picture", "https://example.org/a.png", *apart],
    ]
    assert await root.locator("img").count() == 0
    await root.locator("math").wait_for(state="attached")


async def test_a_streamed_text_becomes_the_same_elements_as_a_whole_one(page):
    await page.evaluate(SHOW, ["$$x$$", []])
    await page.locator(".markdown math").last.wait_for(state="attached")  # temml is there
    whole = await page.evaluate(SHOW, [TEXT, []])
    assert "<table>" in whole
    for size in (1, 3, 17):
        sizes = [size] * (len(TEXT) // size)
        assert await page.evaluate(SHOW, [TEXT, sizes]) == whole


# Lines in which words are more than more text, or only seem to be.
LINES = """He said *no way and _never_ ever_ again, a_b c_d_ e **bold words** after it, and so on.
1. 2. three 4. five
1 2. three
- [ ] to do, or not to do
- a - b
See www.example.org/a b, http://example.org c and a@example.org, WWW.example.org too.
[a link with words](https://example.org/a b "title words") `code of words` and $a b$ 5 words.
| a b c | d e
> said once, and said again

a word, 5  two  spaces
and a line &amp more &amp; end. It's here! Isn't it?
Not a title
===
a b | c d
--- | ---
e f g h | i j k

    code with words in it
"""

# Code as models put it: into an item, into another one, and into a quote.
NESTED = """1. Install it:

   ```bash
   pip install "fox"
   ```

2. Write:
   - this
     ```python title=a
     def fox(): return "nested"
     ```

> ```python
> class Quoted: pass
> ```

    indented = code
"""


async def test_code_within_a_list_or_a_quote_is_as_good_as_any_other(page):
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    whole = await page.evaluate(SHOW, [NESTED, []])
    for size in (1, 7):
        assert await page.evaluate(SHOW, [NESTED, [size] * (len(NESTED) // size)]) == whole
    code = page.locator(".markdown").last.locator(".code")
    languages = await code.locator(".language").all_text_contents()
    assert languages == ["bash", "python", "python", "code"]
    assert await code.locator("pre[tabindex='0']").count() == 4
    for index, text in enumerate(['pip install "fox"', 'def fox(): return "nested"']):
        await code.nth(index).get_by_role("button", name="Copy").click()
        await code.nth(index).get_by_role("button", name="Copied").wait_for()
        assert await page.evaluate("() => navigator.clipboard.readText()") == text
    await page.wait_for_function(
        """() => [["string", '"nested"'], ["keyword", "class"]].every(([name, text]) =>
            [...(CSS.highlights.get(`code-${name}`) ?? [])].some((range) => text ===
                range.startContainer.data.slice(range.startOffset, range.endOffset)))"""
    )


COLOURED = """() => [...(CSS.highlights.get("code-string") ?? [])].some(
    ({ startContainer }) => growing.root.contains(startContainer))"""


async def test_code_in_a_list_has_its_colours_once_something_follows_and_gives_them_back(page):
    await page.evaluate(
        """async (text) => {
            const { createView } = await import("/markdown/view.js");
            const root = document.createElement("div");
            document.body.append(root);
            globalThis.growing = { root, view: createView(root) };
            growing.view.write(text);
            growing.view.paint();
        }""",
        '- First\n\n  ```python\n  print("in a list")\n  ```\n\n  and',
    )
    await page.wait_for_function(COLOURED, timeout=TIMEOUT_MS)
    assert await page.evaluate(f"() => {{ growing.view.clear(); return ({COLOURED})(); }}") is False


# At each step: what is shown of a text that came so far, and of the same text at once.
STEPS = """async ([text, size]) => {
    const { createView } = await import("/markdown/view.js");
    const [root, fresh] = [document.createElement("div"), document.createElement("div")];
    const view = createView(root);
    const wrong = [];
    for (let at = 0; at < text.length; at += size) {
        view.write(text.slice(at, at + size));
        view.paint();
        fresh.replaceChildren();
        const whole = createView(fresh);
        whole.write(text.slice(0, at + size));
        whole.paint();
        root.normalize();
        fresh.normalize();
        if (root.innerHTML !== fresh.innerHTML) wrong.push([root.innerHTML, fresh.innerHTML]);
    }
    return wrong;
}"""


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
async def test_a_text_looks_at_each_step_as_if_it_had_come_at_once(page, size):
    assert await page.evaluate(STEPS, [LINES, size]) == []


async def test_words_that_follow_words_leave_all_elements_alone(page):
    changes = await page.evaluate(
        """async () => {
            const { createView } = await import("/markdown/view.js");
            const root = document.createElement("div");
            const view = createView(root);
            view.write("A **bold** beginning, and");
            view.paint();
            const seen = new MutationObserver(() => {});
            seen.observe(root, { childList: true, characterData: true, subtree: true });
            view.write(" more of it.");
            view.paint();
            return seen.takeRecords().map(({ type, target }) => [type, target.data]);
        }"""
    )
    assert changes == [["characterData", " beginning, and more of it."]]


async def test_what_has_ended_is_not_touched_by_what_follows(page):
    kept = await page.evaluate(
        """async (text) => {
            const { createView } = await import("/markdown/view.js");
            const root = document.createElement("div");
            const view = createView(root);
            view.write(text + "\\n\\nMore");
            view.paint();
            const before = [...root.childNodes].slice(0, -1);
            let changes = 0;
            const seen = new MutationObserver((all) => (changes += all.length));
            const all = { childList: true, characterData: true, subtree: true };
            for (const node of before) seen.observe(node, all);
            for (let turn = 0; turn < 20; turn += 1) {
                view.write(" words");
                view.paint();
            }
            await null;
            changes += seen.takeRecords().length;
            return [before.length > 5, changes, root.lastChild.textContent.length];
        }""",
        TEXT.replace("$$\nx^2\n$$", ""),
    )
    assert kept == [True, 0, len("More") + 20 * len(" words")]


@pytest.mark.parametrize("size", [None, 2])
async def test_no_markdown_runs_code(page, size):
    assert len(VECTORS) >= 40
    for vector in VECTORS:
        await page.evaluate(SHOW, [vector, [size] * (len(vector) // size) if size else []])
    assert await page.evaluate("() => globalThis.hacked") is None
    found = await page.evaluate(
        """() => {
            const all = [...document.querySelectorAll(".markdown *")];
            const active = all.filter((one) => one.matches("script, img, iframe, object, embed, " +
                "svg, form, style, link, meta, base, video, template"));
            const handles = ({ name }) => name.startsWith("on");
            const handlers = all.filter((one) => [...one.attributes].some(handles));
            const links = [...document.querySelectorAll(".markdown [href]")]
                .filter((one) => !/^(https?|mailto):/.test(one.getAttribute("href")));
            return [active, handlers, links].map((some) => some.map((one) => one.outerHTML));
        }"""
    )
    assert found == [[], [], []]


async def test_code_has_its_language_a_button_that_copies_and_colours(page):
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.evaluate(SHOW, [TEXT, []])
    code = page.locator(".markdown .code").last
    assert await code.locator(".language").text_content() == "python"
    await code.get_by_role("button", name="Copy").click()
    await code.get_by_role("button", name="Copied").wait_for()
    assert await page.evaluate("() => navigator.clipboard.readText()") == (
        'def fox():\n    return "Zorvan"'
    )
    await page.wait_for_function("() => CSS.highlights.get('code-keyword')?.size > 0")
    words = await page.evaluate(
        "() => [...CSS.highlights.get('code-string')].map((range) => range.startContainer.data"
        ".slice(range.startOffset, range.endOffset))"
    )
    assert '"Zorvan"' in words


@pytest.mark.parametrize("marks", [">" * 1900, ">" * 5000, "- " * 1500, "> - " * 2000])
async def test_what_is_nested_too_deeply_is_shown_as_it_was_written(page, marks):
    for sizes in ([], [300] * 20):
        await page.evaluate(SHOW, [f"Before\n\n{marks} deep\n\nAfter", sizes])
        root = page.locator(".markdown").last
        assert await root.locator(".block").all_text_contents() == [
            "Before",
            f"{marks} deep",
            "After",
        ]
    await page.evaluate(SHOW, ["> " * 50 + "deep", []])
    assert await page.locator(".markdown").last.locator("blockquote").count() == 50


async def test_a_formula_that_is_none_stays_as_it_was_written(page):
    await page.evaluate(SHOW, ["$$\\frac{1$$", []])
    formula = page.locator(".markdown .formula").last
    await page.wait_for_function("() => globalThis.temml")
    assert await formula.text_content() == "\\frac{1"
