"""The values in a GGUF file's blocks, held against mlx's own reading and against the format."""

import numpy as np
import pytest

from provider.models.gguf.blocks import GROUP, PACKED_BITS, floats, packed
from provider.models.gguf.header import BLOCKS
from provider.runtime.mlx import mx
from tests.support.gguf_files import random_tensor, write_gguf

ROWS, COLUMNS = 4, 512
# The types that mlx reads itself; its reading of Q4_K takes wrong scales for half of the groups.
MLX_READS = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0", "Q6_K")


def tensor_of(kind):
    kind, shape, raw = random_tensor(kind, (ROWS, COLUMNS), np.random.default_rng(1))
    return (kind, shape, raw), np.frombuffer(raw, np.uint8)


@pytest.mark.parametrize("kind", MLX_READS)
def test_values_are_those_that_mlx_reads(tmp_path, kind):
    tensor, raw = tensor_of(kind)
    path = write_gguf(tmp_path / "a.gguf", {"general.architecture": "toy"}, {"a.weight": tensor})
    read = mx.load(str(path))
    values = read["a.weight"]
    if "a.scales" in read:
        scales, biases = (read[name].astype(mx.float32) for name in ("a.scales", "a.biases"))
        values = mx.dequantize(values, scales, biases, GROUP, PACKED_BITS[kind])
    wanted = np.array(values.astype(mx.float32))
    assert np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(floats(kind, raw, COLUMNS), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_packed_weights_are_those_that_mlx_reads(tmp_path, kind):
    tensor, raw = tensor_of(kind)
    path = write_gguf(tmp_path / "a.gguf", {"general.architecture": "toy"}, {"a.weight": tensor})
    read, made = mx.load(str(path)), packed(kind, raw, COLUMNS)
    assert np.array_equal(made.weight, np.array(read["a.weight"]))
    assert np.array_equal(made.scales, np.array(read["a.scales"].astype(mx.float32)))
    assert np.array_equal(made.biases, np.array(read["a.biases"].astype(mx.float32)))


@pytest.mark.parametrize("kind", PACKED_BITS)
def test_packed_weights_stand_for_the_same_values(kind):
    _, raw = tensor_of(kind)
    made = packed(kind, raw, COLUMNS)
    arrays = (mx.array(part) for part in (made.weight, made.scales, made.biases))
    values = mx.dequantize(*arrays, GROUP, PACKED_BITS[kind])
    assert np.array_equal(np.array(values), floats(kind, raw, COLUMNS))


def half(block, at):
    return float(block[at : at + 2].view("<f2")[0])


def five_bits(block, high, low):
    """Return the numbers of a block of Q5_0 or Q5_1, one by one."""
    bits = int(block[high : high + 4].view("<u4")[0])
    data = block[low : low + 16]
    for place in range(32):
        four = data[place] & 15 if place < 16 else data[place - 16] >> 4
        yield int(four) | (bits >> place & 1) << 4


def scale_and_least(block, group):
    """Return the 6-bit scale and minimum of a group of Q4_K or Q5_K."""
    data = [int(byte) for byte in block[4:16]]
    if group < 4:
        return data[group] & 63, data[group + 4] & 63
    scale = data[group + 4] & 15 | data[group - 4] >> 6 << 4
    return scale, data[group + 4] >> 4 | data[group] >> 6 << 4


def of_k(block, fifth):
    """Return the values of a block of Q4_K, or of Q5_K where `fifth` is the place of high bits."""
    data = block[fifth + 32 if fifth else 16 :]
    for place in range(256):
        group, within = divmod(place, 32)
        byte = int(data[group // 2 * 32 + within])
        number = byte & 15 if group % 2 == 0 else byte >> 4
        if fifth:
            number |= (int(block[fifth + within]) >> group & 1) << 4
        scale, least = scale_and_least(block, group)
        yield half(block, 0) * scale * number - half(block, 2) * least


ONE_BY_ONE = {
    "Q5_0": lambda block: [half(block, 0) * (one - 16) for one in five_bits(block, 2, 6)],
    "Q5_1": lambda block: [half(block, 0) * one + half(block, 2) for one in five_bits(block, 4, 8)],
    "Q4_K": lambda block: list(of_k(block, 0)),
    "Q5_K": lambda block: list(of_k(block, 16)),
}


@pytest.mark.parametrize("kind", ONE_BY_ONE)
def test_values_are_those_of_the_format_read_one_by_one(kind):
    _, raw = tensor_of(kind)
    wanted = [ONE_BY_ONE[kind](block) for block in raw.reshape(-1, BLOCKS[kind][1])]
    wanted = np.array(wanted, np.float32).reshape(ROWS, COLUMNS)
    assert np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(floats(kind, raw, COLUMNS), wanted, rtol=1e-5, atol=1e-7)


def test_every_type_is_tested():
    assert {*MLX_READS, *ONE_BY_ONE} == set(BLOCKS)
