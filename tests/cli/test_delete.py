"""`dagbok delete`: what is named goes, once somebody agrees, and nothing where one word of it is wrong."""

from __future__ import annotations

import json
import re

from cli.program import Project, id_in, kill, read_until, task
from cli.test_inbox import ask
from dagbok.client import Client
from dagbok.store.database import Database
from store.test_deletion import rows


def _ended(project: Project, title: str = "Say x") -> str:
    done = project.call("run", project.plan(task(1, "say", text=title), task(2, "say", 1, text="y"), title=title))
    assert done.returncode == 0
    return id_in(done.stderr)


def _kept(project: Project) -> list[str]:
    return [each["id"] for each in json.loads(project.call("list", "--json").stdout)["executions"]]


def test_several_go_with_all_they_wrote(on_both: Project) -> None:
    first, second, third = (_ended(on_both, title) for title in "abc")
    done = on_both.call("delete", first, "latest", third, "--yes")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{first} is deleted, with 2 sub-steps.\n{third} is deleted, with 2 sub-steps.\n"
    assert _kept(on_both) == [second]
    told = on_both.call("delete", second, "--yes", "--json")
    assert json.loads(told.stdout) == {
        "deleted": [{"executionId": second, "cascadeInfo": {"relatedSubStepsDeleted": 2}}]
    }
    database = Database.open(on_both.url)
    assert rows(database) == {}
    database.close()


def test_one_that_is_wrong_keeps_all(project: Project) -> None:
    id = _ended(project)
    for wrong, words in (("nosuch", "No execution"), ("019", "too little of an ID to delete"), ("", "ID is empty")):
        refused = project.call("delete", id, wrong, "--yes")
        assert (refused.returncode, words in refused.stderr) == (2, True), refused.stderr
    assert project.call("delete").returncode == 2
    assert _kept(project) == [id]


def test_nothing_goes_without_a_yes(project: Project) -> None:
    id = _ended(project, "A [b]title[/b]")
    refused = project.run("delete", id, input="y\n")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "1 execution would be deleted; --yes says that this is meant." in refused.stderr
    code, seen = project.on_terminal("delete", "latest", press="n\n", at="[y/N]")
    assert (code, "Nothing was deleted." in seen) == (2, True)
    code, seen = project.on_terminal("delete", id, press="\x03", at="[y/N]")
    assert (code, _kept(project)) == (130, [id])
    code, seen = project.on_terminal("delete", id, press="yes\n", at="[y/N]")
    assert re.search(
        rf"{id}  completed in .*  A \[b\]title\[/b\]\nDelete 1 execution from sqlite:\S+\? It cannot", seen
    )
    assert (code, _kept(project)) == (0, [])


def test_what_has_not_ended_stays_unless_it_is_forced_without_an_engine_too(on_both: Project) -> None:
    ended = _ended(on_both)
    waiting = id_in(on_both.call("run", on_both.plan(ask("q", "Which?"))).stderr)
    process = on_both.start("run", on_both.plan(task(1, "charge", file="a")))
    cut_off = id_in(read_until(process, "started"))
    kill(process)
    refused = on_both.call("delete", ended, waiting, cut_off, "--yes")
    assert refused.returncode == 2
    words = f"Nothing was deleted: {waiting} is waiting, {cut_off} is interrupted. --force cancels first"
    assert words in refused.stderr
    assert len(_kept(on_both)) == 3
    assert on_both.call("delete", ended, waiting, cut_off, "--yes", "--force").returncode == 0
    assert _kept(on_both) == []


def test_beside_a_server_it_ends_what_runs_there_and_the_server_goes_on(on_both: Project) -> None:
    with on_both.serving() as url, Client(url) as client:
        gated = client.submit((on_both.folder / on_both.plan(task(1, "gate", file="never"))).read_text()).execution_id
        refused = on_both.call("delete", gated, "--yes")
        assert (refused.returncode, f"{gated} is running. --force" in refused.stderr) == (2, True)
        done = on_both.call("delete", gated, "--yes", "--force")
        assert (done.returncode, done.stderr) == (0, f"{gated} is deleted, with 1 sub-step.\n")
        assert client.list().executions == []
        after = client.run((on_both.folder / on_both.plan(task(1, "say", text="x"))).read_text())
        assert after.status == "completed"
        assert on_both.call("delete", after.id, "--yes").returncode == 0
        assert client.list().executions == []
