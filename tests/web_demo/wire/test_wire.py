"""The drawer with the frames that go over the socket, and what it makes of them."""

import asyncio
import json
import subprocess

import pytest
from websockets.asyncio.client import connect

from gateway.dialects.native import codec_for, server_frame
from gateway.protocol.frames import JSON_PROTOCOL, MSGPACK_PROTOCOL
from provider.scripted import Gate, Say
from tests.web_demo.conftest import (
    answered,
    ask,
    in_node,
    scripted_gateway,
    wait_for_text,
    wants_node,
)

USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 300,
    "total_tokens": 305,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
}
TIMING = {
    "queue": 0.5,
    "prefill": 1.25,
    "first_token": 2.5,
    "total": 70000.0625,
    "tokens_per_second": 9.5,
}
FRAMES = [
    {
        "type": "generate",
        "id": "a",
        "messages": [{"role": "user", "content": "Grüße 🦊"}],
        "temperature": 0.5,
        "max_tokens": 70000,
        "seed": 2**40,
        "logit_bias": {"10": -5.5},
        "window": 64,
        "resumable": True,
    },
    {"type": "generate", "id": "b", "prompt": "x" * 300, "stream": False},
    {"type": "cancel", "id": "a"},
    {"type": "ack", "id": "a", "seq": 200},
    {"type": "resume", "id": "a", "ticket": "t", "after": -1},
    {"type": "queued", "id": "a", "position": 3},
    {"type": "started", "id": "a", "seq": 0, "model": "m", "prompt_tokens": 9, "cached_tokens": 2},
    {"type": "chunk", "id": "a", "seq": 1, "text": "…"},
    {"type": "chunk", "id": "a", "seq": 2, "text": "t", "choice": 2},
    {
        "type": "done",
        "id": "a",
        "seq": 3,
        "finish_reason": "stop",
        "usage": USAGE,
        "timing": TIMING,
    },
    {
        "type": "error",
        "id": "a",
        "code": "overloaded",
        "message": "later",
        "retryable": True,
        "retry_after": 1.5,
    },
]


@pytest.mark.browser
async def test_the_frames_are_shown_as_they_pass_and_only_while_the_drawer_is_open(new_page):
    wait = asyncio.Event()
    async with scripted_gateway(Say("one two"), Gate(wait), Say("three")) as gateway:
        page = await new_page(gateway.url)
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        button = page.get_by_role("button", name="Wire", exact=True)
        await button.click()
        row = page.locator(".wire-row:visible")
        await page.locator(".wire-empty").wait_for()

        await ask(page, "Hello <b>you</b>")
        await wait_for_text(page, ".wire-says", '#2 "two"')
        types = await page.locator(".wire-row:visible .wire-type").all_text_contents()
        assert types == ["generate", "started", "chunk", "chunk"]
        assert await page.locator(".wire-says b").count() == 0
        await page.keyboard.press("Control+k")
        await page.locator("#palette input:focus").wait_for()
        await page.keyboard.type("hold the frames")
        await page.keyboard.press("Enter")
        wait.set()
        await wait_for_text(page, ".wire-sums", "more have passed")
        assert await row.count() == 4

        await row.first.click()
        detail = page.locator(".wire-detail")
        shown = json.loads(await detail.get_by_label("The frame").text_content())
        assert shown["messages"][0]["content"] == "Hello <b>you</b>"
        size = len(json.dumps(shown, ensure_ascii=False, separators=(",", ":")))
        assert await row.first.locator(".wire-size").text_content() == str(size)
        await detail.get_by_role("button", name="Code").click()
        assert "client.generate({" in await detail.get_by_label("The program").text_content()
        await detail.get_by_role("button", name="Python").click()
        await detail.get_by_role("button", name="Copy").click()
        await detail.get_by_role("button", name="Copied").wait_for()
        copied = await page.evaluate("() => navigator.clipboard.readText()")
        assert "client.generate(" in copied
        assert "window" not in copied

        await page.get_by_label("Filter frames").fill("chunk")
        await page.wait_for_function(
            "() => document.querySelectorAll('.wire-row:not([hidden])').length === 2"
        )
        await page.get_by_role("button", name="Go on").click()
        await page.keyboard.press("Escape")
        assert not await page.locator("#drawer").is_visible()
        await answered(page, "Again")
        await button.click()
        await page.wait_for_function(
            "() => document.querySelectorAll('.wire-row:not([hidden])').length === 2"
        )


@wants_node
async def test_a_frame_has_the_bytes_that_the_gateway_would_send_as_msgpack():
    made = await in_node(
        "wire/msgpack.js",
        f"""
        const frames = {json.dumps(FRAMES)};
        const hex = (bytes) => Buffer.from(bytes).toString("hex");
        const made = frames.map((frame) => hex(m.packed(frame)));
        console.log(JSON.stringify([m.packed({{type: "later"}}), ...made]));
        """,
    )
    codec = codec_for(MSGPACK_PROTOCOL)
    assert made[0] is None
    for frame, text in zip(FRAMES, made[1:], strict=True):
        struct = server_frame(frame) or codec_for(JSON_PROTOCOL).decode(json.dumps(frame))
        assert text == codec.encode(struct).hex(), frame["type"]


def said_by_shell(program):
    """Return the address and the line that a shell gives to websocat."""
    stand_in = f'websocat() {{ printf "%s\\n" "$2"; cat; }}\n{program}'
    said = subprocess.run(["sh", "-c", stand_in], capture_output=True, text=True, check=True)
    address, line = said.stdout.splitlines()
    return address, line


@wants_node
async def test_the_programs_that_a_request_becomes_do_run():
    frame = {
        "type": "generate",
        "id": "x",
        "window": 64,
        "resumable": True,
        "temperature": 0.5,
        "seed": 7,
        "messages": [{"role": "user", "content": 'Say "hi"\n${x} `y`'}],
        "enable_thinking": False,
    }
    async with scripted_gateway(Say("From the gateway.")) as gateway:
        origin = gateway.url.rstrip("/")
        made = await in_node(
            "wire/code.js",
            f"""
            const frame = {json.dumps(frame)};
            const programs = [m.javascript, m.python, m.react, m.shell];
            console.log(JSON.stringify(programs.map((write) => write(frame, url))));
            """,
            origin,
        )
        javascript, python, react, shell = made
        namespace = {}
        exec(python.replace("asyncio.run(main())", ""), namespace)
        await namespace["main"]()
        body = javascript[javascript.index("\nconst client") :].replace("connect(", "m.connect(")
        body = body.replace("console.log(text)", "said += text")
        said = await in_node(
            "client.js", f'let said = "";{body}\nconsole.log(JSON.stringify(said)); client.close();'
        )
        assert said == "From the gateway."
        address, line = said_by_shell(shell)
        assert address == f"{origin.replace('http', 'ws')}/v1/stream"
        async with connect(address) as socket:
            await socket.send(line)
            frames = [json.loads(await socket.recv())]
            while frames[-1]["type"] not in {"done", "error"}:
                frames.append(json.loads(await socket.recv()))
        assert "".join(frame.get("text", "") for frame in frames) == "From the gateway."
        asked = [request.options for request in gateway.provider.requests]
        assert asked[0] == asked[1] == asked[2]
        assert asked[0]["seed"] == 7
        assert asked[0]["messages"][0]["content"] == frame["messages"][0]["content"]
        assert "useRun(useGateway" in react
