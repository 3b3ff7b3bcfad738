import asyncio
from pathlib import Path

from dagbok import Dagbok
from dagbok.errors import ToolError
from dagbok.testing import FakeClock, ModelAnswer, ScriptedModel

PLAN = {
    "original_request": "What do people say about tides?",
    "intent": {"primary": "name topics"},
    "sub_tasks": [
        {
            "id": 1,
            "action_type": "inference",
            "tool_or_prompt": {"name": "inference", "params": {"prompt": "In one word: what do people talk about?"}},
        },
        {
            "id": 2,
            "action_type": "inference",
            "tool_or_prompt": {
                "name": "inference",
                "params": {
                    "prompt": "Name topics like <Result from Task 1>.",
                    "output_schema": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
    ],
    "synthesis_plan": "One sentence.",
}


def test_a_model_that_is_busy_is_asked_again_when_it_says(tmp_path: Path) -> None:
    async def main() -> None:
        clock = FakeClock()
        model = ScriptedModel(
            [
                ToolError("Too many requests.", code="rate_limited", retry_after_s=20),
                "tides",
                "tides, the moon",  # not the list that was asked for; it is told so, and answers once more
                ModelAnswer(["tides", "the moon"], cost_usd=0.002),
                "They talk about tides and the moon.",
            ]
        )
        url = f"sqlite:///{tmp_path}/test.db"
        async with Dagbok(url, model=model, clock=clock, journal=clock.watch) as dagbok:
            execution = await clock.run(dagbok.run(PLAN))
        assert (execution["1"].attempt, execution["1"].result) == (2, "tides")
        assert execution["2"].result == ["tides", "the moon"]
        assert execution.final_result == "They talk about tides and the moon."
        assert clock.elapsed_s == 20
        assert "topics like tides" in model.calls[2].text
        assert "not JSON" in (model.calls[3].complaint or "")

    asyncio.run(main())
