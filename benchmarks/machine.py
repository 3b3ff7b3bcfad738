"""What the figures were measured on: no names and no paths, only what makes a figure larger or smaller."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any


def describe(postgresql: str | None) -> dict[str, Any]:
    """Return the machine as JSON, given the version of PostgreSQL."""
    release = platform.freedesktop_os_release()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _first("/proc/cpuinfo", "model name"),
        "memory_gb": round(int(_first("/proc/meminfo", "MemTotal").split()[0]) / 2**20, 1),
        "os": f"{release.get('PRETTY_NAME', platform.system())}, Linux {platform.release().split('-')[0]}",
        "fsync_ms": round(fsync_ms(), 3),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "postgresql": postgresql,
    }


def fsync_ms(times: int = 200) -> float:
    """Return the median time to make a page that is appended to a file durable, where the databases are kept."""
    took = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(times):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            file.flush()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def _first(path: str, key: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "unknown 0"
