"""Tokenizers that are made of a GGUF file's metadata, held against other readers of the same."""

import io
from pathlib import Path

import pytest
import sentencepiece
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

from provider.embedded import MODEL_PATH
from provider.models.gguf.header import GGUFError, Header
from provider.models.gguf.tokenizer import SPLITTINGS, backend, ends, tokenizer_of_header
from tests.support.gguf_files import tokenizer_of

TEXTS = [
    "Hello there, it's 12345 o'clock (or 7)!",
    "  two spaces,\n\n two lines\n\t and tabs  ",
    "Zürich — São Paulo, 北京 and 🙂; cafe\u0301",
    "I'LL x'T don't\r\n a=b+c; 3.14159e-10 __init__",
]


def header(metadata=None, **changed):
    values = {**(metadata or tokenizer_of(MODEL_PATH)), "general.architecture": "llama"}
    for name, value in changed.items():
        key = "tokenizer.chat_template" if name == "chat_template" else f"tokenizer.ggml.{name}"
        values.pop(key, None)
        if value is not None:
            values[key] = value
    return Header(Path("a.gguf"), values, {})


def of_transformers(metadata, pre):
    """Return the tokenizer that transformers makes of a byte-level vocabulary."""
    names = {"tokens": "tokens", "merges": "merges", "token_type": "token_type"}
    given = {name: metadata[f"tokenizer.ggml.{key}"] for name, key in names.items()}
    return convert_gguf_tokenizer(
        "llama", {**given, "tokenizer_type": "gpt2", "pre_tokenizer_type": pre}
    )[0]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2", "tekken"])
def test_byte_level_text_is_split_as_transformers_splits_it(pre, text):
    metadata = tokenizer_of(MODEL_PATH)
    made = backend(header(metadata, pre=pre))
    text = made.normalizer.normalize_str(text) if made.normalizer else text
    wanted = of_transformers(metadata, pre).pre_tokenizer.pre_tokenize_str(text)
    assert made.pre_tokenizer.pre_tokenize_str(text) == wanted


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_tokens_are_those_of_transformers(text):
    metadata = tokenizer_of(MODEL_PATH)
    made, wanted = backend(header(metadata)), of_transformers(metadata, "gpt-2")
    tokens = made.encode(text).ids
    assert tokens == wanted.encode(text, add_special_tokens=False).ids
    assert made.decode(tokens, skip_special_tokens=False) == text


def test_digits_are_words_of_their_own_where_the_file_says_so():
    split = backend(header(pre="smollm")).pre_tokenizer.pre_tokenize_str("in 1234")
    assert [word for word, _ in split] == ["in", "Ġ", "1", "2", "3", "4"]


def test_qwen_composes_letters_first():
    made = backend(header(pre="qwen2"))
    assert made.encode("cafe\u0301").ids == made.encode("caf\u00e9").ids


def test_special_tokens_are_found_within_a_text():
    made = backend(header())
    names = ["<|im_start|>", "<think>", "<|im_end|>"]
    assert made.encode("".join(names)).ids == [made.token_to_id(name) for name in names]


def test_tokens_of_a_users_own_are_kept_whole_and_are_not_special():
    types = tokenizer_of(MODEL_PATH)["tokenizer.ggml.token_type"]
    made = backend(
        header(token_type=[4 if token == 3 else kind for token, kind in enumerate(types)])
    )
    assert made.encode("<think>").ids == [3]
    assert made.decode([3], skip_special_tokens=True) == "<think>"


def test_the_first_token_is_added_where_the_file_says_so():
    made = backend(header(bos_token_id=1, add_bos_token=True))
    plain = backend(header(bos_token_id=1)).encode("hi").ids
    assert made.encode("hi").ids == [1, *plain]
    assert made.encode("hi", add_special_tokens=False).ids == plain


def test_the_wrapper_has_template_and_ends():
    wrapped = tokenizer_of_header(header(eos_token_id=0))
    assert wrapped.eos_token_ids == {0, 2}  # the second is named <|im_end|>
    assert wrapped.has_chat_template
    assert wrapped.decode(wrapped.encode("Hello there")) == "Hello there"
    assert not tokenizer_of_header(header(chat_template=None)).has_chat_template


