"""The tables and charts of docs/benchmarks.md, made of `results.json`. The prose around them is written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import charts, page
from benchmarks.results import Results, Run, find, stretch
from benchmarks.subjects import SUBJECTS, Store
from benchmarks.workloads import WORKLOADS

THROUGHPUT = ("W1", "W2", "W3")
MAKESPAN = ("W4", "W5")

#: Workload, store, and by how much Dagbok has to be faster than the best durable peer there: at least, and the aim.
AGAINST_PEERS: Sequence[tuple[str, Store, float, float]] = (
    ("W1", "sqlite", 2.5, 4),
    ("W2", "sqlite", 15, 30),
    ("W2", "postgresql", 10, 20),
    ("W3", "sqlite", 12, 20),
)
#: Workload, and wall time by critical path: at most, and the aim.
AGAINST_CLOCK = (("W4", 1.06, 1.03), ("W5", 1.10, 1.03))
#: Executions per second over HTTP: at least, and the aim.
OVER_HTTP = (300, 500)

DAGBOK: dict[Store, str] = {"sqlite": "dagbok-sqlite-full", "postgresql": "dagbok-postgresql"}
TITLES = {"sqlite": "SQLite FULL", "postgresql": "PostgreSQL"}


def write(results: Results, to: Path = page.PAGE) -> None:
    """Put the tables into the page, and the charts beside it."""
    page.put(tables(results), "measured", to)
    for name, svg in charts.draw(results).items():
        (to.parent / name).write_text(svg, encoding="utf-8")


def best_peer(results: Results, workload: str, store: Store) -> Run | None:
    """Return the fastest durable peer on a database. What is told only beside the others (`-async`) is none."""
    peers = [subject.name for subject in SUBJECTS if subject.kind == "peer" and subject.store == store]
    runs = [run for name in peers if (run := find(results, workload, name))]
    return max(runs, key=lambda run: run["steps_per_s"] or 0, default=None)


def ratio(results: Results, workload: str, store: Store) -> float | None:
    """Return how many times as fast as the best durable peer Dagbok is; None where either is missing."""
    own, best = find(results, workload, DAGBOK[store]), best_peer(results, workload, store)
    if own is None or best is None or not own["steps_per_s"] or not best["steps_per_s"]:
        return None
    return own["steps_per_s"] / best["steps_per_s"]


def tables(results: Results) -> str:
    """Return all tables as Markdown."""
    parts = [
        page.measured_on(results["machine"], results["date"]),
        "### Targets",
        _targets(results),
        "### Steps per second",
        _throughput(results),
    ]
    parts += ["### Wall time by critical path", _makespan(results), "### Large, and over HTTP", _others(results)]
    parts += ["### Processor time and memory", _costs(results)]
    if notes := _notes(results):
        parts += ["### What did not go as planned", notes]
    return "\n\n".join(parts)


def _targets(results: Results) -> str:
    rows = []
    for workload, store, least, aim in AGAINST_PEERS:
        reached, best = ratio(results, workload, store), best_peer(results, workload, store)
        against = f"{best['subject']}, {best['steps_per_s']:,.0f}/s" if best else "-"
        rows.append(_target(f"{workload}, {TITLES[store]}", f"{least}x", f"{aim}x", reached, least, "x", against))
    for workload, most, aim in AGAINST_CLOCK:
        run = find(results, workload, DAGBOK["sqlite"])
        ratios = stretch(run) if run else None
        words = f"the median graph {ratios[0]:.3f}x" if ratios and workload == "W5" else ""
        rows.append(
            _target(
                f"{workload}, SQLite FULL", f"at most {most:.2f}x", f"{aim}x", ratios and ratios[1], -most, "x", words
            )
        )
    run = find(results, "W7", DAGBOK["sqlite"])
    least, aim = OVER_HTTP
    reached = run.get("executions_per_s") if run else None
    rows.append(_target("W7, SQLite FULL", f"{least}/s", f"{aim}/s", reached, least, "/s", "executions"))
    return page.table(["", "at least", "aim", "reached", "", "against"], rows)


def _target(name: str, least: str, aim: str, reached: float | None, bound: float, unit: str, against: str) -> list[str]:
    if reached is None:
        return [name, least, aim, "not measured", "", against]
    well = reached >= bound if bound > 0 else reached <= -bound  # a negative bound is one from above
    digits = 3 if bound < 0 else 1 if unit == "x" else 0
    return [name, least, aim, f"**{reached:.{digits}f}{unit}**", "yes" if well else "no", against]


def _throughput(results: Results) -> str:
    rows = []
    for subject in SUBJECTS:
        runs = [find(results, name, subject.name) for name in THROUGHPUT]
        if any(runs):
            rows.append([subject.name, *(f"{run['steps_per_s']:,.0f}" if run else "-" for run in runs)])
    for store, own in DAGBOK.items():
        ratios = [ratio(results, name, store) for name in THROUGHPUT]
        rows.append([f"*{own} / best peer*", *(f"{each:.1f}x" if each else "-" for each in ratios)])
    titles = [f"{name}: {WORKLOADS[name]().title}" for name in THROUGHPUT]
    return f"![Steps per second]({charts.STEPS})\n\n" + page.table(["", *titles], rows)


def _makespan(results: Results) -> str:
    rows = []
    for subject in SUBJECTS:
        runs = [find(results, name, subject.name) for name in MAKESPAN]
        if not any(runs):
            continue
        cells = []
        for run in runs:
            ratios = stretch(run) if run else None
            both = run is not None and "graphs" in run
            cells += [f"{ratios[0]:.3f}" if ratios else "-", f"{ratios[1]:.3f}" if ratios and both else "-"]
        accepted = [f"{run['accepted_s'] * 1000:.0f} ms" if run and "accepted_s" in run else "-" for run in runs[:1]]
        rows.append([subject.name, cells[0], *accepted, *cells[2:]])
    head = ["", "W4", "of it until accepted", "W5, median graph", "W5, worst graph"]
    return f"![Wall time by critical path]({charts.MAKESPAN})\n\n" + page.table(head, rows)


def _others(results: Results) -> str:
    rows = []
    for subject in SUBJECTS:
        large, served = find(results, "W6", subject.name), find(results, "W7", subject.name)
        if large is None and served is None:
            continue
        rows.append(
            [
                subject.name,
                f"{large['steps_per_s']:,.0f}" if large else "-",
                f"{large['peak_rss_mb']:,.0f} MB" if large else "-",
                f"{served['executions_per_s']:,.0f}" if served else "-",
                f"{served['cpu_ms_per_step'] * 10:.2f} ms" if served and served["cpu_ms_per_step"] else "-",
                f"{served['client_cpu_ms_per_step'] * 10:.2f} ms" if served else "-",
            ]
        )
    head = ["", "W6 steps/s", "peak", "W7 executions/s", "server's CPU each", "client's CPU each"]
    return page.table(head, rows)


def _costs(results: Results) -> str:
    def cells(name: str, format: Callable[[Run], str]) -> list[str]:
        runs = [find(results, workload, name) for workload in ("W1", "W2", "W3", "W4")]
        return [format(run) if run else "-" for run in runs]

    rows = []
    for subject in SUBJECTS:
        cpu = cells(subject.name, lambda run: f"{run['cpu_ms_per_step']:.3f}")
        peak = cells(subject.name, lambda run: f"{run['peak_rss_mb']:.0f}")
        if any(cell != "-" for cell in cpu):
            version = next(
                run["version"] for run in results["runs"] if run["subject"] == subject.name and run["version"]
            )
            rows.append([subject.name, *cpu, peak[1], peak[2], version])
    head = ["", "W1 ms/step", "W2", "W3", "W4", "W2 peak MB", "W3", "version"]
    return page.table(head, rows)


def _notes(results: Results) -> str:
    return "\n".join(
        f"- {run['workload']}, {run['subject']}: {run['note']}." for run in results["runs"] if run.get("note")
    )
