"""Nested API calls that people wrote: every reference finds its value, through the real engine and store."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagbok import Dagbok
from dagbok.domain.call import Call
from dagbok.domain.states import ExecutionStatus
from dagbok.tools.tool import Home, Options, Tool
from datasets import folder, nestful_plan

_TYPES = {"string": "text", "integer": 7, "number": 1.5, "boolean": True}


def _sample(schema: Mapping[str, Any] | str, name: str) -> Any:
    """Return a value of the kind that a spec describes, in whichever of its two ways."""
    if isinstance(schema, str):
        schema = {"type": schema}
    kind = schema.get("type")
    if kind == "array" or "items" in schema:
        return [_sample(schema.get("items", {"type": "string"}), f"{name}[0]")]
    if kind == "object" or "properties" in schema:
        return {key: _sample(child, f"{name}.{key}") for key, child in schema.get("properties", {}).items()}
    return f"{name} of {kind}" if kind == "string" else _TYPES.get(str(kind), name)


def _stub(spec: Mapping[str, Any], names: set[str]) -> Tool:
    """Return a tool that answers as its spec says; a part that calls name but the spec leaves out is a string."""
    result: dict[str, Any] = {key: _sample(child, key) for key, child in spec["output_parameters"].items()}
    for path in names:
        _complete(result, re.findall(r"[^.\[\]]+", path))
    properties: dict[str, Any] = {
        name: {} for name in spec.get("query_parameters", {}) | spec.get("path_parameters", {})
    }

    async def body(call: Call, _: Home) -> object:
        return result

    return Tool(
        name=spec["name"],
        description=spec["description"],
        parameters={"type": "object", "properties": properties},
        body=body,
        options=Options(),
    )


def _complete(value: Any, parts: list[str]) -> None:
    for here, following in zip(parts, [*parts[1:], None], strict=True):
        deeper: Any = [{}] if following is not None and following.isdigit() else {} if following else f"the {here}"
        if isinstance(value, list):
            index = int(here)
            if not isinstance(value[index], dict | list) and following:
                value[index] = deeper
            value = value[index]
        else:
            if here not in value or (following and not isinstance(value[here], dict | list)):
                value[here] = deeper
            value = value[here]


def _walk(value: Any, path: str) -> Any:
    for part in re.findall(r"[^.\[\]]+", path):
        value = value[int(part)] if part.isdigit() else value[part]
    return value


def test_every_reference_of_the_executable_calls_resolves(tmp_path: Path) -> None:
    data = folder("nestful")
    rows = [json.loads(line) for line in (data / "executable-data.jsonl").read_text().splitlines()]
    specs = {spec["name"]: spec for spec in json.loads((data / "executable-spec.json").read_text())}
    named: dict[str, set[str]] = {name: set() for name in specs}
    for row in rows:
        tool_of = {call.get("label"): call["name"] for call in row["output"]}
        for label, path in re.findall(r"\$(\w+)[.]?([^$\"]*)\$", json.dumps(row["output"])):
            if path:
                named[tool_of[label]].add(path)
    stubs = [_stub(spec, named[name]) for name, spec in specs.items()]

    async def collect(values: dict[str, Any]) -> dict[str, Any]:
        return values

    async def main() -> int:
        resolved = 0
        async with Dagbok(f"sqlite:///{tmp_path}/nestful.db", tools=[*stubs, collect]) as dagbok:
            for row in rows:
                plan, _ = nestful_plan(row)
                execution = await dagbok.run(plan)
                assert execution.status is ExecutionStatus.COMPLETED, (row["input"], execution.error)
                results = {step.task_id: step.result for step in execution.sub_steps}
                for call, step_id in ((call, call.get("label", "var_result")) for call in row["output"]):
                    step = execution[step_id]
                    given = step.input["values"] if step_id == "var_result" else step.input
                    for name, value in call["arguments"].items():
                        match = re.fullmatch(r"\$(\w+)[.]?([^$]*)\$", value) if isinstance(value, str) else None
                        if match:
                            expected = _walk(results[match[1]], match[2])
                            assert expected is not None
                            assert given[name] == expected
                            resolved += 1
        return resolved

    assert asyncio.run(main()) >= 100
