import asyncio
from pathlib import Path

from dagbok import Dagbok
from dagbok.errors import ToolError
from dagbok.testing import ModelAnswer, ScriptedModel

PLAN = {
    "original_request": "What do people say about tides?",
    "intent": {"primary": "classify"},
    "sub_tasks": [
        {
            "id": 1,
            "action_type": "inference",
            "tool_or_prompt": {"name": "inference", "params": {"prompt": "What is this about? 'Buy now!'"}},
            "on_failure": "default",
            "default": "unknown",
        },
        {
            "id": 2,
            "action_type": "inference",
            "tool_or_prompt": {
                "name": "inference",
                "params": {
                    "prompt": "Name topics beside <Result from Task 1>.",
                    "output_schema": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
    ],
    "synthesis_plan": "One sentence.",
}


def test_a_model_that_refuses_once_is_asked_on(tmp_path: Path) -> None:
    async def main() -> None:
        model = ScriptedModel(
            [
                ToolError("I do not read advertisements.", code="refused"),
                "tides, the moon",  # not the list that was asked for; it is asked again
                ModelAnswer(["tides", "the moon"], cost_usd=0.002),
                "They talk about tides and the moon.",
            ]
        )
        async with Dagbok(f"sqlite:///{tmp_path}/test.db", model=model) as dagbok:
            execution = await dagbok.run(PLAN)
        assert execution["1"].result == "unknown"
        assert execution["2"].result == ["tides", "the moon"]
        assert execution.final_result == "They talk about tides and the moon."
        assert "beside unknown" in model.calls[1].text
        assert "not JSON" in (model.calls[2].complaint or "")

    asyncio.run(main())
