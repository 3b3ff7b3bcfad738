"""The file tools: what an agent gets, and what it can not reach."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tool_calls import make_call, run

from dagbok.domain.states import Effect
from dagbok.errors import BadInput, ToolError
from dagbok.tools import confinement, files
from dagbok.tools.context import ToolContext, context_of
from dagbok.tools.decorator import as_tool
from dagbok.tools.egress import Egress
from dagbok.tools.files import list_files, read_file, write_file
from dagbok.tools.page_reader import PageReader


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def workspace(tmp_path: Path, outside: Path) -> Path:
    folder = tmp_path / "workspace"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "one.txt").write_text("one")
    (folder / "link-to-one").symlink_to("a/one.txt")
    (folder / "absolute-link").symlink_to(folder / "a" / "one.txt")
    (folder / "link-to-a").symlink_to("a")
    (folder / "a" / "b" / "up").symlink_to("../../a")
    (folder / "out").symlink_to(outside)
    (folder / "out-file").symlink_to(outside / "secret.txt")
    (folder / "a" / "relative-out").symlink_to("../../outside/secret.txt")
    (folder / "loop").symlink_to("loop")
    return folder


def refusal(function: Any, workspace: Path, **params: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        run(function, workspace, **params)
    return caught.value


def as_context(workspace: Path) -> ToolContext:
    return context_of(make_call(), tool="x", workspace=workspace, egress=Egress(), page_reader=PageReader())


def listed(workspace: Path, **params: Any) -> list[str]:
    return [file["path"] for file in run(list_files, workspace, **params)["files"]]


# -- reading ----------------------------------------------------------------------------------------------------------


def test_a_text_file_is_read_as_its_text(workspace: Path) -> None:
    (workspace / "åäö.txt").write_bytes("\ufeffhej\r\nåäö".encode())
    assert run(read_file, workspace, path="åäö.txt") == "hej\r\nåäö"


@pytest.mark.parametrize(
    "path",
    [
        "a/one.txt",
        "./a//one.txt",
        "a/b/../one.txt",
        "link-to-one",
        "absolute-link",
        "link-to-a/one.txt",
        "a/b/up/one.txt",
    ],
)
def test_every_way_to_a_file_that_stays_inside_leads_to_it(workspace: Path, path: str) -> None:
    assert run(read_file, workspace, path=path) == "one"
    assert run(read_file, workspace, path=str(workspace / path)) == "one"


def test_the_workspace_itself_may_be_a_link(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "w").symlink_to(workspace)
    for path in ("a/one.txt", "absolute-link", str(tmp_path / "w" / "a" / "one.txt"), str(workspace / "a" / "one.txt")):
        assert run(read_file, tmp_path / "w", path=path) == "one"


@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret.txt", "a/../../outside/secret.txt", "..", "/etc/passwd", "//etc/passwd", "out/secret.txt",
        "out-file", "a/relative-out", "loop", "loop/x", "a/one.txt\0.png", "link-to-a/../../outside/secret.txt",
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [read_file, write_file])
def test_what_leaves_the_workspace_is_refused(workspace: Path, outside: Path, path: str, function: Any) -> None:
    params = {"content": "x"} if function is write_file else {}
    error = refusal(function, workspace, path=path, **params)
    assert error.code == "refused"
    assert "refused" in error.message
    assert (outside / "secret.txt").read_text() == "secret"
    assert os.listdir(outside) == ["secret.txt"]  # noqa: PTH208


def test_a_sibling_whose_name_begins_alike_is_outside(workspace: Path) -> None:
    (workspace.parent / "workspace-2").mkdir()
    (workspace.parent / "workspace-2" / "f").write_text("x")
    assert refusal(read_file, workspace, path=str(workspace.parent / "workspace-2" / "f")).code == "refused"


@pytest.mark.parametrize("function", [read_file, write_file])
def test_a_fifo_is_refused_at_once(workspace: Path, function: Any) -> None:
    """Opening it would wait for the other end, maybe for ever."""
    os.mkfifo(workspace / "pipe")
    begun = time.monotonic()
    params = {"content": "x"} if function is write_file else {}
    assert refusal(function, workspace, path="pipe", **params).code == "refused"
    assert time.monotonic() - begun < 5


def test_sockets_and_devices_are_refused(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert refusal(read_file, workspace, path="socket").code == "refused"
    assert refusal(read_file, Path("/dev"), path="zero").code == "refused"


def test_a_file_that_becomes_a_fifo_while_it_is_opened_is_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = confinement.check_regular

    def swap(found: Any, path: str) -> None:
        check(found, path)
        (workspace / "a" / "one.txt").unlink()
        os.mkfifo(workspace / "a" / "one.txt")

    monkeypatch.setattr(confinement, "check_regular", swap)
    assert refusal(read_file, workspace, path="a/one.txt").code == "refused"


def test_a_file_that_becomes_a_link_while_it_is_opened_is_refused(
    workspace: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = confinement.check_regular

    def swap(found: Any, path: str) -> None:
        check(found, path)
        (workspace / "a" / "one.txt").unlink()
        (workspace / "a" / "one.txt").symlink_to(outside / "secret.txt")

    monkeypatch.setattr(confinement, "check_regular", swap)
    assert refusal(read_file, workspace, path="a/one.txt").code == "refused"


def test_a_folder_that_becomes_a_link_while_it_is_opened_is_refused(
    workspace: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def swap(name: Any, flags: int, *args: Any, dir_fd: int | None = None) -> int:
        if name == "a":
            (workspace / "a").rename(workspace / "a-away")
            (workspace / "a").symlink_to(outside)
        return real_open(name, flags, *args, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap)
    assert refusal(read_file, workspace, path="a/secret.txt").code == "refused"


def test_swapping_folders_for_links_never_lets_a_reader_out(workspace: Path, outside: Path) -> None:
    """The race that a check before an open loses."""
    (workspace / "a" / "secret.txt").write_text("mine")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (workspace / "a").rename(workspace / "a-away")
            (workspace / "a").symlink_to(outside)
            (workspace / "a").unlink()
            (workspace / "a-away").rename(workspace / "a")
            time.sleep(0.0001)  # at home for a moment, so that some readers find what they look for

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen: dict[str, int] = {}
    try:
        for _ in range(3000):
            try:
                with confinement.place(workspace, "a/secret.txt") as found:
                    descriptor = confinement.open_file(found, "a/secret.txt")
                with os.fdopen(descriptor) as file:
                    got = file.read()
            except ToolError as exc:
                got = exc.code
            seen[got] = seen.get(got, 0) + 1
    finally:
        stop.set()
        swapper.join()
    assert set(seen) <= {"mine", "refused", "not_found"}, seen
    assert seen["mine"]


def test_a_link_that_becomes_a_folder_while_it_is_read_is_refused(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the other way round."""
    (workspace / "home").mkdir()
    (workspace / "b").symlink_to("home")
    read = os.readlink

    def swapped(name: str, *, dir_fd: int) -> str:
        (workspace / "b").unlink()
        (workspace / "b").mkdir()
        return read(name, dir_fd=dir_fd)

    monkeypatch.setattr("dagbok.tools.confinement.os.readlink", swapped)
    with pytest.raises(ToolError) as raised, confinement.place(workspace, "b/file.txt"):
        pass
    assert raised.value.code == "refused"


