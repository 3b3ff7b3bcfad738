"""`examples/rest.sh` does what it says, against a real server, with curl."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from api.serving import serving

SCRIPT = Path(__file__).parents[1] / "examples" / "rest.sh"

pytestmark = pytest.mark.skipif(
    shutil.which("curl") is None and os.environ.get("DAGBOK_REQUIRE_CURL") != "1",
    reason="curl is not installed (Debian package `curl`); DAGBOK_REQUIRE_CURL=1 makes that a failure",
)


def run(url: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = ["bash", str(SCRIPT)]
    return subprocess.run(command, env=env | {"DAGBOK_URL": url}, capture_output=True, text=True, timeout=120)


def test_it_goes_through_the_whole_interface_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with serving(f"sqlite:///{tmp_path / 'dagbok.db'}", tmp_path) as server:
        for _ in range(2):  # a second time as well
            done = run(server.url)
            assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
            assert requests(done.stdout) == [
                "GET /health/ready -> 200",
                "POST /api/v1/execute-dag -> 200",
                "POST /api/v1/execute-dag -> 200",
                "GET /api/v1/dag-executions/ID -> 200",
                "GET /api/v1/dag-executions/ID/sub-steps -> 200",
                "GET /api/v1/dag-executions/ID -> 304",
                "GET /api/v1/dag-executions?limit=2&status=completed -> 200",
                "POST /api/v1/execute-dag -> 422",
                "POST /api/v1/execute-dag -> 202",
                "POST /api/v1/dag-executions/ID/pause -> 202",
                "GET /api/v1/dag-executions/ID -> 200",
                "POST /api/v1/dag-executions/ID/resume -> 202",
                "POST /api/v1/dag-executions/ID/cancel -> 202",
                "GET /api/v1/dag-executions/ID -> 200",
                "DELETE /api/v1/dag-executions/ID -> 200",
                "DELETE /api/v1/dag-executions/ID -> 200",
                "GET /api/v1/dag-executions/ID -> 404",
            ]
            for line in (
                "   dag-exec_ID is completed", "   Idempotent-Replayed: true", '   "completedTasks":3',
                '   "taskId":"3" "status":"completed"', "   /sub_tasks/0/tool_or_prompt/name unknown_tool",
                '   "taskId":"1" "status":"completed"', '   "taskId":"2" "status":"pending"',
                "   dag-exec_ID is cancelled",
            ):  # fmt: skip
                assert line in re.sub(r"dag-exec_[0-9a-f-]{36}", "dag-exec_ID", done.stdout).splitlines(), done.stdout
        assert server.client.get("/api/v1/dag-executions").json()["executions"] == []


def requests(output: str) -> list[str]:
    lines = re.findall(r"^(?:GET|POST|DELETE) .*$", output, re.MULTILINE)
    return [re.sub(r"dag-exec_[0-9a-f-]{36}", "ID", line) for line in lines]


def test_without_a_server_it_says_so() -> None:
    done = run("http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("No Dagbok server answers at http://127.0.0.1:1. Start one with `dagbok serve`")


def test_an_answer_that_is_not_expected_ends_it(tmp_path: Path) -> None:
    """A server that refuses its plan, because it is too large for it."""
    with serving(f"sqlite:///{tmp_path / 'dagbok.db'}", tmp_path, DAGBOK_MAX_PLAN_BYTES="10") as server:
        done = run(server.url)
    assert done.returncode == 1
    assert "Expected 200, got 413" in done.stderr
