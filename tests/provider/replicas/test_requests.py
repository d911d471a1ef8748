"""The frame that a replica gets for a call."""

import pytest

from gateway.protocol.frames import File
from provider.interface import FileData, FileProcessingError, InvalidParameterError, Message
from provider.options import OF_THE_CALLER, OPTIONS
from provider.replicas.requests import frame_of


def frame(prompt="Hi", system=None, files=(), tools=(), defaults=None, **given):
    return frame_of(prompt, system, files, tools, given, defaults or {})[0]


def test_each_option_of_a_client_is_a_field_of_the_frame():
    fields = frame().__struct_fields__
    assert [name for name in OPTIONS if name not in {*fields, *OF_THE_CALLER}] == []


def test_a_call_is_passed_on_as_it_was_made():
    made = frame(
        messages=[Message("user", "Hi")],
        prompt="",
        temperature=0,
        stop=("a", "b"),
        logit_bias={3: 5},
        tool_choice={"type": "function", "name": "f"},
        seed=2**64 - 1,
        n=2,
        events=True,
        client="somebody",
    )
    assert made.messages == [{"role": "user", "content": "Hi"}]
    assert (made.prompt, made.temperature, made.seed, made.n) == (None, 0, 2**64 - 1, 2)
    assert (made.stop, made.logit_bias) == (["a", "b"], {"3": 5.0})
    assert made.tool_choice == {"type": "function", "name": "f"}
    assert (made.max_tokens, made.top_p) == (None, None)  # the replica has its own defaults


def test_the_configuration_gives_what_the_call_leaves_open():
    made = frame(defaults={"temperature": 0.5, "max_tokens": 7, "system_prompt": "Be brief."})
    assert (made.temperature, made.max_tokens, made.system_prompt) == (0.5, 7, "Be brief.")
    assert frame(temperature=1, defaults={"temperature": 0.5}).temperature == 1
    assert frame(system="Be long.", defaults={"system_prompt": "x"}).system_prompt == "Be long."


def test_functions_become_their_schemas():
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    (tool,) = frame(tools=[add]).tools
    assert tool["function"]["name"] == "add"
    assert set(tool["function"]["parameters"]["properties"]) == {"a", "b"}


def test_files_are_read_here_because_a_replica_reads_no_path(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    given = FileData("picture.png", "image/png", b"png")
    assert frame(files=[path, given]).files == [
        File(name="notes.txt", mime="text/plain", data=b"hello"),
        File(name="picture.png", mime="image/png", data=b"png"),
    ]
    with pytest.raises(FileProcessingError, match=r"`none.txt` cannot be read"):
        frame(files=[tmp_path / "none.txt"])


@pytest.mark.parametrize("wrong", [{"temperature": 3}, {"temprature": 1}, {"prompt": 5}])
def test_a_wrong_call_is_refused_here(wrong):
    with pytest.raises(InvalidParameterError):
        frame(**wrong)
