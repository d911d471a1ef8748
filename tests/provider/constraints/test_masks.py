"""Token masks: a set bit allows a token."""

import numpy as np

from provider.constraints.masks import Masks, allow, allow_only
from provider.runtime.mlx import mx

VOCABULARY = 70  # three 32-bit numbers, of which the last is not full


def allowed(masks, rows):
    logits = mx.zeros((rows, VOCABULARY))
    found = np.array(masks.apply(logits))
    return [[int(token) for token in np.flatnonzero(row == 0)] for row in found]


def test_every_token_is_allowed_at_first():
    assert allowed(Masks(2, VOCABULARY), 2) == [list(range(VOCABULARY))] * 2


def test_each_row_has_a_mask_of_its_own():
    masks = Masks(3, VOCABULARY)
    allow_only(masks.row(0), [0, 31, 32, 69])
    allow_only(masks.row(2), [])
    allow(masks.row(2), 33, 5)
    assert allowed(masks, 3) == [[0, 31, 32, 69], list(range(VOCABULARY)), [5, 33]]


def test_allowed_tokens_keep_their_logits():
    masks = Masks(1, VOCABULARY)
    allow_only(masks.row(0), [7])
    logits = mx.arange(VOCABULARY, dtype=mx.float32)[None]
    found = masks.apply(logits)
    assert found[0, 7].item() == 7.0
    assert found[0, 8].item() == -float("inf")
    assert found.dtype == logits.dtype
