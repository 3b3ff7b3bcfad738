"""The ids of Dagbok, each its own type, so that one cannot stand in for another."""

from __future__ import annotations

from typing import NewType

ExecutionId = NewType("ExecutionId", str)  # "dag-exec_" + UUIDv7
DagId = NewType("DagId", str)  # "dag_" + UUIDv7
TaskId = NewType("TaskId", str)  # as the plan spells it; unique within an execution
Epoch = NewType("Epoch", int)  # grows each time an execution changes owner; 1 is the owner that created it

#: Of whoever creates an execution.
FIRST_EPOCH = Epoch(1)
#: The task id of the synthesis. No sub-task of a plan may use it.
SYNTHESIS = TaskId("__SYNTHESIS__")
#: The tool name of the synthesis.
SYNTHESIS_TOOL = "__synthesis__"
