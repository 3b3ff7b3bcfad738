import asyncio
from pathlib import Path

from dagbok import Dagbok, tool
from dagbok.errors import ToolError
from dagbok.testing import ScriptedTool


@tool(effect="once")
async def publish(text: str) -> str:
    """Publish a text where everybody can read it, and return its address."""
    raise NotImplementedError("the real one does something that no test should do")


PLAN = {
    "original_request": "Publish what the two pages say",
    "intent": {"primary": "publish"},
    "sub_tasks": [
        {"id": 1, "tool_or_prompt": {"name": "fetch_page", "params": {"url": "https://example.com/tides"}}},
        {
            "id": 2,
            "tool_or_prompt": {"name": "fetch_page", "params": {"url": "https://example.com/moon"}},
            "on_failure": "skip",
        },
        {
            "id": 3,
            "tool_or_prompt": {"name": "publish", "params": {"text": "{{ tasks.1.result.text }}"}},
            "dependencies": [1, 2],
        },
    ],
}


def test_a_page_that_is_gone_does_not_keep_the_other_from_being_published(tmp_path: Path) -> None:
    async def main() -> None:
        pages = ScriptedTool(
            "fetch_page",
            {"1": [{"text": "Tides follow the moon."}], "2": [ToolError("It is gone.", code="not_found")]},
        )
        publisher = ScriptedTool("publish", ["https://example.org/1"])
        async with Dagbok(f"sqlite:///{tmp_path}/test.db", tools=[publish, pages, publisher]) as dagbok:
            execution = await dagbok.run(PLAN)
        assert execution.status == "completed"
        assert execution["2"].error_code == "not_found"
        assert execution["3"].result == "https://example.org/1"
        assert [call.params for call in publisher.calls] == [{"text": "Tides follow the moon."}]

    asyncio.run(main())
