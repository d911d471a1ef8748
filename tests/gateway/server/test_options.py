"""Every option in the three ways in which it can be given, which agree."""

import json
import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import gateway
from gateway.client import connect
from gateway.commands.chat_flags import NOT_OF_A_CHAT
from gateway.commands.chat_flags import OPTIONS as OF_A_CHAT
from gateway.protocol.frames import Generate
from gateway.server.generation_task import OPTIONS
from provider import MLXProvider, options
from provider.inputs import files, json_texts, tools
from provider.interface import InvalidParameterError
from provider.options import GenerationOptions, parse_options
from tests.support import programs
from tests.support.programs import GATEWAY
from tests.support.servers import running, stream_url, watched_turns, wired
from tests.support.servers import served as served_by_command

PROTOCOL = (Path(gateway.__file__).parent / "PROTOCOL.md").read_text(encoding="utf-8")
ADD = {
    "name": "add",
    "description": "Add two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    },
}
STORY = [{"role": "user", "content": "Tell me a story about a fox"}]
EXAMPLES = {
    "chat_template_kwargs": {"chat_template_kwargs": {"enable_thinking": True}},
    "continue_final_message": {
        "messages": [*STORY, {"role": "assistant", "content": "Once upon a"}],
        "continue_final_message": True,
    },
    "enable_thinking": {"enable_thinking": True},
    "frequency_penalty": {"frequency_penalty": 1.5},
    "logit_bias": {"logit_bias": {"10": 5.0}},
    "logprobs": {"logprobs": True},
    "max_reasoning_tokens": {"enable_thinking": True, "max_reasoning_tokens": 5},
    "max_tokens": {"max_tokens": 7},
    "messages": {"messages": [*STORY, {"role": "assistant", "content": "No."}, *STORY]},
    "min_p": {"min_p": 0.2},
    "model": {"model": "embedded"},
    "n": {"n": 2},
    "presence_penalty": {"presence_penalty": 1.5},
    "raw": {"prompt": "Once upon a time", "messages": None, "raw": True},
    "repetition_penalty": {"repetition_penalty": 1.3},
    "response_format": {"response_format": {"type": "choice", "choices": ["one", "two"]}},
    "seed": {"seed": 11},
    "stop": {"stop": ["the"], "max_tokens": 24},
    "temperature": {"temperature": 0.0},
    "tool_choice": {"tools": [ADD], "tool_choice": "required", "max_tokens": 24},
    "top_k": {"top_k": 3},
    "top_logprobs": {"logprobs": True, "top_logprobs": 2},
    "top_p": {"top_p": 0.5},
}
USUAL = {"temperature": 1.0, "seed": 5, "max_tokens": 12, "messages": STORY}


@pytest.fixture(scope="module")
def provider():
    made = MLXProvider()
    yield made
    made.close()


@asynccontextmanager
async def a_client(provider):
    async with running(provider) as gateway, connect(stream_url(gateway)) as client:
        yield client


def test_every_option_is_a_field_of_generate_and_of_a_chat():
    names = set(Generate.__struct_fields__)
    assert set(OPTIONS) <= names
    assert names - set(OPTIONS) == {
        "files",
        "id",
        "keep_on_close",
        "prompt",
        "relayed",
        "resumable",
        "stream",
        "system_prompt",
        "tools",
        "window",
    }
    assert set(OF_A_CHAT) == names - NOT_OF_A_CHAT
    assert set(EXAMPLES) == set(OPTIONS)


ROW = r"^\| `(\w+)` \| (above )?([-\d]+).*? \| (\d+) \| (.*) \|$"
ROWS = re.findall(ROW, PROTOCOL, re.MULTILINE)
HINTS = get_type_hints(Generate)
NUMBERS = {name for name in HINTS if {int, float} & {*get_args(HINTS[name])}}


def test_the_document_has_the_range_of_every_number():
    assert {row[0] for row in ROWS} == NUMBERS & set(OPTIONS)


@pytest.mark.parametrize(("name", "above", "low", "high", "default"), ROWS)
def test_the_documents_ranges_and_defaults_are_those_of_the_code(name, above, low, high, default):
    low, high = int(low), int(high)
    beside = {"logprobs": True} if name == "top_logprobs" else {}
    for good in (low + 1e-9 if above else low, high):
        assert getattr(parse_options({name: good, **beside}, {}), name) == good
    for bad in (low if above else low - 1, high + 1):
        with pytest.raises(InvalidParameterError, match=f"`{name}` must be"):
            parse_options({name: bad, **beside}, {})
    known = getattr(GenerationOptions(), name)
    assert known == (float(default.partition(",")[0]) if default[0].isdigit() else None)


