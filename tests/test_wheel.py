"""The wheel, in an environment of its own and run from elsewhere, is the same program."""

import os
import shutil
import subprocess
import sys
import tomllib
import urllib.request
import zipfile
from pathlib import Path

import pytest

from gateway.client import connect
from tests.support.servers import TIMEOUT, served

ROOT = Path(__file__).parent.parent
UV = Path(sys.executable).parent / "uv"
ELSEWHERE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(*arguments, **options):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this very source."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture
def installed(wheel, tmp_path_factory):
    """The commands of an environment that holds the wheel and what it needs, no more."""
    folder = tmp_path_factory.mktemp("wheel")
    commands = folder / "environment" / "bin"
    run(UV, "venv", "--python", sys.executable, commands.parent)
    lock = ROOT / "requirements.lock"
    run(UV, "pip", "install", "--constraint", lock, "--python", commands / "python", wheel)
    yield commands
    shutil.rmtree(folder)


@pytest.mark.slow("it builds the wheel")
def test_the_wheel_holds_the_packages_the_page_and_the_model_and_not_how_it_was_made(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    held = {"gateway/PROTOCOL.md", "gateway/_web_demo/index.html", "provider/mlx_provider.py"}
    assert held <= names
    assert {"gateway/_web_demo/shell/app.js", "gateway/_web_demo/chat/chat.css"} <= names
    assert "provider/embedded/model/model.safetensors" in names
    assert [name for name in names if "making" in name or name.startswith("tests")] == []
    assert [name for name in names if "hatch_build" in name or name.endswith(".toml")] == []


def test_the_wheel_is_told_of_every_file_that_the_page_may_ask_for():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    forced = told["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    apart = {"jsconfig.json", "adapters", "npm"}  # for checks, and for the npm package
    paths = {path.name for path in (ROOT / "web_demo").iterdir()} - apart
    assert forced == {f"web_demo/{name}": f"gateway/_web_demo/{name}" for name in paths}


def get(url):
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        return answer.read()


async def answer_of(url):
    async with connect(f"{url.replace('http', 'ws')}v1/stream") as client:
        async with client.generate(prompt="Count from 3 to 9", temperature=0.0) as running:
            return "".join([chunk.text async for chunk in running])


@pytest.mark.slow("it builds the wheel and installs it")
@pytest.mark.timeout(600)  # it installs some hundred megabytes, from uv's cache if it can
async def test_an_installed_wheel_serves_the_same_page_and_the_same_model(installed, tmp_path):
    where = run(
        installed / "python",
        "-c",
        "import gateway, provider; print(gateway.__file__, provider.__file__)",
        cwd=tmp_path,
        env=ELSEWHERE,
    )
    assert str(ROOT) not in where
    with served(program=[installed / "mlx-gateway"], cwd=tmp_path, env=ELSEWHERE) as url:
        for path, name in (
            ("", "index.html"),
            ("client.js", "client.js"),
            ("shell/app.js", "shell/app.js"),
        ):
            assert get(url + path) == (ROOT / "web_demo" / name).read_bytes()
        assert get(f"{url}protocol") == (ROOT / "gateway" / "PROTOCOL.md").read_bytes()
        assert await answer_of(url) == "3, 4, 5, 6, 7, 8, 9."
