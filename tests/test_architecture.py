"""The table of docs/architecture.md: who may import whom. Function-local imports count too: they are knowledge."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "dagbok"

#: Folder or module of the package -> what of the package it may import, beside itself, `errors` and `settings`.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "settings": set(),
    "domain": set(),
    "engine": {"domain"},
    "store": {"domain"},
    "tools": {"domain"},
    "llm": {"domain", "tools.registry"},
    "cluster": {"engine", "store", "domain"},
    "notify": {"store", "domain"},
    "diary": {"store", "domain"},
    "forking": {"store", "domain"},
    "submitting": {"domain"},
    "service": {"diary", "forking", "submitting", "store", "tools", "llm", "cluster", "notify", "domain"},
    "app": {
        "service",
        "forking",
        "submitting",
        "diary",
        "notify",
        "cluster",
        "llm",
        "tools",
        "store",
        "engine",
        "domain",
        "views",
        "wire",
    },
    "outside": {"diary", "cluster", "tools", "store", "domain"},
    "wire": {"domain"},
    "views": {"wire", "domain"},
    "api": {"app", "service", "forking", "submitting", "diary", "views", "wire", "domain"},
    "client": {"wire", "domain"},
    "cli": {"app", "outside", "api", "client", "service", "diary", "views", "wire", "domain"},
    "testing": {"engine", "llm", "domain"},
    "__init__": {"app", "client", "tools", "domain"},
    "__main__": {"cli"},
}

#: Third-party package -> the only places that may import it.
HOMES: dict[str, set[str]] = {
    "sqlalchemy": {"store"},
    "alembic": {"store"},
    "psycopg": {"store"},
    "sqlite3": {"store"},
    "fastapi": {"api"},
    "starlette": {"api"},
    "uvicorn": {"api"},
    "pydantic_ai": {"llm", "tools", "testing"},
    "hypothesis": {"testing"},
    "httpx2": {"client", "tools", "llm"},
    "httpcore2": {"tools"},
    "trafilatura": {"tools"},
    "lxml": {"tools"},
    "ddgs": {"tools"},
    "aiosmtplib": {"tools"},
    "typer": {"cli"},
    "dotenv": {"tools"},
    "rich": {"cli"},
    "structlog": {"cli", "api"},
    "asyncio": {
        "engine",
        "store",
        "tools",
        "llm",
        "cluster",
        "notify",
        "service",
        "app",
        "api",
        "client",
        "cli",
        "testing",
    },
    "time": set(ALLOWED)
    - {"domain", "errors", "settings", "wire", "views", "service", "diary", "forking", "submitting"},
}

#: Files of `store` that may name a dialect.
DIALECT_FILES = {"store.arrays", "store.connections", "store.database", "store.lock", "store.trouble"}


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name, ast.parse(path.read_text(encoding="utf-8"))


MODULES = dict(_modules())


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield each imported dotted name, `from a import b` as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that a search finds them"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _fault(module: str, target: str) -> str | None:
    """Return what is wrong with `module` importing `target`, if anything."""
    place = module.split(".")[0]
    root, _, rest = target.partition(".")
    if root != "dagbok":
        homes = HOMES.get(root)
        return f"{root} belongs to {sorted(homes)}" if homes is not None and place not in homes else None
    other = rest.split(".")[0]
    if other in ("", "__version__", place, "errors", "settings"):
        return None
    allowed = ALLOWED[place]
    if other in allowed or ".".join(rest.split(".")[:2]) in allowed:
        return None
    return f"{place} may not import {other}"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_place_may_know(module: str) -> None:
    assert module.split(".")[0] in ALLOWED, "a new place needs a row in the table, and one in docs/architecture.md"
    faults = {target: fault for target in _imports(MODULES[module]) if (fault := _fault(module, target))}
    assert not faults


def test_no_two_modules_need_each_other() -> None:
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for name, tree in MODULES.items():
        for target in _imports(tree):
            inner = target.removeprefix("dagbok.")
            if inner == target:
                continue
            for candidate in (inner, inner.rpartition(".")[0]):
                if candidate in graph and candidate != name:
                    graph[name].add(candidate)
                    break
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", [name for name in MODULES if name not in DIALECT_FILES and "migrations" not in name])
def test_only_the_database_file_and_the_migrations_import_a_dialect(module: str) -> None:
    dialects = [
        target for target in _imports(MODULES[module]) if "sqlalchemy.dialects" in target or "psycopg" in target
    ]
    assert not dialects


def test_the_rules_catch_what_they_forbid() -> None:
    assert _fault("domain.plan", "dagbok.store.journal")
    assert _fault("engine.runner", "dagbok.tools.registry.Registry")
    assert _fault("llm.models", "dagbok.tools.files")
    assert _fault("service", "sqlalchemy.select")
    assert _fault("domain.execution", "asyncio")
    assert not _fault("llm.models", "dagbok.tools.registry.Tool")
    assert not _fault("store.journal", "sqlalchemy")
