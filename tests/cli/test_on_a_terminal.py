"""What a person sees: the program on a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import signal

import pythons
from cli.program import Project, id_in, kill, read_until, task

#: What Rich itself writes: colours and styles, cursor up, erase line, hide and show the cursor.
OURS = re.compile(r"\x1b\[(?:[\d;]*m|\d*A|\d*G|2K|1A|\?25[lh])|\r")


def test_a_line_per_running_step_a_bar_and_then_the_result(project: Project) -> None:
    plan = project.plan(
        task(1, "slow", seconds=0.8),
        task(2, "boom", message="bad luck"),
        task(3, "say", text="# Title\n\n- *one*\n- [link](http://example.org/x)"),
        task(4, "say", 3, text="<Result from Task 3>"),
        title="A [bold]title[/bold]",
    )
    code, seen = project.on_terminal("run", plan)
    assert code == 3
    plain = OURS.sub("", seen)
    assert re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] +1 +slow +Call slow +half way there", plain)
    assert re.search(r"━.* 3/4  1 failed", plain)
    assert "A [bold]title[/bold]" in plain, "no text of a plan is markup"
    assert re.search(r"✗ +2 +boom .*tool_error: RuntimeError: bad luck", plain)
    assert re.search(r"✓ +1 +slow ", plain)
    assert "◐ partial in" in plain
    assert re.search(r"`dagbok show [0-9a-f-]{18}(?: -d sqlite:\S+)?`", plain)
    assert "\x1b" not in plain, "nothing but Rich drives the terminal"


def test_hostile_text_does_not_reach_the_terminal(project: Project) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\"
    plan = project.plan(
        task("1", "say", text=f"{evil} [shown](http://hidden.example)"),
        {**task(2, "boom", message=evil), "description": evil, "on_failure": "skip"},
        task(3, "noisy", 1),
        task(4, "say", 2, 3, text="<Result from Task 1>"),
        title=evil,
    )
    code, seen = project.on_terminal("run", plan)
    assert code == 0
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", OURS.sub("", seen))
    assert "owned" not in seen
    assert "http://hidden.example" in seen, "a link says where it leads"
    code, seen = project.on_terminal("show", "latest", "--events")
    assert code == 0
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", OURS.sub("", seen))
    code, seen = project.on_terminal("list")
    assert "\x1b]" not in seen


def test_a_dumb_terminal_gets_plain_lines(project: Project) -> None:
    _, dumb = project.on_terminal("run", project.plan(task(1, "say", text="# hi")), TERM="dumb")
    assert "\x1b" not in dumb
    assert re.search(r"\d\.\d\ds  completed  1 ", dumb)
    assert "\n# hi\n" in dumb


def test_no_color_is_respected(project: Project) -> None:
    _, seen = project.on_terminal("run", project.plan(task(1, "say", text="*hi*")), NO_COLOR="1")
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])(?:;\d+)*m", seen), "a colour"
    assert "✓" in seen


def test_ctrl_c_gives_the_terminal_back_as_it_was(project: Project) -> None:
    code, seen = project.on_terminal(
        "run", project.plan(task(1, "slow", seconds=0.7), task(2, "say", 1, text="x")), press="\x03"
    )
    assert code == 130
    assert "Interrupted." in seen
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h"), "the cursor is shown again"


def test_a_terminal_that_is_closed_stops_it_in_good_order(project: Project) -> None:
    ours, theirs = pty.openpty()
    process = pythons.start(
        *("-m", "dagbok", "run", project.plan(task(1, "gate", file="a"))),
        cwd=project.folder, env=project.environment(DAGBOK_CLOSE_GRACE_S="0.2"),
        stdin=theirs, stdout=theirs, stderr=theirs, terminal=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while b"half way" not in seen:
        seen += os.read(ours, 65_536)
    os.close(ours)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert "stopped: " in project.call("show").stdout


def test_lists_fit_a_narrow_terminal(project: Project) -> None:
    project.call("run", project.plan(task(1, "say", text="x"), title="A title that is much longer than the screen is"))
    _, seen = project.on_terminal("list", columns=60)
    lines = OURS.sub("", seen).splitlines()
    assert max(map(len, lines)) <= 60
    assert re.search(r"✓ +[0-9a-f-]{18} +A title", lines[1])


def test_several_executions_are_a_line_each(project: Project) -> None:
    for file in ("a", "b"):
        process = project.start("run", project.plan(task(1, "gate", file=file), title=f"Gate [b]{file}[/b]"))
        read_until(process, "started")
        kill(process)
    project.open("a")
    code, seen = project.on_terminal("resume", press="\x03", at="1/2 executions", DAGBOK_CLOSE_GRACE_S="0.2")
    plain = OURS.sub("", seen)
    assert code == 130
    assert re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] +[0-9a-f-]{18} +Gate \[b\]b\[/b\] +0/1 +1  gate  half way there", plain)
    assert re.search(r"✓ +[0-9a-f-]{18} +Gate \[b\]a\[/b\] +1/1 +completed", plain)
    assert re.search(r"Interrupted\. `dagbok resume( -d \S+)?` goes on\.", plain)
    assert "\x1b" not in plain
    project.open("b")
    code, seen = project.on_terminal("resume")
    assert code == 0
    assert re.search(r"✓ [0-9a-f-]{18}  Gate \[b\]b\[/b\]: completed in ", OURS.sub("", seen))


def test_a_pause_from_elsewhere_is_seen_and_what_goes_on_named(project: Project) -> None:
    process = project.start("run", project.plan(task(1, "gate", file="a"), task(2, "say", 1, text="x")))
    id = id_in(read_until(process, "started"))
    kill(process)
    assert project.run("pause", id).returncode == 0
    _, seen = project.on_terminal("list")
    assert re.search(r"‖ +[0-9a-f-]{18} ", OURS.sub("", seen))
    _, seen = project.on_terminal("show", id)
    assert re.search(r"status +paused, 0 of 2", OURS.sub("", seen))
    project.open("a")
    code, seen = project.on_terminal("resume", id)
    assert (code, "✓ completed in " in OURS.sub("", seen)) == (0, True)
