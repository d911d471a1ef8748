"""Texts in pieces have the tokens of the whole text, and a bound on their number."""

import random

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from provider.embedded import MODEL_PATH
from provider.formats.pieces import PIECE, PieceEncoder, at_once

WORDS = """The cat sat; it's 12345 steps

  from  Here\tto there. \nAnd 中文。\n再来 café über <|im_end|> a/b\r\nc"""


def text_of(size, seed=0):
    chosen = random.Random(seed)
    parts = [*WORDS.split(" "), "\n", "\n\n", "  ", "x = y\n", "End of it.\n"]
    words = []
    while sum(map(len, words)) < size:
        words += chosen.choices(parts, k=100)
        words.append(chosen.choice([" ", "\n", ""]))
    return " ".join(words)


def llama():
    """A tokenizer of Llama 2's kind, which puts a space before each text and a token before all."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    # Trained on single words, because it has no pre-tokenizer.
    made.train_from_iterator(
        [word for word in text_of(4000).split() for _ in range(3)],
        BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False),
    )
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", unk_token="<unk>")


# As in Llama 3 and many later models; the one of GPT-2 is a default of ByteLevel.
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(*splits, normaliser=None):
    made = Tokenizer(models.BPE())
    if normaliser is not None:
        made.normalizer = normaliser
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(use_regex=not splits, add_prefix_space=False)]
    )
    made.train_from_iterator([text_of(4000)], BpeTrainer(vocab_size=600, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=made)


def spanning():
    """A tokenizer whose tokens go over the ends of words."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(use_regex=False, add_prefix_space=False)
    made.train_from_iterator([text_of(4000)], BpeTrainer(vocab_size=600, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=made)


TOKENIZERS = {
    "embedded": lambda: AutoTokenizer.from_pretrained(MODEL_PATH),
    "gpt 2": byte_level,
    "llama 3": lambda: byte_level(pre_tokenizers.Split(Regex(LLAMA_3), "isolated")),
    "llama": llama,
    "spanning": spanning,
}


def encoder_of(tokenizer, **sizes):
    """Return an encoder, and the list of texts that it has encoded."""
    encoded = []

    def encode(text, **options):
        encoded.append(text)
        return tokenizer(text, **options)["input_ids"]

    backend = tokenizer.backend_tokenizer
    made = PieceEncoder(
        backend, lambda text: encode(text, add_special_tokens=False), encode, **sizes
    )
    encoded.clear()
    return made, encoded


def unbounded(_):
    pass


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


@pytest.mark.parametrize("special", [False, True])
def test_the_tokens_of_the_pieces_are_those_of_the_whole_text(tokenizer, special):
    encoder, _ = encoder_of(tokenizer, piece=50)
    for seed in range(5):
        text = text_of(2000, seed)
        whole = tokenizer(text, add_special_tokens=special)["input_ids"]
        assert at_once(encoder.encoding(text, unbounded, special=special)) == whole


@pytest.mark.parametrize("name", TOKENIZERS)
def test_only_a_vocabulary_without_tokens_across_words_is_cut(name):
    encoder, encoded = encoder_of(TOKENIZERS[name](), piece=50)
    at_once(encoder.encoding(text_of(2000), unbounded))
    assert (len(encoded) == 1) is (name == "spanning")


def test_a_text_that_cannot_be_cut_is_cut_anyway_after_a_while():
    tokenizer = TOKENIZERS["embedded"]()
    encoder, encoded = encoder_of(tokenizer, piece=50, max_uncut=200)
    text = "a" * 1000
    tokens = at_once(encoder.encoding(text, unbounded))
    assert max(map(len, encoded)) <= 250
    assert tokenizer.decode(tokens) == text


def test_a_piece_is_encoded_only_once_the_check_allows_it():
    encoder, encoded = encoder_of(TOKENIZERS["embedded"]())
    text, seen = "one word after another\n" * 4000, []

    def check(least):
        seen.append(least)
        if least > 9000:
            raise OverflowError

    with pytest.raises(OverflowError):
        at_once(encoder.encoding(text, check))
    assert sum(map(len, encoded)) < len(text) / 2
    assert seen == sorted(seen)
    assert max(map(len, encoded)) < PIECE + 100


def test_the_least_number_of_tokens_is_never_above_the_number(tokenizer):
    encoder, _ = encoder_of(tokenizer)
    for text in (text_of(3000), "<|im_end|>" * 50, "é中" * 99, "e\u0301" * 99, " " * 999, ""):
        assert encoder.least(text) <= len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert encoder.least("a" * 100_000) > 1000


NORMALISERS = [
    (None, True),
    (normalizers.NFC(), True),
    (normalizers.Sequence([normalizers.NFC()]), True),
    (normalizers.Strip(), False),
    (normalizers.Sequence([normalizers.NFC(), normalizers.Replace("a", "")]), False),
]


@pytest.mark.parametrize(("normaliser", "bounded"), NORMALISERS)
def test_what_may_drop_text_leaves_the_number_of_tokens_without_a_bound(normaliser, bounded):
    encoder, _ = encoder_of(byte_level(normaliser=normaliser))
    assert (encoder.least("word" * 1000) > 0) is bounded


def test_unknown_text_that_is_one_token_leaves_no_bound():
    made = Tokenizer(
        models.BPE(vocab={"<unk>": 0, "a": 1}, merges=[], unk_token="<unk>", fuse_unk=True)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")
    assert len(tokenizer("b" * 1000)["input_ids"]) == 1
    assert encoder_of(tokenizer)[0].least("b" * 1000) == 0


def test_a_tokenizer_without_a_known_backend_encodes_whole_texts():
    encoder = PieceEncoder(None, lambda text: [len(text)], lambda text: [1, len(text)])
    text = "a word\n" * 10_000
    assert at_once(encoder.encoding(text, unbounded)) == [len(text)]
    assert at_once(encoder.encoding(text, unbounded, special=True)) == [1, len(text)]
    assert encoder.least(text) == 0
