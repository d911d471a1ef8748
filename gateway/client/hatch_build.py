"""Builds the distribution `mlx-gateway-client`: the client, and the modules that it imports.

They are copied from the sources of mlx-gateway, under one name of their own: `gateway.client` is
there `mlx_gateway_client`, and `gateway.protocol.frames` is `mlx_gateway_client.protocol.frames`.
So the two distributions share no file, and an application may have a package `gateway` itself.
"""

from __future__ import annotations

import ast
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["ClientBuild", "copy_client"]

NAME = "mlx_gateway_client"
CLIENT = "gateway.client"
OURS = ("gateway", "provider")  # the packages of mlx-gateway
ROOT = Path(__file__).parent.parent.parent


class ClientBuild(BuildHookInterface[Any]):
    """Adds the package to what is built; a source distribution has it already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Copy the package to a folder that lasts as long as the build."""
        if (Path(self.root) / NAME).exists():
            return
        self._folder = Path(tempfile.mkdtemp())
        copy_client(ROOT, self._folder / NAME)
        build_data["force_include"][str(self._folder / NAME)] = NAME

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the folder that `initialize` has made."""
        if hasattr(self, "_folder"):
            shutil.rmtree(self._folder)


def copy_client(root: Path, to: Path) -> None:
    """Write the client and the modules that it imports, of the sources in `root`, to a folder."""
    modules = _modules(root)
    packages = {module.rpartition(".")[0] for module in modules} - {*OURS}
    new_names = {name: _new_name(name) for name in [*packages, *modules]}
    old = "|".join(re.escape(name) for name in sorted(new_names, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w./-])(?:{old})\b")
    for module, path in modules.items():
        text = path.read_text(encoding="utf-8")
        copy = to.joinpath(*new_names[module].split(".")[1:])
        copy = copy / "__init__.py" if path.name == "__init__.py" else copy.with_suffix(".py")
        copy.parent.mkdir(parents=True, exist_ok=True)
        new = pattern.sub(lambda found: new_names[found[0]], text)
        copy.write_text(new, encoding="utf-8")
    for folder in {path.parent for path in to.rglob("*.py")} - {to}:
        (folder / "__init__.py").write_text('"""Modules of mlx-gateway that the client needs."""\n')
    (to / "py.typed").touch()
    shutil.copy(root / "LICENSE", to)


def _new_name(module: str) -> str:
    inside = module.removeprefix(CLIENT) if module.startswith(CLIENT) else f".{module}"
    return f"{NAME}{inside.replace('.gateway.', '.')}"


def _modules(root: Path) -> dict[str, Path]:
    """Return the client's modules, and all of ours that they import, by name."""
    waiting = [
        CLIENT if path.stem == "__init__" else f"{CLIENT}.{path.stem}"
        for path in root.joinpath(*CLIENT.split(".")).glob("*.py")
        if path.name != Path(__file__).name
    ]
    found: dict[str, Path] = {}
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = _file(root, module)
            waiting += _imported(root, found[module])
    return found


def _imported(root: Path, path: Path) -> Iterator[str]:
    """Yield our modules that a file imports. Raises ValueError for a package's own names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if node.module.partition(".")[0] not in OURS:
            continue
        for name in (f"{node.module}.{alias.name}" for alias in node.names):
            inside = [one for one in (name, node.module) if _file(root, one).exists()]
            if not inside:
                raise ValueError(f"{path}: `{name}` is in no module that can be copied")
            yield inside[0]


def _file(root: Path, module: str) -> Path:
    place = root.joinpath(*module.split("."))
    return place / "__init__.py" if module == CLIENT else place.with_suffix(".py")
