"""Hypothesis strategies that are for Dagbok's own tests, beside those of `dagbok.testing`."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from dagbok import testing
from dagbok.domain.values import MIN_INTEGER
from dagbok.testing import plans as plans

texts = testing.texts()
json_values = testing.json_values()

_odd_leaves = st.sampled_from(
    [math.nan, math.inf, -math.inf, 2**70, 2**63, 2**64 - 1, 2**64, MIN_INTEGER - 1, "a\0b", "\ud800", "x\udfff", b"x"]
)
_odd_keys = st.sampled_from(["\0", "\udc00", 1, None, True, 1.5])

#: Values of which many, not all, break a rule somewhere.
odd_values = st.recursive(
    json_values | _odd_leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | texts | _odd_keys, inner, max_size=4),
    max_leaves=12,
)
