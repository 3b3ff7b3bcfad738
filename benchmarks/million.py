"""A diary as after a long life: a million executions of ten sub-steps, written past the engine. See README.md.

An engine runs one execution for each way that one can go (completed, failed, partial, cancelled, waiting for a person,
running a long timer), and their rows are copied with ids and times of their own, oldest first, as the years would have
written them: nine in ten have completed. The rows go by `COPY` on PostgreSQL and by `executemany` on SQLite, without
the checks of foreign keys, which hold by construction. The plans are shared, as those of a plan that is run often; each
execution has its own dag. Events (two and a half per sub-step) are written with the newest `with_events` executions
only: no read that is measured touches them, and those of a million take 5 GB more.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa

from dagbok import Dagbok, tool
from dagbok.store.database import Database
from dagbok.store.schema import attempts, dag_executions, dags, events, human_inputs, sub_steps

#: Of how many in a thousand each is.
SHARES: Final = {"completed": 900, "failed": 40, "partial": 30, "cancelled": 20, "waiting": 9, "running": 1}
_TABLES: Final = (dags, dag_executions, sub_steps, attempts, human_inputs, events)  # dags first, as in the journal
_NUMBERED: Final = {human_inputs.name, events.name}  # the database gives the ids
_IDS: Final = {dags.name: "dag_", dag_executions.name: "dag-exec_", sub_steps.name: "sub-step_"}
_BATCH: Final = 5_000  # executions in a transaction
_DAYS: Final = 90
_DAY_MS: Final = 86_400_000
_YEAR_S: Final = 360 * 86_400

Id = Callable[[str, int, int], str]


@tool(effect="pure")
async def noop() -> dict[str, Any]:
    """Return about 200 bytes."""
    return {"ok": True, "text": "x" * 150, "n": 1, "tags": ["a", "b"]}


@tool(effect="pure")
async def breaks() -> None:
    """Fail for good."""
    raise ValueError("broken on purpose, as the benchmark wants it")


def plan(status: str) -> dict[str, Any]:
    """Return 1 -> 8 -> 1, with what makes it end, or not, in that way."""
    tasks: list[dict[str, Any]] = [
        {"id": n, "tool_or_prompt": {"name": "noop"}, "dependencies": [0] if n else []} for n in range(9)
    ]
    tasks.append({"id": 9, "tool_or_prompt": {"name": "noop"}, "dependencies": list(range(1, 9))})
    if status == "failed":
        tasks[0]["tool_or_prompt"] = {"name": "breaks"}
    elif status == "partial":
        tasks[8]["tool_or_prompt"] = {"name": "breaks"}
    elif status in ("running", "cancelled"):
        tasks[8]["tool_or_prompt"] = {"name": "wait", "params": {"seconds": _YEAR_S}}
    elif status == "waiting":
        asks = {"name": "human", "params": {"prompt": "May this go out?", "schema": {"type": "boolean"}}}
        tasks[9] |= {"action_type": "human", "tool_or_prompt": asks}
    for task in tasks:
        task |= {"description": f"Do the part {task['id']} of the work", "expected_output": "An object"}
    primary = "measure the reads of a large diary"
    return {"original_request": f"Do it, it will be {status}", "intent": {"primary": primary}, "sub_tasks": tasks}


@dataclass(frozen=True, slots=True)
class Template:
    """The rows of one execution in one table: which of their values are ids and times, and all the others."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


async def run_templates(url: str) -> dict[str, str]:
    """Let an engine run one execution of each kind to where it rests, and return their ids."""
    made: dict[str, str] = {}
    async with Dagbok(url, tools=[noop, breaks]) as dagbok:
        for status in SHARES:
            id = made[status] = (await dagbok.submit(plan(status))).execution_id
            while not _rests(row := dagbok.service.execution(id), status):
                if status == "cancelled" and row["completed_tasks"] == 8:
                    await dagbok.cancel(id)
                await asyncio.sleep(0.01)
    return made


def _rests(row: Any, status: str) -> bool:
    return row["status"] == status and row["owner"] is None and (status != "running" or row["wake_at"] is not None)


def load_templates(url: str, made: dict[str, str]) -> dict[str, dict[str, Template]]:
    """Return the rows of each by its state and by table."""
    database = Database.open(url)
    try:
        with database.reading() as connection:
            return {
                status: {table.name: _template(connection, table, id) for table in _TABLES}
                for status, id in made.items()
            }
    finally:
        database.close()


def _template(connection: sa.Connection, table: sa.Table, id: str) -> Template:
    columns = [c for c in table.c if c.name != "xid" and not (c.name == "id" and table.name in _NUMBERED)]
    query = sa.select(*columns)
    if table is dags:
        query = query.where(
            table.c.id == sa.select(dag_executions.c.dag_id).where(dag_executions.c.id == id).scalar_subquery()
        )
    else:
        query = query.where(table.c["id" if table is dag_executions else "execution_id"] == id)
    rows = [tuple(row) for row in connection.execute(query.order_by(*(c for c in columns if c.primary_key)))]
    return Template([c.name for c in columns], rows)


