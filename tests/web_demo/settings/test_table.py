"""The table of settings, beside the options that the provider takes."""

from provider.options import OPTIONS, Integer, Number
from tests.web_demo.conftest import in_node, wants_node

pytestmark = wants_node


async def test_the_page_offers_no_number_that_is_out_of_its_range():
    table = await in_node("settings/table.js", "console.log(JSON.stringify(m.SETTINGS));")
    numbers = {
        one["option"]: one
        for one in table
        if "least" in one and isinstance(OPTIONS[one["option"]].check, Number | Integer)
    }
    assert {"temperature", "max_tokens", "top_p", "presence_penalty"} <= numbers.keys()
    for name, one in numbers.items():
        check = OPTIONS[name].check
        make = int if isinstance(check, Integer) else float
        for end in (one["least"], one["most"]):
            check(name, make(end))
