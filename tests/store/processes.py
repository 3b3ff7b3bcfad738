"""Other processes for tests: a Python program that says a line when it is ready and ends when its input does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pythons


@contextmanager
def running(program: str, *arguments: str) -> Iterator[pythons.Process]:
    """Run `program` until the block ends."""
    with pythons.start("-c", program, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: pythons.Process) -> str:
    """Wait for the next line of `process`."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
