"""Who may import whom: the arrows of the design, held against the code's own imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MLX = {"mlx", "mlx_lm"}

# The files of provider/ that may import mlx; a new one wants a reason.
MLX_FILES = {
    "attention.py",  # what a cache may compute itself
    "backend.py",  # loads the BLAS, then mlx
    "batch.py",  # prompts, read in chunks
    "caches.py",  # KV caches
    "grammar.py",  # masks of what may come next
    "group.py",  # decode steps
    "logprobs.py",  # chances of tokens
    "models.py",  # loading
    "prefix_store.py",  # mlx-lm's files of caches
    "sampling.py",  # samplers and processors
    "speculative.py",  # drafts, quantised caches
    "text.py",  # mlx-lm's text state machine
    "vision.py",  # mlx-vlm's models
}

# Modules that are pure: no I/O, no event loop, no thread.
PURE = {
    "gateway/answer.py",
    "gateway/frames.py",
    "gateway/session.py",
    "gateway/asyncapi.py",
    "gateway/auth.py",
    "gateway/configuration.py",
    "gateway/generation.py",
    "gateway/limits.py",
    "gateway/outgoing.py",
    "gateway/settings.py",
    "gateway/tokens.py",
    "provider/interface.py",
    "provider/errors.py",
    "provider/tool_types.py",
    "provider/call_grammar.py",
    "provider/call_readers.py",
    "provider/harmony.py",
    "provider/thinking.py",
    "provider/calls.py",
    "provider/images.py",
    "provider/lark.py",
    "provider/options.py",
    "provider/past_calls.py",
    "provider/memory.py",
    "provider/scheduler.py",
    "provider/schemas.py",
    "provider/settings.py",
    "provider/shared_memory.py",
    "provider/statistics.py",
    "provider/tagged_calls.py",
    "provider/tools.py",
    "provider/tuning.py",
}
IMPURE = {"asyncio", "threading", "socket", "websockets", "concurrent", "subprocess"}

# What each module of the gateway may import of the gateway.
ARROWS = {
    "__init__": set(),
    "__main__": {"cli"},
    "answer": {"outgoing"},
    "asyncapi": {"frames"},
    "auth": set(),
    "catalogue": {"failure"},
    "chat": {"client", "frames", "sync_client", "toolbox"},
    "cli": {
        "",
        "chat",
        "client",
        "configuration",
        "failure",
        "frames",
        "serving",
        "settings",
        "tokens",
        "toolbox",
    },
    "client": {"frames"},
    "configuration": set(),
    "connection": {"frames", "generation", "hub", "limits", "logs", "pull", "session", "tokens"},
    "door": {"auth", "frames", "limits", "pages", "settings", "tokens"},
    "failure": set(),
    "frames": set(),
    "generation": {"answer", "frames", "outgoing"},
    "hub": {
        "frames",
        "generation",
        "limits",
        "logs",
        "metrics",
        "pull",
        "session",
        "settings",
        "shelf",
        "tokens",
    },
    "limits": set(),
    "logs": set(),
    "metrics": set(),
    "outgoing": {"frames"},
    "pages": {"", "asyncapi", "hub", "metrics"},
    "pull": {"frames", "generation", "logs", "metrics"},
    "server": {"", "connection", "door", "frames", "hub", "logs", "pages", "settings", "tokens"},
    "serving": {"", "auth", "configuration", "failure", "logs", "server", "settings", "tokens"},
    "session": {"frames", "generation"},
    "settings": set(),
    "shelf": {"generation", "pull"},
    "sync_client": {"client", "frames"},
    "tokens": set(),
    "toolbox": {"client", "frames"},
}


def imports(path):
    """Return the dotted names that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def roots(path):
    return {name.partition(".")[0] for name in imports(path)}


GATEWAY = sorted((ROOT / "gateway").glob("*.py"))
PROVIDER = sorted((ROOT / "provider").glob("*.py"))


@pytest.mark.parametrize("path", GATEWAY, ids=lambda path: path.stem)
def test_the_gateway_knows_no_model(path):
    assert not roots(path) & MLX
    of_provider = {name for name in imports(path) if name.startswith("provider.")}
    allowed = (
        "provider.interface",
        "provider.MLXProvider",
        "provider.files",
        "provider.hub",
        "provider.options",
        "provider.scripted",
        "provider.settings",
        "provider.tools",
    )
    only_interface = {n for n in of_provider if not n.startswith(allowed[:1])}
    assert not only_interface or path.stem in {
        "catalogue",
        "chat",
        "cli",
        "hub",
        "pull",
        "serving",
        "toolbox",
    }
    assert all(name.startswith(allowed) for name in of_provider)


@pytest.mark.parametrize("path", GATEWAY, ids=lambda path: path.stem)
def test_the_gateways_modules_keep_their_arrows(path):
    own = {
        name.removeprefix("gateway").removeprefix(".").partition(".")[0]
        for name in imports(path)
        if name == "gateway" or name.startswith("gateway.")
    } - {"__version__"}
    assert own <= ARROWS[path.stem]


@pytest.mark.parametrize("path", PROVIDER, ids=lambda path: path.stem)
def test_the_provider_knows_no_socket_and_no_gateway(path):
    assert not roots(path) & {"gateway", "websockets", "socket"}


def takes_mlx_from_the_backend(path):
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == "provider.backend"
        and any(alias.name == "mx" for alias in node.names)
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_mlx_is_imported_in_few_files():
    users = {path for path in PROVIDER if roots(path) & MLX or takes_mlx_from_the_backend(path)}
    assert {path.name for path in users} == MLX_FILES


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_are_pure(name):
    assert not roots(ROOT / name) & (IMPURE | MLX)


def test_every_module_of_the_gateway_has_its_arrows():
    assert {path.stem for path in GATEWAY} == set(ARROWS)


def test_the_top_level_holds_what_it_should():
    import subprocess

    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in tracked if not name.startswith(".")}
    assert top == {
        "LICENSE",
        "Makefile",
        "README.md",
        "gateway",
        "provider",
        "pyproject.toml",
        "requirements.lock",
        "tests",
        "web_demo",
    }
