"""What changes the page while text comes, done together in few frames."""

from tests.web_demo.conftest import in_node, wants_node

# A clock of its own: `to(time)` goes there, past timers and frames, of which one is every 16 ms.
CLOCK = """
    let time = 0;
    const timers = new Map(), seen = [];
    let wanted = null, frames = 0, number = 0;
    performance.now = () => time;
    globalThis.setTimeout = (does, ms = 0) => {
        timers.set((number += 1), [time + Math.max(0, ms), does]);
        return number;
    };
    globalThis.clearTimeout = (one) => timers.delete(one);
    globalThis.requestAnimationFrame = (does) => ((wanted = does), 1);
    const to = (end) => {
        for (; time < end; time += 1) {
            for (const [one, [due, does]] of [...timers])
                if (due <= time && timers.delete(one)) does();
            if (time % 16 || !wanted) continue;
            const does = wanted;
            wanted = null;
            frames += 1;
            does();
        }
    };
    const note = (name) => () => seen.push([name, time]);
"""


async def frames(body):
    said = "console.log(JSON.stringify([seen, frames, timers.size]));"
    return await in_node("shell/frames.js", f"{CLOCK}\n{body}\n{said}")


@wants_node
async def test_what_is_due_at_about_the_same_time_is_done_in_one_frame():
    seen, count, left = await frames(
        """
        const text = note("text"), meter = note("meter");
        m.plan(meter, 400);
        m.plan(text);
        m.plan(text, 5);
        to(300);
        m.plan(text, 40);
        to(1000);
        """
    )
    assert [name for name, _ in seen] == ["text", "meter", "text"]
    assert seen[1][1] == seen[2][1] < 400
    assert (count, left) == (2, 0)


@wants_node
async def test_what_is_taken_back_is_not_done_and_what_fails_hinders_nothing_else():
    seen, count, left = await frames(
        """
        const first = note("first"), later = note("later");
        const broken = () => { m.unplan(first); throw new Error("broken"); };
        m.plan(broken);
        m.plan(first);
        m.plan(later, 300);
        let failed = "";
        try { to(100); } catch (error) { failed = error.message; }
        seen.push([failed, time]);
        to(500);
        """
    )
    assert [name for name, _ in seen] == ["broken", "later"]
    assert (count, left) == (2, 0)
