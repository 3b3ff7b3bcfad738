"""What the benchmarks are made of (graphs, turns), and what is said of their figures (medians, ratios, tables)."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import datasets
from benchmarks import charts, report, results, rounds
from benchmarks.databases import Databases
from benchmarks.page import marks
from benchmarks.results import Line, Results, Run
from benchmarks.subjects import BY_NAME, Subject
from benchmarks.workloads import RECORDED, WORKLOADS, Graph, Unit, Workload, chain, fan, layers, recorded


@pytest.mark.parametrize(("name", "steps"), [("W1", 200), ("W2", 1002), ("W3", 2000), ("W4", 500), ("W7", 2000)])
def test_a_workload_has_as_many_steps_as_its_title_says(name: str, steps: int) -> None:
    assert WORKLOADS[name]().steps == steps


def test_each_task_of_w4_waits_for_two_of_the_layer_above_the_same_ones_each_time() -> None:
    graph = layers(10, 50, 0.05)
    assert graph.parents == layers(10, 50, 0.05).parents
    for task, above in graph.parents.items():
        assert len(set(above)) == (2 if int(task) >= 50 else 0)
        assert all(int(parent) // 50 == int(task) // 50 - 1 for parent in above)
    assert graph.critical_path_s() == pytest.approx(0.5)


def test_a_critical_path_is_the_longest_way_not_the_most_steps() -> None:
    parents = {"a": [], "b": ["a"], "c": ["b"], "long": ["a"], "end": ["long", "c"]}
    graph = Graph("g", parents, {"a": 1, "b": 1, "c": 1, "long": 5, "end": 1})
    assert graph.critical_path_s() == 7
    assert graph.scaled(3.0).critical_path_s() == pytest.approx(3.0)


def test_the_levels_of_a_graph_hold_every_task_after_its_parents() -> None:
    assert fan(3).levels() == [["0"], ["1", "2", "3"], ["4"]]
    assert len(chain(7).levels()) == 7
    assert Graph("g", {"a": [], "b": ["a"], "c": ["a", "b"]}).levels() == [["a"], ["b"], ["c"]]


def test_recorded_graphs_are_whole_and_take_a_second() -> None:
    known = {graph.name: graph for graph in datasets.wfinstances()}
    graphs = recorded()
    assert len(graphs) == len(known) > 0
    for graph in graphs:
        assert {task: sorted(above) for task, above in graph.parents.items()} == {
            task: sorted(above) for task, above in known[graph.name].parents.items()
        }
        assert graph.critical_path_s() == pytest.approx(1.0)
        makespan = known[graph.name].makespan
        assert all(graph.seconds[task] * makespan == pytest.approx(s) for task, s in known[graph.name].seconds.items())
        seen: set[str] = set()
        for task, above in graph.parents.items():
            assert seen.issuperset(above)
            seen.add(task)


def test_without_the_recorded_graphs_w5_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recorded(tmp_path) == []
    monkeypatch.setitem(WORKLOADS, "W5", lambda: Workload("W5", "", [], Unit(fan(1))))
    said: list[str] = []
    assert rounds.run(["W5"], [BY_NAME["asyncio"]], Databases(), tell=said.append) == []
    assert said == ["W5 is left out: no recorded graphs beside the project"]


def _line(*walls: float, cpu_s: float = 1.0, **more: Any) -> Line:
    return {"wall_s": [list(walls)], "cpu_s": cpu_s, "peak_rss_mb": 50.0, "version": "x 1", **more}


def test_a_run_is_the_median_of_its_rounds() -> None:
    run = results.summarize(WORKLOADS["W1"](), "s", [_line(1.0), _line(4.0, cpu_s=2.0), _line(2.0, cpu_s=4.0)], 9.0)
    assert run["steps_per_s"] == 100
    assert run["wall_s"] == [1.0, 4.0, 2.0]
    assert run["cpu_ms_per_step"] == 10.0
    assert "critical_path_s" not in run


def test_repetitions_in_one_process_count_one_by_one() -> None:
    line = _line(1.0) | {"wall_s": [[1.0], [3.0]], "accepted_s": [0.2, 0.4]}
    run = results.summarize(WORKLOADS["W1"](), "s", [line], 9.0)
    assert run["wall_s"] == [1.0, 3.0]
    assert run["cpu_ms_per_step"] == 2.5
    assert run["accepted_s"] == pytest.approx(0.3)


def test_several_graphs_are_told_one_by_one_and_judged_by_the_worst() -> None:
    one, two, three = (Unit(Graph(name, {"t": []}, {"t": 1.0})) for name in "abc")
    workload = Workload("W5", "", [one, two, three], one)
    run = results.summarize(workload, "s", [_line(1.1, 1.0, 1.3), _line(1.2, 1.0, 1.3), _line(9.0, 1.0, 1.3)], 9.0)
    assert run["graphs"]["b"] == [1.0, 1.0, 1.0]
    assert run["critical_path_s"] == 3.0
    assert results.stretch(run) == pytest.approx((1.2, 1.3))


def test_what_did_not_run_has_no_figures_but_its_reason() -> None:
    run = results.summarize(WORKLOADS["W1"](), "s", [], 60.0, "did not end within 60 s")
    assert run["steps_per_s"] is None
    assert run["note"] == "did not end within 60 s"
    assert results.find(_results(run), "W1", "s") is None


def _results(*runs: Run) -> Results:
    machine = {"cores": 2, "cpu": "c", "memory_gb": 1, "os": "o", "fsync_ms": 0.2, "load_before": 0, "python": "3"}
    return Results(machine=machine | {"sqlite": "3", "postgresql": None}, date="2026-01-01", runs=list(runs))


def _at(workload: str, subject: str, wall_s: float, **more: Any) -> Run:
    return results.summarize(WORKLOADS[workload](), subject, [_line(wall_s, **more)], 1.0)


def test_the_best_peer_is_durable_and_on_the_same_database() -> None:
    found = _results(
        _at("W1", "dagbok-sqlite-full", 0.1),
        _at("W1", "dbos-sqlite", 2.0),
        _at("W1", "langgraph-sqlite", 1.0),
        _at("W1", "langgraph-sqlite-async", 0.5),  # loses what others call done
        _at("W1", "langgraph-postgresql", 0.5),
        _at("W1", "raw-sqlite", 0.01),
    )
    best = report.best_peer(found, "W1", "sqlite")
    assert best is not None
    assert best["subject"] == "langgraph-sqlite"
    assert report.ratio(found, "W1", "sqlite") == pytest.approx(10)
    assert report.ratio(found, "W1", "postgresql") is None  # not measured, and not taken from elsewhere


@pytest.mark.parametrize(("wall_s", "row"), [(0.3, "**3.3x** | yes"), (0.5, "**2.0x** | no")])
def test_a_target_says_whether_it_was_reached(wall_s: float, row: str) -> None:
    found = _results(_at("W1", "dagbok-sqlite-full", wall_s), _at("W1", "dbos-sqlite", 1.0))
    assert row in next(line for line in report.tables(found).splitlines() if line.startswith("| W1, SQLite"))


@pytest.mark.parametrize(("wall_s", "row"), [(0.52, "**1.040x** | yes"), (0.54, "**1.080x** | no")])
def test_a_target_of_wall_time_is_reached_from_below(wall_s: float, row: str) -> None:
    found = _results(_at("W4", "dagbok-sqlite-full", wall_s))
    assert row in next(line for line in report.tables(found).splitlines() if line.startswith("| W4, SQLite"))


def test_the_page_keeps_what_stands_around_the_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    begin, end = marks("measured")
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    found = _results(_at("W1", "dagbok-sqlite-full", 0.5), _at("W4", "dagbok-sqlite-full", 0.5, accepted_s=[0.1]))
    for _ in range(2):
        report.write(found, page)
        text = page.read_text()
        assert text.startswith(f"before\n{begin}\n")
        assert text.endswith(f"{end}\nafter\n")
        assert "old" not in text
    for name in (charts.STEPS, charts.MAKESPAN):
        assert "dagbok-sqlite-full" in "".join(ElementTree.parse(tmp_path / name).getroot().itertext())


def _luminance(color: str) -> float:
    """Return what WCAG 2 calls the relative luminance of `#rrggbb`."""
    red, green, blue = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_words_and_bars_of_a_chart_stand_out_from_its_background(dark: bool) -> None:
    """By as much as WCAG 2 asks of text (4.5) and of graphics (3)."""
    style = charts.STYLE.partition("@media")[2 if dark else 0]
    fills = dict(re.findall(r"([.\w]+) \{[^}]*fill: (#\w{6})", style))
    assert set(fills) == {"text", ".page", ".dagbok", ".peer", ".aside", ".limit"}
    page = _luminance(fills.pop(".page"))
    for name, color in fills.items():
        darker, lighter = sorted((page, _luminance(color)))
        assert (lighter + 0.05) / (darker + 0.05) >= (4.5 if name == "text" else 3), name


def test_a_chart_brings_its_own_background() -> None:
    """A page may be light on a system that is dark, which is all that a chart knows."""
    for svg in charts.draw(_results(_at("W1", "asyncio", 0.5))).values():
        root = ElementTree.fromstring(svg)
        behind = next(each for each in root if each.tag.endswith("rect"))
        assert behind.get("class") == "page"
        assert root.get("viewBox") == " ".join(behind.attrib[name] for name in ("x", "y", "width", "height"))


def test_a_page_without_a_place_for_the_tables_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("all by hand\n")
    with pytest.raises(ValueError, match="lacks the lines"):
        report.write(_results(), page)
    assert page.read_text() == "all by hand\n"


def test_subjects_take_turns_and_the_slow_ones_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = [0.0], []
    took = {"dagbok-sqlite-full": 2.0, "dbos-sqlite": 40.0, "prefect-sqlite": 60.0}

    def one(subject: Subject, workload: str, _: Databases) -> Line:
        order.append(subject.name)
        now[0] += took[subject.name]
        if subject.name == "prefect-sqlite":
            raise rounds.Failed("did not end within 60 s")
        return _line(took[subject.name])

    monkeypatch.setattr(rounds, "one", one)
    monkeypatch.setattr(rounds, "interpreter", lambda _: sys.executable)  # the peers are not installed for this
    monkeypatch.setattr("benchmarks.rounds.time.monotonic", lambda: now[0])
    runs = rounds.run(["W1"], [BY_NAME[name] for name in took], Databases(), tell=lambda _: None)
    assert order == [*took, *["dagbok-sqlite-full"] * 4]
    assert [len(run["wall_s"]) for run in runs] == [5, 1, 0]
    assert "note" not in runs[0]
    assert runs[1]["note"] == "1 round"
    assert runs[2]["note"] == "did not end within 60 s"


def test_a_program_that_does_not_end_is_its_last_round() -> None:
    with pytest.raises(rounds.Failed, match="did not end within 0 s"):
        rounds._finished([sys.executable, "-c", "import time; time.sleep(60)"], 0.1)


def test_with_a_program_ends_what_it_started() -> None:
    """A server of a peer that outlives its round would slow down all that come after it."""
    reading, writing = os.pipe()
    child = f"import os, time; os.write({writing}, b'.'); time.sleep(60)"
    both = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], stdout=-3, close_fds=False)"
    program = subprocess.Popen(
        [sys.executable, "-c", both], stdout=subprocess.PIPE, text=True, start_new_session=True, pass_fds=[writing]
    )
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as held:
        assert held.read(1) == b"."  # it runs
        rounds._end(program)
        assert select.select([held], [], [], 10)[0], "the child lives on"
        assert held.read(1) == b""  # and nobody holds the other end any more


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(rounds.Failed, match="failed: ValueError: no"):
        rounds._finished([sys.executable, "-c", "raise ValueError('no')"], 30)


def test_the_recorded_graphs_lie_where_the_tests_have_theirs() -> None:
    assert RECORDED == datasets.DATA / "wfinstances"