def test_no_descriptor_is_left_open(workspace: Path) -> None:
    context = as_context(workspace)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for path in ("a/one.txt", "a/b/up/one.txt", "../x", "a/none", "a/one.txt/x", "out/secret.txt", "a"):
        with suppress(ToolError):
            read_file(context, path)
        with suppress(ToolError):
            write_file(context, path, "one")
        with suppress(ToolError):
            list_files(context, path=path, limit=1)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("none.txt", "not_found", "does not exist"), ("no/such/file", "not_found", "does not exist"),
        ("a", "invalid_input", "is a folder"), (".", "invalid_input", "is a folder"),
        ("a/one.txt/x", "invalid_input", "goes through a file"), ("a/one.txt/", "invalid_input", "goes through a file"),
        ("x" * 300, "invalid_input", "too long"), ("\ud800", "invalid_input", "/path: "),
    ],
)  # fmt: skip
def test_a_path_that_leads_to_no_file_says_why(workspace: Path, path: str, code: str, words: str) -> None:
    error = refusal(read_file, workspace, path=path)
    assert (error.code, words in error.message) == (code, True), error.message


def test_a_workspace_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = refusal(read_file, tmp_path / "nowhere", path="x")
    assert error.code == "misconfigured"
    assert "nowhere" in error.message


def test_a_file_that_is_no_text_is_an_error(workspace: Path) -> None:
    (workspace / "latin").write_bytes(b"abc\xe5")
    (workspace / "binary").write_bytes(b"abc\0def")
    error = refusal(read_file, workspace, path="latin")
    assert (error.code, "byte 3" in error.message) == ("not_text", True)
    assert refusal(read_file, workspace, path="binary").code == "not_text"


