"""Every frame of the native protocol as plain frozen data.

Rule 1: frames have no behaviour; session.py acts on them.
Rule 2: a client's frame with an unknown field is refused, to catch typing errors; a client must
ignore unknown fields.
Rule 3: the number of a frame in the msgpack codec and the order of its fields never change; new
fields go to the end, with a default.

Source: PROTOCOL.md, section "Frames".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from gateway.protocol.codes import ErrorCode

__all__ = [
    "JOINED_PROTOCOL",
    "JSON_PROTOCOL",
    "MSGPACK_PROTOCOL",
    "NUMBERS",
    "Ack",
    "Cancel",
    "Chunk",
    "ClientFrame",
    "Done",
    "Error",
    "File",
    "Generate",
    "Hello",
    "Loading",
    "Ping",
    "Pong",
    "Progress",
    "Queued",
    "Ready",
    "Relayed",
    "Resume",
    "ServerFrame",
    "Started",
    "Timing",
    "ToolCall",
    "Usage",
    "name_of",
]


JSON_PROTOCOL = "mlx-gateway.v1.json"

MSGPACK_PROTOCOL = "mlx-gateway.v1.msgpack"

# The same frames, of which the server may put several into one message.
JOINED_PROTOCOL = "mlx-gateway.v1.msgpack-joined"


Id = Annotated[str, Meta(min_length=1, max_length=64)]

Count = Annotated[int, Meta(ge=0)]

# Bounded, because a pong waits in memory until the client reads it; msgpack has no larger integers.
Nonce = Annotated[str, Meta(max_length=64)] | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None

Text = str | None


# Client to server ------------------------------------------------------------------------------


class _FromClient(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="type",
):
    pass


class File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file as data: base64 text in JSON, bytes in msgpack. Never a path or a URL."""

    name: Annotated[str, Meta(min_length=1, max_length=255)]
    mime: Text = None
    data: bytes


class Relayed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a gateway in front says of a client's generation to one that runs `--as-replica`."""

    client: Text = None  # the name of the client that has asked for it
    tell_tokens: bool = False  # whether `progress` has the answer's tokens now and then
    answer: list[int] | None = None  # the tokens with which the answer begins


class Hello(_FromClient, tag="hello", frozen=True, kw_only=True):
    """Authenticates and names the client; optional, and then the first frame."""

    token: Text = None
    client: Text = None


class Generate(_FromClient, tag="generate", frozen=True, kw_only=True):
    """Starts a generation. The provider checks the ranges of the sampling options."""

    id: Id
    prompt: Text = None
    messages: list[dict[str, Any]] | None = None
    system_prompt: Text = None
    files: list[File] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    model: Text = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    stream: bool = True
    window: int | None = None
    resumable: bool = False
    enable_thinking: bool | None = None
    max_reasoning_tokens: int | None = None
    raw: bool | None = None
    continue_final_message: bool | None = None
    n: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    keep_on_close: bool = False
    relayed: Relayed | None = None


class Cancel(_FromClient, tag="cancel", frozen=True, kw_only=True):
    """Stops a generation now; ignored if no live generation has this id."""

    id: Id


class Ack(_FromClient, tag="ack", frozen=True, kw_only=True):
    """Says that the frames up to `seq` are processed."""

    id: Id
    seq: Count


class Resume(_FromClient, tag="resume", frozen=True, kw_only=True):
    """Takes over a generation after a reconnect; with `follow` only reads it, under another id."""

    id: Id
    ticket: str
    after: Annotated[int, Meta(ge=-1)]
    follow: bool = False
    window: Annotated[int, Meta(ge=1)] | None = None  # of the one that follows


class Ping(_FromClient, tag="ping", frozen=True, kw_only=True):
    """Asks for a pong with the same nonce."""

    nonce: Nonce = None


ClientFrame = Hello | Generate | Cancel | Ack | Resume | Ping


# Server to client ------------------------------------------------------------------------------


