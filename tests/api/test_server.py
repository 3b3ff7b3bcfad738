"""Starting and stopping: only loopback without `--insecure`, a clean end on a signal, nothing lost."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.serving import PROGRAM, plan, serving, task
from dagbok.api.server import resolve, serve, url_of
from dagbok.errors import DatabaseInUse, Misconfigured
from dagbok.settings import Settings, load


def settings_in(folder: Path, **flags: object) -> Settings:
    return load(**{"database_url": f"sqlite:///{folder / 'dagbok.db'}", "port": 0, **flags})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "", "::ffff:192.0.2.7"])
def test_others_may_not_reach_it_unless_that_is_meant(tmp_path: Path, host: str) -> None:
    with pytest.raises(Misconfigured, match="--insecure"):
        serve(settings_in(tmp_path, host=host))
    assert not (tmp_path / "dagbok.db").exists(), "refused before anything was touched"


def test_a_name_is_judged_by_all_that_it_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*addresses: str) -> None:
        answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)

    found("127.0.0.1")
    assert str(resolve("loop.example", insecure=False).ip) == "127.0.0.1"
    found("127.0.0.1", "192.0.2.7")
    with pytest.raises(Misconfigured, match=r"192\.0\.2\.7.*--insecure"):
        resolve("both.example", insecure=False)
    assert str(resolve("both.example", insecure=True).ip) == "127.0.0.1"


def test_a_name_that_is_nowhere_is_refused() -> None:
    with pytest.raises(Misconfigured, match="cannot be resolved"):
        resolve("no.such.host.invalid", insecure=True)


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("localhost", None)])
def test_the_url_is_one_that_this_computer_can_call(host: str, shown: str | None) -> None:
    address = resolve(host, insecure=True)
    with socket.socket(address.family) as listener:
        listener.bind((host, 0))
        url = url_of(listener)
    assert shown is None or url.startswith(f"http://{shown}:")


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misconfigured, match=rf"Port {port} .*--port 0"):
            serve(settings_in(tmp_path, port=port))
    assert not (tmp_path / "dagbok.db").exists()


def test_a_database_in_use_is_told_with_the_url_of_its_server(tmp_path: Path) -> None:
    """`dagbok run` beside a server submits there: it learns the URL from the lock."""
    with serving(f"sqlite:///{tmp_path / 'dagbok.db'}", tmp_path) as server:
        assert json.loads((tmp_path / "dagbok.db.lock").read_text())["url"] == server.url
        with pytest.raises(DatabaseInUse, match=server.url):
            serve(settings_in(tmp_path))


def test_a_fresh_interpreter_serves_and_nothing_warns(tmp_path: Path) -> None:
    """Other tests fork theirs from one that has imported everything."""
    with serving(f"sqlite:///{tmp_path / 'dagbok.db'}", tmp_path, prefix=("env",)) as server:
        assert server.ended(server.submit(plan(task(1)))["executionId"])["status"] == "completed"


def test_what_runs_when_a_signal_comes_goes_on_at_the_next_start(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path, DAGBOK_CLOSE_GRACE_S="0.2") as server:
        document = plan(
            task(1), task(2, "gate", 1, folder=str(tmp_path)), task(3, "echo", 2, value="<Result from Task 2>")
        )
        id = server.submit(document)["executionId"]
        while not (tmp_path / "starts").exists():
            time.sleep(0.01)
        assert server.stop() == 0
    (tmp_path / "open").touch()
    with serving(database_url, tmp_path) as server:
        execution = server.ended(id)
        assert execution["status"] == "completed"
        assert [(step["result"], step["attempt"]) for step in execution["subSteps"]] == [
            (None, 1),
            ("through", 2),
            ("through", 1),
        ]
    assert (tmp_path / "starts").read_text() == "start\n" * 2


def test_what_ran_when_it_was_killed_goes_on_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'dagbok.db'}"
    with serving(url, tmp_path) as server:
        id = server.submit(plan(task(1, "gate", folder=str(tmp_path))))["executionId"]
        while not (tmp_path / "starts").exists():
            time.sleep(0.01)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    (tmp_path / "open").touch()
    with serving(url, tmp_path) as server:
        assert server.ended(id)["status"] == "completed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_clients_that_dawdle_do_not_keep_it_from_stopping(tmp_path: Path, number: signal.Signals) -> None:
    """Half a header, half a body, an idle connection: none is waited for beyond the few seconds of grace."""
    with serving(f"sqlite:///{tmp_path / 'dagbok.db'}", tmp_path) as server:
        head = b"POST /api/v1/execute-dag HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        begun = [
            b"",
            b"GET /hea",
            head,
            head + b"Content-Length: 100\r\n\r\n{",
            head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n",
        ]
        dawdlers = [socket.create_connection(("127.0.0.1", server.port)) for _ in begun]
        for dawdler, data in zip(dawdlers, begun, strict=True):
            dawdler.sendall(data)
        assert server.client.get("/health").status_code == 200
        started = time.monotonic()
        assert server.stop(number) == 0
        assert time.monotonic() - started < 20
        for dawdler in dawdlers:
            dawdler.close()


def test_a_request_under_way_is_answered_while_it_stops(tmp_path: Path) -> None:
    with serving(f"sqlite:///{tmp_path / 'dagbok.db'}", tmp_path) as server:
        body = json.dumps(plan(task(1))).encode()
        lines = ["POST /api/v1/execute-dag HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
        with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
            sock.sendall(head.encode() + body[:10])
            assert server.client.get("/health").status_code == 200  # so the first part has been read
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            sock.sendall(body[10:])
            assert sock.recv(100).startswith(b"HTTP/1.1 202")
        assert server.process.wait(20) == 0


def test_a_startup_that_fails_says_why_and_lets_go_of_the_port(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no_such_module"):
        serve(settings_in(tmp_path, tools=("no_such_module",)))


def test_a_signal_while_it_starts_stops_it(tmp_path: Path) -> None:
    """Whenever it comes after the first line of ours: exit code 0, or the signal's where Python had not begun."""
    for delay_s in (0.4, 0.8, 1.2):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay_s)
        process.terminate()
        assert process.wait(30) in (0, -signal.SIGTERM)
    if (tmp_path / "dagbok.db").exists():
        with sqlite3.connect(tmp_path / "dagbok.db") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
