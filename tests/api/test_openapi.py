"""The OpenAPI document: true of what is sent, with an example for everything, and readable without any other server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from api.serving import Server
from dagbok.domain.diagram import MEDIA_TYPES
from dagbok.domain.retry import Policy, Retry

METHODS = {"get", "post", "delete", "put", "patch"}


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.client.get("/api/v1/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield f"{method.upper()} {path}", operation


def validator(document: dict[str, Any], schema: Any) -> Draft202012Validator:
    return (
        Draft202012Validator({**schema, "components": document["components"]}) if schema else Draft202012Validator({})
    )


def test_it_is_openapi_3_1_at_both_addresses(server: Server, document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert server.client.get("/openapi.json").json() == document


def test_every_operation_of_this_release_is_there(document: dict[str, Any]) -> None:
    assert {name for name, _ in operations(document)} == {
        "POST /api/v1/execute-dag",
        "GET /api/v1/dag-executions",
        "GET /api/v1/dag-executions/{execution_id}",
        "DELETE /api/v1/dag-executions/{execution_id}",
        "POST /api/v1/dag-executions/{execution_id}/cancel",
        "POST /api/v1/dag-executions/{execution_id}/pause",
        "POST /api/v1/dag-executions/{execution_id}/resume",
        "POST /api/v1/dag-executions/{execution_id}/retry",
        "POST /api/v1/dag-executions/{execution_id}/fork",
        "POST /api/v1/resume-dag/{execution_id}",
        "POST /api/v1/dag-executions/{execution_id}/sub-steps/{task_id}/input",
        "GET /api/v1/human-inputs",
        "GET /api/v1/dag-executions/{execution_id}/graph",
        "GET /api/v1/dag-executions/{execution_id}/sub-steps",
        "GET /api/v1/dag-executions/{execution_id}/sub-steps/{task_id}/result",
        "GET /api/v1/dag-executions/{execution_id}/sub-steps/{task_id}/attempts",
        "GET /api/v1/tools",
        "GET /health",
        "GET /health/ready",
    }
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(ids) == len(set(ids))


def test_every_operation_says_what_it_does_and_how_it_fails(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert {"403", "421", "500"} <= set(operation["responses"]), name
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], name
        for status, response in operation["responses"].items():
            for header in response.get("headers", {}).values():
                shared = header.get("$ref", "").rpartition("/")[2]
                found = document["components"]["headers"][shared] if shared else header
                assert found["description"], (name, status)
            if status == "304":
                assert "content" not in response, name
                continue
            content = response["content"]
            several = (name, status) == ("GET /api/v1/dag-executions/{execution_id}/graph", "200")
            assert len(content) == (len(MEDIA_TYPES) if several else 1), (name, status)
            if int(status) >= 400 and (name, status) != ("GET /health/ready", "503"):
                assert list(content) == ["application/problem+json"], (name, status)


def test_every_schema_is_one_and_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            for content in response.get("content", {}).values():
                assert "example" in content, (name, status)
                validator(document, content.get("schema")).validate(content["example"])
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert content["examples"]
            for example in content["examples"].values():
                validator(document, content["schema"]).validate(example["value"])


def test_it_says_what_a_retry_may_be(document: dict[str, Any]) -> None:
    """Whoever writes plans by the schema, such as a model, has no other place to learn it from."""
    schemas = document["components"]["schemas"]
    fields = schemas["SubTask"]["properties"]["retry"]["properties"]
    assert set(fields) == set(Retry.model_fields)
    assert all(field["description"] for field in fields.values())
    (attempts, _) = fields["max_attempts"]["anyOf"]
    assert (attempts["minimum"], attempts["maximum"]) == (1, 100)
    policy = Policy()
    for name in set(fields) - {"retry_on"}:
        assert re.search(rf"; {getattr(policy, name):g}\b", fields[name]["description"]), name
    judge = validator(document, {"$ref": "#/components/schemas/SubTask"})
    task = {"id": "1", "tool_or_prompt": {"name": "wait"}}
    for retry, fits in (({"max_attempts": 5}, True), ({}, True), ({"max_attemps": 5}, False), ({"jitter": 2}, False)):
        assert judge.is_valid({**task, "retry": retry}) is fits, retry
    assert schemas["ToolView"]["properties"]["retry"]["anyOf"][0]["properties"].keys() == fields.keys()


def test_no_reference_leads_nowhere(document: dict[str, Any]) -> None:
    for kind in ("schemas", "headers"):
        names = set(re.findall(rf"'#/components/{kind}/([^']+)'", str(document)))
        assert names
        assert names <= set(document["components"][kind])


def test_the_example_of_a_request_is_accepted(server: Server, document: dict[str, Any]) -> None:
    content = document["paths"]["/api/v1/execute-dag"]["post"]["requestBody"]["content"]["application/json"]
    assert server.submit(content["examples"]["plan"]["value"])["totalTasks"] == 2


def test_what_is_sent_fits_the_schema(server: Server, document: dict[str, Any]) -> None:
    example = document["paths"]["/api/v1/execute-dag"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    server.ended(server.submit(example["plan"]["value"])["executionId"])
    id = server.client.get("/api/v1/dag-executions").json()["executions"][0]["id"]
    for name, operation in operations(document):
        method, path = name.split()
        if method != "GET":
            continue
        answer = server.client.get(path.format(execution_id=id, task_id="1"))
        response = operation["responses"][str(answer.status_code)]
        media_type = answer.headers["content-type"].partition(";")[0]
        validator(document, response["content"][media_type].get("schema")).validate(answer.json())


def test_the_page_shows_all_of_it_and_loads_nothing_from_elsewhere(server: Server, document: dict[str, Any]) -> None:
    assert server.client.get("/").headers["location"] == "/docs"
    answer = server.client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    for name, _ in operations(document):
        assert f"<code>{name}</code>" in answer.text
    assert "<script" not in answer.text
    assert not re.findall(r"(?:src|href)=.https?:", answer.text)
    assert "'unsafe-inline'" not in answer.headers["content-security-policy"]


def test_the_type_of_a_problem_leads_to_its_sentence(server: Server) -> None:
    type = server.client.get("/api/v1/dag-executions/nothing").json()["type"]
    path, _, anchor = type.partition("#")
    assert f'id="{anchor}"' in server.client.get(path).text
