"""The filters of the inbox, as query parameters. One that is not known is refused: its wish would have no effect."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from dagbok.api import examples
from dagbok.domain import inbox
from dagbok.domain.cursor import MAX_CHARS


class InboxFilters(BaseModel):
    """Which questions to people somebody wants to see."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")

    status: inbox.Status = Field("open", description="`open`: what waits for an answer; `all`: what is closed, too")
    kind: inbox.Kind | None = Field(None, description="Only questions of this kind")
    assignee: Annotated[str, Field(max_length=500)] | None = Field(None, description="Only those for this person")
    execution_id: Annotated[str, Field(max_length=500)] | None = Field(
        None, description="Only those of this execution", examples=[examples.EXECUTION_ID]
    )
    due_before: AwareDatetime | None = Field(
        None, description="Only those whose time is over before then", examples=["2025-01-15T12:00:00Z"]
    )
    limit: int = Field(50, ge=1, le=inbox.MAX_LIMIT, description="At most so many, from 1 to 100")
    cursor: Annotated[str, Field(max_length=MAX_CHARS)] | None = Field(
        None, description="The `nextCursor` of the page before; none for the first page"
    )
