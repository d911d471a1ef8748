"""The README's code works as pasted, and what it says of the tree is so."""

import asyncio
import configparser
import plistlib
import re
import sys
from asyncio.subprocess import PIPE
from contextlib import aclosing
from pathlib import Path

import pytest

from gateway.configuration.settings import Settings
from provider import MLXProvider
from tests.support.servers import running
from tests.web_demo.conftest import browser  # noqa: F401 - a fixture

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def lines_of(code):
    return len([line for line in code.splitlines() if line.strip()])


async def run_python(code):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, stdout=PIPE, stderr=PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_the_python_of_one_process_works_as_pasted():
    code = blocks("python")[0]
    assert lines_of(code) <= 12
    assert "fox" in await run_python(code)


@pytest.mark.parametrize(("which", "said"), [(1, "completion_tokens=77"), (2, "38, 39, 40.")])
async def test_the_python_clients_work_as_pasted(which, said):
    code = blocks("python")[which]
    assert lines_of(code) <= 12
    provider = MLXProvider({"temperature": 0.0})
    try:
        async with running(provider) as gateway:
            out = await run_python(code.replace("8765", str(gateway.port)))
    finally:
        await provider.aclose()
    assert "3, 4, 5, 6" in out
    assert said in out


class Unhurried(MLXProvider):
    """Hands its words on no faster than a large model would, so that a page can still stop it."""

    async def generate_async(self, *arguments, **options):
        deltas = await super().generate_async(*arguments, **options)

        async def slowly():
            async with aclosing(deltas):
                async for delta in deltas:
                    yield delta
                    await asyncio.sleep(0.05)

        return slowly()


async def logged(browser, provider, code, enough):  # noqa: F811
    """Run a piece of JavaScript in a page; return what it has logged, once that is enough."""
    lines = []
    done = asyncio.get_running_loop().create_future()

    def hear(message):
        if message.type == "log":
            lines.append(message.text)
        if not done.done() and enough(lines):
            done.set_result(lines)

    try:
        async with running(provider) as gateway:
            page = await browser.new_page(bypass_csp=True)  # pasted: not one of its files
            page.on("console", hear)
            page.on("pageerror", lambda error: done.done() or done.set_exception(error))
            await page.goto(gateway.url + "healthz")
            await page.add_script_tag(content=code, type="module")
            return await asyncio.wait_for(done, 40)
    finally:
        await provider.aclose()


@pytest.mark.browser
async def test_the_javascript_works_as_pasted(browser):  # noqa: F811
    code, _ = blocks("js")
    assert lines_of(code) <= 12
    (text,) = await logged(browser, Unhurried({"temperature": 0.0}), code, bool)
    assert text.startswith("3, 4, 5")
    assert "cancelled" in text


@pytest.mark.browser
async def test_the_javascript_with_functions_works_as_pasted(browser):  # noqa: F811
    _, code = blocks("js")
    provider = MLXProvider()
    await logged(browser, provider, code, lambda lines: "17 degrees" in "".join(lines))


def test_the_tree_names_files_that_are_there():
    tree = re.search(r"## The tree\n\n```\n(.*?)```", README, re.DOTALL)[1]
    folder = ""
    for line in tree.splitlines():
        if not line.startswith(" "):
            folder = line.split()[0]
        for name in re.findall(r"[\w_]+\.(?:py|md|js)\b", line):
            base = ROOT / folder
            assert (base / name).exists(), f"{folder}{name}"


def test_every_module_is_in_the_tree():
    for package in ("gateway", "provider"):
        for path in (ROOT / package).glob("*.py"):
            assert path.name.startswith("__") or path.name in README, path


def test_the_picture_is_there():
    for name in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / name).is_file()


def test_the_recipes_name_flags_and_paths_that_are_right():
    job = plistlib.loads(blocks("xml")[0].encode())
    assert job["ProgramArguments"][1:3] == ["serve", "--config"]
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string(blocks("ini")[0])
    command = unit["Service"]["ExecStart"].split()[1:3]
    assert command == ["serve", "--config"]
    longest = Settings().shutdown_grace_s + 2 * Settings().close_timeout_s
    assert int(unit["Service"]["TimeoutStopSec"]) > longest
    assert job["ExitTimeOut"] > longest
