"""A cancellation reaches what runs, from whichever process it comes, and waits for no tool that does not heed it.

The server is a process of its own; its tools note what becomes of them in a file. What came before what, they tell;
how long it took is printed (`pytest -s`) and asserted nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.serving import plan, task
from cli.program import Project, make_project
from dagbok.client import Client
from dagbok.domain.ids import ExecutionId
from dagbok.store.database import Database
from dagbok.store.queries import Reader
from dagbok.store.takeover import write_command

TOOLS = '''
import asyncio
import time
from pathlib import Path

from dagbok import tool


def note(folder: str, word: str) -> None:
    with (Path(folder) / "notes").open("a") as file:
        file.write(f"{word} {time.time()}\\n")


@tool(effect="pure")
async def heeds(folder: str) -> None:
    """Run until it is cut off."""
    note(folder, "started")
    try:
        await asyncio.Event().wait()
    finally:
        note(folder, "cut-off")


@tool(effect="pure")
async def ignores(folder: str) -> str:
    """Go on until a file is there, whatever anybody asks."""
    note(folder, "started")
    while not (Path(folder) / "open").exists():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            note(folder, "cut-off")
    note(folder, "ended")
    return "too late"


@tool(effect="pure")
def in_a_thread(folder: str) -> str:
    """The same in a thread, which nobody can stop."""
    note(folder, "started")
    while not (Path(folder) / "open").exists():
        time.sleep(0.01)
    note(folder, "ended")
    return "too late"
'''


class Side:
    """A real `dagbok serve`, and what its tools note."""

    def __init__(self, project: Project, database_url: str, url: str) -> None:
        self.folder = str(project.folder)
        self.database_url = database_url
        self.client = Client(url)
        self._notes = project.folder / "notes"
        self._open = project.folder / "open"

    def notes(self) -> dict[str, float]:
        """Return when each thing happened."""
        lines = self._notes.read_text().split("\n")[:-1] if self._notes.exists() else []
        return {word: float(at) for word, at in (line.split() for line in lines)}

    def until(self, word: str) -> float:
        """Return when a tool noted `word`, once it did. Another process gives no signal but its file."""
        deadline = time.monotonic() + 60
        while word not in (notes := self.notes()):
            assert time.monotonic() < deadline, f"{word} is not noted; {notes}"
            time.sleep(0.002)
        return notes[word]

    def let_go(self) -> None:
        self._open.touch()

    def run(self, tool: str) -> str:
        """Submit a plan of this tool and one after it; return the id once the tool runs."""
        id = self.client.submit(plan(task(1, tool, folder=self.folder), task(2, "wait", 1, seconds=0))).execution_id
        self.until("started")
        return id

    def events(self, execution_id: str) -> list[tuple[str, int]]:
        database = Database.open(self.database_url)
        try:
            return [(event["type"], event["at"]) for event in Reader(database).events(execution_id)]
        finally:
            database.close()


@pytest.fixture
def side(database_url: str, tmp_path: Path) -> Iterator[Side]:
    project = make_project(tmp_path)
    (tmp_path / "tools.py").write_text(TOOLS)
    with project.serving(DAGBOK_DATABASE_URL=database_url, DAGBOK_CLOSE_GRACE_S="0") as url:
        side = Side(project, database_url, url)
        try:
            yield side
        finally:
            side.let_go()  # what cannot be stopped would hold up the end of the server
            side.client.close()


def by_http(side: Side, execution_id: str) -> None:
    side.client.cancel(execution_id, by="ann")


def by_the_database(side: Side, execution_id: str) -> None:
    database = Database.open(side.database_url)
    try:
        write_command(database, ExecutionId(execution_id), "cancel", {}, "ann", at_ms=0)
    finally:
        database.close()


def is_cancelled(execution: Any) -> bool:
    steps = [(step.status, step.reason) for step in execution.sub_steps]
    return execution.status == "cancelled" and steps == [("cancelled", "cancelled")] * 2


@pytest.mark.parametrize("ask", [by_http, by_the_database])
def test_a_running_tool_is_cut_off_by_a_cancellation_of_another_process(side: Side, ask: Any) -> None:
    """Of this one, which has no engine: through the server, or by a row that its engine finds by itself."""
    id = side.run("heeds")
    began = time.time()
    ask(side, id)
    assert is_cancelled(side.client.wait(id, timeout_s=60))
    cut_off = side.until("cut-off")
    events = side.events(id)
    assert [type for type, _ in events] == [
        "execution.created", "execution.started", "substep.started", "substep.cancelled", "substep.cancelled",
        "execution.cancelled",
    ]  # fmt: skip
    ended = events[-1][1] / 1000
    print(f"\ncut off {cut_off - began:.3f} s, ended {ended - began:.3f} s after it was asked, {ask.__name__}")


@pytest.mark.parametrize("tool", ["ignores", "in_a_thread"])
def test_a_tool_that_does_not_heed_it_holds_up_nothing(side: Side, tool: str) -> None:
    """The execution has ended while its tool still runs; what that returns later changes nothing."""
    id = side.run(tool)
    began = time.time()
    side.client.cancel(id)
    execution = side.client.wait(id, timeout_s=60)
    assert is_cancelled(execution)
    assert "ended" not in side.notes()
    if tool == "ignores":
        side.until("cut-off")  # it was told
    print(f"\nended {side.events(id)[-1][1] / 1000 - began:.3f} s after it was asked, while {tool} runs")
    assert side.client.run(plan(task(1, "wait", seconds=0)), timeout_s=60).status == "completed", "others go on"
    side.let_go()
    side.until("ended")
    assert side.client.get(id) == execution
