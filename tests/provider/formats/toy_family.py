"""An invented family: `[mind]…[/mind]` around thinking, calls as `[call]name {…}[/call]`."""

import json
import re

from provider.formats.call_grammar import Headed
from provider.formats.call_history import CallStyle
from provider.formats.families import CallFormat, ModelFormat, OwnReading, headed
from provider.formats.thinking import Thinking

TOKENS = ("[mind]", "[/mind]", "[call]", "[/call]")
HEADER = re.compile(r"(?P<name>[\w-]+) (?=\{)")


def parse_tool_call(text, _tools=None):
    header = HEADER.match(text)
    if header is None:
        raise ValueError("no call")
    return {"name": header["name"], "arguments": json.loads(text[header.end() :])}


def mind(tokenizer):
    start, end = ([tokenizer.convert_tokens_to_ids(token)] for token in TOKENS[:2])
    return Thinking(start, end, end)


ENTRY = ModelFormat(
    CallFormat(reader=headed(HEADER), grammar=Headed("{name} ")),
    thinking=mind,
    call_styles=(CallStyle(as_text=True),),
    own=OwnReading(
        TOKENS,
        parse_tool_call,
        "[call]",
        "[/call]",
        response_format={
            "transitions": {
                "normal": [("[mind]", "reasoning")],
                "reasoning": [("[/mind]", "normal")],
            }
        },
    ),
)
TEMPLATE = """{%- for m in messages -%}<{{ m.role }}>{{ m.content }}
{%- for c in m.tool_calls or [] %}[call]{{ c.function.name }} {{ c.function.arguments }}[/call]
{%- endfor -%}{%- endfor -%}
{%- for t in tools or [] %}{{ t | tojson }}{% endfor -%}
{%- if add_generation_prompt %}<assistant>{% endif -%}"""
