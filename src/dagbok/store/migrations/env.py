"""What Alembic runs to migrate: the connection and its transaction are `upgrade`'s."""

from __future__ import annotations

from alembic import context

from dagbok.store.schema import metadata

# `transactional_ddl`: SQLite can roll DDL back; Alembic assumes otherwise, because of the driver's implicit commits,
# which `Database` turns off.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
