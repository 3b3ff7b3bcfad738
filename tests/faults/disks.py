"""Small disks that a test can fill: a tmpfs of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Disk:
    """A small disk, empty at first."""

    place: Path  #: as programs see it that are started with `prefix`
    seen: Path  #: as this process sees it; not for SQLite, which follows `/proc/PID/root` back to where we are
    prefix: tuple[str, ...] = ()

    @property
    def _ballast(self) -> Path:
        return self.seen / "ballast"

    def fill(self, bytes_: int | None = None) -> None:
        """Take so many bytes, or all there are to the last."""
        file = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            if bytes_ is not None:
                os.posix_fallocate(file, 0, bytes_)
                return
            for size in (1 << 20, 4096, 1):
                try:
                    while os.write(file, b"x" * size):
                        pass
                except OSError:
                    continue
        finally:
            os.close(file)

    def free(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink()

    def copy_to(self, folder: Path) -> Path:
        """Copy what is on the disk, for those who cannot look at it here, and return where it is."""
        return Path(shutil.copytree(self.seen, folder / "copied"))


@contextmanager
def small_disk(folder: Path, mebibytes: int, *, for_us: bool = True) -> Iterator[Disk]:
    """Yield a disk of that size.

    Root mounts it. Others do so in a namespace of a process that holds it, which programs can be started in; where this
    very process has to use it (`for_us`), that does not help.
    """
    place = folder / "disk"
    place.mkdir()
    options = f"size={mebibytes}m,mode=0777"
    if _mounted(place, options):
        try:
            yield Disk(place, place)
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)
        return
    if for_us:
        pytest.skip("mounting a small disk for this process takes root's rights (CAP_SYS_ADMIN)")
    script = f'mount -t tmpfs -o {options} none "$0" && echo held && exec cat'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        if not holder.stdout.readline():
            pytest.skip("a small disk can be mounted neither here nor in a namespace of its own (unshare --mount)")
        enter = ("nsenter", f"--target={holder.pid}", "--user", "--mount", "--preserve-credentials")
        try:
            yield Disk(place, Path(f"/proc/{holder.pid}/root{place}"), enter)
        finally:
            holder.kill()


def _mounted(place: Path, options: str) -> bool:
    if os.geteuid() != 0:
        return False
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
    return subprocess.run(mount, capture_output=True, check=False).returncode == 0
