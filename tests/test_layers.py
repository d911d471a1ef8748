"""Who may import whom: the layers of ARCHITECTURE.md, held against the code's own imports."""

import ast
import functools
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each layer imports only from those after it; packages of one layer know nothing of each other.
GATEWAY_LAYERS = (
    ("commands",),
    ("client", "server"),
    ("dialects",),
    ("protocol",),
)
PROVIDER_LAYERS = (
    ("embedded.making",),
    ("mlx_provider",),
    ("models",),
    ("sharding",),
    ("engine",),
    ("constraints", "caches"),
    ("formats",),
    ("inputs",),
    ("contract",),
    ("runtime",),
)
# The wire languages, each a package of `gateway/dialects/`, and those that have a common one.
LANGUAGES = {"agui", "chat", "realtime", "responses"}
OF_OPENAI = {"realtime", "responses"}
# Beside the layers: who may import it, from anywhere; it imports what it says.
GATEWAY_BESIDE = {"configuration": set(), "": set()}
PROVIDER_BESIDE = {
    "embedded": set(),
    "replicas": {"inputs", "contract"},
    "scripted": {"inputs", "contract"},
    "": {"contract", "mlx_provider"},
}
# A provider that is a client of other gateways, which nothing but the command line opens.
CLIENT_OF_GATEWAYS = "provider.replicas"
OF_GATEWAY = {"client", "protocol"}
CONTRACT = {
    "interface",
    "errors",
    "tool_types",
    "message_types",
    "events",
    "options",
    "settings",
    "wording",
}

# What the gateway's packages may import of the provider, by its first names.
OF_PROVIDER = {
    "protocol": {"interface", "events"},
    "dialects": set(),
    "server": {"interface", "options", "settings", "wording"},
    "client": {"inputs.tools"},
    "configuration": set(),
    "commands": {
        "interface",
        "settings",
        "wording",
        "inputs.files",
        "MLXProvider",
        "replicas",
        "scripted",
        "models.hub",
        "models.sharded",
        "sharding.meeting",
        "sharding.ranks",
    },
}

MLX = {"mlx", "mlx_lm", "mlx_vlm"}
# Modules that are pure: no I/O, no event loop, no thread.
PURE = (
    "gateway/protocol/",
    "gateway/dialects/",
    "gateway/configuration/",
    "gateway/server/byte_budget.py",
    "gateway/server/limits.py",
    "gateway/server/origins.py",
    "gateway/server/rates.py",
    "gateway/server/tokens.py",
    "provider/interface.py",
    "provider/message_types.py",
    "provider/errors.py",
    "provider/events.py",
    "provider/options.py",
    "provider/settings.py",
    "provider/tool_types.py",
    "provider/wording.py",
    "provider/formats/call_grammar.py",
    "provider/formats/call_history.py",
    "provider/formats/families.py",
    "provider/formats/harmony.py",
    "provider/formats/lark.py",
    "provider/formats/readers.py",
    "provider/formats/tagged_calls.py",
    "provider/formats/thinking.py",
    "provider/formats/tool_calls.py",
    "provider/inputs/",
    "provider/replicas/delivered.py",
    "provider/replicas/failures.py",
    "provider/replicas/prefixes.py",
    "provider/replicas/responses.py",
    "provider/replicas/routing.py",
    "provider/replicas/search.py",
    "provider/replicas/statistics.py",
    "provider/caches/operations.py",
    "provider/sharding/frames.py",
    "provider/sharding/watchdog.py",
    "provider/constraints/fair_queue.py",
    "provider/engine/blas_threads.py",
    "provider/engine/chunk_cost.py",
    "provider/engine/memory_budget.py",
    "provider/engine/memory_pool.py",
    "provider/engine/memory_turn.py",
    "provider/engine/pace.py",
    "provider/engine/padding.py",
    "provider/engine/run_queue.py",
    "provider/engine/scheduler.py",
    "provider/engine/shapes.py",
    "provider/engine/shared_prompt.py",
    "provider/engine/statistics.py",
    "provider/engine/prompt_share.py",
    "provider/engine/step_share.py",
    "provider/formats/pieces.py",
)
IMPURE = {"asyncio", "threading", "socket", "websockets", "concurrent", "subprocess"}

FILES = sorted([*(ROOT / "gateway").rglob("*.py"), *(ROOT / "provider").rglob("*.py")])


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


@functools.cache
def imported(path):
    """Return the dotted names that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def modules_in(names):
    """Return the project's own modules that are named, or hold what is named."""
    found = set()
    for name in names:
        inside = name
        while inside and inside not in MODULES:
            inside = inside.rpartition(".")[0]
        found |= {inside} if inside else set()
    return found


def roots(path):
    return {name.partition(".")[0] for name in imported(path)}


