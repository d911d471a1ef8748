"""What a user can do in a chat beside talking: lines that begin with a slash."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.text import Text

from gateway.commands import chat_file
from provider.wording import counted

__all__ = ["COMMANDS", "Conversation", "is_command", "obey"]

COMMAND = re.compile(r"/[a-z]+(?=\s|$)")
NAMES = 18  # columns of the list of commands that their names take
LEAST = 2 * NAMES  # columns, below which the list is not made narrower


@dataclass
class Conversation:
    """The turns of a chat, and the fields of `generate` that go with each request."""

    fields: dict[str, Any]
    models: Sequence[str] = ()  # that the gateway serves, the default model first
    turns: list[dict[str, Any]] = field(default_factory=list)
    saved: set[Path] = field(default_factory=set)  # files that hold this conversation
    kept: int = 0  # how many of its turns they hold
    # The file whose `/load` was put off, and how many turns it would have lost.
    put_off: tuple[Path, int] | None = None
    attachments: Sequence[dict[str, Any]] = ()  # parts that begin the next message


class _Refused(Exception):  # noqa: N818 - what the user is told
    """A command can't be done; the message says why."""


def is_command(line: str) -> bool:
    """Return whether a line is a command: a slash and a word, as a message rarely begins."""
    return COMMAND.match(line) is not None


def obey(line: str, conversation: Conversation, notes: Console) -> bool:
    """Do what a line says, print what came of it, and return whether the chat goes on."""
    name, _, rest = line.strip().partition(" ")
    if name == "/quit":
        return False
    command = COMMANDS.get(name)
    if command is None:
        said = f"there is no command {name}; /help lists them, and a space before it sends it"
        notes.print(escape(said), style="red")
        return True
    try:
        notes.print(command.do(conversation, rest.strip()), style="dim", markup=False)
    except (_Refused, chat_file.BadFile) as refusal:
        notes.print(escape(str(refusal)), style="red")
    except KeyboardInterrupt:  # a file may be a pipe, which has nobody at its other end
        notes.print("\nstopped", style="dim")
    return True


@dataclass(frozen=True)
class _Listed:
    """Rows of a name and a text, which wraps beside the names.

    A table of rich would fill each line with blanks, which are copied with it.
    """

    rows: Sequence[tuple[str, str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        width, indent = max(options.max_width, LEAST), " " * NAMES
        for name, text in self.rows:
            yield Text(
                textwrap.fill(
                    text, width, initial_indent=f"  {name}".ljust(NAMES), subsequent_indent=indent
                )
            )


def _help(conversation: Conversation, rest: str) -> _Listed:
    rows = [(f"{name} {one.argument}".strip(), one.does) for name, one in COMMANDS.items()]
    rows += [("Alt-Enter", "a new line; pasted lines are one message too")]
    rows += [("Ctrl-C", "stops an answer, or clears the line"), ("Ctrl-D", "ends the chat")]
    return _Listed(rows)


def _new(conversation: Conversation, rest: str) -> str:
    said = len(conversation.turns)
    conversation.turns.clear()
    conversation.saved.clear()  # they hold the conversation that ends here
    conversation.kept = 0
    if conversation.attachments:  # a message with them was refused, if anything was said
        conversation.attachments = ()
        return "a new conversation, without the files of `--file`"
    if not said:
        return "nothing was said"
    return f"a new conversation; {counted(said, 'message', are=True)} forgotten"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _system(conversation: Conversation, rest: str) -> str:
    if rest:
        conversation.fields["system_prompt"] = rest
        return "the system prompt is changed, from the next answer on"
    return conversation.fields.get("system_prompt") or "no system prompt; `/system TEXT` sets one"


def _model(conversation: Conversation, rest: str) -> str:
    models = conversation.models
    if not rest:
        now = conversation.fields.get("model") or next(iter(models), "?")
        return "\n".join(f"{'*' if one == now else ' '} {one}" for one in models or [now])
    if models and rest not in models:
        raise _Refused(f"{rest} is not served; the gateway has {', '.join(models)}")
    conversation.fields["model"] = rest
    return f"{rest} answers from now on"


def _save(conversation: Conversation, rest: str) -> str:
    if not conversation.turns:
        raise _Refused("nothing was said yet")
    path = chat_file.path_of(rest) if rest else _unused(conversation)
    fields = conversation.fields
    kept = chat_file.Kept(conversation.turns, fields.get("system_prompt"), fields.get("model"))
    chat_file.write(kept, path, over=path in conversation.saved)
    conversation.saved.add(path)
    conversation.kept = len(conversation.turns)
    again = f"; `/load {path}` goes on with it" if chat_file.is_json(path) else ""
    return f"saved to {path}{again}"


def _unused(conversation: Conversation) -> Path:
    """Return a file named after the time that nobody else has written."""
    name = f"chat-{datetime.now().astimezone():%Y-%m-%d-%H%M}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    paths = (Path(f"{one}.json") for one in names)
    return next(path for path in paths if path in conversation.saved or not path.exists())


def _load(conversation: Conversation, rest: str) -> str:
    if not rest:
        raise _Refused("`/load FILE` takes a file that `/save FILE.json` has written")
    path = chat_file.path_of(rest)
    kept = chat_file.read(path)
    lost = len(conversation.turns) - conversation.kept
    if lost and conversation.put_off != (path, lost):
        conversation.put_off = path, lost
        it = "it" if lost == 1 else "them"
        said = f"{counted(lost, 'message', are=True)} not saved"
        raise _Refused(f"{said}: /save keeps {it}, and the same line again forgets {it}")
    conversation.turns[:] = kept.messages
    conversation.kept, conversation.put_off = len(kept.messages), None
    conversation.saved = {path}  # the others hold the conversation that this one replaces
    if kept.system_prompt:
        conversation.fields["system_prompt"] = kept.system_prompt
    if kept.model:
        conversation.fields["model"] = kept.model
    number = len(kept.messages)
    forgotten = f"; {lost} that {_were(lost)} not saved {_are(lost)} forgotten" if lost else ""
    return f"{counted(number, 'message', are=True)} back{forgotten}"


def _quit(conversation: Conversation, rest: str) -> str:
    raise AssertionError("`obey` ends the chat")


@dataclass(frozen=True)
class _Command:
    argument: str
    does: str
    do: Callable[[Conversation, str], RenderableType]


COMMANDS = {
    "/help": _Command("", "shows this list", _help),
    "/new": _Command("", "forgets what was said, and begins anew", _new),
    "/system": _Command("TEXT", "tells the model how to answer", _system),
    "/model": _Command("NAME", "has another model answer; without a name, lists them", _model),
    "/save": _Command("FILE", "keeps the conversation, as .json or .md", _save),
    "/load": _Command(
        "FILE", "goes on with one that was saved as .json, in place of this one", _load
    ),
    "/quit": _Command("", "ends the chat", _quit),
}
