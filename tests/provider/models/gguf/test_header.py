"""The header of a GGUF file: what it says, and what is said of a damaged one."""

import random
import struct

import pytest

from provider.models.gguf.header import BLOCKS, GGUFError, is_gguf, read_header
from tests.support.gguf_files import LAYOUTS, NUMBERS, encoded, write_gguf

METADATA = {
    "general.architecture": "toy",
    "toy.block_count": 3,
    "toy.rope.freq_base": 0.5,
    "toy.tied": True,
    "words": ["one", "zwölf", ""],
    "numbers": [1, -2],
    "scores": [0.5, -1.5],
}
TENSORS = {"a.weight": encoded("F32", [[1, 2, 3], [4, 5, 6]]), "b.weight": encoded("F16", [7])}


@pytest.fixture
def file(tmp_path):
    return write_gguf(tmp_path / "toy.gguf", METADATA, TENSORS)


def test_metadata_comes_as_plain_values(file):
    header = read_header(file)
    assert header.metadata == METADATA
    assert header.architecture == "toy"


def test_tensors_have_shapes_as_mlx_has_them_and_places_in_the_file(file):
    tensors = read_header(file).tensors
    assert {name: (one.type, one.shape) for name, one in tensors.items()} == {
        "a.weight": ("F32", (2, 3)),
        "b.weight": ("F16", (1,)),
    }
    data = file.read_bytes()
    for name, tensor in tensors.items():
        assert data[tensor.begin : tensor.begin + tensor.nbytes] == TENSORS[name][2]


def test_values_of_the_architecture_are_asked_for_by_their_short_names(file):
    header = read_header(file)
    assert header.need("block_count") == 3
    assert header.get("context_length", 7) == 7
    with pytest.raises(GGUFError, match=r"no `toy\.context_length`"):
        header.need("context_length")


def test_the_sizes_of_blocks_are_those_of_the_format():
    assert {kind: layout[:2] for kind, layout in LAYOUTS.items()} == BLOCKS


def test_a_gguf_file_is_known_by_its_first_bytes(file, tmp_path):
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GG")
    assert is_gguf(file)
    assert not is_gguf(other)
    with pytest.raises(GGUFError, match="not a GGUF file"):
        read_header(other)


def test_a_file_that_ends_too_early_says_so(file):
    data = file.read_bytes()
    for length in range(4, len(data) - 32):  # the last tensor is padded
        file.write_bytes(data[:length])
        with pytest.raises(GGUFError, match="is the download complete"):
            read_header(file)


def test_a_damaged_header_is_refused_or_read_but_nothing_else(file):
    data = file.read_bytes()
    chance = random.Random(0)
    refused = 0
    for _ in range(500):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[chance.randrange(4, len(data))] = chance.randrange(256)
        file.write_bytes(damaged)
        try:
            read_header(file)
        except GGUFError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [(4, 1, "version is 1"), (4, 4, "version is 4"), (8, 1 << 60, "download complete")],
)
def test_what_a_file_claims_is_checked(file, at, value, said):
    data = bytearray(file.read_bytes())
    data[at : at + (4 if at == 4 else 8)] = struct.pack("<I" if at == 4 else "<Q", value)
    file.write_bytes(data)
    with pytest.raises(GGUFError, match=said):
        read_header(file)


def test_an_unknown_type_is_named_with_its_tensor(tmp_path):
    file = write_gguf(tmp_path / "a.gguf", METADATA, {"c.weight": ("Q2_K", (1, 256), bytes(84))})
    with pytest.raises(GGUFError, match=r"`c\.weight` is of the type Q2_K; known are F32, F16"):
        read_header(file)
    file = write_gguf(tmp_path / "b.gguf", METADATA, {"c.weight": (99, (1, 256), bytes(84))})
    with pytest.raises(GGUFError, match="of the type 99"):
        read_header(file)


@pytest.mark.parametrize("kind", [kind for kind in NUMBERS if LAYOUTS.get(kind, (1,))[0] > 1])
def test_rows_hold_whole_blocks(tmp_path, kind):
    tensors = {"c.weight": (kind, (32, 16), bytes(4096))}
    file = write_gguf(tmp_path / "a.gguf", METADATA, tensors)
    with pytest.raises(GGUFError, match=r"has the shape \(32, 16\)"):
        read_header(file)


def test_a_file_without_an_architecture_is_refused(tmp_path):
    file = write_gguf(tmp_path / "a.gguf", {"general.name": "toy"}, {})
    with pytest.raises(GGUFError, match=r"no `general\.architecture`"):
        read_header(file)
