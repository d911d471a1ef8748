"""Makes a tokenizer of a GGUF file's metadata, in the files from which mlx-lm loads one.

A file holds a vocabulary, and either the merges of byte-level BPE and the name of the way in which
text is split before (`gpt2`), or the scores of a SentencePiece model (`llama`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from provider.models.gguf.header import GGUFError, Header
from provider.runtime.mlx_lm import load_tokenizer

__all__ = ["backend", "ends", "tokenizer_of_header"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # types of tokens
SPACE = "\u2581"  # stands for a space in a SentencePiece model

# Tokens that end an answer, besides the one that the file names.
ENDS = {
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<EOT>",
}  # fmt: skip

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LETTER, CAPITAL, SMALL = (
    r"[^\r\n\p{L}\p{N}]?",
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
)
LLAMA3 = rf"{WORDS}|\p{{N}}{{1,3}}|{REST}"
QWEN2 = rf"{WORDS}|\p{{N}}|{REST}"
TEKKEN = (
    rf"{LETTER}{CAPITAL}*{SMALL}+|{LETTER}{CAPITAL}+{SMALL}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Splitting:
    """How text is split into words before its bytes are merged.

    By `regex`, or as GPT-2 does where there is none. With `digits`, each digit is a word. With
    `whole`, a word in the vocabulary is one token even if no merges lead to it.
    """

    regex: str | None = None
    digits: bool = False
    whole: bool = False
    nfc: bool = False

    def pre_tokenizer(self) -> Any:
        """Return it as the first step of a tokenizer."""
        if self.regex is None:
            words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
            return _sequence([pre_tokenizers.Digits(individual_digits=True)] * self.digits, words)
        split = pre_tokenizers.Split(Regex(self.regex), behavior="isolated")
        return _sequence([split], pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))


def _sequence(before: list[Any], last: Any) -> Any:
    return pre_tokenizers.Sequence([*before, last]) if before else last


# By the name in `tokenizer.ggml.pre`.
SPLITTINGS = {
    **dict.fromkeys(("default", "gpt-2", "olmo", "mpt"), Splitting()),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r"), Splitting(digits=True)),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "smaug-bpe"),
        Splitting(LLAMA3, whole=True),
    ),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), Splitting(QWEN2, nfc=True)),
    "stablelm2": Splitting(QWEN2),
    "tekken": Splitting(TEKKEN, whole=True),
}


def tokenizer_of_header(header: Header) -> Any:
    """Return mlx-lm's wrapper of a file's tokenizer. Raises GGUFError."""
    tokenizer = backend(header)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        tokenizer.save(str(folder / "tokenizer.json"))
        config = json.dumps(_config(header))
        (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")
        return load_tokenizer(folder, eos_token_ids=sorted(ends(header)))


def ends(header: Header) -> set[int]:
    """Return the tokens that end an answer. Raises GGUFError if there is none."""
    named = {_id(header, name) for name in ("eos", "eot", "eom")}
    tokens = _tokens(header)
    found = {token for token in _of_types(header, CONTROL) if tokens[token] in ENDS}
    found |= {token for token in named if token is not None}
    if not found:
        raise GGUFError("its metadata has no `tokenizer.ggml.eos_token_id`")
    return found


def backend(header: Header) -> Tokenizer:
    """Return the tokenizer of the library tokenizers. Raises GGUFError."""
    kind = header.metadata.get("tokenizer.ggml.model")
    if kind not in {"gpt2", "llama"}:
        raise GGUFError(f"its tokenizer is of the kind `{kind}`; known are gpt2 and llama")
    try:
        tokenizer = _byte_level(header) if kind == "gpt2" else _sentence_piece(header)
    except GGUFError:
        raise
    except Exception as error:  # tokenizers raises Exception itself
        raise GGUFError(f"its tokenizer is damaged: {error}") from error
    tokens = _tokens(header)
    special = [tokens[one] for one in _of_types(header, CONTROL, UNKNOWN)]
    tokenizer.add_special_tokens([AddedToken(one, normalized=False) for one in special])
    given = [tokens[one] for one in _of_types(header, USER_DEFINED)]
    tokenizer.add_tokens([AddedToken(one, normalized=False) for one in given])
    first = _id(header, "bos")
    if first is not None and header.metadata.get("tokenizer.ggml.add_bos_token", kind == "llama"):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=["bos", "$A"],
            pair=["bos", "$A", "bos", "$B"],
            special_tokens=[{"id": "bos", "ids": [first], "tokens": [tokens[first]]}],
        )
    return tokenizer


def _byte_level(header: Header) -> Tokenizer:
    name = header.metadata.get("tokenizer.ggml.pre", "default")
    splitting = SPLITTINGS.get(name)
    if splitting is None:
        known = ", ".join(SPLITTINGS)
        raise GGUFError(f"its tokenizer splits text in the way `{name}`; known are {known}")
    merges = [_parts(merge) for merge in _list(header, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(_vocabulary(header), merges, ignore_merges=splitting.whole))
    tokenizer.pre_tokenizer = splitting.pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    if splitting.nfc:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _parts(merge: str) -> tuple[str, str]:
    first, _, second = merge.partition(" ")
    return first, second


def _sentence_piece(header: Header) -> Tokenizer:
    vocabulary, unknown = _vocabulary(header), _id(header, "unknown")
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary,
            list(_merges(header, vocabulary)),
            unk_token=None if unknown is None else _tokens(header)[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = bool(header.metadata.get("tokenizer.ggml.add_space_prefix", True))
    spaces = normalizers.Replace(" ", SPACE)
    before = [normalizers.Prepend(SPACE)] if prefix else []
    after = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*before, spaces])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *after]
    )
    return tokenizer


def _merges(header: Header, vocabulary: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Return the merges that scores imply: whatever two tokens make a third, best scores first."""
    tokens, scores = _tokens(header), _list(header, "tokenizer.ggml.scores")
    if len(scores) != len(tokens):
        raise GGUFError(f"it has {len(scores)} scores of {len(tokens)} tokens")
    normal = _of_types(header, NORMAL)
    for token in sorted(normal, key=lambda token: (-scores[token], token)):
        text = tokens[token]
        pairs = [(text[:at], text[at:]) for at in range(1, len(text))]
        found = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
        yield from sorted(found, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))


