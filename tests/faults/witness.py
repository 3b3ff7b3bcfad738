"""What has to be true after any fault: each body ran once, and the diary of the execution is whole.

A tool's own side log is the witness of what ran; the rows and events are held against it and against each other.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dagbok import Dagbok, tool
from dagbok.domain.states import StepStatus
from dagbok.store.database import Database
from dagbok.store.queries import Reader
from dagbok.store.schema import blobs, commands, sub_steps


class Witness:
    """A tool that must not be repeated, `note`, and the ids of its calls in the order in which they began."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        #: Called in each body with the number of bodies begun so far.
        self.meanwhile: Callable[[int], Any] = lambda _: None

        @tool(effect="once")
        async def note(id: str, size: int = 0) -> str:
            """Return the id, or a text of that size."""
            self.ran.append(id)
            waited = self.meanwhile(len(self.ran))
            if waited is not None:
                await waited
            return id if not size else id[:1] * size

        self.tools = [note]

    def saw(self, *ids: str) -> None:
        """Fail unless exactly the bodies of these ran, once each."""
        assert Counter(self.ran) == Counter(ids)


#: A sub-task that waits for a person.
QUESTION = {"id": "q", "action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "Well?"}}}


def step(id: str, *after: str, name: str = "note", **params: Any) -> dict[str, Any]:
    """Return a sub-task that calls `note` with its id."""
    return {"id": id, "tool_or_prompt": {"name": name, "params": {"id": id, **params}}, "dependencies": list(after)}


def plan(*steps: dict[str, Any]) -> dict[str, Any]:
    """Return a plan of these sub-tasks."""
    return {"original_request": "survive", "intent": {"primary": "survive"}, "sub_tasks": list(steps)}


def chains(number: int, length: int, **params: Any) -> dict[str, Any]:
    """Return a plan of so many chains of so many sub-tasks: its commits cannot all be one."""
    return plan(
        *(
            step(f"{chain}-{at}", *([f"{chain}-{at - 1}"] if at else []), **params)
            for chain in range(number)
            for at in range(length)
        )
    )


def ids(document: dict[str, Any]) -> list[str]:
    """Return the ids of a plan's sub-tasks."""
    return [task["id"] for task in document["sub_tasks"]]


def check_completed(url: str, execution_id: str, *, attempts: int = 1) -> None:
    """Fail unless the execution completed, no step of it in more than so many attempts, and its diary is whole."""
    database = Database.open(url)
    try:
        reader = Reader(database)
        execution = reader.get_execution(execution_id)
        assert execution is not None
        assert execution["status"] == "completed"
        steps = [row for row in reader.sub_steps(execution_id) if row["task_id"] != "__SYNTHESIS__"]
        assert {row["status"] for row in steps} == {StepStatus.COMPLETED.value}
        ran = {row["task_id"]: row["attempt"] for row in steps if row["action_type"] != "human"}
        assert max(ran.values(), default=1) <= attempts
        counted = {name: execution[f"{name}_tasks"] for name in ("total", "completed", "failed", "running", "waiting")}
        assert counted == {"total": len(steps), "completed": len(steps), "failed": 0, "running": 0, "waiting": 0}

        events = reader.events(execution_id, limit=100_000)
        assert [event["seq"] for event in events] == list(range(1, execution["last_event_seq"] + 1))
        told = Counter((event["type"], event["task_id"]) for event in events)
        assert max(told.values()) <= attempts, "an event was written twice"
        for kind in ("substep.started", "substep.completed"):
            assert {task for type, task in told if type == kind} >= set(ran)
        assert not reader.pending_commands()
        _check_blobs(database, execution_id)
    finally:
        database.close()
    if url.startswith("sqlite"):
        check_integrity(Path(url.partition(":///")[2]))


def _check_blobs(database: Database, execution_id: str) -> None:
    """Fail unless large results are there as long as their rows say."""
    long = sa.func.length(blobs.c.data)
    with database.reading() as connection:
        stored = dict(
            connection.execute(
                sa.select(blobs.c.name, sa.func.sum(long))
                .where(blobs.c.execution_id == execution_id, blobs.c.name.like("result:%"))
                .group_by(blobs.c.name)
            ).all()
        )
        told = connection.execute(
            sa.select(sub_steps.c.task_id, sub_steps.c.result_bytes).where(
                sub_steps.c.execution_id == execution_id, sub_steps.c.result.is_(None)
            )
        ).all()
    assert {name: int(size) for name, size in stored.items()} == {f"result:{task}": size for task, size in told}


def check_integrity(path: Path) -> None:
    """Fail unless SQLite finds its file whole."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        connection.close()


def number_of_commands(url: str, execution_id: str) -> int:
    """Return how many commands were written for an execution."""
    database = Database.open(url)
    try:
        with database.reading() as connection:
            query = sa.select(sa.func.count()).where(commands.c.execution_id == execution_id)
            return int(connection.execute(query).scalar_one())
    finally:
        database.close()


async def held(dagbok: Dagbok) -> None:
    """Return once the journal holds on."""
    await _until(lambda: not dagbok.service.ready)


async def going(dagbok: Dagbok) -> None:
    """Return once the journal writes again."""
    await _until(lambda: dagbok.service.ready)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)  # the journal's thread gives no signal


def outages(records: list[logging.LogRecord]) -> list[str]:
    """Return the lines of the log about outages, in order."""
    return [record.getMessage() for record in records if record.name == "dagbok.journal"]
