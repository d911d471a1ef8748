import asyncio
import base64

import pytest

from gateway.client import connect
from gateway.client.tool_loop import Toolbox, ToolRun
from gateway.commands.conversation import Completion, ask, attach, user_turn
from provider.interface import FileProcessingError
from provider.scripted import Pause, Say, ScriptedProvider
from tests.support.servers import eventually, running, stream_url
from tests.support.timeouts import TIMEOUT
from tests.support.tiny_vision import picture


def test_files_become_parts_of_a_message_images_first(tmp_path):
    (tmp_path / "notes.md").write_text("Buy bread.")
    (tmp_path / "dot.png").write_bytes(picture("red"))
    parts = attach([tmp_path / "notes.md", tmp_path / "dot.png"])
    assert [part["type"] for part in parts] == ["image", "text"]
    assert base64.b64decode(parts[0]["data"]) == picture("red")
    assert "Buy bread." in parts[1]["text"]
    assert attach([]) == []
    with pytest.raises(FileProcessingError):
        attach([tmp_path / "none.md"])


def test_a_turn_is_plain_text_without_attachments():
    assert user_turn("hi", ()) == {"role": "user", "content": "hi"}
    part = {"type": "text", "text": "file"}
    assert user_turn("hi", [part])["content"] == [part, {"type": "text", "text": "hi"}]


async def test_a_raw_line_is_continued_and_any_other_answered():
    provider = ScriptedProvider(script=[Say("and on")], tokens_per_second=None)
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        answer = ask(client, Toolbox(), [user_turn("hi", ())], {})
        assert isinstance(answer, ToolRun)
        raw = ask(client, Toolbox(), [user_turn("Once", ())], {"raw": True})
        assert isinstance(raw, Completion)
        assert "".join([frame.text async for frame in raw]) == "and on"
        assert raw.messages == []
    assert provider.requests[0].prompt == "Once"
    assert provider.requests[0].options["raw"] is True


async def test_a_completion_can_be_stopped():
    provider = ScriptedProvider(script=[Say("x"), Pause(3600)], tokens_per_second=None)
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        raw = Completion(client, {"prompt": "Once"})
        async for _ in raw:
            await raw.cancel()
        assert raw.stopped
        assert raw.run.done.finish_reason == "cancelled"
        await eventually(lambda: not provider.live)


async def test_a_completion_that_is_stopped_before_it_begins_ends_at_once():
    provider = ScriptedProvider(script=[Say("x"), Pause(3600)], tokens_per_second=None)
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        raw = Completion(client, {"prompt": "Once"})
        await raw.cancel()
        async with asyncio.timeout(TIMEOUT):
            _ = [frame async for frame in raw]
        assert raw.run.done.finish_reason == "cancelled"