CORPUS = """The quick brown fox jumps over the lazy dog. It's a dog's life, they say.
Once upon a time there was a fox who jumped over seven lazy dogs in Zürich and São Paulo.
There were 12345 of them, or 678; nobody counted the foxes, the dogs and the lives of dogs.
"""


@pytest.fixture(scope="module", params=[True, False], ids=["prefix", "no prefix"])
def piece_model(request):
    """A SentencePiece model of the kind that Llama and Gemma have, trained in a moment."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.splitlines() * 20),
        model_writer=made,
        vocab_size=450,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=request.param,
        user_defined_symbols=["<turn>"],
        hard_vocab_limit=False,
        minloglevel=2,
        character_coverage=1.0,
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    return model, request.param


def metadata_of_pieces(model, *, prefix):
    kinds = [1] * len(model)
    for kind, has_it in ((2, model.is_unknown), (3, model.is_control), (6, model.is_byte)):
        kinds = [kind if has_it(one) else known for one, known in enumerate(kinds)]
    kinds[model.piece_to_id("<turn>")] = 4
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [model.id_to_piece(one) for one in range(len(model))],
        "tokenizer.ggml.scores": [model.get_score(one) for one in range(len(model))],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": model.bos_id(),
        "tokenizer.ggml.eos_token_id": model.eos_id(),
        "tokenizer.ggml.unknown_token_id": model.unk_id(),
        "tokenizer.ggml.add_space_prefix": prefix,
    }


@pytest.mark.parametrize("text", [*TEXTS, "The lazy dog's life: 12345!", "a<turn>b"])
def test_pieces_are_those_of_sentencepiece(piece_model, text):
    model, prefix = piece_model
    made = backend(header(metadata_of_pieces(model, prefix=prefix)))
    text = text.replace("\r", "")
    wanted = model.encode(text)
    if "<turn>" in text and prefix:
        # SentencePiece adds a space to the whole text only; llama.cpp and transformers after each
        # token of a user's own.
        wanted = [*model.encode("a"), model.piece_to_id("<turn>"), *model.encode("b")]
    assert made.encode(text).ids == [model.bos_id(), *wanted]
    if "<turn>" not in text:
        assert made.decode(wanted) == text


def test_answers_of_pieces_are_streamed_as_text(piece_model):
    model, prefix = piece_model
    wrapped = tokenizer_of_header(header(metadata_of_pieces(model, prefix=prefix)))
    detokenizer, text = wrapped.detokenizer, "The fox, 北京 and the dog"
    for token in model.encode(text):
        detokenizer.add_token(token)
    detokenizer.finalize()
    assert detokenizer.text.lstrip(" ") == text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "bert"}, "of the kind `bert`; known are gpt2 and llama"),
        ({"model": None}, "of the kind `None`"),
        ({"pre": "klingon"}, "splits text in the way `klingon`; known are"),
        ({"tokens": None}, r"no `tokenizer\.ggml\.tokens`"),
        ({"merges": None}, r"no `tokenizer\.ggml\.merges`"),
        ({"merges": ["no such"]}, "its tokenizer is damaged"),
        ({"bos_token_id": 9999}, "bos_token_id` is 9999"),
        ({"model": "llama", "scores": [0.5]}, "1 scores of 1536 tokens"),
    ],
)
def test_what_cannot_be_read_says_why(changed, said):
    with pytest.raises(GGUFError, match=said):
        backend(header(**changed))


def test_a_file_must_name_the_end_of_an_answer():
    with pytest.raises(GGUFError, match="eos_token_id"):
        ends(header(eos_token_id=None, token_type=[1] * 1536))


def test_a_model_of_each_known_kind_is_split_in_a_known_way():
    assert {"smollm", "llama-bpe", "qwen2", "gpt-2", "default"} <= set(SPLITTINGS)
