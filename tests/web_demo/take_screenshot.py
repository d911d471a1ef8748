"""Take the README's picture: `python -m tests.web_demo.take_screenshot`.

Two answers of the embedded model, side by side and in the middle of their streams.
"""

import asyncio

from gateway.server.pages import web_root
from provider import MLXProvider
from tests.support.browser import chromium
from tests.support.servers import running

PROMPTS = ["Tell me a story about a lighthouse keeper", "Tell me a story about a fox named Zorvan"]
TEXT_ENOUGH = 520  # characters in each pane


async def main():
    provider = MLXProvider({"seed": 4})
    await provider.load()
    async with chromium() as browser, running(provider) as gateway:
        page = await browser.new_page(
            viewport={"width": 1180, "height": 620}, device_scale_factor=1.5
        )
        await page.goto(gateway.url)
        await page.wait_for_selector('#state[data-state="open"]')
        await page.get_by_role("button", name="Side by side").click()
        for pane, prompt in enumerate(PROMPTS):
            box = page.get_by_label("Message", exact=True).nth(pane)
            await box.fill(prompt)
            await box.press("Enter")
        await page.wait_for_function(
            """(enough) => [...document.querySelectorAll(".assistant .text")]
                .every((element) => element.textContent.length > enough)""",
            arg=TEXT_ENOUGH,
            polling=20,
        )
        await page.screenshot(path=web_root() / "screenshot.png")
    await provider.aclose()


if __name__ == "__main__":
    asyncio.run(main())
