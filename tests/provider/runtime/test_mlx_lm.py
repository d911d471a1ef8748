"""What is private in mlx-lm and transformers is there, and named in one place."""

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
ELSEWHERE = {"provider/inputs/tools.py": ["    from transformers"]}


def test_all_that_is_built_on_is_there():
    assert missing() == []
    assert len(PROBES) == len({probe.what for probe in PROBES})


def test_a_probe_says_what_is_missing(monkeypatch):
    monkeypatch.delattr(base, ATTENTION)
    monkeypatch.setattr(KVCache, "state", (1, 2))
    said = missing()
    assert len(said) == 2
    assert said[0].startswith("mlx-lm's models call `scaled_dot_product_attention`")
    assert "no attribute" in said[0]
    assert said[1] == "the state of mlx-lm's KVCache is keys, values and offset"
    assert missing((Probe("this holds", lambda: True),)) == []


def test_a_version_that_no_test_has_run_with_is_one_line(monkeypatch, caplog):
    assert unknown_version("mlx-lm", "0.32.2", "0.32.2") == ""
    line = "tested with mlx-lm 0.32.2; this is 0.33.0"
    assert unknown_version("mlx-lm", "0.33.0", "0.32.2") == line
    monkeypatch.setitem(mlx_lm.KNOWN, "mlx-lm", "0.1")
    warn_of_untested_versions.cache_clear()
    with caplog.at_level(logging.WARNING):
        warn_of_untested_versions()
        warn_of_untested_versions()
    assert caplog.messages == [f"tested with mlx-lm 0.1; this is {mlx_lm.version}"]


def test_the_installed_versions_are_known(caplog):
    warn_of_untested_versions.cache_clear()
    with caplog.at_level(logging.WARNING):
        warn_of_untested_versions()
    assert caplog.messages == []


def test_what_is_private_is_named_here_alone():
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
