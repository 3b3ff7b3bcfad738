"""Python's collector of cycles, as a program of ours wants it: seldom, and on little.

What is imported and opened stays until the end, some 300,000 objects; going through them again and again finds nothing,
and took a fifth of the start. And each execution makes thousands of objects that live for a moment and end by
themselves, which the usual threshold of 700 takes for a reason to look: a quarter of a server's time went there.
The library leaves all this to its program.
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
    """Look for cycles seldom until the end of the block."""
    before = gc.get_threshold()
    gc.set_threshold(YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def leave_out() -> None:
    """Never look at what there is now; within `collecting_seldom`, once all is open that stays open."""
    gc.freeze()
