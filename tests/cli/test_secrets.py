"""The program and secrets: tools get them, what they print is redacted, and their children do not inherit them."""

from __future__ import annotations

import json

from cli.program import Project, task

TOKEN = "sk-true\"value'1"
GIVES = '''

@tool(effect="pure")
def give(token: str) -> str:
    """Print it, leave it to a child, return it."""
    print(f"PRINTED {token}")
    child = subprocess.run(["env"], check=True, capture_output=True, text=True).stdout
    return f"{token} {'DAGBOK_SECRET' in child} {len(token)}"
'''


def test_a_secret_reaches_the_tool_and_neither_the_screen_nor_its_children(project: Project) -> None:
    with (project.folder / "tools.py").open("a") as tools:
        tools.write(GIVES)
    plan = project.plan(task(1, "give", token={"secret": "TOKEN"}))
    done = project.run("run", plan, DAGBOK_SECRET_TOKEN=TOKEN)
    assert done.stdout == f"[secret TOKEN] False {len(TOKEN)}\n", done.stderr
    assert "PRINTED [secret TOKEN]" in done.stderr
    assert "sk-true" not in done.stdout + done.stderr


def test_validate_knows_the_secrets_of_this_process(project: Project) -> None:
    plan = project.plan(task(1, "say", text={"secret": "TOKEN"}))
    assert project.run("validate", plan, DAGBOK_SECRET_TOKEN=TOKEN).returncode == 0
    unknown = project.run("validate", plan, DAGBOK_SECRET_TOKENS=TOKEN)
    assert unknown.returncode == 2
    assert "unknown_secret" in unknown.stderr
    assert "Did you mean 'TOKENS'?" in unknown.stderr
    literal = project.plan(task(1, "say", text=f"use {TOKEN}"))
    refused = project.run("validate", literal, "--json", DAGBOK_SECRET_TOKEN=TOKEN)
    (problem,) = json.loads(refused.stdout)["problems"]
    assert (problem["code"], problem["pointer"]) == ("literal_secret", "/sub_tasks/0/tool_or_prompt/params/text")
    assert "sk-true" not in refused.stdout + refused.stderr


def test_secrets_that_cannot_be_used_are_told_before_anything_is_made(project: Project) -> None:
    plan = project.plan(task(1, "say", text="x"))
    file = project.folder / "secrets.env"
    file.write_text(f"TOKEN={TOKEN}\n")
    file.chmod(0o644)
    for command in (["run", plan], ["validate", plan], ["serve", "--port", "0"]):
        done = project.run(*command, DAGBOK_SECRETS_FILE=str(file))
        assert (done.returncode, done.stdout) == (2, "")
        assert "chmod 600" in done.stderr
        assert "sk-true" not in done.stderr
    file.chmod(0o600)
    assert project.run("validate", plan, DAGBOK_SECRETS_FILE=str(file)).returncode == 0


def test_an_error_with_its_traceback_shows_no_secret(project: Project) -> None:
    """A file that cannot be read is named as it was given: by a mistake, with a secret."""
    done = project.start("run", f"{TOKEN}.json", DAGBOK_SECRET_TOKEN=TOKEN, DAGBOK_DEBUG="1")
    _, err = done.communicate(timeout=60)
    assert "Traceback" in err
    assert "There is no file [secret TOKEN].json" in err
    assert "sk-true" not in err
