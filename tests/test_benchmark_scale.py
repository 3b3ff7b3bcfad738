"""What becomes of the figures that are measured apart from the rest."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks import page, scale
from benchmarks.scale import Found

_TOOK = {"p50": 1.0, "p99": 2.0, "cpu": 3.0, "cpu_p99": 4.0}
_WAYS = ("library", "http", "library_beside_writer", "http_beside_writer")


def _found(**figures: Any) -> Found:
    machine = {"cores": 2, "cpu": "c", "memory_gb": 1, "os": "o", "fsync_ms": 0.2, "load_before": 0, "python": "3"}
    return Found(machine=machine | {"sqlite": "3", "postgresql": None}, date="2026-01-01", figures=figures)


def test_what_was_saved_stands_in_the_page_and_the_rest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"{begin}\nold {name}\n{end}\n" for name in scale.TABLES for begin, end in [page.marks(name)])
    to = tmp_path / "page.md"
    to.write_text(text)
    monkeypatch.setattr(scale, "FOLDER", tmp_path)
    monkeypatch.setattr(scale, "PAGE", to)
    kinds = {"first page": dict.fromkeys(_WAYS, _TOOK)}
    reads = _found(sqlite={"executions": 1_006, "estimated": True, "reads": 300, "kinds": kinds})
    scale.save("reads", reads)
    assert scale.load("reads") == reads
    assert scale.load("flat") is None
    written = to.read_text()
    assert "Measured on 2026-01-01" in written
    assert "1,006 executions (estimated), 300 reads" in written
    assert "| first page | 1.0 | 2.0 | 3.0 | 1.0 | 2.0 | 3.0 | 1.0 | 2.0 | 3.0 | 1.0 | 2.0 |\n" in written
    assert "old reads" not in written
    assert "old flat" in written
    scale.write()
    assert to.read_text() == written


def test_large_plans_are_told_by_the_smallest_of_their_shape() -> None:
    rows = [("fan", 1_000, 40.0), ("layers", 1_000, 80.0), ("fan", 100_000, 50.0), ("layers", 100_000, 40.0)]
    cost = [{"shape": shape, "steps": steps, "wall_us": us, "cpu_us": us / 2} for shape, steps, us in rows]
    memory = [{"shape": "fan", "steps": 100_000, "rss_bytes": 1234.5, "bytes": 800.2}]
    told = scale.flat(_found(sqlite={"cost": cost, "memory": memory}, postgresql={"cost": cost[:1]}))
    assert "| SQLite FULL | fan | 100,000 | 50.0 us | 25.0 us | 1.25x | 1.25x |" in told
    assert "| SQLite FULL | layers | 100,000 | 40.0 us | 20.0 us | 0.50x | 0.50x |" in told
    assert "| PostgreSQL | fan | 1,000 | 40.0 us | 20.0 us | 1.00x | 1.00x |" in told
    assert "1,234 B | 800 B |" in told
    assert "executions at once" not in told  # which was not measured


@pytest.mark.parametrize(("given", "part"), [([], False), (["--save"], False), (["--n", "5"], True), (["a"], True)])
def test_only_the_whole_may_be_saved(given: list[str], part: bool) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("databases", nargs="*", default=["a", "b"])
    parser.add_argument("--n", type=int, default=6)
    parser.add_argument("--save", action="store_true")
    assert scale.is_part(parser, parser.parse_args(given)) is part
