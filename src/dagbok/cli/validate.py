"""`dagbok validate`, and every problem of a plan as a person reads it. Needs the tools, and no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from dagbok.app import Vault, make_registry
from dagbok.cli.plans import load_plan
from dagbok.cli.render import print_json
from dagbok.cli.terminal import line, note, out, redact_with
from dagbok.cli.words import aligned, counted
from dagbok.domain.outline import Outline
from dagbok.domain.overlooked import overlooked
from dagbok.domain.validate import Limits, Problem, read
from dagbok.domain.values import Json
from dagbok.errors import InvalidPlan, TooLarge
from dagbok.settings import Settings

#: Of a plan that is wrong everywhere, a person reads the first.
_SHOWN = 100


def check_plan(document: Json, tools: Mapping[str, Mapping[str, Any]], settings: Settings, secrets: Vault) -> Outline:
    """Return the plan of a document, checked against the params of `tools` and the names of `secrets`.

    Raises:
        InvalidPlan, TooLarge: With every problem.
    """
    return read(document, tools, Limits(settings.max_sub_tasks, settings.max_plan_bytes), secrets.redactor)


def print_problems(problems: Sequence[Problem]) -> None:
    """Write each problem, or warning, to stderr as `pointer  code  message`."""
    rows = [[line(problem.pointer, 120) or "(plan)", problem.code, line(problem.message, 500)] for problem in problems]
    for row in aligned(rows[:_SHOWN]):
        note(row)
    if len(problems) > _SHOWN:
        note(f"and {len(problems) - _SHOWN:,} more; --json lists all")
    if any(problem.code == "unknown_tool" for problem in problems):
        note("`dagbok tools` lists the tools; --tools MODULE adds yours.")


def validate(source: str, *, json: bool, settings: Settings) -> int:
    """Say whether the plan of `source` can run with the tools of `settings`; return the exit code. Needs no database.

    `--json` prints `{"valid", "subTasks", "longestPath", "problems": [{"pointer", "code", "detail"}], "warnings"}`.
    """
    secrets = Vault.load(settings)
    redact_with(secrets.redact)
    document = load_plan(source, max_bytes=settings.max_plan_bytes)
    registry = make_registry(settings)
    try:
        plan = check_plan(document, registry.schemas(), settings, secrets)
    except (InvalidPlan, TooLarge) as exc:
        problems: Sequence[Problem] = exc.fields.get("problems", ())
        if json:
            found = _items(problems)
            _print({"valid": False, "subTasks": None, "longestPath": None, "problems": found, "warnings": []})
        else:
            print_problems(problems)
        return 2
    finally:
        registry.close()
    longest, warnings = longest_path(plan), overlooked(document)
    if json:
        valid = {"valid": True, "subTasks": len(plan.sub_tasks), "longestPath": longest, "problems": []}
        _print(valid | {"warnings": _items(warnings)})
        return 0
    print_problems(warnings)
    if plan.clarification_needed:
        out(f"ok, but it asks first and runs nothing: {line(plan.clarification_query or '', 500)}")
    else:
        more = f", {counted(len(warnings), 'warning')}" if warnings else ""
        out(f"ok: {counted(len(plan.sub_tasks), 'sub-task')}, longest path {longest:,}{more}")
    return 0


def longest_path(plan: Outline) -> int:
    """Return the number of sub-tasks on the longest path: how long it takes with all the parallelism there is."""
    return max(plan.graph.remaining, default=0)


def _items(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"pointer": p.pointer, "code": p.code, "detail": p.message} for p in problems]


def _print(document: dict[str, Any]) -> None:
    print_json(orjson.dumps(document))
