"""What people change about an execution is kept beside its plan, and how each question to them was closed.

An earlier release would run an overridden sub-step as the plan has it, and knows no approvals, so it may not use this
schema.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from dagbok.store.database import JsonColumn

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("dag_executions", sa.Column("forked_from", sa.Text(), nullable=True))
    op.add_column("sub_steps", sa.Column("override", JsonColumn, nullable=True))
    op.add_column("human_inputs", sa.Column("outcome", sa.Text(), nullable=True))
    op.add_column("human_inputs", sa.Column("reminders", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.execute("UPDATE schema_info SET compatible_from = 4")
