"""The code of the README and of the pages that it refers to works as pasted."""

import asyncio
import configparser
import plistlib
import re
import sys
from asyncio.subprocess import PIPE
from contextlib import aclosing
from pathlib import Path

import pytest

from gateway.client.hatch_build import copy_client
from gateway.commands.failure import ExitStatus
from gateway.configuration.settings import ServeSettings, Settings
from gateway.configuration.sources import settings
from provider import MLXProvider
from provider.settings import EngineSettings
from tests.support.servers import running
from tests.support.timeouts import STARTING, TIMEOUT

# Flags of the commands that are no settings.
OTHER_FLAGS = {
    "--config",
    "--days",
    "--file",
    "--merge",
    "--help",
    "--help-all",
    "--install-completion",
    "--open",
    "--plain",
    "--provider",
    "--template",  # of `npm create`
    "--tools",
    "--url",
    "--version",
}
SETTINGS = settings(ServeSettings, Settings, EngineSettings)
ROOT = Path(__file__).parent.parent
PLACES = ("README.md", "gateway", "provider", "web_demo", "tests")
README = (ROOT / "README.md").read_text(encoding="utf-8")
ALONE = (ROOT / "gateway/client/README.md").read_text(encoding="utf-8")
CLIENTS = (ROOT / "gateway/client/CLIENTS.md").read_text(encoding="utf-8")
DEPLOYING = (ROOT / "gateway/DEPLOYING.md").read_text(encoding="utf-8")
RUNNING = (ROOT / "gateway/RUNNING.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "gateway/SECURITY.md").read_text(encoding="utf-8")


def blocks(language, page=README):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def lines_of(code):
    return len([line for line in code.splitlines() if line.strip()])


async def run_python(code, folder=ROOT):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=folder, stdout=PIPE, stderr=PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), STARTING)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_the_python_of_one_process_works_as_pasted():
    _, code = blocks("python")
    assert lines_of(code) <= 12
    assert "fox" in await run_python(code)


PRINTED = [(README, "38, 39"), (CLIENTS, "completion_tokens=77"), (ALONE, "completion_tokens=77")]


@pytest.mark.parametrize(("page", "said"), PRINTED, ids=["README", "CLIENTS", "client/README"])
async def test_the_python_clients_work_as_pasted(page, said, tmp_path):
    code = blocks("python", page)[0]
    assert lines_of(code) <= 12
    copy_client(ROOT, tmp_path / "mlx_gateway_client")
    folder = tmp_path if page is ALONE else ROOT
    provider = MLXProvider({"temperature": 0.0})
    try:
        async with running(provider) as gateway:
            out = await run_python(code.replace("8765", str(gateway.port)), folder)
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


async def logged(browser, provider, code, enough):
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
            try:
                return await asyncio.wait_for(done, TIMEOUT * 2)
            finally:
                await page.close()
    finally:
        await provider.aclose()


@pytest.mark.browser
async def test_the_javascript_works_as_pasted(browser):
    (code,) = [code for code in blocks("js", CLIENTS) if "finishReason" in code]
    assert lines_of(code) <= 12
    (text,) = await logged(browser, Unhurried({"temperature": 0.0}), code, bool)
    assert text.startswith("3, 4, 5")
    assert "cancelled" in text


@pytest.mark.browser
async def test_the_javascript_with_functions_works_as_pasted(browser):
    (code,) = [code for code in blocks("js", CLIENTS) if "runTools" in code]
    provider = MLXProvider()
    await logged(browser, provider, code, lambda lines: "17 degrees" in "".join(lines))


PAGES = [page for page in ROOT.rglob("*.md") if page.relative_to(ROOT).parts[0] in PLACES]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_copied_as_they_are(page):
    for block in blocks("console", page.read_text(encoding="utf-8")):
        assert "$ " not in [line[:2] for line in block.splitlines()], block


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


def test_settings_that_are_named_exist():
    flags = {setting.flag for setting in SETTINGS} | OTHER_FLAGS
    flags |= {flag.replace("--", "--no-", 1) for flag in flags}
    for page in (README, RUNNING, SECURITY):
        for code in re.findall(r"`[^`]*`|```console\n.*?```", page, re.DOTALL):
            assert set(re.findall(r"(?<!=)--[a-z][a-z-]+", code)) <= flags, code
    variables = {setting.variable for setting in SETTINGS} | {"MLX_GATEWAY_TOKEN"}
    for page in (README, RUNNING, SECURITY):
        assert set(re.findall(r"MLX_GATEWAY_[A-Z_]+", page)) <= variables


def test_every_exit_status_is_explained():
    rows = re.findall(r"^\| (\d+) \|", RUNNING, re.MULTILINE)
    assert [int(status) for status in rows] == [status.value for status in ExitStatus]


def test_the_recipes_name_flags_and_paths_that_are_right():
    job = plistlib.loads(blocks("xml", RUNNING)[0].encode())
    assert job["ProgramArguments"][1:3] == ["serve", "--config"]
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string(blocks("ini", DEPLOYING)[0])
    command = unit["Service"]["ExecStart"].split()[1:3]
    assert command == ["serve", "--config"]
    longest = Settings().shutdown_grace_s + 2 * Settings().close_timeout_s
    assert int(unit["Service"]["TimeoutStopSec"]) > longest
    assert job["ExitTimeOut"] > longest
