"""What an execution asks of people: the words say how to answer, and doing so works."""

from __future__ import annotations

import json
import re
import shlex
import urllib.error
import urllib.request

import pytest

from cli.program import Project, id_in, kill, read_until, task
from dagbok.client import Client

QUESTION = {"id": "q 1", "action_type": "human", "tool_or_prompt": {"name": "human", "params": {"prompt": "May I?"}}}


def test_the_commands_that_are_shown_answer_each_kind_of_question(project: Project) -> None:
    process = project.start("run", project.plan(QUESTION, task(2, "charge", file="a")))
    id = id_in(read_until(process, "started", " 2 "))
    kill(process)
    project.open("a")
    with project.serving() as url, Client(url) as client:
        assert client.wait(id, timeout_s=20).waiting_tasks == 2
        shown = project.call("show", id).stdout
        assert f"\nTo answer at the server at {url}:\n" in shown
        first, second = (shlex.split(line) for line in shown.splitlines() if line.startswith("  curl "))
        assert (first[-1], second[-1]) == (
            '{"input": ...}',
            '{"decision": "retry" | "succeeded" | "fail"}',
        )
        for words in (first, second):
            with pytest.raises(urllib.error.HTTPError, match="400"):  # pasted as it is, it decides nothing
                _do(words, words[-1])
        _do(first, '{"input": "yes"}')
        _do(second, '{"decision": "retry"}')
        ended = client.wait(id, timeout_s=20)
    assert (ended.status, ended["q 1"].result, ended["2"].result) == ("completed", "yes", "through a")


def _do(words: list[str], body: str) -> None:
    """Do what curl would."""
    assert words[:2] == ["curl", "-s"]
    assert words[3:-1] == ["-H", "content-type: application/json", "-d"]
    headers = dict([words[4].split(": ")])
    with urllib.request.urlopen(urllib.request.Request(words[2], body.encode(), headers), timeout=30):
        pass


def test_without_a_server_the_words_begin_with_it_and_later_runs_count_what_asks_apart(project: Project) -> None:
    asked = project.run("run", project.plan(QUESTION), "--model", "offline:extractive")
    assert asked.returncode == 4
    id = id_in(asked.stderr)
    begin = r"^To answer: `\S*dagbok serve --model offline:extractive( -d \S+)?`, then\n  curl -s "
    at = rf"http://127.0.0.1:3000/api/v1/dag-executions/{id}/sub-steps/q%201/input -H"
    assert re.search(begin + at, asked.stderr, re.MULTILINE)
    assert "To answer: `" in project.call("show", id).stdout
    again = project.call("resume")
    assert (again.returncode, "To answer: `" in again.stderr) == (4, True)
    one = project.call("run", project.plan(QUESTION)).stderr.splitlines()[0]
    assert re.fullmatch(rf"1 execution waits for an answer; `\S+ show {id[9:27]}( -d \S+)?` says how to give it\.", one)
    process = project.start("run", project.plan(QUESTION, task(2, "gate", file="a")))
    left = re.findall(r"^dag-exec_\S+", read_until(process, "started", " 2 "), re.MULTILINE)[0]
    kill(process)
    several = project.call("run", project.plan(task(1, "say", text="x"))).stderr
    assert re.match(rf"1 execution is unfinished from earlier; `\S+ resume.*` goes on:\n  {left} ", several)
    assert re.search(r"^2 executions wait for an answer; `.* --status waiting.*` names them, `", several, re.MULTILINE)
    assert json.loads(project.call("list", "--status", "waiting", "--json").stdout)["pagination"]["total"] == 3
