"""What clients are told when it is not their fault: a database that is away, and a bug."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

import postgres
from api.serving import plan, serving, task
from dagbok.api.app import create_app
from dagbok.app import Dagbok
from dagbok.service import Service


def test_while_the_database_is_away_submissions_are_refused_at_once_and_nothing_is_lost(
    postgres_server: postgres.Server, postgres_template: str, tmp_path: Path
) -> None:
    """The journal would hold a submission until the database is back; no client waits for so long."""
    name = postgres_server.create_database(postgres_template)
    with serving(postgres_server.url(name), tmp_path) as server:
        id = server.submit(plan(task(1, "gate", folder=str(tmp_path)), task(2, "echo", 1)))["executionId"]
        until(lambda: (tmp_path / "starts").exists())

        postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        (tmp_path / "open").touch()
        until(lambda: server.client.get("/health/ready").status_code == 503)
        assert server.client.get("/health/ready").json()["status"] == "not_ready"
        assert server.client.get("/health").status_code == 200
        for method, path in (
            ("POST", "/api/v1/execute-dag"),
            ("GET", "/api/v1/dag-executions"),
            ("GET", f"/api/v1/dag-executions/{id}"),
            ("DELETE", f"/api/v1/dag-executions/{id}"),
        ):
            answer = server.client.request(method, path, json=plan(task(1)))
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable"), answer.text
            assert int(answer.headers["retry-after"]) > 0
            assert name not in answer.text, "where the database is, is not for clients"

        postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        until(lambda: server.client.get("/health/ready").status_code == 200)
        assert server.ended(id)["status"] == "completed"
    postgres_server.drop_database(name)


def test_a_bug_is_a_problem_without_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(Service, "list_executions", broken)

    async def ask() -> httpx2.Response:
        async with Dagbok(f"sqlite:///{tmp_path / 'dagbok.db'}") as dagbok:
            transport = httpx2.ASGITransport(create_app(dagbok), raise_app_exceptions=True)
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.get("/api/v1/dag-executions")

    with caplog.at_level(logging.ERROR):
        answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "hunter2" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["detail"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert [record for record in caplog.records if answer.headers["x-request-id"] in record.getMessage()]
    assert "hunter2" in caplog.text


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.02)
