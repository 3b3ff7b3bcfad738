from __future__ import annotations

from pathlib import Path

import pytest

from cli.program import Project, make_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


@pytest.fixture
def on_both(tmp_path: Path, database_url: str) -> Project:
    """A folder whose diary is on SQLite, and one whose is on PostgreSQL."""
    return make_project(tmp_path, database_url)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One folder for a module, where a test does not mind what others wrote."""
    return make_project(tmp_path_factory.mktemp("project"))
