"""What ended long ago is found by its end, and who else uses a plan by that plan.

Without the last two, each plan that is deleted would read all dags and executions, to see that none refers to it. An
earlier release works on this schema as before: it deletes no plans.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Index the ends and the plans."""
    ended = sa.text("completed_at IS NOT NULL")
    op.create_index(
        "ix_dag_executions_ended",
        "dag_executions",
        ["completed_at", "id"],
        sqlite_where=ended,
        postgresql_where=ended,
    )
    op.create_index("ix_dag_executions_plan_hash", "dag_executions", ["plan_hash"])
    op.create_index("ix_dags_plan_hash", "dags", ["plan_hash"])
