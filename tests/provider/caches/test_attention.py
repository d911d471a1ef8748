import pytest
from mlx_lm.models.cache import make_prompt_cache

from provider.caches.attention import attend, let_caches_attend
from provider.caches.slots import SlotCaches
from provider.embedded import MODEL_PATH
from provider.models.loading import load
from provider.runtime.mlx import mx

ROWS, WIDTH, EXTENT, SCALE = 5, 32, 37, 32**-0.5


def heads(heads, key_heads, tokens=1, dtype=mx.float32):
    mx.random.seed(3)
    shapes = [(heads, tokens), (key_heads, EXTENT), (key_heads, EXTENT)]
    return [mx.random.normal((ROWS, n, length, WIDTH)).astype(dtype) for n, length in shapes]


def masks():
    seen = mx.arange(EXTENT)[None] <= mx.array([3, 9, 36, 0, 20])[:, None]
    none_of_the_last = mx.concatenate([seen[:-1], mx.zeros((1, EXTENT), mx.bool_)])
    return {
        "none": None,
        "causal": "causal",
        "seen": seen[:, None, None],
        "a row sees nothing": none_of_the_last[:, None, None],
        "one for all": seen[2:3, None, None],
        "added": mx.where(seen, 0.0, -1e9)[:, None, None],
        "a head's own": mx.broadcast_to(seen[:, None, None], (ROWS, 6, 1, EXTENT)),
    }


@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("key_heads", [1, 2, 6])
@pytest.mark.parametrize("tokens", [1, 2])
def test_the_attention_is_that_of_mlx(mask, key_heads, tokens):
    queries, keys, values = heads(6, key_heads, tokens)
    mask = masks()[mask]
    if isinstance(mask, mx.array):
        mask = mx.broadcast_to(mask, (*mask.shape[:2], tokens, EXTENT))
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=SCALE, mask=mask)
    got = attend(queries, keys, values, SCALE, mask)
    assert got.shape == expected.shape
    assert mx.allclose(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_sixteen_bits_stay_sixteen_bits(dtype):
    queries, keys, values = heads(6, 2, dtype=dtype)
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=SCALE)
    got = attend(queries, keys, values, SCALE, None)
    assert got.dtype == dtype
    assert mx.allclose(got.astype(mx.float32), expected.astype(mx.float32), rtol=0.02, atol=0.02)


def test_only_caches_with_an_attend_method_compute_the_attention():
    model = load(MODEL_PATH).model
    let_caches_attend(model)
    let_caches_attend(model)  # twice is once
    asked = []

    class Asked(SlotCaches):
        def note(self, *args):
            asked.append(args)
            return attend(*args)

    prompt = mx.array([[5, 6, 7, 8]])
    plain, slots = make_prompt_cache(model), Asked([make_prompt_cache(model)])
    for layer in slots.layers:
        layer.attend = slots.note
    for tokens in (prompt, mx.array([[9]])):
        slots.begin([tokens.shape[1]], tokens.shape[1])
        expected = model(tokens, cache=plain)
        assert mx.allclose(model(tokens, cache=slots.layers), expected, atol=1e-4)
        slots.end()
    assert len(asked) == 2 * len(model.layers)
