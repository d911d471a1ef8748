"""Markdown is split into blocks, whatever the chunks in which it comes."""

import json

import pytest

from tests.web_demo.conftest import in_node, wants_node

pytestmark = wants_node

SPLIT = """
    const split = (text) => {
        const splitter = m.createSplitter();
        splitter.write(text);
        splitter.end();
        return splitter.closed.map(({ kind, text, language }) =>
            language === undefined ? [kind, text] : [kind, text, language]);
    };
"""


@pytest.fixture(scope="module")
def texts():
    """Texts and the blocks that they must be split into."""
    return {
        "# A\npara\n": [["heading", "# A"], ["text", "para"]],
        "one\ntwo\n\nthree": [["text", "one\ntwo"], ["text", "three"]],
        "- a\n\n  more\n- b\nlazy\n\nend": [
            ["list", "- a\n\n  more\n- b\nlazy\n"],
            ["text", "end"],
        ],
        "1. a\n```sh\nls\n```\n2. b": [
            ["list", "1. a"],
            ["fence", "ls", "sh"],
            ["list", "2. b"],
        ],
        "In 1999\n2. is no list": [["text", "In 1999\n2. is no list"]],
        "para\n- item": [["text", "para"], ["list", "- item"]],
        "````md\n```js\n```\n````": [["fence", "```js\n```", "md"]],
        "  ```\n  a\n    b\n  ```": [["fence", "a\n  b", ""]],
        "~~~ py x\nopen": [["fence", "open", "py"]],
        "Title\n---\n---": [["text", "Title\n---\n---"]],
        "\n---\n\n***": [["rule", "---"], ["rule", "***"]],
        "$$\nx\n\ny\n$$\nafter": [["math", "x\n\ny"], ["text", "after"]],
        "$$x$$": [["math", "x"]],
        "$$x$$ and $$y$$": [["text", "$$x$$ and $$y$$"]],
        "\\[\nx\n\\]": [["math", "x"]],
        "> a\nlazy\n# H": [["text", "> a\nlazy"], ["heading", "# H"]],
        "    a\n\n    b\nc": [["indented", "    a\n\n    b"], ["text", "c"]],
        "a\r\nb\r\n\r\nc": [["text", "a\nb"], ["text", "c"]],
    }


async def test_a_text_is_split_into_its_blocks(texts):
    body = f"{SPLIT} console.log(JSON.stringify({json.dumps(list(texts))}.map(split)));"
    said = await in_node("markdown/blocks.js", body)
    assert dict(zip(texts, said, strict=True)) == texts


async def test_no_chunking_makes_a_difference_and_what_has_ended_stays():
    """Texts are made of random lines, and cut at random places."""
    said = await in_node(
        "markdown/blocks.js",
        f"""{SPLIT}
        let seed = 7;
        const random = (most) => (seed = (seed * 48271) % 2147483647) % most;
        const LINES = ["", "", "word", "- item", "  inside", "1. one", "```js", "```", "# head",
            "---", "> said", "| a | b |", "|---|---|", "$$", "$$x$$", "    code", "~~~", "* * *",
            "\\\\[", "\\\\]"];
        let wrong = 0, open = 0;
        for (let turn = 0; turn < 1500; turn += 1) {{
            const lines = Array.from({{length: 1 + random(14)}}, () => LINES[random(LINES.length)]);
            const text = lines.join("\\n");
            const splitter = m.createSplitter();
            let kept = 0, before = "[]";
            for (let at = 0; at < text.length; ) {{
                const size = 1 + random(5);
                splitter.write(text.slice(at, at + size));
                at += size;
                open += splitter.open().length;
                if (JSON.stringify(splitter.closed.slice(0, kept)) !== before) wrong += 1;
                kept = splitter.closed.length;
                before = JSON.stringify(splitter.closed);
            }}
            splitter.end();
            const whole = JSON.stringify(split(text));
            const pieces = splitter.closed.map(({{kind, text, language}}) =>
                language === undefined ? [kind, text] : [kind, text, language]);
            if (JSON.stringify(pieces) !== whole) wrong += 1;
        }}
        console.log(JSON.stringify([wrong, open > 1000]));
        """,
    )
    assert said == [0, True]


async def test_the_last_line_is_shown_before_it_has_an_end_and_may_still_change():
    said = await in_node(
        "markdown/blocks.js",
        """
        const splitter = m.createSplitter();
        const seen = [];
        for (const chunk of ["Hi\\n", "-", " a", "\\n``", "`"]) {
            splitter.write(chunk);
            seen.push(splitter.open().map(({ kind, text }) => `${kind}: ${text}`));
        }
        console.log(JSON.stringify([seen, splitter.closed.length]));
        """,
    )
    assert said == [
        [
            ["text: Hi"],
            ["text: Hi\n-"],
            ["text: Hi", "list: - a"],
            ["list: - a\n``"],
            ["list: - a", "fence: "],
        ],
        1,
    ]
