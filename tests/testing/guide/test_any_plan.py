import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagbok import Dagbok
from dagbok.testing import FakeClock, ScriptedTool, plans


class Engine:
    """One engine for all examples, on a clock that moves by itself."""

    def __init__(self, url: str) -> None:
        self.clock = FakeClock()
        self.tools = [
            ScriptedTool("pure", itertools.repeat({"value": 1}), effect="pure"),
            ScriptedTool("idempotent", itertools.repeat({"value": 2}), effect="idempotent"),
            ScriptedTool("once", itertools.repeat({"value": 3}), effect="once"),
        ]
        self.dagbok = Dagbok(url, tools=self.tools, clock=self.clock, journal=self.clock.watch)
        self.runner = asyncio.Runner()
        self.runner.run(self.dagbok.__aenter__())

    def close(self) -> None:
        self.runner.run(self.dagbok.__aexit__(None, None, None))
        self.runner.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = Engine(f"sqlite:///{tmp_path}/test.db")
    yield opened
    opened.close()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans(human=False, waits=st.integers(0, 86_400)))
def test_a_plan_whose_tools_work_completes_and_calls_each_once(engine: Engine, plan: dict[str, Any]) -> None:
    execution = engine.runner.run(engine.clock.run(engine.dagbok.run(plan)))
    assert execution.status == "completed"
    calls = [call.task_id for tool in engine.tools for call in tool.calls if call.execution_id == execution.id]
    waits = [step.task_id for step in execution.sub_steps if step.tool_or_prompt_name == "wait"]
    assert sorted(calls + waits) == sorted(task["id"] for task in plan["sub_tasks"])
