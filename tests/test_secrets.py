"""Planted canaries: a real server runs tools that give secrets away in every way, and is killed on top of it.

After that no row, no byte of the database file, no line of the log and no answer of the API holds a value in any
spelling, nor the part that a cut would have left of it; while the tools did get the true values.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

import canary_tools
import pythons
from dagbok import Dagbok, ToolContext, tool
from dagbok.domain.ids import ExecutionId
from dagbok.domain.states import ExecutionStatus
from dagbok.errors import BadInput, InvalidAnswer, InvalidPlan, Misconfigured
from dagbok.store.database import Database
from dagbok.store.schema import metadata
from dagbok.store.takeover import write_command
from domain.test_secrets import in_base64, spelled

CANARY = "canary_Q7zK9xW2\"\\å𝄞%2+/=&<'{}\nsecond line M4vBt8Rp_end"
LINES = ("MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "BKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj")
KEY = "\n".join(("-----BEGIN PRIVATE KEY-----", *LINES, "-----END PRIVATE KEY-----", ""))
PIN = "739184650"
SECRETS = {"CANARY": CANARY, "KEY": KEY, "PIN": PIN}
ENVIRONMENT = {f"DAGBOK_SECRET_{name}": value for name, value in SECRETS.items()}

#: What no text may hold: every spelling, and the parts of values that only a value has.
TRACES = {
    *(spelling for value in SECRETS.values() for spelling in spelled(value.strip())),
    *(in_base64(value.strip(), before, b"")[1][:16] for value in SECRETS.values() for before in (b"", b"x", b"xx")),
    *("canary_Q", "Q7zK9xW2", "M4vBt8Rp", *LINES),
}


def traces(text: str) -> list[str]:
    return [text[max(0, text.index(trace) - 200) : text.index(trace) + 60] for trace in TRACES if trace in text]


def secret(name: str) -> dict[str, str]:
    return {"secret": name}


def task(id: str, name: str, *after: str, **params: Any) -> dict[str, Any]:
    return {"id": id, "tool_or_prompt": {"name": name, "params": params}, "dependencies": list(after)}


def plan_of(*tasks: Any, **more: Any) -> dict[str, Any]:
    return {"original_request": "r", "intent": {"primary": "p"}, "sub_tasks": list(tasks), **more}


def giving_away() -> dict[str, Any]:
    """Return the plan that tries everything; `hang` stays, and a person is asked."""
    token, pin = {"token": secret("CANARY")}, {"pin": secret("PIN")}
    ways = ["large", "encoded", "raised", "missing_key", "grouped", "exits", "exits_inside", "coded", "no_json"]
    ways += ["misfit", "logged", "stray"]
    ask = {
        "action_type": "human",
        "tool_or_prompt": {"name": "human", "params": {"prompt": "Is <Result from Task returned> it?"}},
    }
    think = {
        "action_type": "inference",
        "tool_or_prompt": {"name": "inference", "params": {"prompt": "Say <Result from Task encoded>"}},
    }
    return plan_of(
        task("seen", "seen", **token),
        task("seen key", "seen", token=secret("KEY")),
        task("key", "echo", value=[secret("KEY"), {"lines": secret("KEY")}]),
        *(task(way, way, **token) for way in ways),
        task("returned", "returned", **token, **pin),
        task("priced", "priced", **token, **pin),
        task("hang", "hang", **token),
        task("next", "echo", value="{{ tasks.returned.result.plain }} <Result from Task encoded>"),
        {"id": "ask", **ask},
        {"id": "think", **think},
        synthesis_plan="All of it.",
    )  # fmt: skip


@contextmanager
def serving(url: str, folder: Path) -> Iterator[tuple[pythons.Process, httpx2.Client]]:
    """Run `dagbok serve` with the canaries; what it writes goes to files of `folder`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("DAGBOK_")}
    env |= {"DAGBOK_DATABASE_URL": url, "DAGBOK_TOOLS": canary_tools.__file__, "CANARY_FOLDER": str(folder)}
    with (folder / "stdout").open("a") as out, (folder / "stderr").open("a") as err:
        begins = (folder / "stdout").stat().st_size
        command = ("-m", "dagbok", "serve", "--port", "0")
        process = pythons.start(*command, stdout=out, stderr=err, env=env | ENVIRONMENT, cwd=folder)
        try:
            until(lambda: "http://" in (folder / "stdout").read_text()[begins:] or process.poll() is not None)
            at = (folder / "stdout").read_text()[begins:].split()[-1]
            with httpx2.Client(base_url=at, timeout=60, trust_env=False) as client:
                yield process, client
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0, (folder / "stderr").read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(10)


def until(condition: Any) -> Any:
    """Return what `condition` gives once it gives something: another process sends no signal."""
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.02)
    return found