def _config(header: Header) -> dict[str, Any]:
    tokens = _tokens(header)
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {name: _id(header, kind) for name, kind in names.items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "chat_template": header.metadata.get("tokenizer.chat_template"),
        **{name: tokens[token] for name, token in ids.items() if token is not None},
    }


def _vocabulary(header: Header) -> dict[str, int]:
    return {token: number for number, token in enumerate(_tokens(header))}


def _tokens(header: Header) -> list[str]:
    return _list(header, "tokenizer.ggml.tokens")


def _of_types(header: Header, *kinds: int) -> list[int]:
    """Return the tokens of some types in ascending order; without types all are normal."""
    tokens = _tokens(header)
    types: Sequence[int] = header.metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    return [token for token, kind in zip(range(len(tokens)), types, strict=False) if kind in kinds]


def _id(header: Header, kind: str) -> int | None:
    """Return the number of a token that has a role, None if the file names none."""
    token = header.metadata.get(f"tokenizer.ggml.{kind}_token_id")
    if token is None:
        return None
    if not isinstance(token, int) or not 0 <= token < len(_tokens(header)):
        raise GGUFError(f"its `tokenizer.ggml.{kind}_token_id` is {token}")
    return token


def _list(header: Header, key: str) -> list[Any]:
    value = header.metadata.get(key)
    if not isinstance(value, list):
        raise GGUFError(f"its metadata has no `{key}`")
    return value
