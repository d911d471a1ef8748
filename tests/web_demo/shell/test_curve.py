"""The small curves of the header, the wall and the Engine drawer."""

import pytest

from tests.web_demo.conftest import scripted_gateway

pytestmark = pytest.mark.browser

PATHS = """async (values) => {
    const { createCurve, curveRoot } = await import("/shell/curve.js");
    const root = curveRoot();
    const curve = createCurve(root, { least: 115 });
    values.forEach(curve.add);
    return [...root.querySelectorAll("path")].map((path) => path.getAttribute("d"));
}"""


async def test_a_curve_ends_at_the_right_and_leaves_out_what_is_not_known(blank_page):
    async with scripted_gateway() as gateway:
        page = await blank_page(gateway)
        area, line = await page.evaluate(PATHS, [0, 115, None, 0, None])
        assert line == "M19 100.0L20 13.0M22 100.0h1"
        assert area == "M19 100.0L20 13.0V100H19zM22 100.0h1V100H22z"
        assert await page.evaluate(PATHS, [None, None]) == ["", ""]
