"""A process that has everything imported and forks victims: a fresh interpreter takes most of a second to begin.

It reads orders from its standard input and answers each with a line: `{"fork": JOB, "errors": FILE}` with the pid,
`{"wait": PID, "seconds": N}` with the status of a child that ended in that time, else null. A child stays a zombie, and
its pid nobody else's, until it is waited for. With the end of its input it kills the children that are left.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chaos.victim import Job, arguments, environment, run

#: What victims would import for themselves, each anew.
_PRELOADED = (
    "alembic.autogenerate",
    "alembic.command",
    "dagbok.api.server",
    "dagbok.cli.serve",
    "dagbok.tools.extract",
    "dagbok.tools.http",
    "dagbok.tools.pages",
    "dagbok.tools.wait",
    "dagbok.tools.web_search",
    "uvloop",
)


class Zygote:
    """The other end, for whoever gives the orders."""

    def __init__(self) -> None:
        tests = Path(__file__).resolve().parent.parent
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DAGBOK_")}
        paths = [str(tests), *filter(None, [clean.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chaos.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is for the one who gives the orders
        )

    def fork(self, job: Job, errors: Path) -> int:
        """Start a victim, its words going to `errors`, and return its pid."""
        return int(self._order({"fork": vars(job), "errors": str(errors)}))

    def wait(self, pid: int, seconds: float) -> int | None:
        """Return the exit code of a child (minus the signal that killed it) once it ended; None: it has not."""
        status = self._order({"wait": pid, "seconds": seconds})
        return None if status is None else os.waitstatus_to_exitcode(status)

    def _order(self, order: dict[str, Any]) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the zygote is gone: {process.wait(10)}")
        return json.loads(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


def main() -> None:
    """Obey."""
    # A shell that starts the campaign in the background lets it ignore Ctrl-C, and what it forks would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for module in _PRELOADED:
        importlib.import_module(module)
    assert threading.active_count() == 1, "a thread would not live on in what is forked"
    gc.freeze()  # nothing collected, nothing copied
    children: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "fork" in order:
            pid = _fork(Job(**order["fork"]), order["errors"])
            children.add(pid)
            answer: int | None = pid
        else:
            answer = _wait(order["wait"], order["seconds"])
            if answer is not None:
                children.discard(order["wait"])
        print(json.dumps(answer), flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _fork(job: Job, errors: str) -> int:
    # A signal within `os.fork` would be lost: Python runs handlers of its own there, and ignores what they raise.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        words = os.open(errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(words, 1)
        os.dup2(words, 2)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if job.kind == "fresh":
            os.execve(sys.executable, [sys.executable, "-m", *arguments(job)], environment(job))
        code = run(job)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)  # nothing of the zygote's own ends here


def _wait(pid: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.002)  # there is no `waitpid` that gives up


if __name__ == "__main__":
    main()