class _FromServer(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    pass


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens of one generation."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Timing(Struct, frozen=True, kw_only=True):
    """Times of one generation in milliseconds."""

    queue: float = 0.0
    prefill: float = 0.0
    first_token: float = 0.0
    total: float = 0.0
    tokens_per_second: float = 0.0


class Ready(_FromServer, tag="ready", frozen=True, kw_only=True):
    """The server's first frame."""

    protocol: str
    server: str
    epoch: str
    connection: str
    models: list[str]
    limits: dict[str, int]
    relays: bool = False
    replicas: int | None = None
    node: str | None = None


class Queued(_FromServer, tag="queued", frozen=True, kw_only=True):
    """The place of a waiting generation; 1 is next."""

    id: str
    position: int


class Loading(_FromServer, tag="loading", frozen=True, kw_only=True):
    """The model is being loaded: `done` of `total` bytes of its files or weights are there.

    While `warming_up`, they are forward passes, which are made for the first requests.
    """

    id: str
    model: str
    done: int = 0
    total: int = 0
    warming_up: bool = False


class Started(_FromServer, tag="started", frozen=True, kw_only=True):
    """A generation begins; always its frame number 0."""

    id: str
    seq: int
    model: str
    prompt_tokens: int
    cached_tokens: int
    ticket: Text = None


class Progress(_FromServer, tag="progress", frozen=True, kw_only=True):
    """`done` of `total` prompt tokens are read; and `tokens` of the answer, if relayed."""

    id: str
    done: int
    total: int
    first: int = 0
    tokens: list[int] | None = None


class Chunk(_FromServer, tag="chunk", frozen=True, kw_only=True):
    """Some text of the answer, or of its reasoning if `channel` says so."""

    id: str
    seq: int
    text: str
    channel: Literal["reasoning"] | None = None
    logprobs: list[dict[str, Any]] | None = None
    choice: int = 0


class ToolCall(_FromServer, tag="tool_call", frozen=True, kw_only=True):
    """A part of a tool call; with an `error`, the model's own text of a call that can't be read."""

    id: str
    seq: int
    index: int
    call_id: str
    name: Text = None
    arguments: Text = None
    complete: bool = False
    error: Literal["cut_off", "malformed"] | None = None
    text: Text = None
    choice: int = 0


class Done(_FromServer, tag="done", frozen=True, kw_only=True):
    """The end of a generation that did not fail."""

    id: str
    seq: int
    finish_reason: Literal["stop", "length", "tool_calls", "cancelled"]
    usage: Usage
    timing: Timing
    text: Text = None
    reasoning: Text = None
    tool_calls: list[dict[str, Any]] | None = None
    logprobs: list[dict[str, Any]] | None = None
    broken_calls: list[dict[str, Any]] | None = None
    choices: list[dict[str, Any]] | None = None


class Error(_FromServer, tag="error", frozen=True, kw_only=True):
    """The end of a generation that failed, or the refusal of a frame."""

    id: Text = None
    seq: int | None = None
    code: ErrorCode
    message: str
    retryable: bool
    retry_after: float | None = None


class Pong(_FromServer, tag="pong", frozen=True, kw_only=True):
    """The answer to a ping."""

    nonce: str | int | None = None


ServerFrame = Ready | Queued | Started | Progress | Chunk | ToolCall | Done | Error | Pong | Loading


# Codecs ----------------------------------------------------------------------------------------

FIRST_OF_SERVER = 16

NUMBERS: dict[type[Struct], int] = {
    Hello: 1,
    Generate: 2,
    Cancel: 3,
    Ack: 4,
    Resume: 5,
    Ping: 6,
    Ready: 16,
    Queued: 17,
    Started: 18,
    Progress: 19,
    Chunk: 20,
    ToolCall: 21,
    Done: 22,
    Error: 23,
    Pong: 24,
    Loading: 25,
}

CLIENT_FRAMES: tuple[type[ClientFrame], ...] = (Hello, Generate, Cancel, Ack, Resume, Ping)


def name_of(kind: type[Struct]) -> str:
    """Return the `type` of a frame's class."""
    return str(kind.__struct_config__.tag)
