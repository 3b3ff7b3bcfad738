"""The report of a campaign, and its place in the documentation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from chaos import report
from chaos.report import Setting
from chaos.round import Figures
from chaos.violations import Law, Violation

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
SETTING = Setting("2026-01-15", 7, 900, "17.2")


def _figures(kind: str, kills: int, *violations: Violation) -> Figures:
    counts = Counter({"kills": kills, "executions": 3 * kills})
    return Figures(kind, counts, Counter(working=kills), [120.0, 80.0, 95.4], list(violations), 2**20, 60.0)


def test_rounds_are_added_up_by_kind_of_database() -> None:
    rounds = {"SQLite": [_figures("SQLite", 1000), _figures("SQLite", 25)], "PostgreSQL": [_figures("PostgreSQL", 5)]}
    lines = report.section(rounds, SETTING).splitlines()
    assert "| **processes killed by SIGKILL** | 1,025 | 5 |" in lines
    assert "| while working | 1,025 | 5 |" in lines
    assert "| executions | 3,075 | 15 |" in lines
    assert any(line.endswith("| 80, 95, 120 ms | 80, 95, 120 ms |") for line in lines)
    assert all(f"| **{law}** | **0** | **0** |" in lines for law in Law)


def test_a_violation_is_counted_under_its_law() -> None:
    rounds = {"SQLite": [_figures("SQLite", 3, Violation(Law.LOST, "gone"), Violation(Law.LOST, "gone, too"))]}
    assert f"| **{Law.LOST}** | **2** |" in report.section(rounds, SETTING).splitlines()


def test_a_report_takes_the_place_of_the_last_one_and_leaves_the_rest(tmp_path: Path) -> None:
    document = tmp_path / "reliability.md"
    document.write_text(DOCUMENT.read_text())
    before, _, rest = document.read_text().partition(report.BEGIN)
    after = rest.partition(report.END)[2]
    for kills in (10, 20):
        report.keep(document, report.section({"SQLite": [_figures("SQLite", kills)]}, SETTING))
    text = document.read_text()
    assert text.startswith(before)
    assert text.endswith(after)
    assert "| **processes killed by SIGKILL** | 20 |" in text
    assert "| 10 |" not in text


def test_a_document_without_a_place_for_it_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "other.md"
    document.write_text("# Other\n")
    with pytest.raises(ValueError, match="no place for the report"):
        report.keep(document, "text")
    assert document.read_text() == "# Other\n"
