import asyncio
from pathlib import Path

from dagbok import Dagbok
from dagbok.testing import FakeClock, Hang, ScriptedTool

PLAN = {
    "original_request": "Look again in two hours",
    "intent": {"primary": "look again"},
    "sub_tasks": [
        {"id": 1, "tool_or_prompt": {"name": "wait", "params": {"seconds": 7200}}},
        {
            "id": 2,
            "tool_or_prompt": {"name": "look"},
            "dependencies": [1],
            "timeout_seconds": 30,
            "retry": {"max_attempts": 1},
        },
    ],
}


def test_it_looks_after_two_hours_and_gives_up_half_a_minute_later(tmp_path: Path) -> None:
    async def main() -> None:
        clock = FakeClock()
        look = ScriptedTool("look", [Hang()], effect="pure")
        async with Dagbok(f"sqlite:///{tmp_path}/test.db", tools=[look], clock=clock) as dagbok:
            submitted = await dagbok.submit(PLAN)
            await clock.timer_set(at_least=7200)
            await clock.advance(7200)
            await look.called()
            await clock.advance(30)
            execution = await dagbok.wait(submitted.execution_id)
        assert execution["1"].result == {"waited_seconds": 7200.0}
        assert execution["2"].error_code == "timeout"
        assert execution.duration_ms == 7_230_000

    asyncio.run(main())
