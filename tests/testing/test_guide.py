"""Each example of docs/testing.md is a test of its own, in the folder `guide`, word for word."""

from __future__ import annotations

import re
from pathlib import Path

import dagbok.testing
from dagbok.testing import CrashingJournal, FakeClock, ScriptedModel, ScriptedTool

GUIDE = Path(__file__).parent / "guide"
TEXT = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- test: (\w+) -->\n```python\n(.*?)```", TEXT, re.DOTALL))


def test_every_example_is_a_file_of_the_tests_and_every_such_file_an_example() -> None:
    files = {path.stem: path.read_text(encoding="utf-8") for path in GUIDE.glob("test_*.py")}
    assert files == EXAMPLES
    assert TEXT.count("```") == 2 * len(EXAMPLES), "a block without a mark is one that nothing runs"


def test_every_public_name_is_told_of() -> None:
    assert [name for name in dagbok.testing.__all__ if f"`{name}`" not in TEXT] == []


def test_every_attribute_and_argument_the_guide_names_exists() -> None:
    kinds = {"clock": FakeClock, "tool": ScriptedTool, "model": ScriptedModel, "crash": CrashingJournal}
    named = set(re.findall(r"\b(clock|tool|model|crash)\.([a-z_]+)", TEXT))
    assert len(named) >= 10
    assert [f"{owner}.{name}" for owner, name in sorted(named) if not hasattr(kinds[owner], name)] == []
