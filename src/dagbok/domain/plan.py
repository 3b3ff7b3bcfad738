"""The plan: the JSON document an agent wrote, as Pydantic models that accept every spelling and lose nothing.

Unknown fields survive a round trip. What a model cannot say alone (ids that collide, references into nothing, cycles)
is found by `dagbok.domain.validate`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError

from dagbok.domain.ids import TaskId
from dagbok.domain.retry import RetryObject
from dagbok.domain.values import Json

#: Tool names with a meaning of their own.
INFERENCE, HUMAN = "inference", "human"

ActionType = Literal["tool", "inference", "human"]


def _task_id(value: object) -> object:
    # `1` and `"1"` are the same id. True is an int to Python, not to a reader; 1.0 is what some models write for 1.
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.strip() if isinstance(value, str) else value


def says_none(value: object) -> bool:
    """Whether an item of `dependencies` says that there are none."""
    return isinstance(value, str) and value.strip().lower() == "none"


def _dependencies(value: object) -> object:
    if value is None or says_none(value) or (isinstance(value, str) and not value.strip()):
        return []
    return [item for item in value if not says_none(item)] if isinstance(value, list) else value


def _object(value: object) -> object:
    return {} if value is None else value


def _text(value: object) -> object:
    return "" if value is None else value


Id = Annotated[
    TaskId, BeforeValidator(_task_id), Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f/<>{}]+$")
]
Text = Annotated[str, BeforeValidator(_text)]
#: No time limit, timer or deadline is longer.
LONGEST_S = 366 * 86_400
Seconds = Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)]


_ID: TypeAdapter[TaskId] = TypeAdapter(Id)


def read_id(value: Json) -> TaskId | None:
    """Return the id that `value` spells, None for what is no id."""
    try:
        return _ID.validate_python(value)
    except ValidationError:
        return None


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class ToolOrPrompt(_Open):
    """What a sub-task calls: a tool by name, or the model, or a person."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    params: Annotated[dict[str, Any], BeforeValidator(_object)] = Field(default_factory=dict)


class SubTask(_Open):
    """One node of the plan."""

    id: Id
    description: Text = ""
    thought: Text = ""
    action_type: ActionType = "tool"
    tool_or_prompt: ToolOrPrompt
    expected_output: Annotated[str | dict[str, Any], BeforeValidator(_text)] = ""
    dependencies: Annotated[list[Id], BeforeValidator(_dependencies)] = Field(default_factory=list)
    retry: Annotated[RetryObject, BeforeValidator(_object)] = Field(default_factory=dict)
    timeout_seconds: Seconds | None = None
    idle_timeout_seconds: Seconds | None = None
    on_failure: Literal["fail", "skip", "default"] = "fail"
    on_timeout: Literal["fail", "skip", "default", "remind"] = "fail"
    default: Json = None
    requires_approval: bool = False

    @property
    def tool(self) -> str:
        """The tool that runs it: `inference` and `human` by the action type, whatever name the agent wrote."""
        return self.tool_or_prompt.name if self.action_type == "tool" else self.action_type


class Intent(_Open):
    """What the request wants."""

    primary: str
    sub_intents: Annotated[list[Any], BeforeValidator(lambda v: [] if v is None else v)] = Field(default_factory=list)


class Plan(_Open):
    """A plan as the agent wrote it. `document()` gives back all of it, unknown fields included."""

    original_request: str
    title: Text = ""
    intent: Intent
    entities: Annotated[list[Any], BeforeValidator(lambda v: [] if v is None else v)] = Field(default_factory=list)
    sub_tasks: list[SubTask]
    synthesis_plan: Text = ""
    validation: Annotated[dict[str, Any], BeforeValidator(_object)] = Field(default_factory=dict)
    #: Judged before anything else, so nothing but JSON's own true and false will do.
    clarification_needed: Annotated[bool, Strict()] = False
    clarification_query: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the plan as JSON, with the fields the agent gave and no others."""
        return self.model_dump(mode="json", exclude_unset=True)
