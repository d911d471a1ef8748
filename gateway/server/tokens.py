"""Bearer tokens: their file format, limits and expiry.

A token is 256 random bits, so storing its plain SHA-256 is safe: it can't be guessed, and a digest
from the file can't be used as a token. The file is TOML:

    [tokens.alice]
    sha256 = "9f86d0…"
    expires = 2027-01-01T00:00:00Z  # optional, as are the next two
    max_connections = 10
    max_generations = 20

Pure: no I/O, no clock.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

__all__ = [
    "BadTokens",
    "Token",
    "Tokens",
    "as_toml",
    "from_environment",
    "from_file",
    "from_header",
    "new_secret",
    "text_of_file",
    "without",
]

MAX_CHARS = 1024  # longest secret that is hashed
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{64}")
LIMITS = ("max_connections", "max_generations")
FIELDS = {"sha256", "expires", *LIMITS}


class BadTokens(ValueError):  # noqa: N818 - a message for the user, not a fault of ours
    """A list of tokens that can't be used; the message says where and why, without a secret."""


@dataclass(frozen=True)
class Token:
    """One token, known by its digest."""

    name: str
    sha256: str  # lower-case hexadecimal
    expires: datetime | None = None  # timezone-aware
    max_connections: int | None = None  # None for the gateway's limit, here and below
    max_generations: int | None = None

    def valid_at(self, now: datetime) -> bool:
        """Return whether it has not expired."""
        return self.expires is None or now < self.expires


class Tokens:
    """The accepted tokens; if there are none, no token is required."""

    def __init__(self, tokens: Iterable[Token] = ()):
        self._tokens = tuple(tokens)
        names = [token.name for token in self._tokens]
        for name in names:
            if names.count(name) > 1:
                raise BadTokens(f"two tokens have the name `{name}`")

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self._tokens)

    def successor(self, token: Token | None, now: datetime) -> Token | None:
        """Return the token with the same name and secret, if there is one and it has not expired.

        Its expiry and its limits may be others.
        """
        for one in self._tokens:
            if token is not None and (one.name, one.sha256) == (token.name, token.sha256):
                return one if one.valid_at(now) else None
        return None

    def find(self, secret: str | None, now: datetime) -> Token | None:
        """Return the token with this secret, if there is one and it has not expired.

        The comparison takes the same time for every secret, right or wrong.
        """
        if secret is None or len(secret) > MAX_CHARS:
            return None
        digest, found = _digest(secret), None
        for token in self._tokens:
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found if found is not None and found.valid_at(now) else None


def new_secret() -> str:
    """Return 256 random bits as text of letters, digits, `-` and `_`."""
    return secrets.token_urlsafe(32)


def as_toml(name: str, secret: str, expires: datetime | None) -> str:
    """Return the lines of a token file for a new token. Raises BadTokens for a bad name."""
    _check_name(name)
    until = "" if expires is None else f"expires = {expires.isoformat(timespec='seconds')}\n"
    return f'[tokens."{name}"]\nsha256 = "{_digest(secret)}"\n{until}'


def without(text: str, name: str) -> str:
    """Return a token file's text without the table of this token, if it has one of its own."""
    header = re.compile(
        rf"\s*\[tokens\.(\"{re.escape(name)}\"|'{re.escape(name)}'|{re.escape(name)})\]"
    )
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("["):
            inside = header.match(line) is not None
        if not inside:
            kept.append(line)
    return "".join(kept)


def from_file(text: str, file_name: str) -> list[Token]:
    """Return the tokens of a file. Raises BadTokens."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadTokens(f"`{file_name}` is not TOML: {error}") from error
    entries = content.pop("tokens", {})
    if content or not isinstance(entries, dict):
        raise BadTokens(f"`{file_name}` must hold tables `[tokens.NAME]` and nothing else")
    return [_entry(name, entry, file_name) for name, entry in entries.items()]


def text_of_file(data: bytes, file_name: str) -> str:
    """Return the text of a token file. Raises BadTokens."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadTokens(f"`{file_name}` must be UTF-8, and its byte {error.start} is not") from None


def from_environment(text: str, variable: str) -> list[Token]:
    """Return the tokens of a variable, `NAME:SECRET` separated by spaces. Raises BadTokens."""
    tokens = []
    for place, item in enumerate(text.split(), 1):
        name, colon, secret = item.partition(":")
        if not colon or not secret or not NAME.fullmatch(name):
            raise BadTokens(f"`{variable}`: item {place} must be `NAME:SECRET`")
        tokens.append(Token(name, _digest(secret)))
    return tokens


def from_header(values: Sequence[str]) -> str | None:
    """Return the secret in the values of Authorization, which must be `Bearer SECRET`, once.

    "" for any other value, None without one. Source: RFC 6750, section 2.1.
    """
    if not values:
        return None
    scheme, _, secret = values[0].partition(" ")
    return secret.strip() if len(values) == 1 and scheme.lower() == "bearer" else ""


def _entry(name: str, entry: Any, file_name: str) -> Token:
    where = f"`tokens.{name}` in `{file_name}`"
    _check_name(name)
    if not isinstance(entry, dict) or not set(entry) <= FIELDS:
        raise BadTokens(f"{where} may have {', '.join(sorted(FIELDS))}, and nothing else")
    digest, expires = entry.get("sha256"), entry.get("expires")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise BadTokens(f"{where}: `sha256` must be 64 hexadecimal digits, in lower case")
    if expires is not None and not isinstance(expires, datetime):
        raise BadTokens(f"{where}: `expires` must be a time, as 2027-01-01T00:00:00Z")
    if expires is not None and expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    limits = {name: entry.get(name) for name in LIMITS}
    for limit, value in limits.items():
        if value is not None and (type(value) is not int or value < 1):
            raise BadTokens(f"{where}: `{limit}` must be a whole number of at least 1")
    return Token(name, digest, expires, **limits)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise BadTokens("a token's name has 1 to 64 letters, digits, `_`, `.` and `-`")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
