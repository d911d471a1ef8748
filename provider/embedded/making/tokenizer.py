"""The embedded model's tokenizer: byte-level BPE that makes copying a matter of equal tokens.

A small model copies a name by repeating tokens it has seen. Usual pre-tokenizers glue the space
before a word to it, so that `"Zanvorik"` and ` Zanvorik` share no token. Here only lower-case words
carry their space; before a capital or a digit it goes to the punctuation before it, or stands
alone. Numbers are split into groups of two digits from the right, so that counting is one step in
a table of a hundred. All 256 bytes are in the alphabet: any text survives the round trip.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from provider.embedded.making.corpus import Document, documents

__all__ = ["END", "START", "render", "train_tokenizer"]

VOCABULARY = 1536
START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPECIAL = [PAD, START, END, "<think>", "</think>", "<tool_call>", "</tool_call>"]

PIECES = Regex(
    r" ?[a-z]+"  # a lower-case word with its space
    r"|[A-Z][a-z]*"  # a capitalised word without
    r"|[0-9]{1,2}(?=(?:[0-9]{2})*(?![0-9]))"  # digits in pairs, from the right
    r"|[^\sA-Za-z0-9]+(?: [^\sA-Za-z0-9]+)*(?: (?=[A-Z0-9]))?"  # punctuation
    r"|\s+"
)


def render(template: Path, document: Document) -> str:
    """Return a document as the chat template writes it."""
    # transformers' own way of compiling chat templates, imported late: it takes a second.
    from transformers.utils.chat_template_utils import render_jinja_template  # noqa: PLC0415

    rendered, _ = render_jinja_template(
        conversations=[document.messages],
        tools=document.tools or None,
        chat_template=template.read_text(encoding="utf-8"),
    )
    return str(rendered[0])


def train_tokenizer(folder: Path, seed: int, count: int = 12_000) -> None:
    """Learn the merges from `count` documents and write the tokenizer's files."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(PIECES, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(folder / "chat_template.jinja", seed, count), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _texts(template: Path, seed: int, count: int) -> Iterator[str]:
    for document in itertools.islice(documents(seed), count):
        text = render(template, document)
        for marker in SPECIAL:
            text = text.replace(marker, "\n")
        yield text
    yield " ".join(f"{number:02d}" for number in range(100)) * 500  # each pair of digits a token
