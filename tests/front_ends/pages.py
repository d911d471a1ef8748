"""An app's page, by what a visitor does and sees; the same in Chromium and in Firefox."""

import json

from playwright.async_api import expect

from tests.support.firefox import ENTER
from tests.support.timeouts import TIMEOUT

MS = TIMEOUT * 1000


class ChromiumPage:
    """A page of Playwright's."""

    def __init__(self, page):
        self.page = page

    async def ask(self, text):
        box = self.page.get_by_label("Message")
        await box.fill(text)
        await box.press("Enter")

    async def stop(self):
        await self.page.get_by_role("button", name="Stop").click()

    async def reload(self):
        await self.page.reload()

    async def answers(self, text):
        """Wait until the answer is this text."""
        await expect(self.page.locator("#answer")).to_have_text(text, timeout=MS)

    async def says(self, text):
        """Wait until a text is in the page's line about the connection."""
        await expect(self.page.locator("#state")).to_contain_text(text, timeout=MS)


class FirefoxPage:
    """A tab of Firefox."""

    def __init__(self, tab):
        self.tab = tab

    async def ask(self, text):
        box = "document.querySelector('[aria-label=Message]')"
        await self.tab.wait_for(f"!!{box}?.checkVisibility()")
        await self.tab.evaluate(f"{box}.select()")
        await self.tab.type(text + ENTER)

    async def stop(self):
        await self.tab.evaluate("document.querySelector('button[type=button]').click()")

    async def reload(self):
        await self.tab.reload()

    async def answers(self, text):
        """Wait until the answer is this text."""
        said = "document.querySelector('#answer')?.textContent.replace(/\\s+/g, ' ').trim()"
        await self.tab.wait_for(f"{said} === {json.dumps(text)}")

    async def says(self, text):
        """Wait until a text is in the page's line about the connection."""
        said = "document.querySelector('#state')?.textContent"
        await self.tab.wait_for(f"!!{said}?.includes({json.dumps(text)})")
