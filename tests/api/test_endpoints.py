"""Every operation over real HTTP, on both databases: status, headers and the exact names of fields."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from api.serving import Server, plan, task
from dagbok import wire
from dagbok.domain.listing import Place
from dagbok.wire import Shape

CURSOR = Place(1, "dag-exec_00000000-0000-7000-8000-000000000000").cursor(None)
EXECUTION_FIELDS = {
    "id", "dagId", "forkedFrom", "title", "originalRequest", "primaryIntent", "status", "startedAt", "completedAt",
    "durationMs", "totalTasks", "completedTasks", "failedTasks", "waitingTasks", "skippedTasks", "runningTasks",
    "finalResult", "synthesisResult", "error", "errorCode", "retryCount", "lastRetryAt", "totalUsage", "totalCostUsd",
    "labels", "priority", "options", "pausedAt", "deadlineAt", "wakeAt", "lastEventSeq", "createdAt", "updatedAt",
}  # fmt: skip
STEP_FIELDS = {
    "id", "executionId", "taskId", "position", "description", "thought", "actionType", "toolOrPromptName",
    "toolOrPromptParams", "expectedOutput", "dependencies", "status", "reason", "attempt", "revision",
    "override", "input", "result", "resultBytes", "resultUrl", "error", "errorCode", "errorDetail", "effect",
    "progress", "startedAt", "completedAt", "durationMs", "nextAttemptAt", "question", "attempts", "usage", "costUsd",
    "model", "createdAt", "updatedAt",
}  # fmt: skip


def assert_says_the_same(shape: type[Shape], data: Any) -> None:
    """The raw writer and the model have the same names, and no value that the model does not hold."""
    model = shape.model_validate(data)
    assert not model.model_extra
    assert set(model.model_dump(by_alias=True)) == set(data)


def test_a_plan_is_accepted_runs_and_can_be_read_back(fresh_server: Server) -> None:
    document = plan(task("10", "echo", "2", value="<Result from Task 2>"), task("2", value={"a": [1, None, "ä"]}))
    answer = fresh_server.client.post("/api/v1/execute-dag", json=document)
    assert answer.status_code == 202
    body = answer.json()
    assert set(body) == {"status", "executionId", "dagId", "originalRequest", "totalTasks", "message"}
    assert (body["status"], body["originalRequest"], body["totalTasks"]) == ("started", "Test it", 2)
    assert body["executionId"].startswith("dag-exec_")
    assert body["dagId"].startswith("dag_")
    assert answer.headers["location"] == f"/api/v1/dag-executions/{body['executionId']}"

    execution = fresh_server.ended(body["executionId"])
    assert set(execution) == EXECUTION_FIELDS | {"subSteps"}
    assert (execution["status"], execution["completedTasks"]) == ("completed", 2)
    assert [step["taskId"] for step in execution["subSteps"]] == ["2", "10"]
    for step in execution["subSteps"]:
        assert set(step) == STEP_FIELDS
        assert step["result"] == {"a": [1, None, "ä"]}
        assert_says_the_same(wire.SubStep, step)
    assert_says_the_same(wire.Execution, execution)

    steps = fresh_server.client.get(f"{answer.headers['location']}/sub-steps").json()
    assert steps == {"executionId": body["executionId"], "subSteps": execution["subSteps"]}
    result = fresh_server.client.get(f"{answer.headers['location']}/sub-steps/10/result")
    assert (result.headers["content-type"], result.json()) == ("application/json", {"a": [1, None, "ä"]})


def test_times_are_iso_8601_in_utc_with_milliseconds(server: Server) -> None:
    execution = server.ended(server.submit(plan(task(1)))["executionId"])
    health = server.client.get("/health").json()
    for time in (execution["createdAt"], execution["completedAt"], health["timestamp"]):
        assert time.endswith("Z")
        assert len(time) == len("2025-01-15T09:30:00.120Z")


def test_a_plan_in_an_envelope_has_options(server: Server) -> None:
    options = {"title": "Named", "labels": {"team": "docs"}}
    body = server.submit({"plan": plan(task(1)), "options": options})
    execution = server.ended(body["executionId"])
    assert (execution["title"], execution["labels"]) == ("Named", {"team": "docs"})


def test_a_plan_with_a_field_called_plan_is_still_a_plan(server: Server) -> None:
    body = server.submit(plan(task(1), plan="B", options=3))
    assert server.ended(body["executionId"])["status"] == "completed"


@pytest.mark.parametrize("name", ["dagId", "dag_id"])
def test_a_stored_dag_runs_once_more(fresh_server: Server, name: str) -> None:
    first = fresh_server.submit(plan(task(1, value="again")))
    second = fresh_server.submit({name: first["dagId"], "options": {"title": "Second"}})
    assert second["dagId"] == first["dagId"]
    assert second["executionId"] != first["executionId"]
    execution = fresh_server.ended(second["executionId"])
    assert (execution["title"], execution["subSteps"][0]["result"]) == ("Second", "again")


def test_a_plan_that_needs_a_clarification_is_answered_with_its_question(server: Server) -> None:
    document = plan(clarification_needed=True, clarification_query="Which one?")
    body = server.submit(document, 200)
    assert body == {"status": "clarification_required", "clarification_query": "Which one?"}
    assert server.submit({"plan": document}, 200) == body


def test_executions_are_listed_newest_first_in_pages(fresh_server: Server) -> None:
    ids = [fresh_server.submit(plan(task(1), title=str(n)))["executionId"] for n in range(5)]
    for execution_id in ids:
        fresh_server.ended(execution_id)

    def page(**query: Any) -> tuple[list[str], dict[str, Any]]:
        answer = fresh_server.client.get("/api/v1/dag-executions", params=query)
        assert answer.status_code == 200
        assert set(answer.json()) == {"executions", "pagination"}
        for execution in answer.json()["executions"]:
            assert set(execution) == EXECUTION_FIELDS
            assert_says_the_same(wire.ExecutionSummary, execution)
        return [e["id"] for e in answer.json()["executions"]], answer.json()["pagination"]

    newest_first = ids[::-1]
    whole = {"limit": 50, "offset": 0, "count": 5, "total": 5, "totalIsEstimate": False, "nextCursor": None}
    assert page() == (newest_first, whole)
    assert page(limit=2, offset=1)[0] == newest_first[1:3]
    assert page(limit=2, offset=4)[1] == whole | {"limit": 2, "offset": 4, "count": 1}
    assert page(limit=2, cursor=page(limit=2, offset=1)[1]["nextCursor"])[0] == newest_first[3:]
    assert page(offset=5)[0] == []
    assert page(offset=2**63 - 1)[1]["count"] == 0
    assert page(status="completed")[1]["total"] == 5
    assert page(status="failed") == ([], whole | {"count": 0, "total": 0})
    of_status = page(status="completed", limit=4)[1]["nextCursor"]
    assert page(status="completed", cursor=of_status, offset=0)[0] == newest_first[4:]
    refused = fresh_server.client.get("/api/v1/dag-executions", params={"cursor": of_status})
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/cursor"], "it is of another list"


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"),
        ("limit=101", "/limit"),
        ("limit=many", "/limit"),
        ("offset=-1", "/offset"),
        (f"offset={2**63}", "/offset"),
        ("status=done", "/status"),
        ("cursor=abc", "/cursor"),
        ("cursor=", "/cursor"),
        ("cursor=%00", "/cursor"),
        (f"cursor={'a' * 201}", "/cursor"),
        (f"cursor={CURSOR}&status=failed", "/cursor"),
        (f"cursor={CURSOR}&offset=1", "/offset"),
        ("status=%00", "/status"),
    ],
)
def test_a_page_that_cannot_be_is_refused(server: Server, query: str, pointer: str) -> None:
    answer = server.client.get(f"/api/v1/dag-executions?{query}")
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_a_large_result_comes_by_its_own_request(fresh_server: Server) -> None:
    small, large = 64 * 1024 - 2, 3 * 2**20  # with its quotes, the first is at the limit
    id = fresh_server.submit(plan(task("small", "large", size=small), task("large ä", "large", size=large)))[
        "executionId"
    ]
    steps = {step["taskId"]: step for step in fresh_server.ended(id)["subSteps"]}
    assert (len(steps["small"]["result"]), steps["small"]["resultUrl"]) == (small, None)
    step = steps["large ä"]
    assert (step["result"], step["resultBytes"]) == (None, large + 2)
    assert step["resultUrl"] == f"/api/v1/dag-executions/{id}/sub-steps/large%20%C3%A4/result"
    assert fresh_server.client.get(step["resultUrl"]).json() == "x" * large


def test_a_running_execution_is_cancelled_and_only_then_deleted(fresh_server: Server, tmp_path: Any) -> None:
    id = fresh_server.submit(plan(task(1, "gate", folder=str(tmp_path)), task(2, "echo", 1)))["executionId"]
    path = f"/api/v1/dag-executions/{id}"
    refused = fresh_server.client.delete(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    cancelled = fresh_server.client.post(f"{path}/cancel")
    assert (cancelled.status_code, set(cancelled.json())) == (202, {"message", "executionId"})
    assert fresh_server.ended(id)["status"] == "cancelled"
    assert fresh_server.client.post(f"{path}/cancel").status_code == 202  # a client that lost the answer asks again

    deleted = fresh_server.client.delete(path)
    assert deleted.status_code == 200
    assert set(deleted.json()) == {"message", "executionId", "cascadeInfo"}
    assert deleted.json()["cascadeInfo"] == {"relatedSubStepsDeleted": 2}
    for answer in (
        fresh_server.client.get(path),
        fresh_server.client.delete(path),
        fresh_server.client.get(f"{path}/sub-steps"),
        fresh_server.client.get(f"{path}/sub-steps/1/result"),
        fresh_server.client.post(f"{path}/cancel"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_question_takes_one_answer_that_fits_and_the_execution_goes_on(fresh_server: Server) -> None:
    question = {
        "id": "ask",
        "action_type": "human",
        "tool_or_prompt": {"name": "human", "params": {"prompt": "Which?", "schema": {"enum": ["red", "blue"]}}},
    }
    id = fresh_server.submit(plan(question, task(2, "echo", value="<Result from Task ask>")))["executionId"]
    assert fresh_server.reached(id, "waiting")["waitingTasks"] == 1
    steps = f"/api/v1/dag-executions/{id}/sub-steps"
    post = fresh_server.client.post
    for given, pointer in (
        ({"input": "green"}, "/input"),
        ({}, "/input"),
        ({"decision": "maybe"}, "/decision"),
        ({"input": "red", "colour": 1}, "/colour"),
    ):
        refused = post(f"{steps}/ask/input", json=given)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer), given
    assert post(f"{steps}/2/input", json={"input": 1}).status_code == 409
    assert post(f"{steps}/nobody/input", json={"input": 1}).status_code == 404
    assert post(f"{steps}/ask/input", content=b"{", headers={"content-type": "application/json"}).status_code == 400

    answered = post(f"{steps}/ask/input", json={"input": "red", "by": "ann"})
    assert (answered.status_code, set(answered.json())) == (202, {"message", "executionId"})
    execution = fresh_server.reached(id, "completed")
    assert execution["finalResult"] == "red"
    assert execution["subSteps"][0]["input"] == {"value": "red"}
    assert post(f"{steps}/ask/input", json={"input": "blue"}).status_code == 409


def test_an_id_that_is_not_there_is_not_found(fresh_server: Server) -> None:
    """Those that PostgreSQL could not even compare with too."""
    ids = ["nothing", "%00", "a%0Ab", "x" * 3000, "%ff%fe", "dag-exec_", "'; DROP TABLE dags"]
    for (method, rest), id in itertools.product(
        [
            ("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("POST", "/pause"), ("POST", "/resume"),
            ("GET", "/sub-steps"), ("GET", "/sub-steps/ID/result"), ("GET", "/sub-steps/ID/attempts"),
        ],
        ids,
    ):  # fmt: skip
        path = f"/api/v1/dag-executions/{id}{rest.replace('ID', id)}"
        answer = fresh_server.client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


def test_a_sub_step_without_a_result_says_so(server: Server, tmp_path: Any) -> None:
    id = server.submit(plan(task(1, "gate", folder=str(tmp_path))))["executionId"]
    answer = server.client.get(f"/api/v1/dag-executions/{id}/sub-steps/1/result")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "no result" in answer.json()["detail"]
    assert server.client.post(f"/api/v1/dag-executions/{id}/cancel").status_code == 202


def test_tools_are_described_as_functions(server: Server) -> None:
    tools = {tool["function"]["name"]: tool for tool in server.client.get("/api/v1/tools").json()}
    assert {"wait", "read_file", "inference", "echo"} <= set(tools)
    for tool in tools.values():
        assert tool["type"] == "function"
        assert set(tool["function"]) == {"name", "description", "parameters"}
        assert_says_the_same(wire.ToolView, tool)


def test_health_and_readiness(server: Server) -> None:
    health = server.client.get("/health")
    assert health.status_code == 200
    assert set(health.json()) == {"status", "timestamp"}
    assert health.json()["status"] == "ok"
    ready = server.client.get("/health/ready")
    assert ready.status_code == 200
    timestamp = ready.json().pop("timestamp")
    assert timestamp
    assert {k: v for k, v in ready.json().items() if k != "timestamp"} == {
        "status": "ready",
        "provider": "offline",
        "model": "extractive",
        "scheduler": {"activeSchedules": 0},
    }


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/api/v1/tools", "/docs"])
def test_head_says_what_get_would(server: Server, path: str) -> None:
    head, get = server.client.head(path), server.client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


def test_a_plan_of_1000_tasks_is_accepted(server: Server) -> None:
    """Answered before it ran; how fast is a benchmark's to say."""
    tasks = [task(n, "echo", *([n - 1] if n % 10 != 1 else []), value=n) for n in range(1, 1001)]
    body = server.submit(plan(*tasks))
    assert body["totalTasks"] == 1000
    assert server.ended(body["executionId"])["completedTasks"] == 1000