def test_a_file_too_large_is_an_error_and_never_cut(workspace: Path) -> None:
    (workspace / "big").write_bytes(b"x" * (2**20 + 1))
    error = refusal(read_file, workspace, path="big")
    assert (error.code, error.limit, error.size) == ("too_large", 2**20, 2**20 + 1)
    assert len(run(read_file, workspace, path="big", max_bytes=2 * 2**20)) == 2**20 + 1
    assert refusal(read_file, workspace, path="big", max_bytes=9 * 2**20).code == "invalid_input"


def test_a_file_that_hides_its_size_is_bounded_too() -> None:
    """Files of /proc say that they hold 0 bytes."""
    assert run(read_file, Path("/proc"), path="version").startswith("Linux")
    assert refusal(read_file, Path("/proc"), path="version", max_bytes=3).code == "too_large"


# -- writing ----------------------------------------------------------------------------------------------------------


def test_text_is_written_as_it_is(workspace: Path) -> None:
    got = run(write_file, workspace, path="new/deep/å.txt", content="hej\r\nå")
    assert (workspace / "new" / "deep" / "å.txt").read_bytes() == "hej\r\nå".encode()
    digest = hashlib.sha256("hej\r\nå".encode()).hexdigest()
    assert got == {"path": "new/deep/å.txt", "bytes": 7, "sha256": digest}
    assert run(write_file, workspace, path="new/deep/å.txt", content="hej\r\nå") == got


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"å": [1, None]}, '{\n  "å": [\n    1,\n    null\n  ]\n}\n'), (None, "null\n"), ([], "[]\n"), (1.5, "1.5\n"),
        ("", ""),
    ],
)  # fmt: skip
def test_other_json_is_written_indented(workspace: Path, content: Any, text: str) -> None:
    run(write_file, workspace, path="f.json", content=content)
    assert (workspace / "f.json").read_text() == text


@pytest.mark.parametrize("content", [float("nan"), [2**70], {"a": object()}])
def test_content_that_is_not_json_is_refused(workspace: Path, content: Any) -> None:
    with pytest.raises(BadInput):
        run(write_file, workspace, path="f.json", content=content)
    assert refusal(write_file, workspace, path="f", content="\ud800").code == "invalid_input"
    assert not (workspace / "f.json").exists()


def test_a_link_inside_is_written_through(workspace: Path) -> None:
    got = run(write_file, workspace, path="link-to-one", content="two")
    assert got["path"] == "a/one.txt"
    assert (workspace / "a" / "one.txt").read_text() == "two"
    assert (workspace / "link-to-one").is_symlink()


def test_a_dangling_link_that_leaves_is_refused(workspace: Path, outside: Path) -> None:
    (workspace / "dangling").symlink_to(outside / "new.txt")
    assert refusal(write_file, workspace, path="dangling", content="x").code == "refused"
    assert not (outside / "new.txt").exists()


@pytest.mark.parametrize("path", ["a", ".", "new/", "a/one.txt/x"])
def test_what_can_not_be_a_file_is_not_written(workspace: Path, path: str) -> None:
    assert refusal(write_file, workspace, path=path, content="x").code == "invalid_input"


