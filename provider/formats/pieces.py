"""Encodes long texts in pieces, so that no other prompt waits until all of one is encoded.

A text is cut before the space between two words, and after the newline before a word. There a cut
changes nothing if no token of the vocabulary spans it. Whether that is so is found out for each
tokenizer, by its vocabulary and by a sample. A tokenizer of another kind encodes every text whole.
Rule: the tokens are those of the whole text. The exception is a text that can't be cut for
MAX_UNCUT characters, such as a megabyte of one letter: it is cut anyway, and the tokens at that
place may differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

__all__ = ["Encode", "PieceEncoder", "Steps", "at_once"]

Encode = Callable[[str], list[int]]
T = TypeVar("T")
Steps = Generator[None, None, T]  # work that pauses between its steps

PIECE = 16_384  # characters, which take about 10 ms
MAX_UNCUT = 262_144  # characters, which take 0.1 to 0.3 s and grow faster than their number
# How many bytes of a text can become one after normalisation, of which a token covers some.
SHRINKING = {"NFC": 3, "Prepend": 1, "Sequence": 1, "Space": 1}

LETTER = r"[^\W\d_]"
# A letter in a vocabulary, whose bytes beyond ASCII may be spelled as other characters.
SPELLED = r"(?:[A-Za-z]|[^\x00-\x7fĠĊĉč▁])"
SAMPLE = """The quick brown fox, isn't it?\nIt has 1234 567 lines, and One More (or two) here.

    Indented line\twith a tab \nAnd "quoted" words; über Straße naïve cafe\u0301 au lait.
def f(a, b):\n\treturn a + b\n中文字符。\n再来一行 and more\r\nTHE END
"""


@dataclass(frozen=True)
class Cut:
    """A kind of place where texts are cut.

    `pattern` matches the text before the place, `spanning` a token that would span it. `before` is
    a short text with which a piece that begins at the place is encoded, instead of all the text
    before it.
    """

    pattern: str
    spanning: str
    before: str


CUTS = (
    Cut(rf"\S\n(?={LETTER})", rf"(?:\n|Ċ|<0x0A>){SPELLED}", "\n"),
    Cut(rf"{LETTER}(?= {LETTER})", rf"{SPELLED}[ Ġ▁]{SPELLED}", "a"),
)


def at_once(steps: Steps[T]) -> T:
    """Take all steps, and return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)


