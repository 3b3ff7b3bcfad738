"""`GET .../graph` over real HTTP: every format with its type and guards, as it stands, and never with results."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import sqlalchemy as sa

from api.inside import inside
from api.serving import Server, plan, task
from dagbok import Client
from dagbok.diary import Diary
from dagbok.errors import BadInput, NotFound
from dagbok.store.database import Database
from dagbok.store.queries import Reader

TYPES = {
    "json": "application/json",
    "mermaid": "text/vnd.mermaid; charset=utf-8",
    "dot": "text/vnd.graphviz; charset=utf-8",
    "svg": "image/svg+xml",
}


def graph_path(execution_id: str, format: str = "") -> str:
    return f"/api/v1/dag-executions/{execution_id}/graph{format and f'?format={format}'}"


@pytest.fixture(scope="module")
def ended(server: Server) -> str:
    document = plan(task(1, value=1), task(2, "large", 1, size=100_000), task(3, "echo", 1), synthesis_plan="Sum up")
    id: str = server.submit(document)["executionId"]
    server.ended(id)
    return id


@pytest.mark.parametrize("format", TYPES)
def test_each_format_has_its_type_and_the_same_bytes_each_time(server: Server, ended: str, format: str) -> None:
    answer = server.client.get(graph_path(ended, format))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TYPES[format]
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert server.client.get(graph_path(ended, format)).content == answer.content
    assert "xxxxxxxx" not in answer.text, "no result is in a graph"


def test_json_is_what_comes_where_nothing_else_is_asked_for(server: Server, ended: str) -> None:
    document = server.client.get(graph_path(ended)).json()
    assert document == server.client.get(graph_path(ended, "json")).json()
    assert [(node["taskId"], node["status"]) for node in document["nodes"]] == [
        (id, "completed") for id in ("1", "2", "3", "__SYNTHESIS__")
    ]
    assert [(edge["source"], edge["target"]) for edge in document["edges"]] == [
        ("1", "2"), ("1", "3"), ("2", "__SYNTHESIS__"), ("3", "__SYNTHESIS__"),
    ]  # fmt: skip


def test_the_picture_may_load_nothing_and_run_nothing(server: Server, ended: str) -> None:
    answer = server.client.get(graph_path(ended, "svg"))
    assert ElementTree.fromstring(answer.text).tag == "{http://www.w3.org/2000/svg}svg"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy.endswith("; sandbox")
    assert "unsafe" not in policy


@pytest.mark.parametrize("format", TYPES)
def test_who_has_it_is_told_so_until_something_changes(fresh_server: Server, tmp_path: Path, format: str) -> None:
    id = fresh_server.submit(plan(task(1, "gate", folder=str(tmp_path)), task(2, "echo", 1)))["executionId"]
    fresh_server.reached(id, "running")
    first = fresh_server.client.get(graph_path(id, format))
    seen = {"if-none-match": first.headers["etag"]}
    for _ in range(100):
        again = fresh_server.client.get(graph_path(id, format), headers=seen)
        if again.status_code == 304:
            break
        seen = {"if-none-match": again.headers["etag"]}  # something of its start was written meanwhile
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == seen["if-none-match"]
    (tmp_path / "open").touch()
    fresh_server.ended(id)
    changed = fresh_server.client.get(graph_path(id, format), headers=seen)
    assert changed.status_code == 200
    assert changed.text != first.text
    assert "completed" in changed.text


def test_large_pictures_are_gzipped_for_who_takes_it(server: Server, ended: str) -> None:
    assert server.client.get(graph_path(ended, "svg")).headers["content-encoding"] == "gzip"
    plain = server.client.get(graph_path(ended, "svg"), headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers


@pytest.mark.parametrize("format", ["png", "SVG", ""])
def test_a_format_that_there_is_not_is_a_problem_that_names_those_there_are(
    server: Server, ended: str, format: str
) -> None:
    answer = server.client.get(f"{graph_path(ended)}?format={format}")
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["errors"][0]["pointer"]) == (422, "invalid_input", "/format")
    assert all(word in problem["detail"] for word in TYPES)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("format", TYPES)
def test_no_execution_has_no_graph(server: Server, format: str) -> None:
    for headers in ({}, {"if-none-match": '"x"'}):
        answer = server.client.get(graph_path("dag-exec_nothing", format), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_hostile_words_of_a_plan_are_text_in_the_picture(server: Server) -> None:
    evil = '"><script>alert(1)</script><image href="http://evil.example/x"/>'
    call = {**task("a&b'\"", value=1), "description": f"{evil}\x1b[31m\u202e"}
    id = server.submit(plan(call, title=evil))["executionId"]
    root = ElementTree.fromstring(server.client.get(graph_path(id, "svg")).text)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not tags & {"script", "image", "a", "use", "foreignObject"}
    assert any(evil in "".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}title"))


def test_the_clients_and_the_library_have_it_too(server: Server, ended: str) -> None:
    with Client(server.url) as client:
        graph = client.graph(ended)
        assert [node.task_id for node in graph.nodes] == ["1", "2", "3", "__SYNTHESIS__"]
        assert (graph.nodes[0].x, graph.lines[0].points[0]) == (118, (224, 48))
        for format in ("mermaid", "dot", "svg"):
            text = client.graph(ended, format=format)
            assert text == server.client.get(graph_path(ended, format)).text
        with pytest.raises(NotFound):
            client.graph("dag-exec_nothing", format="svg")
        with pytest.raises(BadInput, match="format"):
            client.graph(ended, format="png")  # type: ignore[call-overload]  # that is the point


async def _library(url: str) -> None:
    async with inside(url) as served:
        id = await served.submit(task(1, "wait", seconds=0))
        await served.settled(id)
        for format in TYPES:
            answer = await served.client.get(graph_path(id, format))
            assert await served.dagbok.graph(id, format) == answer.text
        with pytest.raises(BadInput, match="mermaid"):
            await served.dagbok.graph(id, "png")
        with pytest.raises(NotFound):
            await served.dagbok.graph("dag-exec_nothing")


def test_the_library_writes_what_the_server_sends(database_url: str) -> None:
    asyncio.run(_library(database_url))


@pytest.fixture
def statements(database: Database) -> Iterator[list[str]]:
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield found
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


def test_no_result_no_input_and_no_plan_is_read_for_it(
    fresh_server: Server, database: Database, statements: list[str]
) -> None:
    id = fresh_server.submit(plan(task(1, "large", size=3 * 2**20)))["executionId"]
    fresh_server.ended(id)
    row, diagram = Diary(Reader(database)).graph(id)
    assert (row["id"], len(diagram.nodes)) == (id, 1)
    statements = [statement for statement in statements if statement.startswith("SELECT")]
    assert len(statements) == 2, statements
    for word in ("result", "input", "params", "blobs", "plans", "error,", "progress", "*"):
        assert not any(word in statement for statement in statements), (word, statements)


def test_a_graph_that_is_too_dense_for_a_picture_is_told_so(server: Server) -> None:
    dense = plan(*(task(at, "echo", *range(at)) for at in range(220)))
    id = server.submit(dense)["executionId"]
    answer = server.client.get(graph_path(id, "svg"))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/format"
    assert "`json`" in answer.json()["detail"]
    for format in ("json", "mermaid", "dot"):
        assert server.client.get(graph_path(id, format)).status_code == 200
