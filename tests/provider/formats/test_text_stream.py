"""Text, channels, stop strings and calls, with the embedded model's tokenizer."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.chat_templates.muse_spark import RESPONSE_FORMAT
from mlx_lm.tokenizer_utils import (
    BPEStreamingDetokenizer,
    NaiveStreamingDetokenizer,
    SPMStreamingDetokenizer,
    TokenizerWrapper,
)

from provider.embedded import MODEL_PATH
from provider.events import CallDelta, TextDelta, TokenLogprob
from provider.formats.text_stream import PlainDeltas, TextFormat, TextStream, initial_state
from provider.models.loading import tokenizer_of

TOKENIZER = tokenizer_of(MODEL_PATH)
FORMAT = TextFormat(TOKENIZER)
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


def encode(text):
    return TOKENIZER.encode(text, add_special_tokens=False)


def run(text, *, prompt=(), finish=True, text_format=FORMAT, **options):
    stream = TextStream(
        text_format, state=initial_state(text_format.tokenizer, list(prompt)), **options
    )
    pieces = []
    for token in encode(text):
        if stream.stopped:
            break
        pieces += stream.add(token)
    return stream, pieces + (stream.finish() if finish else [])


def text_of(pieces, *, reasoning=False):
    texts = (piece for piece in pieces if isinstance(piece, TextDelta))
    return "".join(piece.text for piece in texts if piece.reasoning == reasoning)


@pytest.mark.parametrize(
    "text", ["Once upon a time.", "Zürich, 東京, 🦊🦊!", "a\n\nb  c", "x < y <"]
)
def test_the_deltas_join_to_the_text(text):
    assert text_of(run(text)[1]) == text


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_text_is_decoded_unchanged(text):
    text = "." + text.replace("<", "(")  # a marker is no text; one leading space is the format's
    assert text_of(run(text)[1]) == text


@given(st.text("aé東🦊 ", min_size=1))
def test_no_delta_has_a_broken_character(text):
    assert all("�" not in piece.text for piece in run("." + text)[1])


def test_a_continued_answer_keeps_its_first_space():
    for after, said in ((None, "upon"), (encode("Once")[-1], " upon")):
        stream = TextStream(FORMAT, after=after)
        pieces = [piece for token in encode(" upon") for piece in stream.add(token)]
        assert text_of(pieces + stream.finish()) == said


def test_reasoning_is_a_channel_of_its_own():
    stream, pieces = run("<think>I plan.</think>The answer.")
    assert text_of(pieces, reasoning=True) == "I plan."
    assert text_of(pieces) == "The answer."
    assert stream.reasoning_tokens > 0


def test_a_prompt_that_opens_the_thinking_begins_in_reasoning():
    _, pieces = run("I plan.</think>Yes.", prompt=encode("Hi<think>"))
    assert text_of(pieces, reasoning=True) == "I plan."
    assert text_of(pieces) == "Yes."


def test_a_call_is_read_and_not_shown():
    stream, pieces = run("Wait. " + CALL)
    assert text_of(pieces).strip() == "Wait."
    (call,) = stream.calls
    assert (call["name"], call["arguments"]) == ("add", {"a": 1})


def test_several_calls_have_an_id_each():
    stream, _ = run(CALL + CALL)
    assert len({call["id"] for call in stream.calls}) == 2


def test_a_complete_call_without_its_end_marker_is_read():
    stream, pieces = run(CALL.removesuffix("</tool_call>"))
    assert [call["name"] for call in stream.calls] == ["add"]
    assert text_of(pieces) == ""


@pytest.mark.parametrize("bad", ["<tool_call>{no json}</tool_call>", '<tool_call>{"name": "ad'])
def test_a_call_that_cannot_be_parsed_is_reported_with_its_text_in_the_stream(bad):
    stream, pieces = run("A" + bad)
    assert stream.calls == []
    assert text_of(pieces) == "A"
    assert [broken.text for broken in stream.broken] == [bad]


@pytest.mark.parametrize("stop", [["END"], ["upon a"], ["xyz", "time"], ["."]])
def test_no_part_of_a_stop_string_and_no_later_text_is_shown(stop):
    text = "Once upon a time. THE END of it"
    stream, pieces = run(text, stop=stop)
    where = min(text.index(word) for word in stop if word in text)
    assert text_of(pieces) == text[:where]
    assert stream.stopped
    assert stream.add(encode("more")[0]) == []


@given(st.text("ab ", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_any_stop_string_cuts_where_it_first_ends(text, stop):
    text = "." + text
    ends = [text.index(word) + len(word) for word in stop if word in text]
    shown = text_of(run(text, stop=stop)[1])
    if not ends:
        assert shown == text
    else:
        end = min(ends)
        assert shown in {text[: end - len(word)] for word in stop if text[:end].endswith(word)}


def test_a_partial_stop_string_is_held_back_and_given_at_the_end():
    stream, pieces = run("It is E", stop=["END"], finish=False)
    assert text_of(pieces) == "It is "
    assert stream.finish() == [TextDelta("E")]


def test_a_stop_string_in_the_reasoning_does_not_end_the_answer():
    stream, pieces = run("<think>END</think>Go.", stop=["END"])
    assert text_of(pieces) == "Go."
    assert not stream.stopped


# Any split of a text into tokens gives the same. -------------------------------------------------

VOCABULARY = TOKENIZER.get_vocab()


def byte_names():
    """Return the character that a byte-level vocabulary writes for each byte."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {**{b: chr(b) for b in visible}, **{b: chr(256 + i) for i, b in enumerate(hidden)}}


