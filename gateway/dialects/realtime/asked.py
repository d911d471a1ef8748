"""What a client asks for by `session.update` and by `response.create`, checked.

Rule 1: a field of a response comes before the session's field of the same name.
Rule 2: a field that would change the answer and can't be honoured is refused by its path, audio for
example; a field without effect on a text is taken, and so is one that is not known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.dialects.openai.creates import (
    Create,
    Tools,
    generation_options,
    read_create,
    read_tools,
)
from gateway.dialects.openai.errors import Refused
from gateway.dialects.realtime.server_events import Session

__all__ = ["Asked", "SessionFields"]

Fields = dict[str, Any]

SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
OF_SESSION = (
    "instructions",
    "tools",
    "tool_choice",
    "max_output_tokens",
    "parallel_tool_calls",
    "reasoning",
    "truncation",
    "prompt",
    *SAMPLING,
)
MODALITIES = ("output_modalities", "modalities")  # the second name is of Realtime's beta
ALL = "inf"  # output tokens
CONVERSATIONS = ("auto", "none")


@dataclass(frozen=True)
class Asked:
    """What one response is asked with."""

    create: Create
    tools: Tools
    own: frozenset[str]  # the fields that are the response's, not the session's

    def path_of(self, param: str) -> str:
        """Return the path of a field of `response.create` as Responses call it."""
        name = param.partition(".")[0].partition("[")[0]
        return f"{'response' if name in self.own else 'session'}.{param}"


@dataclass(eq=False)
class SessionFields:
    """The session of a connection, as its client has set it."""

    id: str
    model: str
    given: Fields = field(default_factory=dict)

    def updated(self, fields: Any) -> Fields:
        """Return its fields with some of them set anew. Raises Refused."""
        _check(fields, "session")
        if fields.get("type") not in (None, "realtime"):
            raise Refused("`session.type`: must be realtime", "session.type", "invalid_value")
        if fields.get("model") not in (None, self.model):
            said = f"`session.model`: is {self.model[:256]}, and can't be changed"
            raise Refused(said, "session.model", "cannot_update_model")
        changed = {name: fields[name] for name in OF_SESSION if name in fields}
        given = {name: value for name, value in (self.given | changed).items() if value is not None}
        _read(given, "session", frozenset())
        return given

    def asked(self, response: Any) -> Asked:
        """Return what a response is asked with, whose own fields are these. Raises Refused."""
        response = {} if response is None else response
        _check(response, "response")
        if response.get("conversation", "auto") not in (None, *CONVERSATIONS):
            said = "`response.conversation`: must be one of auto, none"
            raise Refused(said, "response.conversation", "invalid_value")
        names = (*OF_SESSION, "metadata")
        own = {name: response[name] for name in names if response.get(name) is not None}
        return _read({**self.given, **own}, "response", frozenset(own))

    def shown(self) -> Session:
        """Return the session as its client sees it."""
        asked = _read(self.given, "session", frozenset())
        create, tools = asked.create, asked.tools
        return Session(
            id=self.id,
            model=self.model,
            instructions=create.instructions or "",
            tools=[{k: v for k, v in tool.items() if v is not None} for tool in tools.shown],
            tool_choice=tools.choice,
            max_output_tokens=create.max_output_tokens or ALL,
            truncation=create.truncation or "auto",
            parallel_tool_calls=create.parallel_tool_calls is not False,
        )


def _check(fields: Any, path: str) -> None:
    """Raise Refused for what is no object, and for an answer that is not only a text."""
    if not isinstance(fields, dict):
        raise Refused(f"`{path}`: must be an object", path, "invalid_type")
    for name in MODALITIES:
        if fields.get(name) not in (None, ["text"]):
            at = f"{path}.{name}"
            raise Refused(f'`{at}`: must be ["text"]; no audio is made', at, "unsupported_value")


def _read(fields: Fields, path: str, own: frozenset[str]) -> Asked:
    given = dict(fields)
    if given.get("max_output_tokens") == ALL:
        del given["max_output_tokens"]
    truncation = given.get("truncation", "auto")
    given["truncation"] = "auto" if isinstance(truncation, dict) else truncation
    try:
        create = read_create(given)
        generation_options(create)
        return Asked(create, read_tools(create), own)
    except Refused as refused:
        raise refused.inside(path) from refused
