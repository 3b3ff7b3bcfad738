"""How a bounded space is shared: what is small stays whole, what is large gives way, all the large ones alike."""

from __future__ import annotations

from collections.abc import Sequence


def level(sizes: Sequence[int], space: int) -> int:
    """Return the largest share such that `sum(min(size, share) for size in sizes)` fits in `space` (water-filling).

    A size up to the share is whole; the others get the share each. When all of them fit, it is the largest size.
    """
    left = max(space, 0)
    for place, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - place)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)


def halves(first: Sequence[int], second: Sequence[int], space: int, *, least: int) -> tuple[int, int]:
    """Return the space of two groups: half each, and what one does not need goes to the other.

    Each group gets at least `min(size, least)` for each of its members, given that `space` holds that for both.
    """
    least_first, least_second = (sum(min(size, least) for size in sizes) for sizes in (first, second))
    wanted = min(sum(first), max(space // 2, space - sum(second)))
    given = max(least_first, min(wanted, space - least_second))
    return given, max(space - given, 0)
