import asyncio
from pathlib import Path

from dagbok import Dagbok
from dagbok.testing import CrashingJournal, ScriptedTool

PLAN = {
    "original_request": "Collect, then send",
    "intent": {"primary": "send"},
    "sub_tasks": [
        {"id": 1, "tool_or_prompt": {"name": "collect"}},
        {"id": 2, "tool_or_prompt": {"name": "send", "params": {"text": "<Result from Task 1>"}}},
    ],
}


def test_after_a_crash_it_goes_on_and_collects_nothing_twice(tmp_path: Path) -> None:
    async def main() -> None:
        url = f"sqlite:///{tmp_path}/test.db"
        collect = ScriptedTool("collect", ["a page"], effect="pure")
        send = ScriptedTool("send", ["sent"], effect="once")

        crash = CrashingJournal(at=2, when="after")  # 1 is the submission, 2 what `collect` brought
        async with Dagbok(url, tools=[collect, send], journal=crash.around, close_grace_s=0) as dagbok:
            submitted = await dagbok.submit(PLAN)
            await crash.until_crashed()

        async with Dagbok(url, tools=[collect, send]) as dagbok:
            execution = await dagbok.wait(submitted.execution_id)
        assert execution.status == "completed"
        assert len(collect.calls) == 1
        assert [call.params for call in send.calls] == [{"text": "a page"}]

    asyncio.run(main())