def rows(url: str) -> str:
    """Return every cell of every table as text."""
    database = Database.open(url)
    try:
        with database.reading() as connection:
            tables = [connection.execute(sa.text(f"SELECT * FROM {name}")).all() for name in metadata.tables]
    finally:
        database.close()
    cells = [cell for table in tables for row in table for cell in row]
    return "\n".join(cell.decode() if isinstance(cell, bytes) else str(cell) for cell in cells)


def test_no_row_no_line_and_no_answer_holds_a_secret(database_url: str, tmp_path: Path) -> None:
    answers: set[str] = set()

    def ask(client: httpx2.Client, method: str, path: str, status: int, body: Any = None) -> Any:
        answer = client.request(method, f"/api/v1{path}", json=body)
        answers.add(answer.text)
        assert answer.status_code == status, answer.text
        return answer.json()

    with serving(database_url, tmp_path) as (process, client):
        for literal in (
            plan_of(task("a", "echo", value=CANARY)),
            {"plan": plan_of(task("a", "echo", value=1)), "options": {"title": f"my {CANARY}", "labels": {"x": PIN}}},
        ):
            refused = ask(client, "POST", "/execute-dag", 422, literal)
            assert {fault["code"] for fault in refused["errors"]} == {"literal_secret"}
        assert {fault["pointer"] for fault in refused["errors"]} == {"/options/title", "/options/labels/x"}

        id = ask(client, "POST", "/execute-dag", 202, giving_away())["executionId"]

        def statuses() -> dict[str, str]:
            return {s["taskId"]: s["status"] for s in ask(client, "GET", f"/dag-executions/{id}", 200)["subSteps"]}

        until(
            lambda: (
                not {"pending", "running"} & {s for t, s in statuses().items() if t not in ("hang", "__SYNTHESIS__")}
            )
        )
        progress = until(lambda: _step(ask(client, "GET", f"/dag-executions/{id}", 200), "hang")["progress"])
        assert progress["message"].startswith("x" * 480 + "[secret CANARY")
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    with serving(database_url, tmp_path) as (process, client):
        until(lambda: statuses()["hang"] == "waiting")
        # A person gives it away, too; and whoever commands from a process that knows no secrets.
        ask(
            client,
            "POST",
            f"/dag-executions/{id}/sub-steps/ask/input",
            202,
            {"input": [CANARY, int(PIN)], "by": CANARY},
        )
        database = Database.open(database_url)
        data = {"taskId": "hang", "answer": {"decision": "succeeded", "result": "from elsewhere"}}
        write_command(database, id, "answer", data, "someone", at_ms=0, wait="hang#1")
        database.close()
        ended = until(lambda: (e := ask(client, "GET", f"/dag-executions/{id}", 200))["completedAt"] and e)
        cancelled = ask(client, "POST", "/execute-dag", 202, plan_of(task("hang", "hang", token=secret("CANARY"))))
        until(lambda: (tmp_path / "seen").read_text().count("hang") == 2)
        ask(client, "POST", f"/dag-executions/{cancelled['executionId']}/cancel", 202)
        until(lambda: ask(client, "GET", f"/dag-executions/{cancelled['executionId']}", 200)["status"] == "cancelled")
        for path in ("/dag-executions", f"/dag-executions/{id}/sub-steps", "/tools"):
            ask(client, "GET", path, 200)
        for step in ended["subSteps"]:
            if step["status"] == "completed":
                ask(client, "GET", f"/dag-executions/{id}/sub-steps/{step['taskId']}/result", 200)

    assert ended["status"] == "partial"
    assert _step(ended, "ask")["result"] == ["[secret CANARY]", "[secret PIN]"]
    assert _step(ended, "returned")["result"]["plain"] == "[secret CANARY]"
    assert _step(ended, "returned")["toolOrPromptParams"] == {"token": secret("CANARY"), "pin": secret("PIN")}
    assert _step(ended, "key")["result"][1] == ["[secret KEY]\n", {"lines": "[secret KEY]\n"}]
    assert _step(ended, "raised")["error"].endswith("[secret CANARY]")
    assert _step(ended, "priced")["usage"] == {"[secret CANARY]": 1, "n": 2}
    got = (tmp_path / "seen").read_text()
    for value in (CANARY, KEY):
        assert hashlib.sha256(value.encode()).hexdigest() in got, "the tool did not get the true value"

    written = (tmp_path / "stderr").read_text() + (tmp_path / "stdout").read_text()
    for line in ("LOGGED [secret", "LIBRARY [secret", "STRAY [secret"):
        assert line in written
    assert not traces(written)
    assert not traces("\n".join(answers))
    stored = rows(database_url)
    assert stored.count("[secret CANARY]") > 20
    assert not traces(stored)
    for file in tmp_path.glob("dagbok.db*"):
        assert not traces(file.read_bytes().decode("utf-8", "replace"))