def test_permissions_are_kept(workspace: Path) -> None:
    file = workspace / "a" / "one.txt"
    file.chmod(0o640)
    run(write_file, workspace, path="a/one.txt", content="two")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_failing_write_leaves_the_old_file_and_no_draft(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    error = refusal(write_file, workspace, path="a/one.txt", content="two")
    assert (error.code, "No space left" in error.message) == ("io_error", True)
    assert (workspace / "a" / "one.txt").read_text() == "one"
    assert sorted(os.listdir(workspace / "a")) == ["b", "one.txt", "relative-out"]  # noqa: PTH208


def test_readers_see_the_old_content_or_the_new(workspace: Path) -> None:
    contents = {"a" * 300_000, "b" * 300_000}
    file = workspace / "a" / "one.txt"
    file.write_text("a" * 300_000)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                write_file(as_context(workspace), "a/one.txt", content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            assert file.read_text() in contents
    finally:
        stop.set()
        writer.join()


def test_the_write_is_durable_before_it_returns(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file before it gets its name, then the folder that holds the name; new folders likewise."""
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_replace(*names: Any, **folders: Any) -> None:
        steps.append("replace")
        replace(*names, **folders)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    run(write_file, workspace, path="new/f", content="x")
    assert steps == ["folder", "file", "replace", "folder"]


# -- listing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in (
        "b.txt",
        "a.txt",
        "src/x.py",
        "src/deep/y.py",
        "src/deep/z.txt",
        ".git/config",
        ".env",
        ".x/q.py",
    ):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return root


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, ["a.txt", "b.txt", "src/deep/y.py", "src/deep/z.txt", "src/x.py"]),
        ({"pattern": "*"}, ["a.txt", "b.txt"]), ({"pattern": "src/d*/**"}, ["src/deep/y.py", "src/deep/z.txt"]),
        ({"pattern": "**/*.py"}, ["src/deep/y.py", "src/x.py"]),
        ({"pattern": "src/*"}, ["src/x.py"]), ({"pattern": "*/**/z.*"}, ["src/deep/z.txt"]),
        ({"pattern": "[!b].tx?"}, ["a.txt"]), ({"pattern": "*.py", "path": "src/deep"}, ["src/deep/y.py"]),
        ({"path": "./src/../src/deep/"}, ["src/deep/y.py", "src/deep/z.txt"]),
        ({"pattern": ".env"}, [".env"]), ({"pattern": ".git/*"}, [".git/config"]),
        ({"pattern": "**/.*/*.py"}, [".x/q.py"]),
        ({"path": ".git"}, [".git/config"]), ({"pattern": "none"}, []), ({"pattern": "./a.txt"}, ["a.txt"]),
    ],
)  # fmt: skip
def test_patterns_work_as_in_a_shell(tree: Path, params: dict[str, Any], expected: list[str]) -> None:
    assert listed(tree, **params) == expected


def test_a_listing_gives_sizes_and_says_when_there_is_more(tree: Path) -> None:
    assert run(list_files, tree, limit=1) == {"files": [{"path": "a.txt", "bytes": 5}], "truncated": True}
    assert run(list_files, tree, limit=5)["truncated"] is False


def test_links_are_not_listed_or_followed(workspace: Path) -> None:
    assert listed(workspace) == ["a/one.txt"]
    assert refusal(list_files, workspace, path="out").code == "refused"
    assert listed(workspace, path="link-to-a") == ["a/one.txt"]


@pytest.mark.parametrize("params", [{"pattern": "../*"}, {"pattern": "a/../../*"}, {"pattern": "/etc/*"},
                                    {"path": ".."}, {"path": "/etc"}, {"pattern": "a\0"}])  # fmt: skip
def test_a_listing_stays_inside(workspace: Path, params: dict[str, Any]) -> None:
    assert refusal(list_files, workspace, **params).code == "refused"


def test_a_folder_that_is_none_is_named(workspace: Path) -> None:
    assert refusal(list_files, workspace, path="none").code == "not_found"
    assert refusal(list_files, workspace, path="a/one.txt").code == "invalid_input"


def test_a_very_large_tree_is_cut_and_says_so(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_ENTRIES", 3)
    assert run(list_files, tree)["truncated"] is True


def test_hostile_patterns_are_quick(workspace: Path) -> None:
    (workspace / ("a" * 200)).write_text("")
    begun = time.monotonic()
    listed(workspace, pattern="*a" * 300 + "b")
    listed(workspace, pattern="/".join(["**"] * 63).lstrip("/") + "/x")
    assert time.monotonic() - begun < 5
    assert refusal(list_files, workspace, pattern="a/" * 70).code == "invalid_input"


def test_names_that_are_not_utf_8_are_left_out(workspace: Path) -> None:
    with open(os.fsencode(workspace) + b"/\xff.txt", "w"):  # noqa: PTH123
        pass
    assert listed(workspace, pattern="*") == []


def test_folders_that_hold_each_other_by_links_end(workspace: Path) -> None:
    assert listed(workspace, pattern="a/**/*.txt") == ["a/one.txt"]


def test_a_deep_tree_is_listed_without_many_open_files(tmp_path: Path) -> None:
    path = tmp_path
    for _ in range(150):
        path = path / "d"
    path.mkdir(parents=True)
    (path / "f").write_text("")
    assert listed(tmp_path, pattern="**/f") == ["d/" * 150 + "f"]


def test_effects_are_as_promised() -> None:
    assert as_tool(read_file).effect is Effect.PURE
    assert as_tool(list_files).effect is Effect.PURE
    assert as_tool(write_file).effect is Effect.IDEMPOTENT
    assert as_tool(read_file).aliases == ("readFile",)
    assert as_tool(write_file).aliases == ("writeFile",)
