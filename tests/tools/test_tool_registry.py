"""Where tools come from and how they are found: by name, alias, module, file and entry point."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tool_calls import call

from dagbok.errors import Misconfigured
from dagbok.tools import loading
from dagbok.tools.decorator import tool
from dagbok.tools.registry import Registry, ToolContext

GOOD = '''
from __future__ import annotations
from dataclasses import dataclass
from dagbok.tools.registry import tool

@dataclass
class Item:
    n: int

@tool(effect="pure")
def double(item: Item) -> int:
    """Double it."""
    return item.n * 2

same = double

@tool
async def other() -> None: ...

class Group:
    @tool
    def method(self) -> None: ...

def plain(n: int) -> int:
    return n

both = [plain, other]
'''


@pytest.fixture(autouse=True)
def _imports_forgotten() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@tool(effect="pure", aliases=("readIt",))
def read_it(path: str) -> str:
    """Read."""
    return path


def test_tools_are_found_by_name_and_alias() -> None:
    registry = Registry.from_(tools=[read_it])
    made = registry.get("read_it")
    assert made is not None
    assert registry.get("readIt") is made
    assert registry.get("nothing") is None
    assert registry.names() == ["read_it"]
    assert list(registry) == [made]
    assert (len(registry), "readIt" in registry, "no" in registry) == (1, True, False)
    assert registry.schemas() == {"read_it": made.parameters, "readIt": made.parameters}


def test_the_description_is_what_the_api_shows() -> None:
    registry = Registry.from_(tools=[read_it], timeout_s=12)
    (made,) = registry
    assert registry.describe(made) == {
        "type": "function",
        "function": {"name": "read_it", "description": "Read.", "parameters": dict(made.parameters)},
        "effect": "pure",
        "timeoutSeconds": 12,
        "idleTimeoutSeconds": None,
        "maxConcurrency": None,
        "aliases": ["readIt"],
        "retry": None,
    }


def test_what_a_tool_says_of_its_attempts_is_shown_too() -> None:
    @tool(idle_timeout_seconds=20, retry={"max_attempts": 5, "retry_on": ["timeout"]})
    async def patient() -> None: ...

    registry = Registry.from_(tools=[patient])
    (made,) = registry
    shown = registry.describe(made)
    assert (shown["idleTimeoutSeconds"], shown["retry"]) == (20, {"max_attempts": 5, "retry_on": ["timeout"]})
    assert (made.idle_timeout_s, made.retry, made.timeout_s) == (20, {"max_attempts": 5, "retry_on": ["timeout"]}, 300)


def test_a_tool_without_a_timeout_takes_that_of_its_registry() -> None:
    @tool(timeout_seconds=5)
    def own() -> None: ...

    first, second = Registry.from_(tools=[read_it, own], timeout_s=1), Registry.from_(tools=[read_it, own], timeout_s=2)
    assert [made.timeout_s for made in first] == [1, 5]
    assert [made.timeout_s for made in second] == [2, 5]


def test_a_registry_lends_its_workspace(tmp_path: Path) -> None:
    @tool
    async def where(context: ToolContext) -> str:
        return str(context.workspace)

    (made,) = Registry.from_(tools=[where], workspace=os.path.relpath(tmp_path))
    assert Path(asyncio.run(call(made))).resolve() == tmp_path.resolve()


def test_an_undecorated_function_is_a_tool_with_the_defaults() -> None:
    def greet(name: str) -> str:
        return f"hello {name}"

    made = Registry().add(greet)
    assert asyncio.run(call(made, name="you")) == "hello you"
    assert made.effect == "once"


def test_the_same_tool_twice_is_one_tool() -> None:
    def plain() -> None: ...

    registry = Registry.from_(tools=[read_it, read_it, plain, plain])
    assert registry.add(next(iter(registry))) is registry.get("read_it")
    assert registry.names() == ["read_it", "plain"]


@pytest.mark.parametrize("options", [{"name": "read_it"}, {"name": "readIt"}, {"aliases": ("read_it",)}])
def test_two_tools_of_one_name_are_refused_with_both_origins(options: dict[str, Any]) -> None:
    @tool(**options)
    def another() -> None: ...

    with pytest.raises(Misconfigured, match=r"test_tool_registry:read_it and test_tool_registry:.*another"):
        Registry.from_(tools=[read_it, another])


@pytest.mark.parametrize("thing", ["read_it", 3, None, read_it("x")])
def test_what_is_no_tool_is_refused(thing: Any) -> None:
    with pytest.raises(Misconfigured, match="is no tool"):
        Registry().add(thing)


def test_the_tools_that_ship_are_found_by_entry_points() -> None:
    registry = Registry()
    added = registry.load_entry_points()
    assert {"read_file", "write_file", "list_files", "extract_json", "wait"} <= {made.name for made in added}
    assert registry.get("readFile") is registry.get("read_file")
    assert registry.get("writeFile") is registry.get("write_file")
    wait = registry.get("wait")
    assert wait is not None
    assert wait.timer is True


def test_a_broken_package_is_logged_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "ep_exits.py", "import sys; sys.exit(1)")
    write(tmp_path, "ep_fails.py", "1 / 0")
    write(tmp_path, "ep_steals.py", GOOD.replace("def double", "def read_it").replace("= double", "= read_it"))
    write(tmp_path, "ep_empty.py", "x = 1")
    write(tmp_path, "ep_good.py", GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    names = ["ep_exits", "ep_fails", "ep_steals", "ep_empty", "not_there", "ep_good", "ep_good:plain", "ep_good:nope"]
    entries = [EntryPoint(name, name, loading.GROUP) for name in names]
    monkeypatch.setattr(loading, "installed", lambda: entries)
    registry = Registry.from_(tools=[read_it])
    with caplog.at_level(logging.WARNING):
        added = registry.load_entry_points()
    assert [made.name for made in added] == ["other", "double", "plain"]
    assert len(caplog.records) == 7
    for name, cause in [
        ("ep_exits", "sys.exit(1)"), ("ep_fails", "ZeroDivisionError: division by zero"),
        ("not_there", "No module named"),
        ("ep_steals", "Two tools are called 'read_it'"), ("ep_empty", "holds no tool"), ("ep_good:nope", "nope"),
    ]:  # fmt: skip
        assert any(name in record.message and cause in record.message for record in caplog.records), name


def test_dagboks_own_tools_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise an installed package could take `read_file` and see what plans read."""
    packages = [("zeta", "a"), ("alpha", "b"), ("dagbok", "files"), ("alpha", "a"), (None, "x")]
    entries = [SimpleNamespace(dist=name and SimpleNamespace(name=name), name=entry) for name, entry in packages]
    monkeypatch.setattr(loading, "entry_points", lambda group: entries)
    found = [(entry.dist.name if entry.dist else None, entry.name) for entry in loading.installed()]
    assert found == [("dagbok", "files"), (None, "x"), ("alpha", "a"), ("alpha", "b"), ("zeta", "a")]


