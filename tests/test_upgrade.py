"""A diary of the schema before: what was unfinished in it goes on, and when it is due, on both databases."""

from __future__ import annotations

import asyncio
from typing import Any

import laws
from dagbok import Dagbok
from dagbok.outside import upgrade_database
from dagbok.settings import Settings
from dagbok.store import migrations
from dagbok.store.database import Database
from dagbok.testing import FakeClock, ScriptedTool

#: What revision 0001 did not have, and how it left executions that nobody ran.
REWIND = (
    "DROP INDEX ix_dag_executions_ended",
    "DROP INDEX ix_dag_executions_plan_hash",
    "DROP INDEX ix_dags_plan_hash",
    "DROP INDEX ix_dag_executions_wake",
    "ALTER TABLE dag_executions DROP COLUMN parked_at",
    "ALTER TABLE dag_executions DROP COLUMN forked_from",
    "ALTER TABLE sub_steps DROP COLUMN override",
    "ALTER TABLE human_inputs DROP COLUMN outcome",
    "ALTER TABLE human_inputs DROP COLUMN reminders",
    "UPDATE schema_info SET compatible_from = 1",
    "UPDATE alembic_version SET version_num = '0001'",
    "UPDATE dag_executions SET owner = NULL, wake_at = NULL",
)
#: What it had there, and 0006 took away.
REWIND_POSTGRESQL = tuple(
    f"ALTER TABLE {table} ADD CONSTRAINT fk_{table}_execution_id"
    " FOREIGN KEY (execution_id) REFERENCES dag_executions (id) ON DELETE CASCADE"
    for table in ("sub_steps", "events")
)
HOUR_S = 3600

TASKS: dict[str, dict[str, Any]] = {
    "asked": {"action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "Well?"}}},
    "cut off": {"tool_or_prompt": {"name": "work", "params": {}}},
    "timer": {"tool_or_prompt": {"name": "wait", "params": {"seconds": HOUR_S}}},
}


def test_what_an_older_release_left_goes_on(database_url: str) -> None:
    clock, began = FakeClock(), asyncio.Event()
    ids: dict[str, str] = {}

    async def works_for_ever(_: object) -> None:
        began.set()
        await clock.sleep(10 * HOUR_S)

    async def older() -> None:
        hangs = ScriptedTool("work", works_for_ever, effect="pure", clock=clock)
        async with Dagbok(database_url, tools=[hangs], clock=clock, close_grace_s=0) as dagbok:
            for name, task in TASKS.items():
                plan = {"original_request": name, "intent": {"primary": "p"}, "sub_tasks": [{"id": "t", **task}]}
                ids[name] = (await dagbok.submit(plan)).execution_id
            await dagbok.wait(ids["asked"])
            await began.wait()
            await clock.timer_set(at_least=HOUR_S, at_most=HOUR_S)

    async def newer() -> dict[str, str]:
        works = ScriptedTool("work", lambda _: "done", effect="pure", clock=clock)
        async with Dagbok(database_url, tools=[works], clock=clock) as dagbok:
            assert (await dagbok.wait(ids["cut off"]))["t"].attempt == 2
            await dagbok.wait(ids["asked"])
            await dagbok.answer(ids["asked"], "t", {"input": "very"})
            waiting = asyncio.ensure_future(dagbok.wait(ids["timer"]))
            await clock.timer_set(at_least=HOUR_S, at_most=HOUR_S)
            await clock.advance(HOUR_S)
            assert (await waiting)["t"].attempt == 1
            return {name: (await dagbok.wait(id)).status for name, id in ids.items()}

    asyncio.run(older())
    database = Database.open(database_url)
    with database.writing() as connection:
        for statement in REWIND + (REWIND_POSTGRESQL if database.dialect == "postgresql" else ()):
            connection.exec_driver_sql(statement)
    assert upgrade_database(Settings(database_url=database_url)) == ("0001", migrations.HEAD)
    assert asyncio.run(newer()) == dict.fromkeys(TASKS, "completed")
    for written in laws.read(database).values():
        assert laws.broken(written) == []
    database.close()
