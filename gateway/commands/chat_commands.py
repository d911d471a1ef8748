"""The commands `chat` and `run`: their flags, and what they do with them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from gateway.commands.console import errors, tell
from gateway.commands.failure import ExitStatus, Failure
from gateway.configuration import sources as configuration
from gateway.configuration.settings import Settings

__all__ = ["ADDRESS", "Address", "chat", "run_prompt"]

DEFAULTS = Settings()
ADDRESS = f"http://{DEFAULTS.host}:{DEFAULTS.port}/"
Address = Annotated[str, typer.Option("--url", metavar="URL", help="Address of the gateway.")]
SystemPrompt = Annotated[
    Optional[str], typer.Option(metavar="TEXT", help="System prompt: how the model is to answer.")
]
Temperature = Annotated[
    Optional[float],
    typer.Option(
        min=0.0,
        max=2.0,
        metavar="N",
        help="How varied the answers are; 0 always takes the likeliest word. Default: the model's.",
    ),
]
MaxTokens = Annotated[
    Optional[int],
    typer.Option(
        min=1, metavar="N", help="Length limit of an answer, in tokens. Default: the gateway's."
    ),
]
ToolFile = Annotated[
    Optional[Path],
    typer.Option(
        metavar="FILE",
        help="Python file to run, whose functions the model may call.",
        show_default=False,
    ),
]
Attached = Annotated[
    Optional[list[Path]],
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="Text file, or image for a vision model, to send with the first message; "
        "may be repeated.",
        show_default=False,
    ),
]
OtherOptions = Annotated[
    Optional[list[str]],
    typer.Option(
        "--option",
        "-o",
        metavar="NAME=VALUE",
        help="Another field of the protocol's `generate`, such as `-o top_p=0.9`; the value is "
        "JSON, or else a string; may be repeated.",
    ),
]
Plain = Annotated[
    bool, typer.Option("--plain", help="Show answers as they were written, without Markdown.")
]


def chat(
    url: Address = ADDRESS,
    system: SystemPrompt = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    tools: ToolFile = None,
    file: Attached = None,
    option: OtherOptions = None,
    plain: Plain = False,
) -> None:
    """Chat with a running gateway. Ctrl-C stops an answer, Ctrl-D ends the chat.

    In the chat, `/help` lists what else can be done: save it, change the model, begin anew.
    """
    from gateway.commands.chat_flags import chat_by_flags  # noqa: PLC0415

    try:
        answered = chat_by_flags(
            url,
            system,
            _sampling(temperature, max_tokens),
            sys.stdin,
            options=option or (),
            tools=tools,
            files=file or (),
            token=_token(),
            plain=plain,
        )
    except Failure as failure:
        raise tell(failure) from None
    if not answered:
        raise typer.Exit(ExitStatus.FAILED)


def run_prompt(
    prompt: Annotated[
        Optional[str],
        typer.Argument(
            metavar="PROMPT",
            help="What to ask. What is piped in is added to it, or is the prompt.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        Optional[str],
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Model that answers: one that the gateway serves, or else a folder, a GGUF file, "
            "or OWNER/NAME on the hub.",
        ),
    ] = None,
    url: Annotated[
        Optional[str],
        typer.Option(
            metavar="URL",
            help=f"Address of a gateway. Default: the one at {ADDRESS}, or none if none is there.",
        ),
    ] = None,
    system: SystemPrompt = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    file: Attached = None,
    option: OtherOptions = None,
    plain: Plain = False,
) -> None:
    """Print one answer: by the gateway that runs, or without one. Ctrl-C stops it.

    [bold]Examples[/]
      mlx-gateway run "Tell me a story about a fox"
      mlx-gateway run "What does this do?" < main.py
      mlx-gateway run -m mlx-community/Qwen3-0.6B-4bit "Why is the sky blue?"
    """
    from gateway.commands.one_answer import Question, answer_once  # noqa: PLC0415

    fields = {"system_prompt": system, **_sampling(temperature, max_tokens)}
    question = Question(prompt, sys.stdin, file or (), option or (), fields, model)
    try:
        status = answer_once(question, url, ADDRESS, _token(), errors(), plain=plain)
    except Failure as failure:
        raise tell(failure) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitStatus.INTERRUPTED) from None
    raise typer.Exit(status)


def _sampling(temperature: float | None, max_tokens: int | None) -> dict[str, float | int]:
    given = {"temperature": temperature, "max_tokens": max_tokens}
    return {name: value for name, value in given.items() if value is not None}


def _token() -> str | None:
    return os.environ.get(configuration.TOKEN_VARIABLE) or None
