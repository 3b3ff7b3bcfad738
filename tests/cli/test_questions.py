"""What an execution asks of people: the words say how to answer, and doing so works."""

from __future__ import annotations

import json
import re
import shlex

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
        assert "; in a script the answer comes behind it: text or JSON; or retry, succeeded or fail)" in shown
        assert "` goes on" not in shown, "the server does by itself"
        commands = [shlex.split(line) for line in shown.splitlines() if re.match(r"  \S*dagbok answer ", line)]
        assert [words[1:4] for words in commands] == [["answer", id, "q 1"], ["answer", id, "2"]]
        for words in commands:  # pasted as they are, they decide nothing
            done = project.call(*words[1:])
            assert (done.returncode, "There is no answer; put it behind" in done.stderr) == (2, True)
        assert project.call(*commands[0][1:], "yes").returncode == 0
        assert project.call(*commands[1][1:], "retry").returncode == 0
        ended = client.wait(id, timeout_s=20)
    assert (ended.status, ended["q 1"].result, ended["2"].result) == ("completed", "yes", "through a")


def test_without_a_server_the_words_end_with_how_to_go_on_and_later_runs_count_what_asks_apart(
    project: Project,
) -> None:
    asked = project.run("run", project.plan(QUESTION), "--model", "offline:extractive")
    assert asked.returncode == 4
    id = id_in(asked.stderr)
    answer = rf"^To answer:\n  \S*dagbok answer {id} 'q 1'( -d \S+)?\n  \(asks on a terminal; .*\n"
    go_on = rf"  then `\S*dagbok resume {id} --model offline:extractive( -d \S+)?` goes on\n"
    assert re.search(answer + go_on, asked.stderr, re.MULTILINE)
    assert "\nTo answer:\n" in project.call("show", id).stdout
    again = project.call("resume")
    assert (again.returncode, "To answer:\n" in again.stderr) == (4, True)
    # One that has a synthesis, too, does nothing but wait: that comes last.
    one = project.call("run", project.plan(QUESTION, synthesis_plan="Say it.")).stderr.splitlines()[0]
    assert re.fullmatch(rf"1 execution waits for an answer; `\S+ show {id[9:27]}( -d \S+)?` says how to give it\.", one)
    both = project.call("run", project.plan(QUESTION)).stderr.splitlines()[0]
    assert both.startswith("2 executions wait for an answer; ")
    process = project.start("run", project.plan(QUESTION, task(2, "gate", file="a")))
    left = re.findall(r"^dag-exec_\S+", read_until(process, "started", " 2 "), re.MULTILINE)[0]
    kill(process)
    several = project.call("run", project.plan(task(1, "say", text="x"))).stderr
    assert re.match(rf"1 execution is unfinished from earlier; `\S+ resume.*` goes on:\n  {left} ", several)
    assert re.search(r"^3 executions wait for an answer; `\S+ inbox.*` names them, `", several, re.MULTILINE)
    assert json.loads(project.call("list", "--status", "waiting", "--json").stdout)["pagination"]["total"] == 4


def test_of_many_questions_the_first_are_shown_and_the_way_to_the_rest(project: Project) -> None:
    asked = [{**QUESTION, "id": f"q{number}"} for number in range(15)]
    told = project.call("run", project.plan(*asked)).stderr
    assert re.search(r"^  q9 asks: .*\n  and 5 more questions\nTo answer:$", told, re.MULTILINE)
    listed = re.search(r"^  and likewise for 12 more questions: `\S*dagbok (inbox .*)`$", told, re.MULTILINE)
    assert listed is not None, told
    assert len(project.call(*shlex.split(listed[1])).stdout.splitlines()) == 15
