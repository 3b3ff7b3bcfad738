"""How often the tests of faults repeat what is left to chance: a little in `make test`, much where chaos is wanted."""

from __future__ import annotations

import os
from typing import Final

CHAOS: Final = os.environ.get("DAGBOK_CHAOS") == "1"


def rounds(few: int, many: int) -> range:
    """Return the seeds of a test: `few`, or `many` with `DAGBOK_CHAOS=1`."""
    return range(many if CHAOS else few)
