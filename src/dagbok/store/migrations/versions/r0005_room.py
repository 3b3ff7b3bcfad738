"""PostgreSQL leaves room beside a row for its next version, which then costs no index an entry.

Each sub-step is inserted without its result and updated with it, each execution is updated a few times. A page that was
filled with new rows has no room for that: the versions went elsewhere, and with them an entry in every index. An
earlier release works on this schema as before; tables as they are now change with their next rows.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Fill pages in part."""
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE sub_steps SET (fillfactor = 35)")
        op.execute("ALTER TABLE dag_executions SET (fillfactor = 60)")
