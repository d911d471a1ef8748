"""A conversation in a file, and files that hold none."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.commands.chat_file import BadFile, Kept, path_of, read, write

TURNS = [{"role": "user", "content": "Foxes?"}, {"role": "assistant", "content": "Yes."}]
CALLS = [{"function": {"name": "add", "arguments": "{}"}}]


@pytest.mark.parametrize("name", ["kept.json", "kept.JSON"])
def test_what_is_written_as_json_is_read_as_it_was(tmp_path, name):
    kept = Kept(TURNS, system_prompt="Be brief.", model="large")
    write(kept, tmp_path / name, over=False)
    assert read(tmp_path / name) == kept
    write(Kept(TURNS), tmp_path / name, over=True)
    assert json.loads((tmp_path / name).read_text()) == {"messages": TURNS}


def test_markdown_is_for_reading(tmp_path):
    part = [{"type": "image", "data": "…"}, {"type": "text", "text": "And?"}]
    more = [
        {"role": "assistant", "content": None, "tool_calls": CALLS},
        {"role": "assistant", "content": "So:", "tool_calls": CALLS},
        {"role": "user", "content": part},
    ]
    write(Kept([*TURNS, *more], system_prompt="Be brief."), tmp_path / "kept.md", over=False)
    assert (tmp_path / "kept.md").read_text() == (
        "**system**\n\nBe brief.\n\n**user**\n\nFoxes?\n\n**assistant**\n\nYes.\n\n"
        "**assistant**\n\n`add {}`\n\n**assistant**\n\nSo:\n`add {}`\n\n"
        "**user**\n\n(image)\n\nAnd?\n"
    )


def test_a_tilde_is_the_users_folder_or_begins_a_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of("~/notes.json") == tmp_path / "notes.json"
    assert path_of("~notes.json") == Path("~notes.json")


def test_a_file_of_others_is_not_written_over(tmp_path):
    file = tmp_path / "kept.json"
    file.write_text("mine")
    with pytest.raises(BadFile, match=r"kept\.json is there already"):
        write(Kept(TURNS), file, over=False)
    assert file.read_text() == "mine"


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path):
    file = tmp_path / "kept.json"
    write(Kept(TURNS), file, over=False)
    with pytest.raises(BadFile, match=r"kept\.json: .*surrogates not allowed"):
        write(Kept([{"role": "user", "content": "\udcff"}]), file, over=True)
    assert read(file) == Kept(TURNS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_said(tmp_path):
    with pytest.raises(BadFile, match="/dev/full: No space left on device"):
        write(Kept(TURNS), Path("/dev/full"), over=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\0b.json", "embedded null byte"),
        ("n" * 300, "File name too long"),
        ("none/kept.json", "No such file"),
    ],
)
def test_a_name_that_no_file_can_have_is_said(tmp_path, name, said):
    with pytest.raises(BadFile, match=said):
        write(Kept(TURNS), tmp_path / name, over=False)
    with pytest.raises(BadFile, match=said):
        read(tmp_path / name)


def turn_of(**fields):
    return json.dumps({"messages": [{"role": "assistant", "content": "Yes.", **fields}]})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"messages": 3}',
        json.dumps({"a": 1}),
        "[" * 100_000,
        turn_of(role="poet"),
        turn_of(content=3),
        turn_of(content=["Yes."]),
        turn_of(content="\ud800"),  # which can't be sent
        turn_of(tool_calls=[{"name": "add"}]),
    ],
)
def test_what_is_no_conversation_is_said(tmp_path, text):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(BadFile, match=r"other\.json is no conversation"):
        read(file)


PARTS = st.fixed_dictionaries({"type": st.text()}, optional={"text": st.none() | st.text()})
FUNCTIONS = st.fixed_dictionaries({"name": st.text()}, optional={"arguments": st.text()})
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
    optional={
        "content": st.none() | st.text() | st.lists(PARTS),
        "tool_calls": st.none() | st.lists(st.fixed_dictionaries({"function": FUNCTIONS})),
    },
)


@given(st.lists(MESSAGES))
def test_whatever_is_read_can_be_written_for_reading(tmp_path_factory, messages):
    folder = tmp_path_factory.mktemp("kept")
    write(Kept(messages), folder / "kept.json", over=False)
    write(read(folder / "kept.json"), folder / "kept.md", over=False)
    assert read(folder / "kept.json").messages == messages
