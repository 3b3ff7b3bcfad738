"""One server for the tests that only ask; tests that stop servers, or break things, start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.serving import Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with serving(f"sqlite:///{folder / 'dagbok.db'}", folder) as running:
        yield running


@pytest.fixture
def fresh_server(database_url: str, tmp_path: Path) -> Iterator[Server]:
    """A server with an empty diary, once per kind of database."""
    with serving(database_url, tmp_path) as running:
        yield running
