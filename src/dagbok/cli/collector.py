"""Python's collector of cycles, as a program that runs an engine wants it: seldom, and on little.

What is imported and opened stays until the end, some 300,000 objects; going through them again and again finds nothing.
And each execution makes thousands of objects that live for a moment and end by themselves, which the usual threshold of
700 takes for a reason to look. A quarter of a server's time went there. The library leaves all this to its program.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: New objects until the youngest are looked at: 3 ms each time, and at most so many are garbage meanwhile.
YOUNG: Final = 50_000


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Leave what there is now out of every collection, and look at what is new seldom, until the end of the block."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
