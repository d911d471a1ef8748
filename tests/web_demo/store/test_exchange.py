"""Conversations are written to files and read again."""

import pytest

from tests.web_demo.conftest import in_node, wants_node

pytestmark = wants_node

GIVEN = """
    const conversations = [{ id: "c", title: "Fox", named: true, made: 1, changed: 2, leaf: "t2" }];
    const image = { type: "image", data: "AA==" };
    const turns = [
        { id: "t1", conversation: "c", parent: null, role: "user", made: 1,
          content: [image, { type: "text", text: "Look" }] },
        { id: "t2", conversation: "c", parent: "t1", role: "assistant", made: 2,
          content: "A **fox**", model: "small", ended: "stop",
          ticket: { id: "g", ticket: "secret" } },
        { id: "t3", conversation: "c", parent: "t1", role: "assistant", made: 3, content: "Other" },
    ];
    let last = 0;
    const newId = () => `new${(last += 1)}`;
"""


async def test_a_file_is_read_as_it_was_written_with_new_ids_and_without_tickets():
    text, read = await in_node(
        "store/exchange.js",
        f"""{GIVEN}
        const text = m.toJson(conversations, turns);
        console.log(JSON.stringify([text, m.fromJson(text, newId)]));
        """,
    )
    assert "secret" not in text
    assert read["conversations"] == [
        {"id": "new1", "title": "Fox", "named": True, "made": 1, "changed": 2, "leaf": "new3"}
    ]
    first, second, third = read["turns"]
    assert first["content"] == [
        {"type": "image", "data": "AA=="},
        {"type": "text", "text": "Look"},
    ]
    assert (second["id"], second["parent"], second["conversation"]) == ("new3", "new2", "new1")
    assert (second["content"], second["model"], second["ended"]) == ("A **fox**", "small", "stop")
    assert third["content"] == "Other"


async def test_markdown_has_the_shown_turns():
    said = await in_node(
        "store/exchange.js",
        f"{GIVEN} console.log(JSON.stringify([m.toMarkdown(conversations[0], turns)]));",
    )
    assert said == ["# Fox\n\n**You**\n\n*1 attachment*\n\nLook\n\n**small**\n\nA **fox**\n"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("text = '{'", "not JSON"),
        ("text = '[]'", "no conversations of this page"),
        ("file.version = 2", "another version"),
        ("file.turns = 3", "damaged"),
        ("file.turns[0].conversation = 'nowhere'", "damaged"),
        ("file.turns[0].parent = 'nowhere'", "damaged"),
        ("file.turns[0].role = 'system'", "damaged"),
        ("file.turns[0].content = [{ type: 'video' }]", "damaged"),
        ("file.turns[0].content = 7", "damaged"),
        ("file.conversations[0].title = {}", "damaged"),
    ],
)
async def test_a_file_that_is_wrong_is_refused_as_a_whole(change, said):
    (error,) = await in_node(
        "store/exchange.js",
        f"""{GIVEN}
        const file = JSON.parse(m.toJson(conversations, turns));
        let text = "";
        {change};
        let said = "";
        try {{
            m.fromJson(text || JSON.stringify(file), newId);
        }} catch (error) {{
            said = error.message;
        }}
        console.log(JSON.stringify([said]));
        """,
    )
    assert said in error