class PieceEncoder:
    """Encodes texts in pieces with one tokenizer, on the tokenizer's thread.

    `encode` encodes a text without special tokens, `encode_whole` with those that the tokenizer
    adds, and `backend` is the tokenizer of the package `tokenizers`, None for one of another kind.
    """

    def __init__(
        self,
        backend: Any,
        encode: Encode,
        encode_whole: Encode,
        *,
        piece: int = PIECE,
        max_uncut: int = MAX_UNCUT,
    ):
        self._piece, self._max_uncut = piece, max_uncut  # in characters
        self._encode = encode
        self._encode_whole = encode_whole
        self._around = None if backend is None else _around(encode, encode_whole)
        vocabulary = {} if backend is None else backend.get_vocab()
        self._cuts = [cut for cut in CUTS if vocabulary and self._allows(cut, vocabulary)]
        self._pattern = re.compile("|".join(cut.pattern for cut in self._cuts) or "(?!)")
        self._before = {cut.before: encode(cut.before) for cut in self._cuts}
        self.bytes_per_token = _bytes_per_token(backend, vocabulary) if vocabulary else None

    def least(self, text: str) -> int:
        """Return a lower bound on the number of a text's tokens; 0 if none is known."""
        return self._least(_size(text))

    def _least(self, size: int) -> int:
        return 0 if self.bytes_per_token is None else -(-size // self.bytes_per_token)

    def encoding(
        self, text: str, check: Callable[[int], None], *, special: bool = False
    ) -> Steps[list[int]]:
        """Encode a text in steps, with `special` as `encode_whole` does.

        `check` is called before every piece with a lower bound on the number of the text's tokens;
        it may raise.
        """
        check(self.least(text))
        if not self._cuts or len(text) <= self._piece or (special and self._around is None):
            return self._encode_whole(text) if special else self._encode(text)
        before, after = self._around if special and self._around is not None else ([], [])
        tokens, left = list(before), _size(text)
        start, context = 0, ""
        while start < len(text):
            end, next_context = self._end(text, start)
            piece = text[start:end]
            tokens += self._after(context, piece)
            left -= _size(piece)
            start, context = end, next_context
            check(len(tokens) + self._least(left))
            yield
        return [*tokens, *after]

    def _end(self, text: str, start: int) -> tuple[int, str]:
        """Return the end of the piece from `start`, and the context for encoding the next one."""
        end = start + self._piece
        while end < len(text) and end - start < self._max_uncut:
            if (found := self._pattern.search(text, end - 1, end + self._piece)) is not None:
                return found.end(), "\n" if found[0].endswith("\n") else "a"
            end += self._piece
        return min(end, len(text)), ""

    def _after(self, context: str, piece: str) -> list[int]:
        """Return the tokens of a piece that comes after a text which ends like `context`.

        Many tokenizers encode the beginning of a text in another way than the same letters later.
        """
        if not context:
            return self._encode(piece)
        known, tokens = self._before[context], self._encode(context + piece)
        return tokens[len(known) :] if tokens[: len(known)] == known else self._encode(piece)

    def _allows(self, cut: Cut, vocabulary: dict[str, int]) -> bool:
        """Return whether texts may be cut in this way."""
        spanning = re.compile(cut.spanning)
        if any(spanning.search(token) for token in vocabulary):
            return False
        self._before = {cut.before: self._encode(cut.before)}
        whole = self._encode(SAMPLE)
        places = [found.end() for found in re.finditer(cut.pattern, SAMPLE)]
        return all(
            self._encode(SAMPLE[:at]) + self._after(cut.before, SAMPLE[at:]) == whole
            for at in places
        )


def _around(encode: Encode, encode_whole: Encode) -> tuple[list[int], list[int]] | None:
    """Return the tokens that `encode_whole` adds before and after, None if it changes others."""
    plain, whole = encode("a"), encode_whole("a")
    for at in range(len(whole) - len(plain) + 1):
        if whole[at : at + len(plain)] == plain:
            return whole[:at], whole[at + len(plain) :]
    return None


def _bytes_per_token(backend: Any, vocabulary: dict[str, int]) -> int | None:
    """Return how many bytes of a text one token covers at most, None if that has no bound.

    There is no bound if one token stands for all unknown text, or if spaces are dropped.
    """
    model, ways = backend.model, f"{backend.pre_tokenizer} {backend.normalizer}"
    every_byte = "ByteLevel(" in ways or getattr(model, "byte_fallback", False)
    if type(model).__name__ != "BPE" or not every_byte:
        return None
    if re.search(r"Removed|Whitespace|Bert", ways):
        return None
    added = backend.get_added_tokens_decoder().values()
    if any(token.lstrip or token.rstrip for token in added):
        return None
    shrinking = _shrinking(str(backend.normalizer))
    if shrinking is None:
        return None
    contents = {token.content for token in added}
    sizes = [
        _size(token) if token in contents else _size_spelled(token, ways) for token in vocabulary
    ]
    return shrinking * max(sizes)


def _size_spelled(token: str, ways: str) -> int:
    """Return the size of a token in bytes; with a byte-level spelling each is one character."""
    return len(token) if "ByteLevel(" in ways else _size(token.replace("▁", " "))


def _shrinking(normaliser: str) -> int | None:
    """Return how many bytes a normaliser may turn into one, None if that is not known."""
    if normaliser == "None":
        return 1
    spaces = 'Replace(pattern=String(" "), content="▁")'
    names = {*re.findall(r"(\w+)\(", normaliser.replace(spaces, "Space()"))}
    known = bool(names) and names <= SHRINKING.keys()
    return max(SHRINKING[name] for name in names) if known else None


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
