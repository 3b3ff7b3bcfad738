"""The results that are kept, and the page that is made of them."""

from __future__ import annotations

import re

import pytest

from benchmarks import charts, page, report, results, scale
from benchmarks.subjects import BY_NAME


def test_the_results_that_are_kept_have_their_shape_and_no_place() -> None:
    """Others read the file; it says nothing about where it was made."""
    kept = results.load()
    assert set(kept) == {"machine", "date", "runs"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", kept["date"])
    needed = {"workload", "subject", "steps_per_s", "wall_s", "cpu_ms_per_step", "peak_rss_mb", "version"}
    for run in kept["runs"]:
        assert needed <= set(run)
        assert run["wall_s"] or run["note"]
    assert not re.search(r"/(home|root|work|tmp|Users)\b|https?://", results.FILE.read_text())


def test_every_subject_of_every_workload_is_in_the_results_that_are_kept() -> None:
    """What could not be run is reported, not left out."""
    told = {(run["workload"], run["subject"]) for run in results.load()["runs"]}
    wanted = {(workload, subject.name) for subject in BY_NAME.values() for workload in subject.workloads}
    assert told == wanted


def test_the_page_has_the_tables_of_the_results_that_are_kept() -> None:
    assert report.tables(results.load()) in page.PAGE.read_text(encoding="utf-8")


def test_beside_the_page_are_the_charts_of_the_results_that_are_kept() -> None:
    for name, svg in charts.draw(results.load()).items():
        assert page.PAGE.with_name(name).read_text(encoding="utf-8") == svg


@pytest.mark.parametrize("name", list(scale.TABLES))
def test_the_page_has_the_tables_of_what_was_measured_apart_and_a_place_for_them(name: str) -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert all(text.count(mark) == 1 for mark in page.marks(name))
    if found := scale.load(name):
        assert scale.TABLES[name](found) in text
        assert set(found["figures"]) == {"sqlite", "postgresql"}
