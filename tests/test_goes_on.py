"""A process that dies at any moment is followed by one that goes on: real processes, a real file, `kill -9`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import pythons
from dagbok import Dagbok, tool
from dagbok.domain.states import ExecutionStatus, StepStatus

PROGRAM = """
import asyncio, os, sys
from dagbok import Dagbok
sys.path.insert(0, os.environ["TEST_FOLDER"])
from test_goes_on import TOOLS, chains

async def main():
    async with Dagbok(os.environ["TEST_URL"], tools=TOOLS) as dagbok:
        submitted = await dagbok.submit(chains(os.environ["TEST_EFFECT"]))
        print(submitted.execution_id, flush=True)
        await dagbok.wait(submitted.execution_id)

asyncio.run(main())
"""


def _log(line: str) -> None:
    with Path(os.environ["TEST_LOG"]).open("a") as file:
        file.write(line + "\n")


@tool(effect="idempotent")
async def again(n: int) -> int:
    """Say when it starts and ends."""
    _log(f"start {n}")
    await asyncio.sleep(0.02)
    _log(f"end {n}")
    return n


@tool(effect="once")
async def only_once(n: int) -> int:
    """Like `again`, but must not be repeated."""
    _log(f"start {n}")
    await asyncio.sleep(0.02)
    _log(f"end {n}")
    return n


TOOLS = [again, only_once]


def chains(name: str) -> dict[str, Any]:
    """Return four chains of ten."""
    tasks = [
        {
            "id": f"{chain}-{at}",
            "tool_or_prompt": {"name": name, "params": {"n": chain * 10 + at}},
            "dependencies": [f"{chain}-{at - 1}"] if at else [],
        }
        for chain in range(4)
        for at in range(10)
    ]
    return {"original_request": "survive", "intent": {"primary": "survive"}, "sub_tasks": tasks}


def _run_and_kill(url: str, effect: str, log: Path, lines: int) -> str:
    """Start the program, kill it once the log has so many lines, and return the execution's id."""
    environment = os.environ | {"TEST_URL": url, "TEST_EFFECT": effect, "TEST_FOLDER": str(Path(__file__).parent)}
    process = pythons.start("-c", PROGRAM, stdout=subprocess.PIPE, env=environment | {"TEST_LOG": str(log)})
    assert process.stdout is not None
    with process:
        execution_id = process.stdout.readline().strip()
        deadline = time.monotonic() + 30
        while (not log.exists() or log.read_text().count("\n") < lines) and time.monotonic() < deadline:
            time.sleep(0.002)  # the log of another process gives no signal
        process.send_signal(signal.SIGKILL)
    assert execution_id
    return execution_id


@pytest.mark.parametrize("lines", [1, 23, 60])
def test_after_kill_9_the_next_engine_finishes_and_no_completed_step_runs_twice(
    database_url: str, tmp_path: Path, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    execution_id = _run_and_kill(database_url, "again", log, lines)
    monkeypatch.setenv("TEST_LOG", str(log))

    async def main() -> None:
        async with Dagbok(database_url, tools=TOOLS, recover=False) as reading:
            stored = await reading.get(execution_id)
        done_before = {step.task_id for step in stored.sub_steps if step.status is StepStatus.COMPLETED}
        started_before = Counter(line for line in log.read_text().splitlines() if line.startswith("start"))
        async with Dagbok(database_url, tools=TOOLS) as dagbok:
            execution = await dagbok.wait(execution_id)
        assert execution.status is ExecutionStatus.COMPLETED
        assert execution.completed_tasks == 40
        started = Counter(line for line in log.read_text().splitlines() if line.startswith("start"))
        for step in execution.sub_steps:
            line = f"start {step.result}"
            if step.task_id in done_before:
                assert started[line] == started_before[line] == 1
            assert started[line] <= 2
            # A start is not durable before an idempotent body runs: the log may know of one more than the diary.
            assert abs(step.attempt - started[line]) <= 1

    asyncio.run(main())


def test_closing_and_opening_again_is_no_crash(database_url: str) -> None:
    """Three restarts during one long step must not fail it with crash_loop."""
    step = {"id": 1, "tool_or_prompt": {"name": "long"}}
    plan = {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": [step]}

    async def main() -> None:
        begun, enough = asyncio.Event(), asyncio.Event()

        @tool(effect="idempotent")
        async def long() -> str:
            begun.set()
            await enough.wait()
            return "done"

        async with Dagbok(database_url, tools=[long], close_grace_s=0) as dagbok:
            submitted = await dagbok.submit(plan)
            await begun.wait()
        for _ in range(3):
            begun.clear()
            async with Dagbok(database_url, tools=[long], close_grace_s=0):
                await begun.wait()
        enough.set()
        async with Dagbok(database_url, tools=[long]) as dagbok:
            execution = await dagbok.wait(submitted.execution_id)
        assert execution.status is ExecutionStatus.COMPLETED
        assert execution["1"].attempt == 5

    asyncio.run(main())


def test_a_once_step_that_was_cut_off_is_not_repeated_but_asked_about(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    execution_id = _run_and_kill(database_url, "only_once", log, 9)
    monkeypatch.setenv("TEST_LOG", str(log))

    async def main() -> None:
        async with Dagbok(database_url, tools=TOOLS) as dagbok:
            execution = await dagbok.wait(execution_id)
            assert execution.status is ExecutionStatus.WAITING
            asked = [step for step in execution.sub_steps if step.status is StepStatus.WAITING]
            assert asked
            assert {step.reason for step in asked} == {"outcome_unknown"}
        started = Counter(line for line in log.read_text().splitlines() if line.startswith("start"))
        assert set(started.values()) == {1}

    asyncio.run(main())
