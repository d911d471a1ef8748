"""What a wire language tells of a refusal, with the fields at fault by the client's names."""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.protocol.codes import ErrorCode
from gateway.protocol.events import Failed

__all__ = ["Refused", "said"]

MAX_FIELD = 256  # characters of a field's path in an error
PATH = re.compile(r"(?:messages|tools)\[\d+\][^`\s]*")


class Refused(Exception):  # noqa: N818 - a message for the client, not a fault of ours
    """A request that is not accepted; `field` is the path of the field at fault, "" for none."""

    def __init__(self, message: str, field: str = "", code: ErrorCode = ErrorCode.INVALID_REQUEST):
        super().__init__(f"`{field[:MAX_FIELD]}`: {message}" if field else message)
        self.code = code


def said(failed: Failed, name_of: Callable[[str], str]) -> str:
    """Return the text for an event; `name_of` names a field of `generate` as the client does."""
    names = [f"`{name_of(field)[:MAX_FIELD]}`" for field in failed.fields]
    if len(names) > 1:
        text = failed.message.format(*names)
    else:
        inside = PATH.sub(lambda found: name_of(found[0]), failed.message)
        text = f"{names[0]}: {inside}" if names else inside
    if failed.retry_after is not None:
        text += f" (retry after {failed.retry_after:g} s)"
    return text
