"""Every table, as SQLAlchemy Core: what the migrations arrive at, and what the statements are made of.

Times are UTC milliseconds since 1970, ids are text (prefix + UUIDv7), JSON is text (`JsonColumn`), and SQL NULL, never
JSON null, says "nothing". The database refuses state words it does not know and rows that lack what their state
implies. Each index serves a query that is named beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from dagbok.domain.states import EXECUTION_ENDED, AttemptOutcome, Effect, ExecutionStatus, StepStatus
from dagbok.store.database import (
    NEVER_REUSED,
    JsonColumn,
    RowId,
    TransactionId,
    filled_to,
    only_where,
    where_checked_cheaply,
)

BLOB_CHUNK_BYTES: Final = 2**20  # a value with more bytes than this goes to `blobs`, in pieces of this size

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _words(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in sorted(words))


def _is_one_of(column: str, words: Iterable[str], name: str) -> CheckConstraint:
    return CheckConstraint(" OR ".join(f"{column} = '{word}'" for word in words), name=name)


def _state(implied: Mapping[str, str | None]) -> CheckConstraint:
    """Return the constraint that a row's `status` is a key of `implied` and the column it maps to, if any, is filled.

    One CASE and no IN: SQLite would build the set of each IN anew for every row, which doubled the cost of an update.
    """
    cases = "".join(
        f" WHEN '{word}' THEN {f'{column} IS NOT NULL' if column else 'true'}" for word, column in implied.items()
    )
    return CheckConstraint(f"CASE status{cases} ELSE false END", name="state")


def _of_execution(*, primary_key: bool = False) -> Column[Any]:
    key = ForeignKey("dag_executions.id", ondelete="CASCADE")
    return Column("execution_id", Text, key, nullable=False, primary_key=primary_key)


def _of_fenced_execution() -> tuple[Column[Any], ForeignKeyConstraint]:
    """Return the same for a table of many rows, which only commits fill that hold the execution's row locked.

    That row is there until the end of such a commit: the fence has counted it, or it is new. A check per row would ask
    for it again each time.
    """
    key = ForeignKeyConstraint(["execution_id"], ["dag_executions.id"], ondelete="CASCADE")
    return Column("execution_id", Text, nullable=False), where_checked_cheaply(key)


# Conditions of partial indexes. Queries repeat them word by word: with a bound parameter the index would not be used.
#: Executions that have work or answers to come.
UNFINISHED: Final = f"status IN ({_words(set(ExecutionStatus) - EXECUTION_ENDED)})"
#: Executions that have neither; not IN, for which SQLite would take the index of the states and sort what it finds.
ENDED: Final = f"status NOT IN ({_words(set(ExecutionStatus) - EXECUTION_ENDED)})"
#: Executions that belong to nobody until they are due.
PARKED: Final = "owner IS NULL AND wake_at IS NOT NULL"
#: Commands that no owner has applied.
PENDING: Final = "applied_at IS NULL"
#: Questions without an answer.
OPEN: Final = "closed_at IS NULL"


plans = Table(
    "plans",
    metadata,
    Column("hash", Text, primary_key=True),  # of the content; shared by executions and dags
    Column("document", JsonColumn, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

dags = Table(
    "dags",
    metadata,
    Column("id", Text, primary_key=True),
    Column("title", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("plan_hash", Text, ForeignKey("plans.hash"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("agent_name", Text),
    Column("planning_attempts", Integer),
    Column("planning_usage", JsonColumn),
    Column("planning_cost_usd", Double),
    Column("params", JsonColumn),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
Index("ix_dags_newest", dags.c.created_at, dags.c.id)  # the list, read backwards
Index("ix_dags_plan_hash", dags.c.plan_hash)  # who else uses a plan

dag_executions = Table(
    "dag_executions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("dag_id", Text, ForeignKey("dags.id"), nullable=False),
    Column("plan_hash", Text, ForeignKey("plans.hash"), nullable=False),
    Column("title", Text, nullable=False),
    Column("original_request", Text, nullable=False),
    Column("primary_intent", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("started_at", BigInteger),
    Column("completed_at", BigInteger),
    Column("duration_ms", BigInteger, nullable=False),  # the sum of its active periods
    Column("total_tasks", Integer, nullable=False),
    Column("completed_tasks", Integer, nullable=False),
    Column("failed_tasks", Integer, nullable=False),
    Column("waiting_tasks", Integer, nullable=False),
    Column("skipped_tasks", Integer, nullable=False),
    Column("running_tasks", Integer, nullable=False),
    Column("final_result", Text),  # NULL also where it is large: blob "final_result"
    Column("synthesis_result", Text),  # likewise
    Column("error", Text),
    Column("error_code", Text),
    Column("retry_count", Integer, nullable=False),
    Column("last_retry_at", BigInteger),
    Column("total_usage", JsonColumn),
    Column("total_cost_usd", Double),
    Column("idempotency_key", Text, unique=True),
    Column("request_hash", Text),  # of the request that came with the key
    Column("labels", JsonColumn),
    Column("priority", Integer, nullable=False),
    Column("options", JsonColumn),
    Column("paused_at", BigInteger),
    Column("deadline_at", BigInteger),
    Column("wake_at", BigInteger),
    Column("parked_at", BigInteger),  # since when nobody owns it, though it has not ended
    Column("epoch", BigInteger, nullable=False),  # grows with each owner; writes of older ones are refused
    Column("owner", Text),  # NULL: nobody runs it, and nobody has to before `wake_at`
    Column("traceparent", Text),
    Column("forked_from", Text),  # an execution, which may be deleted by now
    Column("last_event_seq", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    _state({word: "completed_at" if word in EXECUTION_ENDED else None for word in ExecutionStatus}),
    CheckConstraint("(idempotency_key IS NULL) = (request_hash IS NULL)", name="idempotency"),
    **filled_to(60),
)
Index("ix_dag_executions_newest", dag_executions.c.created_at, dag_executions.c.id)  # the list, read backwards
Index(
    "ix_dag_executions_status", dag_executions.c.status, dag_executions.c.created_at, dag_executions.c.id
)  # of a status
Index(
    "ix_dag_executions_unfinished",  # what a starting engine takes over
    dag_executions.c.created_at,
    dag_executions.c.id,
    **only_where(UNFINISHED),
)
Index("ix_dag_executions_wake", dag_executions.c.wake_at, **only_where(PARKED))  # what is due next
Index("ix_dag_executions_dag_id", dag_executions.c.dag_id)  # the runs of a dag
Index("ix_dag_executions_plan_hash", dag_executions.c.plan_hash)  # who else uses a plan
Index(
    "ix_dag_executions_ended",  # what ended long ago
    dag_executions.c.completed_at,
    dag_executions.c.id,
    **only_where("completed_at IS NOT NULL"),
)

sub_steps = Table(
    "sub_steps",
    metadata,
    Column("id", Text, primary_key=True),
    *_of_fenced_execution(),
    Column("task_id", Text, nullable=False),
    Column("position", Integer, nullable=False),  # its rank in natural order; the synthesis is last
    Column("description", Text, nullable=False),
    Column("thought", Text, nullable=False),
    Column("action_type", Text, nullable=False),
    Column("tool_or_prompt_name", Text, nullable=False),
    Column("tool_or_prompt_params", JsonColumn, nullable=False),
    Column("expected_output", Text, nullable=False),
    Column("dependencies", JsonColumn, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("attempt", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("input", JsonColumn),  # NULL also where `input_bytes` says it is large: blob "input:TASK"
    Column("input_bytes", BigInteger),
    Column("result", JsonColumn),  # NULL also where `result_bytes` says it is large: blob "result:TASK"
    Column("result_bytes", BigInteger),
    Column("error", Text),
    Column("error_code", Text),
    Column("error_detail", Text),
    Column("effect", Text, nullable=False),
    Column("override", JsonColumn),  # what stands in place of the plan's tool, params or model
    Column("progress", JsonColumn),
    Column("started_at", BigInteger),
    Column("completed_at", BigInteger),
    Column("duration_ms", BigInteger),
    Column("next_attempt_at", BigInteger),
    Column("usage", JsonColumn),
    Column("cost_usd", Double),
    Column("model", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    UniqueConstraint("execution_id", "task_id"),  # the journal's way to the row, and the reader's to all of them
    _state(
        {
            StepStatus.RUNNING: "started_at",
            StepStatus.COMPLETED: "completed_at",
            StepStatus.PENDING: None,
            StepStatus.WAITING: "reason",
            StepStatus.FAILED: "completed_at",
            StepStatus.SKIPPED: "completed_at",
            StepStatus.CANCELLED: "completed_at",
        }
    ),
    _is_one_of("effect", Effect, "effect"),
    **filled_to(35),  # inserted without a result, updated with it
)

attempts = Table(
    "attempts",  # the tries that did not end well
    metadata,
    _of_execution(primary_key=True),
    Column("task_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("outcome", Text, nullable=False),
    Column("error", Text),
    Column("error_code", Text),
    Column("started_at", BigInteger),
    Column("completed_at", BigInteger, nullable=False),
    Column("usage", JsonColumn),
    Column("cost_usd", Double),
    _is_one_of("outcome", AttemptOutcome, "outcome"),
)

events = Table(
    "events",
    metadata,
    Column("id", RowId, primary_key=True),
    *_of_fenced_execution(),
    Column("seq", BigInteger, nullable=False),  # 1, 2, 3, ... per execution
    Column("type", Text, nullable=False),
    Column("task_id", Text),
    Column("at", BigInteger, nullable=False),
    Column("data", JsonColumn),
    # On PostgreSQL alone. Ids are drawn before the commit and may become visible out of order; a reader of all
    # executions orders by (xid, id) below `pg_snapshot_xmin` and skips nothing.
    Column("xid", TransactionId, nullable=False, server_default=text("pg_current_xact_id()")),
    UniqueConstraint("execution_id", "seq"),  # the diary of one execution, from any line on
)

commands = Table(
    "commands",  # what somebody asks of an execution; its owner applies it
    metadata,
    Column("id", RowId, primary_key=True),
    _of_execution(),
    Column("kind", Text, nullable=False),
    Column("data", JsonColumn, nullable=False),
    Column("by", Text),
    Column("at", BigInteger, nullable=False),
    Column("applied_at", BigInteger),
    Column("wait", Text),  # the question it answers, "TASK#NUMBER"; a second answer is a conflict
    UniqueConstraint("execution_id", "wait"),
    **NEVER_REUSED,
)
Index(
    "ix_commands_pending",  # what an owner looks for
    commands.c.id,
    **only_where(PENDING),
)

human_inputs = Table(
    "human_inputs",  # the inbox and its audit
    metadata,
    Column("id", RowId, primary_key=True),
    _of_execution(),
    Column("task_id", Text, nullable=False),
    Column("number", Integer, nullable=False),  # the n-th question of this sub-step
    Column("kind", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("answer_schema", JsonColumn),
    Column("assignee", Text),
    Column("shown", JsonColumn),
    Column("asked_at", BigInteger, nullable=False),
    Column("due_at", BigInteger),
    Column("closed_at", BigInteger),
    Column("answer", JsonColumn),
    Column("answered_by", Text),
    Column("outcome", Text),  # how it was closed; NULL also for what an earlier release closed
    Column("reminders", Integer, nullable=False, server_default=text("0")),
    UniqueConstraint("execution_id", "task_id", "number"),
)
Index(
    "ix_human_inputs_open",  # the inbox, the oldest first
    human_inputs.c.asked_at,
    human_inputs.c.id,
    **only_where(OPEN),
)

blobs = Table(
    "blobs",  # large values, in pieces of `BLOB_CHUNK_BYTES` of their UTF-8
    metadata,
    _of_execution(primary_key=True),
    Column("name", Text, primary_key=True),  # "result:TASK", "input:TASK", "final_result", "synthesis_result"
    Column("chunk", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

schema_info = Table(
    "schema_info",  # one row
    metadata,
    Column(
        "compatible_from", Integer, primary_key=True, autoincrement=False
    ),  # the oldest schema whose release may use this
)
