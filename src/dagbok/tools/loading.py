"""Where tools come from: modules named on the command line, and installed packages (entry points `dagbok.tools`).

Both run foreign code. What it raises becomes one sentence that names the module and the cause.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from dagbok.errors import Misconfigured
from dagbok.tools.decorator import as_tool, mark_of
from dagbok.tools.tool import Tool

GROUP: Final = "dagbok.tools"


def installed() -> list[EntryPoint]:
    """Return the entry points of installed packages, Dagbok's own first, so that nobody takes their names unseen."""
    names: dict[int, str] = {}  # by package, which reads through all of its metadata to tell its name

    def place(entry: EntryPoint) -> tuple[bool, str, str]:
        name = ""
        if entry.dist is not None:
            name = names.get(id(entry.dist)) or names.setdefault(id(entry.dist), entry.dist.name)
        return name != "dagbok", name, entry.name

    return sorted(entry_points(group=GROUP), key=place)


@dataclass(frozen=True, slots=True)
class _Label:
    """How messages name an entry point: told when there is one, for finding the name of its package takes time."""

    entry: EntryPoint

    def __str__(self) -> str:
        package = self.entry.dist.name if self.entry.dist else "an unknown package"
        return f"{self.entry.value!r} (entry point {self.entry.name!r} of {package})"


def from_entry_point(entry: EntryPoint) -> list[Tool]:
    """Return the tools of `entry`: those of a module, or the object it names.

    Raises:
        Misconfigured: It cannot be imported or holds no tool.
    """
    label = _Label(entry)
    return _tools_of(_imported(label, entry.load), label)


def from_spec(spec: str) -> list[Tool]:
    """Return the tools of `pkg.mod`, `path/to/file.py`, or one thing of either (`pkg.mod:name`).

    Raises:
        Misconfigured: It cannot be imported, has no such thing, or holds no tool.
    """
    place, colon, attribute = spec.partition(":")
    if not place.strip() or (colon and not attribute.strip()):
        raise Misconfigured(f"{spec!r} names no tool module: use PKG.MODULE, PATH/FILE.py, or either with :NAME.")
    thing: Any
    if place.endswith(".py") or "/" in place:
        thing = _imported(repr(spec), lambda: _run_file(Path(place)))
    else:
        thing = _imported(repr(spec), lambda: _import_module(place))
    for part in attribute.split(".") if attribute else ():
        if not hasattr(thing, part):
            raise Misconfigured(f"The tool module {place!r} has no {attribute!r}.")
        thing = getattr(thing, part)
    return _tools_of(thing, repr(spec))


def _tools_of(thing: Any, label: object) -> list[Tool]:
    if isinstance(thing, ModuleType):
        marked = [value for value in vars(thing).values() if _is_marked(value)]
        # One tool under two names in the module is one tool.
        tools = list({id(tool): tool for tool in map(as_tool, marked)}.values())
        if not tools:
            raise Misconfigured(f"The tool module {label} holds no tool; put @dagbok.tool on a function of it.")
        return tools
    things = list(thing) if isinstance(thing, Iterable) and not callable(thing) else [thing]
    try:
        tools = [as_tool(one) for one in things]
    except Misconfigured as exc:
        raise Misconfigured(f"{label} cannot be used: {exc.message}") from exc
    if not tools:
        raise Misconfigured(f"{label} holds no tool.")
    return tools


def _is_marked(value: object) -> bool:
    # A class or another module may carry tools of its own; they are not this module's.
    return isinstance(value, Tool) or (not isinstance(value, type | ModuleType) and mark_of(value) is not None)


def _imported(label: object, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # a module may raise anything, SystemExit included
        raise Misconfigured(f"The tool module {label} cannot be imported: {_cause(exc)}") from exc


def _cause(exc: BaseException) -> str:
    if isinstance(exc, SyntaxError):
        return f"{type(exc).__name__} in {exc.filename}, line {exc.lineno}: {exc.msg}."
    if isinstance(exc, SystemExit):
        what = f"it called sys.exit({exc.code!r})"
    else:
        what = f"{type(exc).__name__}: {exc}".rstrip(". ") if str(exc) else type(exc).__name__
    frames = [
        frame
        for frame in traceback.extract_tb(exc.__traceback__)
        if not frame.filename.startswith("<frozen") and "importlib" not in frame.filename and frame.filename != __file__
    ]
    return f"{what} (at {frames[-1].filename}:{frames[-1].lineno})." if frames else f"{what}."


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        # A console script does not see the current folder, where the module of a small project is.
        here = str(Path.cwd())
        if exc.name != name.partition(".")[0] or here in sys.path:
            raise
        _append_to_path(here)
        return importlib.import_module(name)


def _run_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    # Not under its bare name, which may be that of another module (`json.py`); the same file is the same module.
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    name = f"dagbok_tools_{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    _append_to_path(str(path.parent))  # as for a script: it may import the modules beside it
    sys.modules[name] = module  # before it runs: dataclasses and string annotations look themselves up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _append_to_path(folder: str) -> None:
    # At the end, so that nothing there shadows what is installed.
    if folder not in sys.path:
        sys.path.append(folder)
        importlib.invalidate_caches()
