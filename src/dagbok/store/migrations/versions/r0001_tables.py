"""The tables of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from dagbok.store.database import JsonColumn, RowId, TransactionId

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table. Frozen: what changes later is a revision of its own, and `store/schema.py` shows the sum."""
    op.create_table(
        "plans",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("document", JsonColumn(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_plans")),
    )
    op.create_table(
        "schema_info",
        sa.Column("compatible_from", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("compatible_from", name=op.f("pk_schema_info")),
    )
    op.create_table(
        "dags",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("plan_hash", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("agent_name", sa.Text(), nullable=True),
        sa.Column("planning_attempts", sa.Integer(), nullable=True),
        sa.Column("planning_usage", JsonColumn(), nullable=True),
        sa.Column("planning_cost_usd", sa.Double(), nullable=True),
        sa.Column("params", JsonColumn(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["plan_hash"], ["plans.hash"], name=op.f("fk_dags_plan_hash")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dags")),
    )
    op.create_index("ix_dags_newest", "dags", ["created_at", "id"], unique=False)
    op.create_table(
        "dag_executions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("dag_id", sa.Text(), nullable=False),
        sa.Column("plan_hash", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("original_request", sa.Text(), nullable=False),
        sa.Column("primary_intent", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("total_tasks", sa.Integer(), nullable=False),
        sa.Column("completed_tasks", sa.Integer(), nullable=False),
        sa.Column("failed_tasks", sa.Integer(), nullable=False),
        sa.Column("waiting_tasks", sa.Integer(), nullable=False),
        sa.Column("skipped_tasks", sa.Integer(), nullable=False),
        sa.Column("running_tasks", sa.Integer(), nullable=False),
        sa.Column("final_result", sa.Text(), nullable=True),
        sa.Column("synthesis_result", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("retry_count", sa.Integer(), nullable=False),
        sa.Column("last_retry_at", sa.BigInteger(), nullable=True),
        sa.Column("total_usage", JsonColumn(), nullable=True),
        sa.Column("total_cost_usd", sa.Double(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_hash", sa.Text(), nullable=True),
        sa.Column("labels", JsonColumn(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("options", JsonColumn(), nullable=True),
        sa.Column("paused_at", sa.BigInteger(), nullable=True),
        sa.Column("deadline_at", sa.BigInteger(), nullable=True),
        sa.Column("wake_at", sa.BigInteger(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("last_event_seq", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "CASE status WHEN 'pending' THEN true WHEN 'running' THEN true WHEN 'waiting' THEN true"
            " WHEN 'completed' THEN completed_at IS NOT NULL WHEN 'failed' THEN completed_at IS NOT NULL"
            " WHEN 'partial' THEN completed_at IS NOT NULL WHEN 'cancelled' THEN completed_at IS NOT NULL"
            " ELSE false END",
            name=op.f("ck_dag_executions_state"),
        ),
        sa.CheckConstraint(
            "(idempotency_key IS NULL) = (request_hash IS NULL)", name=op.f("ck_dag_executions_idempotency")
        ),
        sa.ForeignKeyConstraint(["dag_id"], ["dags.id"], name=op.f("fk_dag_executions_dag_id")),
        sa.ForeignKeyConstraint(["plan_hash"], ["plans.hash"], name=op.f("fk_dag_executions_plan_hash")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dag_executions")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_dag_executions_idempotency_key")),
    )
    op.create_index("ix_dag_executions_dag_id", "dag_executions", ["dag_id"], unique=False)
    op.create_index("ix_dag_executions_newest", "dag_executions", ["created_at", "id"], unique=False)
    op.create_index("ix_dag_executions_status", "dag_executions", ["status", "created_at", "id"], unique=False)
    op.create_index(
        "ix_dag_executions_unfinished",
        "dag_executions",
        ["created_at", "id"],
        unique=False,
        sqlite_where=sa.text("status IN ('pending', 'running', 'waiting')"),
        postgresql_where=sa.text("status IN ('pending', 'running', 'waiting')"),
    )
    op.create_table(
        "attempts",
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("completed_at", sa.BigInteger(), nullable=False),
        sa.Column("usage", JsonColumn(), nullable=True),
        sa.Column("cost_usd", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "outcome = 'failed' OR outcome = 'timeout' OR outcome = 'interrupted' OR outcome = 'stopped' "
            "OR outcome = 'cancelled'",
            name=op.f("ck_attempts_outcome"),
        ),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["dag_executions.id"], name=op.f("fk_attempts_execution_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("execution_id", "task_id", "number", name=op.f("pk_attempts")),
    )
    op.create_table(
        "blobs",
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("chunk", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["dag_executions.id"], name=op.f("fk_blobs_execution_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("execution_id", "name", "chunk", name=op.f("pk_blobs")),
    )
    op.create_table(
        "commands",
        sa.Column("id", RowId, nullable=False),
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("data", JsonColumn(), nullable=False),
        sa.Column("by", sa.Text(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("applied_at", sa.BigInteger(), nullable=True),
        sa.Column("wait", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["dag_executions.id"], name=op.f("fk_commands_execution_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commands")),
        sa.UniqueConstraint("execution_id", "wait", name=op.f("uq_commands_execution_id_wait")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_commands_pending",
        "commands",
        ["id"],
        unique=False,
        sqlite_where=sa.text("applied_at IS NULL"),
        postgresql_where=sa.text("applied_at IS NULL"),
    )
    op.create_table(
        "events",
        sa.Column("id", RowId, nullable=False),
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("data", JsonColumn(), nullable=True),
        sa.Column("xid", TransactionId(), server_default=sa.text("pg_current_xact_id()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["dag_executions.id"], name=op.f("fk_events_execution_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("execution_id", "seq", name=op.f("uq_events_execution_id_seq")),
    )
    op.create_table(
        "human_inputs",
        sa.Column("id", RowId, nullable=False),
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("answer_schema", JsonColumn(), nullable=True),
        sa.Column("assignee", sa.Text(), nullable=True),
        sa.Column("shown", JsonColumn(), nullable=True),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("answer", JsonColumn(), nullable=True),
        sa.Column("answered_by", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["dag_executions.id"], name=op.f("fk_human_inputs_execution_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_human_inputs")),
        sa.UniqueConstraint(
            "execution_id", "task_id", "number", name=op.f("uq_human_inputs_execution_id_task_id_number")
        ),
    )
    op.create_index(
        "ix_human_inputs_open",
        "human_inputs",
        ["asked_at", "id"],
        unique=False,
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "sub_steps",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("thought", sa.Text(), nullable=False),
        sa.Column("action_type", sa.Text(), nullable=False),
        sa.Column("tool_or_prompt_name", sa.Text(), nullable=False),
        sa.Column("tool_or_prompt_params", JsonColumn(), nullable=False),
        sa.Column("expected_output", sa.Text(), nullable=False),
        sa.Column("dependencies", JsonColumn(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("input", JsonColumn(), nullable=True),
        sa.Column("input_bytes", sa.BigInteger(), nullable=True),
        sa.Column("result", JsonColumn(), nullable=True),
        sa.Column("result_bytes", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("effect", sa.Text(), nullable=False),
        sa.Column("progress", JsonColumn(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=True),
        sa.Column("usage", JsonColumn(), nullable=True),
        sa.Column("cost_usd", sa.Double(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "CASE status WHEN 'running' THEN started_at IS NOT NULL"
            " WHEN 'completed' THEN completed_at IS NOT NULL WHEN 'pending' THEN true"
            " WHEN 'waiting' THEN reason IS NOT NULL WHEN 'failed' THEN completed_at IS NOT NULL"
            " WHEN 'skipped' THEN completed_at IS NOT NULL WHEN 'cancelled' THEN completed_at IS NOT NULL"
            " ELSE false END",
            name=op.f("ck_sub_steps_state"),
        ),
        sa.CheckConstraint(
            "effect = 'pure' OR effect = 'idempotent' OR effect = 'once'", name=op.f("ck_sub_steps_effect")
        ),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["dag_executions.id"], name=op.f("fk_sub_steps_execution_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sub_steps")),
        sa.UniqueConstraint("execution_id", "task_id", name=op.f("uq_sub_steps_execution_id_task_id")),
    )
    op.execute("INSERT INTO schema_info (compatible_from) VALUES (1)")
    if op.get_bind().dialect.name == "postgresql":
        # Rows that are updated several times find room on their own page, and their indexes stay as they are (HOT).
        op.execute("ALTER TABLE dag_executions SET (fillfactor = 70)")
        op.execute("ALTER TABLE sub_steps SET (fillfactor = 70)")
