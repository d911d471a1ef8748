"""What greets the user of `serve`, and what is said while it stops."""

import pytest
from rich.text import Text

from gateway import __version__
from gateway.commands.banner import banner, finishing
from provider.interface import ModelInfo


def shown(url="http://127.0.0.1:8765/", models=(), device="", *, usual=True):
    text = Text.from_markup(banner(url, 1.94, models, device, usual=usual)).plain
    return {line[:10].strip(): line[10:] for line in text.splitlines()}, text


def test_the_banner_says_where_the_gateway_is_and_how_it_stops():
    rows, text = shown(models=[ModelInfo("llama", 8192)], device="GPU")
    assert f"mlx-gateway {__version__} is ready, after 1.9 s" in text
    assert rows["page"] == "http://127.0.0.1:8765/"
    assert rows["stream"] == "ws://127.0.0.1:8765/v1/stream"
    assert rows["model"] == "llama, 8,192 tokens of context"
    assert rows["device"] == "GPU"
    assert rows["chat"] == "mlx-gateway chat"
    assert rows["stop"] == "Ctrl-C"
    assert "next" not in rows


def test_the_small_model_says_that_it_is_one_and_what_comes_next():
    rows, _ = shown(models=[ModelInfo("embedded", 2048)])
    assert "a small one to try with" in rows["model"]
    assert rows["next"].startswith("a larger model: mlx-gateway serve ")
    assert "device" not in rows


def test_an_address_of_its_own_is_what_clients_are_told():
    rows, _ = shown("https://[::1]:9/", usual=False)
    assert rows["stream"] == "wss://[::1]:9/v1/stream"
    assert rows["chat"] == "mlx-gateway chat --url https://[::1]:9/"
    rows, _ = shown("unix:/run/a.sock", usual=False)
    assert rows["socket"] == "unix:/run/a.sock"
    assert "page" not in rows


def test_many_models_are_counted():
    models = [ModelInfo(f"m{number}", loaded=not number) for number in range(5)]
    rows, text = shown(models=models)
    assert rows["model"] == "m0"
    assert "m1, loaded when asked for" in text
    assert "and 2 more" in text
    assert "m3" not in text


@pytest.mark.parametrize(
    ("answers", "seconds", "said"),
    [
        (0, 8, "stopping"),
        (1, 7.6, "1 answer is finishing, up to 8 s; Ctrl-C again ends them"),
        (3, -1, "3 answers are finishing, up to 0 s; Ctrl-C again ends them"),
    ],
)
def test_what_is_waited_for_is_said(answers, seconds, said):
    assert finishing(answers, seconds) == said
