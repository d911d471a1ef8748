"""Take the README's picture: `make screenshot`.

The wall with stories of the embedded model in the middle of their streams, some of them stopped.
"""

import asyncio
import io

from PIL import Image

from gateway.server.pages import web_root
from provider import MLXProvider
from tests.support.browser import chromium
from tests.support.servers import running

STOPPED = (3, 13, 22)
SLOW = (17,)
FIRST_WORDS = 330  # characters of each story, when some are stopped
TEXT_ENOUGH = 560  # when the picture is taken

COLOURS = 128  # of the picture: a third of its bytes, and nobody sees it

LONG_ENOUGH = """(enough) => [...document.querySelectorAll(".tile[data-state=writing] .tile-text")]
    .every((text) => text.textContent.length > enough)"""


async def main():
    provider = MLXProvider()
    await provider.load()
    async with chromium() as browser, running(provider) as gateway:
        page = await browser.new_page(
            viewport={"width": 1240, "height": 740}, device_scale_factor=1.5, color_scheme="light"
        )
        await page.goto(f"{gateway.url}#wall/32/start")
        await page.locator(".tile[data-state=writing]").nth(31).wait_for()
        await page.wait_for_function(LONG_ENOUGH, arg=FIRST_WORDS, polling=20)
        for index in STOPPED:
            await page.locator(".tile").nth(index).click()
        for index in SLOW:
            await page.locator(".tile-act").nth(index).press("s")
        await page.mouse.move(0, 0)
        await page.evaluate("() => document.activeElement.blur()")
        await page.wait_for_function(LONG_ENOUGH, arg=TEXT_ENOUGH, polling=20)
        taken = await page.screenshot()
    await provider.aclose()
    picture = Image.open(io.BytesIO(taken)).convert("RGB")
    few = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(web_root() / "screenshot.png", optimize=True)


if __name__ == "__main__":
    asyncio.run(main())
