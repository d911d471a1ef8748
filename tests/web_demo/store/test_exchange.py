"""Conversations are written to files and read again."""

import json

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


async def test_markdown_is_read_as_it_was_written():
    text = "Steps:\n\n**First**\n\nLook.\n\n    **You**, said the fox"
    written, read = await in_node(
        "store/exchange.js",
        f"""
        let last = 0;
        const newId = () => `new${{(last += 1)}}`;
        const turns = [
            {{ id: "1", parent: null, role: "user", made: 1, content: "How?\\n\\n# Title" }},
            {{ id: "2", parent: "1", role: "assistant", made: 2, content: {json.dumps(text)} }},
            {{ id: "3", parent: "2", role: "user", made: 3, content: "And then?" }},
            {{ id: "4", parent: "3", role: "assistant", made: 4, content: "", model: "small" }},
        ];
        const text = m.toMarkdown({{ title: "A *fox*", leaf: "4" }}, turns);
        const read = m.fromFile(text.replaceAll("\\n", "\\r\\n"), newId, 100);
        const again = m.toMarkdown(read.conversations[0], read.turns);
        console.log(JSON.stringify([[text, again], read]));
        """,
    )
    assert written[0] == written[1]
    (talk,) = read["conversations"]
    assert (talk["title"], talk["leaf"], talk["named"]) == ("A *fox*", "new5", True)
    said = [(turn["role"], turn["content"]) for turn in read["turns"]]
    assert said == [
        ("user", "How?\n\n# Title"),
        ("assistant", text),
        ("user", "And then?"),
        ("assistant", ""),
    ]
    assert [turn["parent"] for turn in read["turns"]] == [None, "new2", "new3", "new4"]
    assert {turn["conversation"] for turn in read["turns"]} == {"new1"}
    assert [turn["made"] for turn in read["turns"]] == [100, 101, 102, 103]


@pytest.mark.parametrize("text", ["# Notes", "# Notes\n\nBuy milk.\n\n**You**\n\nHi\n", "Notes"])
async def test_other_markdown_is_refused(text):
    (error,) = await in_node(
        "store/exchange.js",
        f"""
        let said = "";
        try {{
            m.fromFile({json.dumps(text)}, () => "new", 1);
        }} catch (error) {{
            said = error.message;
        }}
        console.log(JSON.stringify([said]));
        """,
    )
    assert error == (
        "this file has no conversations of this page"
        if text[0] == "#"
        else "this file is neither JSON nor Markdown of this page"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("text = '{'", "neither JSON"),
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


LIVED = """
    const life = { answers: 1, waited: 0, queued: 120, prompt: 612, cached: 540, first: 31.5,
        tokens: 40, rate: 56.4, bucket: 200, pace: [3, null, 4], cuts: [{ at: 1, for: 300,
        replayed: 12 }], ended: "length", byUser: false, stopped: null, model: "small", note: "" };
    const more = { life, tokens: 652, thought: 1200.5, pace: [0, -5, 31, 3, 20, 6],
        error: { code: "model_error", message: "out of breath" } };
"""


async def test_what_is_known_of_how_an_answer_was_written_comes_back():
    given, read = await in_node(
        "store/exchange.js",
        f"""{GIVEN}{LIVED}
        Object.assign(turns[1], more);
        const [, turn] = m.fromFile(m.toJson(conversations, turns), newId, 0).turns;
        console.log(JSON.stringify([more, turn]));
        """,
    )
    assert {name: read[name] for name in given} == given


WRONG = [
    ("life", "7"),
    ("life", "{ ...life, cuts: 3 }"),
    ("life", "{ ...life, cuts: [{ at: 1 }] }"),
    ("life", "{ ...life, tokens: 'many' }"),
    ("life", "{ ...life, ended: {} }"),
    ("life", "{ ...life, pace: Array.from({ length: 1000 }, () => 1) }"),
    ("tokens", "-1"),
    ("thought", "'long'"),
    ("pace", "[0, 1, 2]"),
    ("pace", "[-1, 1]"),
    ("pace", "[null, 1]"),
    ("error", "{ code: 3, message: 'x' }"),
    ("error", "null"),
]


async def test_what_the_page_could_not_have_written_of_an_answer_is_left_out():
    changes = ", ".join(f"{{ {name}: {value} }}" for name, value in WRONG)
    read = await in_node(
        "store/exchange.js",
        f"""{GIVEN}{LIVED}
        const read = [{changes}].map((change) => {{
            const changed = turns.map((turn) => ({{ ...turn, ...more, ...change }}));
            return m.fromFile(m.toJson(conversations, changed), newId, 0).turns[1];
        }});
        console.log(JSON.stringify(read));
        """,
    )
    names = {"life", "tokens", "thought", "pace", "error"}
    for (wrong, value), turn in zip(WRONG, read, strict=True):
        assert names - turn.keys() == {wrong}, value
        assert turn["content"] == "A **fox**"