BYTES = {byte: VOCABULARY[name] for byte, name in byte_names().items()}
MARKERS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
fragments = st.one_of(
    st.sampled_from([*MARKERS, CALL, "STOP", "ST", "<", "</", "é", "🦊"]),
    st.text('aé東🦊 <>/{}"\nSTOP', max_size=8),
)


def tokens_of(text, cuts):
    """Return a text's tokens with none across a cut; cuts are byte indexes, even in characters."""
    data = text.encode()
    tokens = []
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        piece = data[begin:end]
        try:
            tokens += encode(piece.decode())
        except UnicodeDecodeError:
            tokens += [BYTES[byte] for byte in piece]
    return tokens


def outcome(tokens, *, text_format=FORMAT, **options):
    """Return all results of an answer, with its texts joined by channel."""
    stream = TextStream(text_format, **options)
    pieces = []
    for token in tokens:
        pieces += [] if stream.stopped else stream.add(token)
    pieces += stream.finish()
    said = [(p.reasoning, p.text) for p in pieces if isinstance(p, TextDelta)]
    assert not any("\ufffd" in text for _, text in said)
    channels = [
        (reasoning, "".join(text for _, text in group))
        for reasoning, group in itertools.groupby(said, key=lambda one: one[0])
    ]
    shown = {}
    for piece in pieces:
        if isinstance(piece, CallDelta):
            call = piece.call
            shown.setdefault(call.index, []).append(
                (call.name or "", call.arguments or "", call.error or "", call.text or "")
            )
    joined = {i: tuple(map("".join, zip(*parts, strict=True))) for i, parts in shown.items()}
    calls = [dict(call, id="") for call in stream.calls]  # a call has another id each time
    broken = [replace(call, id="") for call in stream.broken]
    return channels, joined, calls, broken, stream.stopped


@given(st.lists(fragments, max_size=8), st.data())
def test_any_split_into_tokens_gives_the_same(parts, data):
    text = "." + "".join(parts)
    size = len(text.encode())
    cuts = sorted(data.draw(st.sets(st.integers(0, size), max_size=12)))
    stop = data.draw(st.lists(st.sampled_from(["STOP", "TOP", "a", "🦊"]), max_size=2))
    byte_by_byte = outcome([BYTES[byte] for byte in text.encode()], stop=stop)
    assert outcome(tokens_of(text, cuts), stop=stop) == byte_by_byte


# Tokens with a known text are shown without a look at the text before them. ---------------------

DETOKENIZERS = (BPEStreamingDetokenizer, SPMStreamingDetokenizer, NaiveStreamingDetokenizer)


def wrapped(detokenizer):
    thinking = {"tool_call_start": "<tool_call>", "tool_call_end": "</tool_call>"}
    made = TokenizerWrapper(TOKENIZER._tokenizer, detokenizer, **thinking)
    return TextFormat(made)


