"""What `pythons` starts: a process that imports all of Dagbok once, and then forks a Python for each order.

What is forked leaves `orders` with its own order and becomes that program: the streams, folder and environment it was
given, `__main__` anew, an end as any interpreter's. Whoever gives the orders hears by a pipe how each one ended. With
him the nursery ends, and kills what is left.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import runpy
import select
import signal
import socket
import sys
import termios
import threading
import time
import types
import warnings
from typing import Any

import dagbok

#: What programs import when they get that far, beside Dagbok's own.
LATER = ("alembic.autogenerate", "alembic.command", "uvloop")
STREAMS = 3
INTERRUPTED = -signal.SIGINT


def preload() -> None:
    """Import what programs would, and run nothing of it."""
    for module in pkgutil.walk_packages(dagbok.__path__, "dagbok."):
        runs = ".migrations." in module.name or module.name == "dagbok.__main__"
        if not runs and not module.name.startswith("dagbok.testing"):
            importlib.import_module(module.name)
    for name in LATER:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a thread would not live on in what is forked"
    gc.collect()
    gc.freeze()  # nothing of it is looked at again, and so nothing copied


def orders(control: socket.socket) -> dict[str, Any] | None:
    """Fork one process for each order; return in each of them its order, and None once there are no more."""
    listen, bell = os.pipe()
    os.set_blocking(bell, False)
    signal.set_wakeup_fd(bell)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    told: dict[int, int] = {}  # by pid: the pipe to whom its end is told
    while True:
        ready, _, _ = select.select([control.fileno(), listen], [], [])
        if listen in ready:
            os.read(listen, 4096)
            _bury(told)
        if control.fileno() not in ready:
            continue
        received = _receive(control)
        if received is None:
            break
        order, (*streams, tell) = received
        # A signal within `os.fork` would be lost: Python runs handlers of its own there, and ignores what they raise.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        pid = os.fork()
        if not pid:
            for number in (*told.values(), tell, listen, bell):
                os.close(number)
            control.close()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return order
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for stream in streams:
            os.close(stream)
        told[pid] = tell
        os.write(tell, b"%d\n" % pid)
    for pid in told:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return None


def _receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return an order and its files: the three standard streams, and the pipe that is told the end."""
    head, files, _, _ = socket.recv_fds(control, 8, STREAMS + 1)
    if not head:
        return None
    text = b""
    while len(text) < int(head):
        text += control.recv(int(head) - len(text))
    return json.loads(text), files


def _bury(told: dict[int, int]) -> None:
    for pid in list(told):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            tell = told.pop(pid)
            with contextlib.suppress(BrokenPipeError):  # nobody wants to know
                os.write(tell, b"%d\n" % os.waitstatus_to_exitcode(status))
            os.close(tell)


def become(order: dict[str, Any]) -> None:
    """Be the program that is ordered, as `python ARGUMENTS` would."""
    os.chdir(order["cwd"])
    environment: dict[str, str] = order["env"]
    if order["deaf"]:  # to Ctrl-C, as who ordered it is
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_NOFILE, order["files"])
    if order["terminal"]:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if order["prefix"] or environment.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):  # which only a start reads
        command = [*order["prefix"], sys.executable, *order["arguments"]]
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python itself ignores
        os.execvpe(command[0], command, environment)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.stdin = _stream(0, "r", "surrogateescape")
    sys.stdout = _stream(1, "w", "surrogateescape")
    sys.stderr = _stream(2, "w", "backslashreplace")
    arguments: list[str] = order["arguments"]
    while arguments[0] == "-W":
        warnings.simplefilter(arguments[1])  # type: ignore[arg-type]
        arguments = arguments[2:]
    kind, program, *rest = arguments
    sys.path[0] = os.getcwd() if kind == "-m" else ""  # noqa: PTH109 - as Python itself says it
    sys.argv = ["-c", *rest]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        return
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    exec(compile(program, "<string>", "exec"), main.__dict__)


def _stream(number: int, mode: str, errors: str) -> io.TextIOWrapper:
    lines = number == 2 or os.isatty(number)
    binary = open(number, f"{mode}b", closefd=False)  # noqa: SIM115 - for the life of the process
    return io.TextIOWrapper(binary, encoding="utf-8", errors=errors, line_buffering=lines)


def end_by(code: list[int]) -> None:
    """End the process, which has joined its threads and called whatever wanted to be called at its end.

    Without taking apart every module, which an interpreter does next: that takes ten times what the fork took, for
    each page of memory that was shared until then is copied.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if code[-1] == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code[-1])


def main() -> None:
    preload()
    code = [0]
    atexit.register(end_by, code)  # the first, so it is called last
    mine = orders(socket.socket(fileno=int(sys.argv[1])))
    if mine is None:
        return
    try:
        become(mine)
    except SystemExit as exc:
        code.append(exc.code if isinstance(exc.code, int) else int(exc.code is not None))
        raise
    except BaseException as exc:
        code.append(INTERRUPTED if isinstance(exc, KeyboardInterrupt) else 1)
        raise


if __name__ == "__main__":
    main()
