"""The page and the React app of the README work as pasted, on the model in the package."""

import http.server
import shutil
import threading
from functools import partial

import pytest
from playwright.async_api import expect

from tests.front_ends.conftest import BUILT, HERE
from tests.support.servers import served
from tests.support.timeouts import STARTING
from tests.test_readme import blocks

# Vite bundles what it is first asked for, and the model compiles what it first runs.
MS = STARTING * 1000
pytestmark = [
    pytest.mark.front_ends,
    pytest.mark.browser,
    pytest.mark.timeout(4 * STARTING),
]


@pytest.fixture(scope="module")
def gateway():
    with served("--dev") as address:
        yield address


def pasted(language, gateway):
    (code,) = blocks(language)
    assert code.count("http://127.0.0.1:8765") == (2 if language == "html" else 1)
    return code.replace("http://127.0.0.1:8765", gateway.rstrip("/"))


async def test_the_page_works_as_pasted(gateway, browser, tmp_path):
    (tmp_path / "index.html").write_text(pasted("html", gateway))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as files:
        threading.Thread(target=files.serve_forever, daemon=True).start()
        page = await browser.new_page()
        page.set_default_timeout(MS)
        await page.goto(f"http://localhost:{files.server_port}/")
        await expect(page.locator("#answer")).to_contain_text("3, 4, 5, 6", timeout=MS)
        await page.get_by_role("button", name="Stop").click()
        await page.close()
        files.shutdown()


async def test_the_react_app_works_as_pasted(gateway, browser, developing):
    folder = BUILT / "pasted"
    folder.mkdir(exist_ok=True)
    shutil.copy(HERE / "react/index.html", folder)
    entry = (folder / "index.html").read_text().replace("{ App }", "App")
    (folder / "index.html").write_text(entry)
    (folder / "App.jsx").write_text(pasted("jsx", gateway))
    page = await browser.new_page()
    page.set_default_timeout(MS)
    await page.goto(f"{developing}/pasted/")
    await page.get_by_role("button", name="Ask").click()
    await expect(page.locator("#root")).to_contain_text("3, 4, 5, 6", timeout=MS)
    await page.get_by_role("button", name="Stop").click()
    await page.close()