def place_of(module):
    """Return a module's package within gateway or provider, as the layers call it."""
    inside = module.partition(".")[2]
    if inside.startswith("embedded.making"):
        return "embedded.making"
    first = inside.partition(".")[0]
    return "contract" if first in CONTRACT else first


def wrong_arrows(base, layers, beside):
    level = {place: number for number, layer in enumerate(layers) for place in layer}
    for module, path in MODULES.items():
        if module.partition(".")[0] != base:
            continue
        place = place_of(module)
        if place == "__main__":
            continue
        assert place in level or place in beside, f"`{module}` is in no layer and beside none"
        for other in modules_in(imported(path)):
            if other.partition(".")[0] != base or place_of(other) == place:
                continue
            to = place_of(other)
            if place in beside:
                right = to in beside[place] or to in {"", "runtime"}
            else:
                right = to in beside or (to in level and level[place] < level[to])
            if not right:
                yield f"{module} -> {other}"


def test_the_gateway_keeps_its_layers():
    assert list(wrong_arrows("gateway", GATEWAY_LAYERS, GATEWAY_BESIDE)) == []


def test_the_provider_keeps_its_layers():
    assert list(wrong_arrows("provider", PROVIDER_LAYERS, PROVIDER_BESIDE)) == []


def test_no_wire_language_knows_another():
    for module, path in MODULES.items():
        if not module.startswith("gateway.dialects.") or module == "gateway.dialects.routes":
            continue
        own = module.split(".")[2]
        others = {name.split(".")[2] for name in modules_in(imported(path)) if name.count(".") > 2}
        assert not others & (LANGUAGES - {own}), module
        assert "openai" not in others or own in {"openai", *OF_OPENAI}, module


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: modules_in(imported(path)) - {module} for module, path in MODULES.items()}
    done = set()

    def visit(module, above):
        assert module not in above, " -> ".join([*above, module])
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, [*above, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])


@pytest.mark.parametrize("place", OF_PROVIDER)
def test_the_gateway_asks_the_provider_for_little(place):
    for path in (ROOT / "gateway" / place).glob("*.py"):
        of_provider = {name for name in imported(path) if name.startswith("provider.")}
        allowed = tuple(f"provider.{name}" for name in OF_PROVIDER[place])
        assert [name for name in of_provider if not name.startswith(allowed)] == [], path.name


def test_the_gateway_knows_no_model_and_the_provider_no_socket():
    for module, path in MODULES.items():
        if module.startswith(CLIENT_OF_GATEWAYS):
            continue
        strangers = MLX if module.startswith("gateway") else {"gateway", "websockets", "socket"}
        if place_of(module) == "sharding":  # its processes are connected to one another
            strangers = strangers - {"socket"}
        assert not roots(path) & strangers, module


def test_a_provider_that_is_a_client_knows_only_the_client_and_the_protocol():
    for module, path in MODULES.items():
        if module.startswith(CLIENT_OF_GATEWAYS):
            others = modules_in(name for name in imported(path) if name.startswith("gateway."))
            assert {place_of(other) for other in others} <= OF_GATEWAY, module
        elif module.startswith("provider."):
            others = modules_in(imported(path))
            assert not any(other.startswith(CLIENT_OF_GATEWAYS) for other in others), module


def test_only_the_runtime_imports_mlx():
    for module, path in MODULES.items():
        if module.startswith("provider") and place_of(module) not in {"runtime", "embedded.making"}:
            assert not roots(path) & MLX, module


def test_pure_modules_are_pure():
    for path in FILES:
        if str(path.relative_to(ROOT)).startswith(PURE):
            assert not roots(path) & (IMPURE | MLX), path.name


def test_pure_names_are_there():
    for name in PURE:
        assert (ROOT / name).exists(), name


# Modules whose test is another file's, each with the reason.
TESTED_ELSEWHERE = {
    "gateway.__main__": "the command line's tests run it",
    "provider.embedded.making.network": "torch is not installed for the tests",
    "provider.embedded.making.train": "torch is not installed for the tests",
}


def test_every_module_has_its_test_file():
    missing = []
    for module, path in MODULES.items():
        if module in TESTED_ELSEWHERE or path.name == "__init__.py":
            continue
        inside = path.relative_to(ROOT)
        if "corpus" in inside.parts:  # documents of one kind each, under one test
            continue
        test = ROOT / "tests" / inside.parent / f"test_{path.stem}.py"
        if not test.exists():
            missing.append(str(test.relative_to(ROOT)))
    assert missing == []


def test_the_top_level_holds_what_it_should():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in tracked if not name.startswith(".")}
    assert top - {"ARCHITECTURE.md"} == {
        "Dockerfile",
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