FORMATS = {
    detokenizer: (wrapped(detokenizer), wrapped(detokenizer)) for detokenizer in DETOKENIZERS
}
for _, looking in FORMATS.values():
    looking.plain.clear()
TOKENS = st.one_of(
    st.integers(0, len(VOCABULARY) + 1),
    st.sampled_from([*BYTES.values(), *encode("see STOP <>/ a. b <think>"), *encode(" ")]),
)


def nameless(delta):
    """Return a delta without the id of its call, which is another each time."""
    return replace(delta.call, id="") if isinstance(delta, CallDelta) else delta


@given(
    st.sampled_from(DETOKENIZERS),
    st.lists(TOKENS, max_size=24),
    st.lists(st.sampled_from(["STOP", "TOP", "a", ". b"]), max_size=2),
    st.sampled_from(["normal", "reasoning"]),
)
def test_deltas_of_known_texts_are_those_of_the_detokenizer(detokenizer, tokens, stop, state):
    said = []
    for text_format in FORMATS[detokenizer]:
        stream, deltas = TextStream(text_format, stop=stop, state=state), []
        for token in tokens:
            try:
                deltas.append(stream.add(token))
            except IndexError:  # some detokenizers know no token beyond the vocabulary
                break
        deltas.append(stream.finish())
        shown = [[nameless(delta) for delta in step] for step in deltas]
        said.append((shown, stream.reasoning_tokens, stream.stopped))
    assert said[0] == said[1]


@pytest.mark.parametrize("detokenizer", DETOKENIZERS)
def test_a_known_text_is_looked_up_where_tokens_are_decoded_apart(detokenizer):
    text_format, _ = FORMATS[detokenizer]
    stream = TextStream(text_format)
    for token in encode("Once upon a time."):
        stream.add(token)
    kept = text_format.plain.get("normal", {})
    assert bool(kept) == (detokenizer is not NaiveStreamingDetokenizer)
    assert all(delta is None or "<" not in delta.text for delta in kept.values())


def test_few_deltas_are_kept():
    kept = PlainDeltas(TextFormat(TOKENIZER), reasoning=True, most=3)
    tokens = encode("Once upon a time there was a fox.")
    texts = [TOKENIZER.decode([token]) for token in tokens]
    assert [kept[token] for token in tokens] == [TextDelta(text, True) for text in texts]
    assert 0 < len(kept) <= 3


def test_the_text_of_a_token_by_itself_is_the_same_again_and_few_are_kept():
    text_format = TextFormat(TOKENIZER, most_alone=3)
    tokens = encode("Some é words")
    drawn = TokenLogprob(-1.0, tuple((token, -2.0) for token in tokens))
    first, again = (TextStream(text_format).described(tokens[0], drawn) for _ in range(2))
    assert first == again
    assert [one["token"] for one in first["top_logprobs"]] == [
        TOKENIZER.decode([token]) for token in tokens
    ]
    assert 0 < len(text_format._alone) <= 3


def test_a_repeated_end_of_thinking_is_not_shown():
    _, pieces = run("<think>I plan.</think>3 to 20.</think>3, 4", stop=["20. "])
    assert text_of(pieces) == "3 to 20.3, 4"


@pytest.mark.parametrize("after", [CALL, "<think>I plan.</think>"])
def test_held_back_text_comes_before_later_text(after):
    _, pieces = run("see k" + after + "Done.", stop=["k_"])
    texts = [getattr(piece, "text", None) for piece in pieces]
    kinds = [isinstance(piece, TextDelta) and not piece.reasoning for piece in pieces]
    first = kinds.index(False)
    assert "".join(texts[:first]) == "see k"
    assert text_of(pieces) == "see kDone."


def test_no_part_of_a_header_is_shown():
    headed = TokenizerWrapper(TOKENIZER._tokenizer, response_format=RESPONSE_FORMAT)
    text = (
        " to=self<|message|>I plan.<|eom|>"
        "<|start|>assistant to=user<|message|>The answer.<|eom|><|start|>assistant"
    )
    stream, pieces = run(text, prompt=encode("<|start|>assistant"), text_format=TextFormat(headed))
    assert text_of(pieces, reasoning=True) == "I plan."
    assert text_of(pieces) == "The answer."
    assert 0 < stream.reasoning_tokens < len(encode(text)) // 2
