"""What the tests start as a Python is one: what a fresh interpreter would give, take and end with."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
from pathlib import Path

import pytest

import pythons

PIPE = subprocess.PIPE


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('no')", 1),
        ("1 / 0", 1),
        ("import os; os._exit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
    ],
)
def test_it_ends_as_it_says(program: str, code: int) -> None:
    ended = pythons.run("-c", program)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ("ZeroDivisionError" in ended.stderr) == (program == "1 / 0")


def test_it_gets_what_it_is_given(tmp_path: Path) -> None:
    program = "import os, sys; print(os.getcwd(), os.environ['A'], 'HOME' in os.environ, sys.argv, input(), __name__)"
    ended = pythons.run("-c", program, "x", cwd=tmp_path, env={"A": "é"}, input="line\n")
    assert ended.stdout == f"{tmp_path} é False ['-c', 'x'] line __main__\n"
    clock = "import time; print(time.strftime('%Z'))"
    assert pythons.run("-c", clock, env=os.environ | {"TZ": "ABC-9"}).stdout == "ABC\n"
    (tmp_path / "mine.py").write_text("import sys\nprint(sys.argv[1:], sys.path[0] == sys.argv[1], __name__)")
    ended = pythons.run("-m", "mine", str(tmp_path), cwd=tmp_path)
    assert ended.stdout == f"['{tmp_path}'] True __main__\n"


def test_threads_and_what_wants_to_be_called_come_before_the_end() -> None:
    program = """
import atexit, threading, time
atexit.register(print, "called", end="")
threading.Thread(target=lambda: (time.sleep(0.05), print("joined"))).start()
"""
    assert pythons.run("-c", program).stdout == "joined\ncalled"


def test_a_warning_may_be_an_error() -> None:
    program = "import warnings; warnings.warn('odd')"
    assert pythons.run("-c", program).returncode == 0
    assert pythons.run("-W", "error", "-c", program).returncode == 1


def test_no_two_draw_the_same() -> None:
    program = "import os, random, uuid_utils; print(random.random(), uuid_utils.uuid7().hex[16:], os.urandom(4))"
    drawn = [pythons.run("-c", program).stdout.split()[:2] for _ in range(4)]
    assert len(set(map(tuple, zip(*drawn, strict=True)))) == 2
    assert len({word for words in drawn for word in words}) == 8


def test_it_is_ended_by_signals_and_told_of() -> None:
    program = "import time; print('up', flush=True); time.sleep(60)"
    for number, code in ((signal.SIGTERM, -15), (signal.SIGKILL, -9), (signal.SIGINT, -2)):
        with pythons.start("-c", program, stdout=PIPE, stderr=PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
            process.send_signal(number)
            assert process.wait(30) == code


def test_it_inherits_what_a_child_would() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    program = "import resource, signal; print(resource.getrlimit(7), signal.getsignal(2) is signal.SIG_IGN)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_NOFILE, (123, hard))
    try:
        assert pythons.run("-c", program).stdout == f"(123, {hard}) True\n"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        signal.signal(signal.SIGINT, before)
    assert pythons.run("-c", program).stdout == f"({soft}, {hard}) False\n"


def test_only_what_is_given_stays_open() -> None:
    """A pipe that somebody else holds has no end."""
    program = "import os; print(sorted(os.listdir('/proc/self/fd')))"
    with pythons.start("-c", "input()", stdin=PIPE, stdout=PIPE), pythons.start("-c", "input()", stdin=PIPE):
        assert pythons.run("-c", program).stdout == "['0', '1', '2', '3']\n"  # 3: the folder itself


def test_by_another_command_or_path_it_is_a_fresh_interpreter(tmp_path: Path) -> None:
    program = "import sys; print('dagbok.api.server' in sys.modules)"
    assert pythons.run("-c", program).stdout == "True\n"
    assert pythons.run("-c", program, prefix=("env",)).stdout == "False\n"
    assert pythons.run("-c", program, env=os.environ | {"PYTHONPATH": str(tmp_path)}).stdout == "False\n"


def test_none_outlives_the_tests() -> None:
    """Also where these are killed: the nursery hears that nobody is there."""
    program = """
import pythons, subprocess, time
process = pythons.start("-c", "import time; print('up', flush=True); time.sleep(60)", stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
time.sleep(60)
"""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with pythons.start("-c", program, env=env, stdout=PIPE) as tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        watched = os.pidfd_open(pid)
        tests.kill()
        tests.wait(30)
    try:
        assert select.select([watched], [], [], 30)[0], "it lives on"
    finally:
        os.close(watched)
