"""The private parts of mlx-lm and transformers exist, and only one file names them."""

import logging
import re
import sys
from pathlib import Path

from mlx_lm.models import base

from provider.embedded import MODEL_PATH
from provider.models.loading import load, tokenizer_of
from provider.runtime import mlx_lm
from provider.runtime.mlx_lm import (
    ATTENTION,
    PROBES,
    KVCache,
    Probe,
    detokenizer_class,
    inner_tokenizer,
    missing,
    own_renderer,
    renders_text,
    unknown_version,
    warn_of_untested_versions,
    wrap_attention,
)

ROOT = Path(__file__).parents[3]
PRIVATE = re.compile(r"SLF001|^\s*(?:from|import) (?:mlx_lm|mlx_vlm|transformers)\b", re.MULTILINE)
# What is imported of transformers elsewhere is public: how it describes a function as a tool.
ELSEWHERE = {"provider/inputs/tools.py": ["        from transformers"]}


def test_every_probe_holds():
    assert missing() == []
    assert len(PROBES) == len({probe.what for probe in PROBES})


def test_a_failing_probe_is_reported(monkeypatch):
    monkeypatch.delattr(base, ATTENTION)
    monkeypatch.setattr(KVCache, "state", (1, 2))
    said = missing()
    assert len(said) == 2
    assert said[0].startswith("mlx-lm's models call `scaled_dot_product_attention`")
    assert "no attribute" in said[0]
    assert said[1] == "the state of mlx-lm's KVCache is keys, values and offset"
    assert missing((Probe("this holds", lambda: True),)) == []


def test_an_untested_version_is_one_log_line(monkeypatch, caplog):
    assert unknown_version("mlx-lm", "0.32.2", "0.32.2") == ""
    line = "tested with mlx-lm 0.32.2; this is 0.33.0"
    assert unknown_version("mlx-lm", "0.33.0", "0.32.2") == line
    monkeypatch.setitem(mlx_lm.KNOWN, "mlx-lm", "0.1")
    warn_of_untested_versions.cache_clear()
    with caplog.at_level(logging.WARNING):
        warn_of_untested_versions()
        warn_of_untested_versions()
    assert caplog.messages == [f"tested with mlx-lm 0.1; this is {mlx_lm.version}"]


def test_the_installed_versions_are_the_tested_ones(caplog):
    warn_of_untested_versions.cache_clear()
    with caplog.at_level(logging.WARNING):
        warn_of_untested_versions()
    assert caplog.messages == []


def test_private_parts_are_named_in_one_file():
    found = {}
    for path in (ROOT / "provider").rglob("*.py"):
        name = str(path.relative_to(ROOT))
        hits = PRIVATE.findall(path.read_text(encoding="utf-8"))
        if hits and not name.startswith(("provider/runtime/", "provider/embedded/making/")):
            found[name] = hits
    assert found == ELSEWHERE


def test_a_tokenizer_is_unwrapped():
    wrapped = tokenizer_of(MODEL_PATH)
    text = "Tell me a story"
    assert inner_tokenizer(wrapped).encode(text) == wrapped.encode(text)
    assert isinstance(wrapped.detokenizer, detokenizer_class(wrapped))
    assert own_renderer(wrapped) is None
    assert renders_text(wrapped)


def test_the_attention_of_a_model_s_modules_is_wrapped():
    model = load(MODEL_PATH).model.model
    module = sys.modules[type(model).__module__]
    before = getattr(module, ATTENTION)
    wrapped = []

    def wrap(original):
        wrapped.append(original)
        return original

    wrap_attention(model, wrap)
    assert before in wrapped
    assert getattr(module, ATTENTION) is before
