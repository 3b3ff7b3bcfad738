"""docs/errors.md and the code: what an attempt can fail with, and what the page says of it."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dagbok.domain import http_status
from dagbok.domain.retry import CODES, NEVER, PASSING
from dagbok.domain.states import Reason
from dagbok.errors import DagbokError, ToolError
from dagbok.llm import faults
from dagbok.tools import confinement, smtp
from dagbok.tools.decorator import as_tool

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")

#: Where what an attempt fails with is made.
PLACES = ("domain", "engine", "llm", "tools")
#: Codes of the problems of a plan and of an override, which are told before anything runs.
ELSEWHERE = {"validate.py", "overriding.py"}


def _rows(section: str) -> dict[str, list[str]]:
    """Return the cells of the table of a section by code."""
    table = PAGE.partition(f"## {section}\n")[2].partition("| code | means |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {row[0].strip("`"): row for row in rows}


ROWS = _rows("The codes")


def _all_nodes(*places: str) -> Iterator[tuple[Path, ast.AST]]:
    for place in places or ("",):
        for path in sorted((ROOT / "src" / "dagbok" / place).rglob("*.py")):
            yield from ((path, node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def _nodes() -> Iterator[tuple[Path, ast.AST]]:
    return ((path, node) for path, node in _all_nodes(*PLACES) if path.name not in ELSEWHERE)


def _raised() -> Iterator[tuple[str, str]]:
    """Yield each code that the source spells out, with its file."""
    for path, node in _nodes():
        for part in _codes(node):
            for inner in ast.walk(part):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and inner.value:
                    yield inner.value, path.name


#: Functions that are given a code by its place.
PLACED = {"Fault": 0, "fail": 1, "_give_up": 1, "_of_no_use": 2}


def _codes(node: ast.AST) -> Iterator[ast.expr]:
    """Yield what `node` has of codes: `code = ...`, `code=...`, {"code": ...}, and the arguments of `PLACED`."""
    if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["code"]:
        yield node.value
    if isinstance(node, ast.Dict):
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        yield from (value for key, value in zip(keys, node.values, strict=True) if key == "code")
    if isinstance(node, ast.Call):
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "code")
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        place = PLACED.get(name)
        if place is not None and len(node.args) > place:
            yield node.args[place]


def _all_of(kind: type[DagbokError]) -> list[type[DagbokError]]:
    return [kind, *(one for below in kind.__subclasses__() for one in _all_of(below))]


SPELLED = dict(_raised())

_SPELLED_THERE: set[str] = set()  # an assignment in the same file has it, or another error
_OF_SMTP = {smtp._code(status) for status in (450, 550)}

#: Where a code is computed, and what may come of it. Whoever computes another one says so here.
COMPUTED: dict[str, set[str]] = {
    "asking.py: code": _SPELLED_THERE,
    "asking.py: error.code": _SPELLED_THERE,
    "confinement.py: code": {"io_error", *(code for code, _ in confinement._CODES.values())},
    "faults.py: code": {*(code for _, code in faults._CODES if code), *faults._STATUS.values(), *faults._SAID},
    "http.py: http_status.code(status)": {http_status.code(status) for status in range(600)},
    "outcomes.py: exc.code": _SPELLED_THERE,
    "outcomes.py: redactor.text(code)": _SPELLED_THERE,
    "pages.py: code": _SPELLED_THERE,
    "smtp.py: _code(exc.code)": _OF_SMTP,
    "smtp.py: _code(min(codes))": _OF_SMTP,
    "smtp.py: code": _SPELLED_THERE,
}
ALL = set(SPELLED).union(*COMPUTED.values())


def test_wherever_a_code_is_computed_it_is_known_what_comes_of_it() -> None:
    found = {
        f"{path.name}: {ast.unparse(keyword.value)}"
        for path, node in _nodes()
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "code" and not any(isinstance(part, ast.Constant) for part in ast.walk(keyword.value))
    }
    assert found == set(COMPUTED)


def test_every_code_that_an_attempt_can_fail_with_is_explained() -> None:
    missing = {code: SPELLED.get(code, "computed") for code in ALL - set(ROWS)}
    assert not missing, "these need a row in docs/errors.md"


def test_no_code_is_explained_that_nobody_raises() -> None:
    assert set(ROWS) <= ALL | {kind.code for kind in _all_of(DagbokError)}


def test_a_policy_knows_every_code_and_so_what_is_misspelt() -> None:
    assert set(ROWS) == CODES


def test_the_page_says_what_is_repeated() -> None:
    assert {code for code, row in ROWS.items() if row[3] == "yes"} == PASSING
    assert {code for code, row in ROWS.items() if row[3] == "never"} == NEVER
    assert all(len(row) == 5 and all(row) for row in ROWS.values())
    assert {row[3] for row in ROWS.values()} == {"yes", "no", "never"}


def _ends() -> Iterator[str]:
    """Yield the codes that the source gives to an execution, and the reasons for which it ends one."""
    for _, node in _all_nodes():
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("header.error_code)"):
            assert isinstance(node.value, ast.Tuple)
            code = node.value.elts[1]
            if isinstance(code, ast.Constant):
                yield str(code.value)
            else:
                assert ast.unparse(code) == "reason", "of `abort`"
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".abort") and len(node.args) == 3:
            yield Reason[ast.unparse(node.args[0]).removeprefix("Reason.")].value


def test_every_code_of_an_execution_is_explained_and_no_other() -> None:
    assert set(_rows("The codes of an execution")) == set(_ends())


def test_the_page_says_by_which_code_a_cut_off_attempt_is_known() -> None:
    told = PAGE.partition("An attempt that was cut off is no failure.")[2].partition("A tool may")[0]
    ended = {str(reason) for reason in (Reason.CANCELLED, Reason.DEADLINE, Reason.FAIL_FAST, Reason.STORE_REJECTED)}
    assert set(re.findall(r"`(\w+)`", told)) - {"attempts", "errorCode"} == ended | {"interrupted", "stopped"}


def test_the_page_says_what_a_status_means() -> None:
    table = PAGE.partition("| status | code |")[2].partition("\n\n")[0]
    said: dict[int, str] = {}
    for line in table.splitlines()[2:]:
        words, code = (cell.strip() for cell in line.strip("|").split("|"))
        for status in range(400, 600):
            named = re.findall(r"\d{3}", words)
            if str(status) in named or (f"{status // 100}xx" in words and status not in said):
                said[status] = code.strip("`")
    assert said == {status: http_status.code(status) for status in range(400, 600)}


def test_the_example_for_authors_runs() -> None:
    source = PAGE.partition("```python\n")[2].partition("```")[0]
    answers = iter(
        [
            SimpleNamespace(busy=True),
            SimpleNamespace(busy=False, lost=True),
            SimpleNamespace(busy=False, lost=False, number="12"),
        ]
    )

    async def ask_the_hotel(room: str) -> Any:
        return next(answers)

    names: dict[str, Any] = {"ask_the_hotel": ask_the_hotel}
    exec(source, names)
    book = names["book"]
    with pytest.raises(ToolError) as busy:
        asyncio.run(book("7"))
    with pytest.raises(ToolError) as lost:
        asyncio.run(book("7"))
    assert (busy.value.code, busy.value.retry_after_s) == ("rate_limited", 30)
    assert (lost.value.code, lost.value.sent) == ("unavailable", True)
    assert asyncio.run(book("7")) == "12"
    made = as_tool(book)
    assert (made.timeout_s, made.idle_timeout_s, made.retry, made.stoppable) == (60, 20, {"max_attempts": 5}, True)