def test_the_documents_other_bounds_are_those_of_the_code():
    said = " ".join(PROTOCOL.split())
    strings, length = options.MAX_STOP_STRINGS, options.MAX_STOP_LENGTH
    assert f"for at most {options.MAX_BIASES:,} tokens." in said
    assert f"`stop` has at most {strings} strings of at most {length} characters," in said
    mib, image_mib = files.MAX_FILE_BYTES >> 20, files.MAX_IMAGE_BYTES >> 20
    tools_mib, text_mib = tools.MAX_BYTES >> 20, json_texts.MAX_CHARACTERS >> 20
    assert f"`tools` has at most {tools.MAX_TOOLS:,}, of {tools_mib} MiB together," in said
    assert f"`arguments` of an earlier call may have {text_mib} MiB," in said
    assert f"as a text {json_texts.MAX_VALUES:,} keys and values." in said
    assert f"`files` at most {files.MAX_FILES} files, each of at most {mib} MiB," in said
    assert f"or {image_mib} MiB for an image." in said


@pytest.mark.parametrize("option", sorted(EXAMPLES))
async def test_an_option_does_the_same_in_python_and_over_the_wire(provider, option):
    given = {**USUAL, **EXAMPLES[option]}
    given = {name: value for name, value in given.items() if value is not None}
    called = dict(given)
    whole = await provider.generate_async(called.pop("prompt", ""), **called)
    async with a_client(provider) as client:
        done = await client.generate(stream=False, **given).result()
    assert (done.text, done.reasoning or None) == (whole.content, whole.reasoning_trace)
    assert done.finish_reason == whole.finish_reason
    assert without_ids(done.tool_calls) == without_ids(whole.tool_calls)
    if done.logprobs:
        assert done.logprobs == list(whole.raw_response.logprobs.tokens)
    if option == "n":
        assert [one["text"] for one in done.choices] == [one.content for one in whole.choices]


LONG = "x" * 50_000
FIELDS = {f"field {n}": {"type": "string"} for n in range(1000)}
HOSTILE = {
    "chat_template_kwargs": [{f"{LONG} ": 1}, {f"a{n}": n for n in range(33)}],
    "logit_bias": [{LONG: 1.0}, {str(n): 1.0 for n in range(2000)}, {"1": 1e300}],
    "max_tokens": [10**4000, -1],
    "messages": [[{"role": LONG}], [{"role": "user", "content": [{"type": LONG}]}]],
    "model": [LONG],
    "n": [10**4000, -1],
    "response_format": [
        {"type": LONG},
        {"type": "regex", "regex": LONG * 22},
        {
            "type": "json_schema",
            "schema": {"properties": {LONG: {"properties": FIELDS}}, "type": 3},
        },
        {"type": "json_schema", "schema": {"const": 10**4000}},
    ],
    "seed": [2**64, 10**4000, -1],
    "stop": [LONG, ["ab"] * 8000],
    "temperature": [1e308, -1e308],
    "tool_choice": [LONG, {"name": LONG}],
    "tools": [
        [{"name": LONG}],
        [{"name": f"f{n}"} for n in range(2500)],
        [{"name": "f", "parameters": {"properties": {LONG: {"properties": FIELDS}}, "type": 3}}],
    ],
    "top_k": [10**4000, -1],
    "window": [0, -(10**4000)],
}


async def test_a_hostile_value_is_refused_with_its_path_and_soon(provider):
    async with running(provider) as gateway, wired(gateway) as wire, watched_turns() as turns:
        for option, values in HOSTILE.items():
            for value in values:
                whose = {} if option == "messages" else {"prompt": "hi"}
                frame = {"type": "generate", "id": "a", **whose, option: value}
                await wire.socket.send(json.dumps(frame))
                error = (await wire.until("error", "done"))[-1]
                assert error.get("code") == "invalid_request", (option, error)
                assert error["message"].startswith(f"`$.{option}"), error
                assert len(error["message"]) < 500
    assert turns.longest < 0.5


def without_ids(calls):
    return [{**call, "id": ""} for call in calls or []]


@pytest.fixture(scope="module")
def address():
    with served_by_command() as address:
        yield address


def test_an_option_does_the_same_in_a_chat(provider, address):
    of_a_chat = ("top_k", "min_p", "seed", "stop", "frequency_penalty", "logit_bias")
    given = {**USUAL, **{name: EXAMPLES[name][name] for name in of_a_chat}}
    whole = provider.generate("", **given)
    flags = [
        part
        for name, value in given.items()
        if name not in {"temperature", "max_tokens", "messages"}
        for part in ("-o", f"{name}={json.dumps(value)}")
    ]
    flags += ["--temperature", "1.0", "--max-tokens", "12"]
    done = run_chat(address, flags, f"{STORY[0]['content']}\n")
    assert done == f"{whole.content}\n"


def run_chat(address, flags, said):
    done = programs.run(*GATEWAY, "chat", "--url", address, *flags, input=said)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_raw_prompt_does_the_same_in_a_chat(provider, address):
    given = {"raw": True, "temperature": 0.0, "max_tokens": 12}
    lines = ("Once upon a", "There was")
    whole = [provider.generate(line, **given).content for line in lines]
    flags = ["-o", "raw=true", "--temperature", "0", "--max-tokens", "12"]
    done = run_chat(address, flags, "".join(f"{line}\n" for line in lines))
    assert done == "".join(f"{text}\n" for text in whole)
