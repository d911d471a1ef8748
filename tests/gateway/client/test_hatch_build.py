"""The distribution with the client alone: what it holds, and that it works by itself."""

import ast
import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import gateway.client
from gateway.client.hatch_build import copy_client
from provider.scripted import Call, Pause, Say, ScriptedProvider
from tests.support.servers import running

ROOT = Path(__file__).parents[3]
HERE = ROOT / "gateway/client"
NEEDED = {"msgspec", "websockets"}
UV = Path(sys.executable).parent / "uv"
ELSEWHERE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
CODE = re.split(r"```(?:python)?\n", (HERE / "README.md").read_text(encoding="utf-8"))[1]


def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copied") / "mlx_gateway_client"
    copy_client(ROOT, folder)
    return folder


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_the_client_alone_imports_itself_and_what_it_declares(copied):
    names = {path: set(imported(path)) for path in copied.rglob("*.py")}
    roots = {name.partition(".")[0] for found in names.values() for name in found}
    foreign = roots - sys.stdlib_module_names - {"mlx_gateway_client"}
    assert foreign == NEEDED | {"transformers"}
    users = [path.stem for path, found in names.items() if "transformers" in found]
    assert users == ["tools"]  # which does without it, too


def test_no_module_of_the_gateway_comes_with_it_but_those_it_needs(copied):
    assert {path.name for path in copied.iterdir()} == {
        *(path.name for path in HERE.glob("*.py") if path.name != "hatch_build.py"),
        *("LICENSE", "dialects", "protocol", "provider", "py.typed"),
    }
    assert sum(path.stat().st_size for path in copied.rglob("*.*")) < 200_000


PRINT_ALL = """
import importlib, json, pathlib, mlx_gateway_client
folder = pathlib.Path(mlx_gateway_client.__file__).parent
for path in folder.rglob("*.py"):
    importlib.import_module(".".join(path.relative_to(folder.parent).with_suffix("").parts))
print(json.dumps(mlx_gateway_client.__all__))
"""


def test_each_of_its_modules_can_be_imported_and_the_names_are_the_same(copied, tmp_path):
    code = ["-W", "error", "-c", PRINT_ALL]
    environment = {**ELSEWHERE, "PYTHONPATH": str(copied.parent)}
    out = subprocess.check_output([sys.executable, *code], cwd=tmp_path, env=environment)
    assert json.loads(out) == gateway.client.__all__


def test_a_package_that_cannot_be_copied_is_named(tmp_path):
    (tmp_path / "gateway/client").mkdir(parents=True)
    (tmp_path / "gateway/client/__init__.py").write_text("from gateway import __version__\n")
    with pytest.raises(ValueError, match=r"`gateway\.__version__` is in no module"):
        copy_client(tmp_path, tmp_path / "copy")


def test_both_distributions_have_one_version_and_fit_in_one_environment():
    alone, whole = project(HERE), project(ROOT)
    assert alone["version"] == whole["version"]
    ours = {one.name: one for one in map(Requirement, whole["dependencies"])}
    for one in map(Requirement, alone["dependencies"]):
        [newest] = [part.version for part in ours[one.name].specifier if part.operator == ">="]
        assert newest in one.specifier
    assert "websockets>=15,<18" in alone["dependencies"]


def run(*arguments, **options):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel of this very source, built by way of the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, HERE)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.mark.slow("the copied package is tested always, and its wheel here")
def test_a_wheel_is_the_same_from_the_tree_and_from_its_source_distribution(built, tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, HERE)
    [straight] = tmp_path.glob("*.whl")
    assert straight.name == built.name
    with zipfile.ZipFile(built) as one, zipfile.ZipFile(straight) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())
        tops = {name.partition("/")[0] for name in one.namelist()}
    assert tops == {"mlx_gateway_client", f"{built.stem.removesuffix('-py3-none-any')}.dist-info"}


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def install(wheel, folder, *options):
    """Make an environment with a wheel and what it needs, and return its interpreter."""
    run(UV, "venv", "--python", sys.executable, folder)
    python = folder / "bin" / "python"
    try:
        run(UV, "pip", "install", "--python", python, wheel, *options)
    except AssertionError as error:
        pytest.skip(f"the package index does not have them: {error}")
    return python


CONVERSATION = """
import asyncio, sys
from mlx_gateway_client import GatewayClient
from mlx_gateway_client.blocking import SyncClient
from mlx_gateway_client.tool_loop import Toolbox, ToolResult

def double(number: int) -> int:
    '''Double a number.

    Args:
        number: Any.
    '''
    return 2 * number

async def main(url):
    async with GatewayClient(url) as client:
        run = Toolbox([double]).run(client, [{"role": "user", "content": "hi"}])
        print([frame.content async for frame in run if isinstance(frame, ToolResult)])
        run = client.generate(prompt="cut")
        async for chunk in run:
            if client.connections == 1 and client._socket:
                client._socket.transport.abort()
        print(run.text, client.connections, client.resumed)

with SyncClient(sys.argv[1]) as client:
    print("".join(chunk.text for chunk in client.generate(prompt="hi")))
asyncio.run(main(sys.argv[1]))
"""


def script(request):
    messages = request.options.get("messages") or []
    if request.prompt == "cut":
        return [Say("a b"), Pause(0.2), Say(" c")]
    if messages and messages[-1]["role"] == "user":
        return [Call("double", {"number": 4})]
    return [Say("Hello there.")]


def versions(python):
    listed = json.loads(run(UV, "pip", "list", "--format", "json", "--python", python))
    return {one["name"]: one["version"] for one in listed}


@pytest.mark.slow("the client's other tests have the newest websockets")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("first", "options"),
    [
        ("15.0", ["--resolution", "lowest"]),
        ("16.", ["websockets<17"]),
        ("17.", []),
    ],
)
async def test_with_websockets_and_msgspec_alone_it_converses(built, tmp_path, first, options):
    python = await asyncio.to_thread(install, built, tmp_path / "environment", *options)
    installed = versions(python)
    assert set(installed) == {"mlx-gateway-client", *NEEDED}
    assert installed["websockets"].startswith(first)
    assert size_of(tmp_path / "environment" / "lib") < 5_000_000
    provider = ScriptedProvider(script=script, tokens_per_second=None)
    async with running(provider) as gateway:
        readme = CODE.replace("http://127.0.0.1:8765/", gateway.url)
        for code, said in ((CONVERSATION, "Hello there.\n['8']\na b c 2 1\n"), (readme, "stop")):
            command = [python, "-W", "error", "-c", code, gateway.url]
            out = await asyncio.to_thread(run, *command, cwd=tmp_path, env=ELSEWHERE)
            assert said in out
