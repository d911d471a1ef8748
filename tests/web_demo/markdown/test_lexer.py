"""What is read in a block, and where a link may lead."""

import json

import pytest

from tests.web_demo.conftest import in_node, wants_node

pytestmark = wants_node


async def types_of(text):
    body = """
        const types = (tokens) => tokens.flatMap((one) => [one.type, ...types(one.tokens ?? [])]);
        console.log(JSON.stringify(types(m.tokensOf(TEXT))));
    """
    return await in_node("markdown/lexer.js", body.replace("TEXT", json.dumps(text)))


async def test_markup_is_text_and_definitions_are_none():
    assert set(await types_of("<b onclick=x>a</b> <!-- c --> <p>")) == {"paragraph", "text"}
    assert "def" not in await types_of("[a]: javascript:x")


@pytest.mark.parametrize(
    ("text", "formulas"),
    [("$x^2$ and \\(y\\)", 2), ("it costs $5 and $6", 0), ("$$a$$ b", 1), ("`$x$`", 0)],
)
async def test_formulas_are_told_from_prices(text, formulas):
    assert (await types_of(text)).count("math") == formulas


async def test_links_lead_to_sites_and_to_letters_only():
    said = await in_node(
        "markdown/lexer.js",
        r"""
        const given = ["https://a.b/c?d=e&amp;f", "http://a.b", "mailto:a@b.c",
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)", " javascript:alert(1)", "java\nscript:alert(1)",
            "&#106;avascript:alert(1)", "data:text/html,x", "vbscript:x", "blob:https://a.b/c",
            "file:///etc/passwd", "/metrics", "#x", "x:y"];
        console.log(JSON.stringify(given.map(m.safeAddress)));
        """,
    )
    assert said == ["https://a.b/c?d=e&f", "http://a.b/", "mailto:a@b.c"] + [None] * 12


async def test_character_references_become_characters_once():
    said = await in_node(
        "markdown/lexer.js",
        """
        const given = "&lt;b&gt; &amp;lt; &#60;&#x3c; &nope; &#0; &#99999999;";
        console.log(JSON.stringify([m.unescaped(given)]));
        """,
    )
    assert said == ["<b> &lt; << &nope; \ufffd &#99999999;"]
