"""Reads the options of an answer that clients give among fields of their own.

Rule 1: an option has the name that the gateway's own protocol gives it, or the same in camelCase.
Rule 2: what would change the answer and can't be honoured is refused; what is not known is the
application's own, and taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.dialects.refusals import Refused
from gateway.protocol.frames import Generate

__all__ = ["generate_frame", "name_in", "read_options"]

# Options that a language without a place for it can't honour, unless they have these values.
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "n": (1, None),
    "stream": (True, None),
    "logprobs": (False, None),
    "top_logprobs": (0, None),
    "raw": (False, None),
    "continue_final_message": (False, None),
    "prompt": (None,),
    "messages": (None,),
    "files": (None,),
}
ITS_OWN = {"id", "window", "resumable", "keep_on_close", "relayed"}  # of the gateway's own protocol
# Names that other libraries have for an option.
ALSO = {
    "max_tokens": ("maxTokens", "maxOutputTokens", "max_output_tokens"),
    "stop": ("stopSequences", "stop_sequences"),
    "system_prompt": ("systemPrompt", "system"),
}
PLACES = {"n": "an answer is one message here"}
PLACE_OF_OWN = re.compile(r" - at `\$\.?(.*?)(?:\[\.\.\.\])?.*`$")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


NAMES: dict[str, str] = {}  # the option for each name of it
for _option in Generate.__struct_fields__:
    if _option not in ITS_OWN:
        for _name in (_option, _camel(_option), *ALSO.get(_option, ())):
            NAMES[_name] = _option


def read_options(given: Mapping[str, Any], path: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the options among fields, and the path of each. Raises Refused."""
    options: dict[str, Any] = {}
    paths: dict[str, str] = {}
    for name, value in given.items():
        option = NAMES.get(name)
        if option is None or value is None:
            continue
        at = f"{path}.{name}"
        if option in WITHOUT_EFFECT:
            if not any(value is one or value == one for one in WITHOUT_EFFECT[option]):
                raise Refused(PLACES.get(option, "can't be asked for here"), at)
            continue
        if option in options and options[option] != value:
            raise Refused(f"differs from `{paths[option]}`", at)
        options[option], paths[option] = value, at
    _adapt(options, paths)
    return options, paths


def generate_frame(fields: dict[str, Any], paths: Mapping[str, str]) -> Generate:
    """Return the request with these fields. Raises Refused with the path of one of a wrong type."""
    try:
        return msgspec.convert(fields, Generate)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$.")
        place = place.rstrip("`")
        option = re.split(r"[.\[]", place, maxsplit=1)[0]
        at = paths.get(option, option) + place[len(option) :]
        raise Refused(f"{said[:1].lower()}{said[1:]}", at) from error


def name_in(paths: Mapping[str, str], messages: list[str], field: str) -> str:
    """Return the client's own path for a field of `generate`.

    `messages` has the paths of what each message of the request was made of.
    """
    found = re.match(r"messages\[(\d+)\]", field)
    if found and int(found[1]) < len(messages):
        return messages[int(found[1])]
    option = re.split(r"[.\[]", field, maxsplit=1)[0]
    if option in paths:
        return paths[option] + field[len(option) :]
    return "messages" if option in {"prompt", "files", "messages"} else field


def _adapt(options: dict[str, Any], paths: Mapping[str, str]) -> None:
    """Give options that AI SDK and OpenAI write in forms of their own that of `generate`."""
    if isinstance(options.get("tools"), list):
        options["tools"] = [_tool(tool) for tool in options["tools"]]
    choice = options.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "tool":
        name = choice.get("toolName")
        options["tool_choice"] = {"type": "function", "function": {"name": name}}
    form = options.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json":
        options["response_format"] = _form(form)


def _tool(tool: Any) -> Any:
    """Return a tool with its schema under the name that `generate` has for it."""
    if not isinstance(tool, dict) or "inputSchema" not in tool or "function" in tool:
        return tool
    kept = {name: tool[name] for name in ("name", "description") if tool.get(name) is not None}
    return {**kept, "parameters": tool["inputSchema"]}


def _form(form: dict[str, Any]) -> dict[str, Any]:
    schema = form.get("schema")
    if schema is None:
        return {"type": "json_object"}
    name = form.get("name") or "answer"
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}
