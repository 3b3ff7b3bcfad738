"""PostgreSQL does not look for its execution for each new sub-step and event.

They come in commits that hold the row of their execution locked from the first statement on, or have made it, so it is
there; and a deletion, which waits for that lock, deletes them by itself. An earlier release works on this schema as
before, for it does the same.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Drop the checks; on SQLite, where they cost next to nothing, they stay."""
    if op.get_context().dialect.name == "postgresql":
        # Each commit takes the tables in this order; to drop a check alone would lock its own table first.
        op.execute("LOCK TABLE dag_executions, sub_steps, events IN ACCESS EXCLUSIVE MODE")
        for table in ("sub_steps", "events"):
            op.drop_constraint(f"fk_{table}_execution_id", table, type_="foreignkey")
