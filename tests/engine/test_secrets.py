"""The engine and secrets, without a store: who is given a value, and what it keeps of those who say it."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import TypeAdapter, ValidationError

from dagbok.domain import values
from dagbok.domain.call import Call
from dagbok.domain.secrets import Redactor
from dagbok.domain.states import StepStatus
from dagbok.engine.runner import failure
from engine.fakes import Bench, FakeTool, plan, quiet, task

VALUE = "true-value-1"


class OneSecret:
    redactor = Redactor({"TOKEN": VALUE})

    def get(self, name: str) -> str | None:
        return VALUE if name == "TOKEN" else None


@pytest.mark.parametrize(("tool", "given"), [("work", VALUE), ("inference", {"secret": "TOKEN"})])
def test_a_model_is_given_the_name_even_by_a_plan_that_nobody_checked(tool: str, given: object) -> None:
    async def main() -> None:
        calls: list[Call] = []

        async def body(call: Call) -> str:
            calls.append(call)
            return "done"

        bench = Bench(FakeTool(tool, body), secrets=OneSecret())
        execution = await bench.run(task(1, tool=tool, params={"prompt": {"secret": "TOKEN"}}))
        (call,) = calls
        assert call.params == {"prompt": given}
        assert VALUE not in repr(call)
        assert execution.steps[0].task.tool_or_prompt.params == {"prompt": {"secret": "TOKEN"}}
        assert execution.steps[0].input is None, "the row falls back to the params of the plan"

    asyncio.run(main())


def raised(value: object) -> Exception:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(list[int]).validate_python(value)
    return caught.value


LONG = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"


@pytest.mark.parametrize("group", [False, True])
def test_a_model_that_does_not_fit_is_told_without_the_ends_of_its_values(group: bool) -> None:
    """Pydantic shortens what it shows in the middle: of a long value both ends, which no redactor knows."""
    error = raised([LONG])
    words = "1 validation error for list[int]: 0: Input should be a valid integer, unable to parse string as an integer"
    told = failure(ExceptionGroup("several", [error]) if group else error, Redactor({"T": LONG}))
    assert told.message.endswith(f"ValidationError: {words}")
    assert told.detail is not None
    assert group or told.detail.endswith(f"ValidationError: {words}")
    for part in (LONG[:8], LONG[-8:]):
        assert part not in told.message + told.detail


def test_of_many_misfits_five_are_told_and_of_the_top_no_place() -> None:
    told = failure(raised([f"{number}x" for number in range(7)]), Redactor({})).message
    assert told.startswith("ValidationError: 7 validation errors for list[int]: 0: Input")
    assert "; 4: Input" in told
    assert "5: " not in told
    assert told.endswith("; ...")
    assert failure(raised(7), Redactor({})).message.endswith("for list[int]: Input should be a valid list")


def test_whoever_reports_progress_gives_no_value_away() -> None:
    async def main() -> None:
        async def body(call: Call) -> None:
            call.report(f"with {VALUE}", 0.5)
            await asyncio.Event().wait()

        bench = Bench(FakeTool("work", body), secrets=OneSecret())
        execution = bench.add(plan(task(1, params={"token": {"secret": "TOKEN"}})))
        await quiet()
        step = execution.steps[0]
        assert step.status is StepStatus.RUNNING
        assert step.progress is not None
        assert values.decode(step.progress)["message"] == "with [secret TOKEN]"
        await bench.scheduler.close(0)

    asyncio.run(main())
