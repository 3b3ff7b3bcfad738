"""Cursors as clients carry them: words that say behind what a page begins, opaque, and short.

A page begins behind an item, not after so many: what is written meanwhile moves nothing. What a cursor says is for the
list it belongs to (`listing`, `inbox`), which refuses what it has not written.
"""

from __future__ import annotations

import base64
import binascii

from dagbok.errors import BadInput

#: More characters has no cursor.
MAX_CHARS = 200


def encode(text: str) -> str:
    """Return some ASCII as a cursor, which needs no escaping in a URL."""
    return base64.urlsafe_b64encode(text.encode("ascii")).decode().rstrip("=")


def decode(cursor: str) -> str:
    """Return the text of which `encode` makes exactly this cursor; "": there is none."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (ValueError, binascii.Error):
        return ""
    return text if encode(text) == cursor else ""


def not_of_this_list() -> BadInput:
    """Return the error of a cursor that the list has not written."""
    message = "`cursor` is none of this list: give the `nextCursor` of a page as it is, or none for the first."
    return BadInput(message, pointer="/cursor")


def of_another_list(status: str, wanted: str) -> BadInput:
    """Return the error of a cursor that belongs to the list with another status than is wanted."""
    return BadInput(
        f"`cursor` is of the list with the status {status}, and this is that of {wanted}.", pointer="/cursor"
    )