def uuid7(at_ms: int, number: int) -> str:
    """Return a UUIDv7 of that time; those of one time are told apart, and ordered, by the number."""
    high, low = 0x7000 | number >> 36 & 0xFFF, 0x8000 | number >> 24 & 0xFFF
    return f"{at_ms >> 16:08x}-{at_ms & 0xFFFF:04x}-{high:04x}-{low:04x}-{number & 0xFFFFFF:012x}"


class Copies:
    """Rows of one table like those of a template, as often as wanted."""

    def __init__(self, table: str, template: Template) -> None:
        self._rows = template.rows
        self._prefix = _IDS.get(table)
        at = {name: place for place, name in enumerate(template.columns)}
        self._id = at.get("id")
        # The dag of an execution and the execution of everything else have its number.
        self._of = [
            (at[name], _IDS[whose])
            for name, whose in (("dag_id", "dags"), ("execution_id", "dag_executions"))
            if name in at
        ]
        self._times = [place for name, place in at.items() if name == "at" or name.endswith("_at")]

    def of(self, at_ms: int, number: int, shift_ms: int) -> Iterator[list[Any]]:
        """Yield the rows of the execution with that number, made at that time, `shift_ms` after the template's."""
        uuid = uuid7(at_ms, number)
        for rank, row in enumerate(self._rows):
            copy = list(row)
            if self._id is not None:
                own = uuid7(at_ms, number * 16 + rank) if len(self._rows) > 1 else uuid
                copy[self._id] = f"{self._prefix}{own}"
            for place, prefix in self._of:
                copy[place] = prefix + uuid
            for place in self._times:
                if copy[place] is not None:
                    copy[place] += shift_ms
            yield copy


def generate(url: str, executions: int, *, with_events: int = 10_000, seed: int = 1) -> None:
    """Write that many executions into a database with the tables, the last of them a moment ago."""
    made = asyncio.run(run_templates(url))
    templates = load_templates(url, made)
    born = {status: rows[dag_executions.name] for status, rows in templates.items()}
    created = {status: of.rows[0][list(of.columns).index("created_at")] for status, of in born.items()}
    copies = {status: {name: Copies(name, of) for name, of in rows.items()} for status, rows in templates.items()}
    columns = {name: of.columns for name, of in templates["completed"].items()}
    chance = random.Random(seed)
    kinds = chance.choices(list(SHARES), list(SHARES.values()), k=executions)
    begin, step = int(time.time() * 1000) - _DAYS * _DAY_MS, _DAYS * _DAY_MS / executions

    def batch(table: str, first: int) -> Iterator[list[Any]]:
        for number in range(first, min(first + _BATCH, executions)):
            if table == events.name and number < executions - with_events:
                continue
            status, at_ms = kinds[number], begin + int(number * step)
            yield from copies[status][table].of(at_ms, number, at_ms - created[status])

    write = _write_sqlite if url.startswith("sqlite") else _write_postgresql
    write(url, columns, batch, executions)


def _write_sqlite(
    url: str, columns: dict[str, Sequence[str]], batch: Callable[[str, int], Iterator[Any]], executions: int
) -> None:
    connection = sqlite3.connect(Path(url.removeprefix("sqlite:///")), isolation_level=None)
    for pragma in (
        "journal_mode=OFF",
        "synchronous=OFF",
        "locking_mode=EXCLUSIVE",
        "cache_size=-262144",
        "foreign_keys=OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")
    for first in range(0, executions, _BATCH):
        connection.execute("BEGIN")
        for table, names in columns.items():
            marks = ", ".join("?" * len(names))
            quoted = ", ".join(f'"{name}"' for name in names)
            connection.executemany(f"INSERT INTO {table} ({quoted}) VALUES ({marks})", batch(table, first))
        connection.execute("COMMIT")
    connection.execute("PRAGMA locking_mode=NORMAL")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


def _write_postgresql(
    url: str, columns: dict[str, Sequence[str]], batch: Callable[[str, int], Iterator[Any]], executions: int
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # no checks of foreign keys
        connection.execute("SET synchronous_commit = off")
        for first in range(0, executions, _BATCH):
            with connection.transaction():
                for table, names in columns.items():
                    quoted = ", ".join(f'"{name}"' for name in names)
                    with connection.cursor().copy(f"COPY {table} ({quoted}) FROM STDIN".encode()) as copy:
                        lines = ("\t".join(map(_text, row)) + "\n" for row in batch(table, first))
                        copy.write("".join(lines))
        connection.execute("VACUUM (ANALYZE)")  # which the server does by itself, a few minutes later


def _text(value: Any) -> str:
    """Return a value as COPY reads it."""
    if value is None:
        return "\\N"
    if isinstance(value, str):
        return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return str(value)