def _step(execution: dict[str, Any], task_id: str) -> Any:
    return next(step for step in execution["subSteps"] if step["taskId"] == task_id)


def test_the_scan_finds_what_it_looks_for() -> None:
    for spelling in spelled(CANARY):
        assert traces(f"x{spelling}y"), spelling
    assert traces("x" * 100 + CANARY[:9])
    assert not traces(json.dumps(giving_away()))


# -- in a program of one's own ----------------------------------------------------------------------------------------


def test_only_the_plan_itself_asks_for_a_secret(database_url: str) -> None:
    """A result, or a person, that says {"secret": NAME} gets an object and no value."""
    ask = {"action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "?"}}}

    async def main() -> None:
        tools = [canary_tools.forged, canary_tools.echo]
        async with Dagbok(database_url, tools=tools, secrets={"TOKEN": "true-value-1"}) as dagbok:
            submitted = await dagbok.submit(
                plan_of(
                    task("forged", "forged", wanted="TOKEN"),
                    {"id": "asked", **ask},
                    task("whole", "echo", value="<Result from Task forged>"),
                    task("part", "echo", value={"inner": ["<Result from Task asked>"]}),
                    task("beside", "echo", value=[secret("TOKEN"), "<Result from Task forged>"]),
                )
            )
            await dagbok.wait(submitted.execution_id)
            await dagbok.answer(submitted.execution_id, "asked", {"input": secret("TOKEN")})
            execution = await dagbok.wait(submitted.execution_id)
        assert execution.status is ExecutionStatus.COMPLETED
        assert execution["whole"].result == ["dict", secret("TOKEN")]
        assert execution["part"].result == ["dict", {"inner": [secret("TOKEN")]}]
        assert execution["beside"].result == ["list", ["[secret TOKEN]", secret("TOKEN")]]
        assert execution["beside"].input == {"value": [secret("TOKEN"), secret("TOKEN")]}

    asyncio.run(main())


def test_an_edit_of_params_gives_no_secret_that_the_plan_does_not(database_url: str) -> None:
    """A result may look like one; and the command may come from a process that does not know it."""
    given: list[dict[str, Any]] = []

    @tool(effect="pure")
    async def take(token: Any, text: Any) -> None:
        given.append({"token": token, "text": text})

    async def main() -> None:
        task_1 = task("1", "take", token={"secret": "TOKEN"}, text="x") | {"requires_approval": True}
        async with Dagbok(database_url, tools=[take], secrets={"TOKEN": "true-value-1"}) as dagbok:
            id = (await dagbok.submit(plan_of(task_1))).execution_id
            await dagbok.wait(id)
            edited = {"token": {"secret": "TOKEN"}, "text": {"secret": "TOKEN"}}
            answer = {"decision": "edit", "params": edited}
            with pytest.raises(InvalidAnswer, match="it may come from a result"):
                await dagbok.answer(id, "1", answer)
            said = {"taskId": "1", "answer": {**answer, "effect": "pure"}}
            await asyncio.to_thread(_ask_elsewhere, database_url, id, said)
            while (await dagbok.wait(id)).status == "waiting":
                await asyncio.sleep(0.01)
        assert given == [{"token": "true-value-1", "text": {"secret": "TOKEN"}}]

    asyncio.run(main())


def _ask_elsewhere(url: str, id: ExecutionId, said: dict[str, Any]) -> None:
    database = Database.open(url)
    write_command(database, id, "answer", said, None, at_ms=0, wait="1#1")
    database.close()


def test_a_plan_that_asks_for_an_unknown_secret_or_shows_one_to_a_model_is_not_run(database_url: str) -> None:
    model = {"action_type": "inference", "tool_or_prompt": {"name": "inference", "params": {"prompt": secret("TOKEN")}}}

    async def main() -> None:
        async with Dagbok(database_url, tools=[canary_tools.echo], secrets={"TOKEN": "true-value-1"}) as dagbok:
            with pytest.raises(InvalidPlan, match=r"Did you mean 'TOKEN'.*DAGBOK_SECRET_TOKEM") as refused:
                await dagbok.submit(plan_of(task("a", "echo", value=secret("TOKEM")), {"id": "m", **model}))
            assert [problem.code for problem in refused.value.problems] == ["unknown_secret", "secret_not_allowed"]
            with pytest.raises(InvalidPlan) as literal:
                await dagbok.submit(plan_of(task("a", "echo", value="true-value-1")))
            assert [problem.code for problem in literal.value.problems] == ["literal_secret"]
            with pytest.raises(BadInput) as title:
                await dagbok.submit(plan_of(task("a", "echo", value=1)), title="is true-value-1")
            with pytest.raises(BadInput) as key:
                await dagbok.submit(plan_of(task("a", "echo", value=1)), idempotency_key="is-true-value-1")
            assert "true-value" not in f"{refused.value} {literal.value} {title.value} {key.value}"
            assert await dagbok.list() == []

    asyncio.run(main())


def test_a_secret_that_is_gone_at_the_next_start_fails_its_step_with_a_way_out(database_url: str) -> None:
    async def main() -> None:
        started = asyncio.Event()

        @tool(effect="idempotent")
        async def wait_long(token: str) -> None:
            started.set()
            await asyncio.Event().wait()

        async with Dagbok(database_url, tools=[wait_long], secrets={"TOKEN": "value-1"}, close_grace_s=0) as dagbok:
            submitted = await dagbok.submit(plan_of(task("a", "wait_long", token=secret("TOKEN"))))
            await started.wait()
        async with Dagbok(database_url, tools=[wait_long]) as dagbok:
            execution = await dagbok.wait(submitted.execution_id)
        assert (execution["a"].error_code, execution.status) == ("unknown_secret", ExecutionStatus.FAILED)
        assert "DAGBOK_SECRET_TOKEN" in (execution["a"].error or "")

    asyncio.run(main())


def test_a_value_stored_before_it_was_a_secret_is_not_stored_again(database_url: str) -> None:
    """Nor is one that references put together, nor one that somebody brings who does not know it."""
    ask = {"action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "Go on?"}}}
    old = "{{ tasks.old.result[1] }}"
    document = plan_of(
        task("old", "echo", value="true-value-1"),
        {"id": "ask", **ask},
        task("again", "echo", "ask", value=old),
        task("failing", "echo", "ask", value="{{ tasks.old.result[1] | abs(@) }}"),
        task("parts", "echo", "ask", value="true-value-{{ tasks.old.result[1] | length(@) }}"),
    )

    async def main() -> None:
        async with Dagbok(database_url, tools=[canary_tools.echo]) as dagbok:
            submitted = await dagbok.submit(document)
            await dagbok.wait(submitted.execution_id)
        known = {"TOKEN": "true-value-1", "OTHER": "true-value-12"}
        async with Dagbok(database_url, tools=[canary_tools.echo], secrets=known) as dagbok:
            database = Database.open(database_url)
            data = {"taskId": "ask", "answer": ["is true-value-1"]}
            await asyncio.to_thread(
                write_command, database, submitted.execution_id, "answer", data, "true-value-1", at_ms=0, wait="ask#1"
            )
            database.close()
            await dagbok.service._worker.hear()
            execution = await dagbok.wait(submitted.execution_id)
        assert execution["ask"].result == ["is [secret TOKEN]"]
        assert (execution["again"].input, execution["again"].result) == (
            {"value": "[secret TOKEN]"},
            ["str", "[secret TOKEN]"],
        )
        assert execution["parts"].input == {"value": "[secret OTHER]"}
        assert execution["failing"].error_code == "bad_reference"
        assert "[secret TOKEN]" in (execution["failing"].error or "")

    asyncio.run(main())


def test_a_timer_does_not_read_a_secret(database_url: str) -> None:
    async def main() -> None:
        async with Dagbok(database_url, secrets={"SPAN": "12345"}) as dagbok:
            execution = await dagbok.run(plan_of(task("a", "wait", seconds=secret("SPAN"))))
        assert execution["a"].error_code == "invalid_input"
        assert execution["a"].error is not None
        assert "12345" not in execution["a"].error

    asyncio.run(main())


def test_a_program_that_uses_the_library_logs_no_secret_and_keeps_its_environment(
    database_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGBOK_SECRET_TOKEN", "true-value-1")

    @tool(effect="pure")
    def log_it(token: str, context: ToolContext) -> str:
        context.logger.warning("is %s", token)
        return context.redact(f"{token} cut")[:10]

    async def main() -> None:
        async with Dagbok(database_url, tools=[log_it]) as dagbok:
            execution = await dagbok.run(plan_of(task("a", "log_it", token=secret("TOKEN"))))
            assert execution["a"].result == "[secret TO"

    asyncio.run(main())
    assert "is [secret TOKEN]" in caplog.text
    assert "true-value" not in caplog.text
    assert os.environ["DAGBOK_SECRET_TOKEN"] == "true-value-1"


def test_secrets_that_cannot_be_used_keep_the_engine_closed(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGBOK_SECRET_TOKEN", "abc")

    async def main() -> None:
        with pytest.raises(Misconfigured, match="DAGBOK_SECRET_TOKEN is shorter"):
            async with Dagbok(database_url):
                raise AssertionError
        async with Dagbok(database_url, secrets={"TOKEN": "long enough"}) as dagbok:
            raise AssertionError(dagbok)

    with pytest.raises(Misconfigured):
        asyncio.run(main())
