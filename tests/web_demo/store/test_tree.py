"""Conversations as trees of turns."""

from tests.web_demo.conftest import in_node, wants_node

pytestmark = wants_node

TREE = """
    const turn = (id, parent, role, content, more = {}) =>
        ({ id, conversation: "c", parent, role, content, made: Number(id.slice(1)), ...more });
    const turns = [
        turn("t1", null, "user", "One"), turn("t2", "t1", "assistant", "1"),
        turn("t3", "t1", "assistant", "first"), turn("t4", "t3", "user", "Two"),
        turn("t5", "t3", "user", "Two again"), turn("t6", "t5", "assistant", "2"),
        turn("t7", null, "user", "Uno"),
    ];
    const ids = (some) => some.map(({ id }) => id).join(" ");
    const say = (...values) => console.log(JSON.stringify(values));
"""


async def says(body):
    return await in_node("store/tree.js", TREE + body)


async def test_a_path_goes_from_the_first_turn_to_the_leaf():
    said = await says(
        """
        const loop = [turn("t1", "t2", "user", ""), turn("t2", "t1", "user", "")];
        say(ids(m.pathTo(turns, "t6")), ids(m.pathTo(turns, null)), ids(m.pathTo(turns, "none")),
            m.pathTo(loop, "t1").length);
        """
    )
    assert said == ["t1 t3 t5 t6", "", "", 2]


async def test_versions_of_a_turn_stand_beside_it_and_lead_to_their_newest_ends():
    said = await says(
        """
        const tree = m.createTree(turns);
        const loop = [turn("t1", "t2", "user", ""), turn("t2", "t1", "user", "")];
        say(ids(tree.siblings(turns[2])), ids(tree.siblings(turns[0])),
            tree.leafBelow("t1"), tree.leafBelow("t7"), m.createTree(loop).leafBelow("t1"));
        """
    )
    assert said == ["t2 t3", "t1 t7", "t6", "t7", "t1"]


async def test_a_path_follows_its_leaf_through_all_that_is_added_and_chosen():
    said = await says(
        """
        const tree = m.createTree(turns);
        const paths = [ids(tree.path("t6"))];
        tree.add(turn("t8", "t6", "user", "Three"));
        for (const leaf of ["t8", "t4", "t6", null]) paths.push(ids(tree.path(leaf)));
        const loop = m.createTree([turn("t1", "t2", "user", ""), turn("t2", "t1", "user", "")]);
        for (const leaf of ["t1", "t2", "t1", "t2"]) paths.push(loop.path(leaf).length);
        say(...paths);
        """
    )
    assert said == ["t1 t3 t5 t6", "t1 t3 t5 t6 t8", "t1 t3 t4", "t1 t3 t5 t6", "", 2, 2, 2, 2]


async def test_a_long_conversation_is_read_no_more_for_each_turn_than_a_short_one():
    reads = await says(
        """
        let reads = 0;
        const watched = (one) => new Proxy(one, {
            get: (from, name) => {
                reads += 1;
                return from[name];
            },
        });
        const tree = m.createTree();
        const costs = [];
        for (let index = 1; index <= 500; index += 1) {
            reads = 0;
            const before = index > 1 ? `t${index - 1}` : null;
            const one = watched(turn(`t${index}`, before, index % 2 ? "user" : "assistant", "x"));
            tree.add(one);
            for (let again = 0; again < 10; again += 1) tree.path(`t${index}`);
            tree.siblings(one);
            tree.leafBelow(`t${index}`);
            costs.push(reads);
        }
        say(costs[1], costs.at(-1), tree.path("t500").length);
        """
    )
    first, last, length = reads
    assert (last, length) == (first, 500)


async def test_a_prompt_leaves_out_questions_without_an_answer_and_says_so():
    said = await says(
        """
        const tool = { role: "tool", content: "3" };
        const messages = [{ role: "assistant", content: "" }, tool];
        const path = [turn("t1", null, "user", "Q"),
            turn("t2", "t1", "assistant", "", { error: {} }),
            turn("t3", "t2", "user", "R"), turn("t4", "t3", "assistant", "x", { messages }),
            turn("t5", "t4", "user", "S")];
        const { messages: sent, omitted } = m.messagesOf(path);
        say(sent.map(({ role, content }) => `${role} ${content}`), omitted);
        """
    )
    assert said == [["user R", "assistant ", "tool 3", "user S"], 2]


async def test_a_title_is_the_beginning_of_a_first_line():
    said = await says(
        """
        const long = "Tell me a long story about a lighthouse keeper and the sea around him";
        say(m.titleOf("  Hi   there\\nmore"), m.titleOf(long), m.titleOf(" "),
            m.titleOf("x".repeat(99)).length);
        """
    )
    assert said == [
        "Hi there",
        "Tell me a long story about a lighthouse keeper and the sea…",
        "Untitled",
        61,
    ]


async def test_a_search_finds_all_words_in_titles_and_turns_the_newest_first():
    said = await says(
        """
        const made = (id, title, changed) => ({ id, title, changed });
        const all = [made("c", "Numbers", 1), made("d", "A Fox", 2)];
        all.push(made("e", "Foxes and numbers", 3));
        const found = (query) => ids(m.searched(all, turns, query));
        say(found(""), found("fox"), found("NUMBERS"), found("numbers two"), found("fox two"));
        """
    )
    assert said == ["e d c", "e d", "e c", "c", ""]


async def test_attachments_are_no_part_of_a_text():
    said = await says(
        """
        const file = { type: "text", text: "a.txt: ..." }, image = { type: "image", data: "AA==" };
        const text = { type: "text", text: "Look" };
        say(m.textOf({ content: "Hi" }), m.textOf({ content: [image, text] }),
            m.textOf({ content: [image, file, text] }), m.textOf({ content: [image] }));
        """
    )
    assert said == ["Hi", "Look", "Look", ""]
