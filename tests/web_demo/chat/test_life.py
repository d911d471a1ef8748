"""The life of an answer in numbers and words."""

import pytest

from tests.web_demo.conftest import in_node, wants_node

pytestmark = wants_node

STARTED = "{ started: { prompt_tokens: 612, cached_tokens: 540 } }"
RESULT = """{
    finishReason: end, model: "tiny", usage: { prompt_tokens: 612, completion_tokens: 40,
    cached_tokens: 540 }, timing: { queue: 120, tokens_per_second: 56.4 },
}"""
BEGIN = f"""
    const one = m.createLife(0, 1);
    const end = "stop";
    const started = () => one.progress({STARTED});
    const tokens = (from, count, every) => {{
        for (let index = 0; index < count; index += 1) one.token(from + index * every);
    }};
"""


async def life(body):
    return await in_node("chat/life.js", f"{BEGIN}\n{body}")


async def said(body):
    return await life(f"{body}\nconsole.log(JSON.stringify(m.sentenceOf(one.life)));")


async def test_what_an_answer_waits_for_is_said_until_it_is_written():
    states = await life(
        """
        const states = [];
        const look = () => states.push([one.state(), one.read()]);
        one.connection(false, 0); look();
        one.connection(true, 50);
        one.progress({ queued: 3 }); look();
        one.progress({ loading: "tiny", done: 43, total: 100, warmingUp: false }); look();
        started(); look();
        one.progress({ done: 578, total: 612 }); look();
        one.token(100); look();
        console.log(JSON.stringify(states));
        """
    )
    assert [state for state, _ in states] == [
        "waiting for the gateway",
        "number 3 in the queue",
        "loading tiny, 43 %",
        "reading the prompt: 612 tokens",
        "reading the prompt: 578 of 612 tokens",
        "",
    ]
    assert [round(read, 2) for _, read in states[3:]] == [0.88, 0.94, 1]


async def test_the_end_says_the_wait_the_prompt_the_pace_and_how_it_ended():
    text = await said(f"started(); tokens(31, 40, 20); one.finish({RESULT}, 900);")
    assert text == (
        "120 ms in the queue · read 612 (540 cached) · first token 31 ms · "
        "40 tokens · 56 tokens/s · tiny"
    )


@pytest.mark.parametrize(
    ("before", "end", "expected"),
    [
        ("one.stopping(900);", "cancelled", "stopped by you in 0.5 ms"),
        ("", "cancelled", "stopped by the gateway after 40 tokens"),
        ("", "length", "cut off at the longest answer"),
    ],
)
async def test_an_end_before_the_end_says_whose_it_was(before, end, expected):
    result = RESULT.replace("end,", f"'{end}',")
    text = await said(f"started(); tokens(31, 40, 20); {before} one.finish({result}, 900.5);")
    assert expected in text


async def test_a_stop_without_a_connection_says_what_was_written():
    nothing = RESULT.replace("end,", "'cancelled',").replace(
        "completion_tokens: 40", "completion_tokens: 0"
    )
    text = await said(f"started(); tokens(31, 12, 20); one.finish({nothing}, 900.5);")
    assert "· 12 tokens ·" in text


async def test_of_an_error_before_the_first_token_no_tokens_are_said():
    assert await said("started(); one.fail();") == "read 612 (540 cached)"
    text = await said("started(); tokens(31, 12, 20); one.fail();")
    assert text.endswith("first token 31 ms · 12 tokens · 50 tokens/s")


async def test_the_rate_of_several_answers_is_said_to_be_of_all_of_them():
    text = await life(
        f"""
        const both = m.createLife(0, 2);
        both.progress({STARTED});
        for (let index = 0; index <= 80; index += 1) both.token(100 + 10 * index);
        both.finish({RESULT}, 900);
        console.log(JSON.stringify(m.sentenceOf(both.life)));
        """
    )
    # The gateway's own rate, 56.4, would be that of one of them.
    assert "2 answers · 40 tokens · 100 tokens/s together" in text


async def test_a_wait_for_the_connection_is_not_the_models():
    text = await said(
        """
        one.connection(false, 0);
        one.connection(true, 22000);
        started();
        one.token(22040);
        """
    )
    assert "waited 22 s for the gateway" in text
    assert "first token 40 ms" in text


async def test_a_lost_connection_is_a_gap_and_counts_what_came_again():
    text, line, marks, counts = await life(
        """
        started();
        tokens(0, 20, 20);
        one.connection(false, 400);
        const lost = one.lost(1400);
        one.connection(true, 2350);
        one.resumed(2400);
        tokens(2401, 30, 0.1);
        tokens(2420, 10, 20);
        const { line, marks } = m.courseOf(one.life, 72, 14);
        const { pace } = one.life;
        const gaps = pace.filter((count) => count === null).length;
        const sum = pace.reduce((all, count) => all + count, 0);
        console.log(JSON.stringify([m.sentenceOf(one.life), line, marks, [lost, gaps, sum]]));
        """
    )
    assert "cut 2.0 s, 30 characters replayed" in text
    assert line.count("M") == 2  # it is drawn in two parts
    assert marks.startswith("M")
    assert counts == [1000, 9, 60]


async def test_a_long_answer_is_drawn_by_few_points():
    length, sum_ = await life(
        """
        started();
        tokens(0, 4000, 25);
        const { pace } = one.life;
        console.log(JSON.stringify([pace.length, pace.reduce((all, count) => all + count, 0)]));
        """
    )
    assert length <= 60
    assert sum_ == 4000