def test_a_module_is_loaded_by_name_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "pack/mine.py", GOOD)
    monkeypatch.chdir(tmp_path)
    registry = Registry()
    assert [made.name for made in registry.load_module("pack.mine")] == ["double", "other"]
    assert asyncio.run(call(registry.add(registry.load_module("pack.mine:plain")[0]), n=3)) == 3
    assert [made.name for made in registry.load_module("pack.mine:both")] == ["plain", "other"]


def test_a_file_is_loaded_by_path_once(tmp_path: Path) -> None:
    write(tmp_path, "beside.py", "N = 2")
    file = write(tmp_path, "json.py", GOOD + "\nimport beside\n")
    registry = Registry()
    added = registry.load_module(str(file))
    assert [made.name for made in added] == ["double", "other"]
    assert registry.load_module(f"{file}:double") == [added[0]]
    assert asyncio.run(call(added[0], item={"n": 3})) == 6
    import json

    assert json.loads("1") == 1


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("import no_such_thing", r"ModuleNotFoundError: No module named 'no_such_thing' \(at .*mine.py:1\)"),
        ("x = (\n", "SyntaxError in .*mine.py, line 1: '\\(' was never closed"),
        ("raise SystemExit(2)", r"it called sys.exit\(2\) \(at .*mine.py:1\)"),
        ("\n1 / 0", r"ZeroDivisionError: division by zero \(at .*mine.py:2\)"),
        ("class E(BaseException): ...\nraise E", r"E \(at .*mine.py:2\)"),
        ("x = 1", "holds no tool; put @dagbok.tool on a function of it"),
        ("from dagbok.tools.registry import tool\n@tool\ndef f(*a): ...", r"f cannot be made a tool: it takes '\*a'"),
    ],
)
def test_a_module_that_cannot_be_used_says_which_and_why(tmp_path: Path, text: str, cause: str) -> None:
    file = write(tmp_path, "mine.py", text)
    with pytest.raises(Misconfigured, match=cause) as caught:
        Registry().load_module(str(file))
    assert "mine.py" in caught.value.message
    assert not any(name.startswith("dagbok_tools_mine") and "1 / 0" in text for name in sys.modules)


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        ("no_such_module", "'no_such_module' cannot be imported: ModuleNotFoundError: No module named"),
        ("no/such/file.py", "there is no file"),
        ("json:loads.nothing", "has no 'loads.nothing'"),
        ("json:__doc__", "is no tool"),
        ("", "names no tool module"), ("json:", "names no tool module"), (":x", "names no tool module"),
        (".relative", "cannot be imported"),
    ],
)  # fmt: skip
def test_a_spec_that_leads_nowhere_says_so(spec: str, cause: str) -> None:
    with pytest.raises(Misconfigured, match=cause):
        Registry().load_module(spec)


def test_importing_the_registry_is_cheap() -> None:
    """`dagbok --help` has 0.3 s; no model, server or database library may be pulled in."""
    program = """
import sys, dagbok.tools.registry
heavy = {"pydantic_ai", "fastapi", "sqlalchemy", "griffe", "httpx", "rich", "pydantic_settings", "jsonschema"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
