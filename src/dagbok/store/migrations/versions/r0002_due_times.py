"""What waits for a time is found by that time, and belongs to nobody until then.

`owner IS NULL` now means that nobody has to run an execution before `wake_at`. An earlier release also left executions
without an owner that have work to do; they are due at once. That release would run what was paused, and attempts whose
back-off is not over, so it may not use this schema.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Index the due times, and give one to what has none."""
    op.add_column("dag_executions", sa.Column("parked_at", sa.BigInteger(), nullable=True))
    parked = sa.text("owner IS NULL AND wake_at IS NOT NULL")
    op.create_index(
        "ix_dag_executions_wake", "dag_executions", ["wake_at"], sqlite_where=parked, postgresql_where=parked
    )
    op.execute(
        "UPDATE dag_executions SET wake_at = created_at"
        " WHERE owner IS NULL AND wake_at IS NULL AND status IN ('pending', 'running', 'waiting')"
    )
    op.execute("UPDATE schema_info SET compatible_from = 2")
