"""A virtual environment for each peer, with pinned versions, in the ignored folder `.bench/`.

Peers do not agree on the versions of what they share, and none of them should run on what another one asked for.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".bench"
PINS = Path(__file__).parent / "environments"


class NotInstalled(Exception):
    """A peer cannot be installed on this machine; the message says why."""


def interpreter(name: str) -> str:
    """Return the Python of an environment, made first where it is missing or its pins have changed.

    Raises:
        NotInstalled: pip could not install it.
    """
    if not name:
        return sys.executable
    pins = PINS / f"{name}.txt"
    wanted = hashlib.sha256(pins.read_bytes()).hexdigest()
    folder = FOLDER / name
    python, mark = folder / "bin" / "python", folder / "pins"
    if mark.exists() and mark.read_text(encoding="ascii") == wanted:
        return str(python)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"Installing {name} into {folder.relative_to(ROOT)} (once) ...", flush=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps"]  # the pins are all it needs
    _run([str(python), "-m", "pip", "install", *quiet, "-r", str(pins)])
    mark.write_text(wanted, encoding="ascii")
    return str(python)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstalled((done.stderr or done.stdout).strip().splitlines()[-1] if done.stderr or done.stdout else "?")
