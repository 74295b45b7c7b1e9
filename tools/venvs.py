# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual environments, made on demand and kept as long as what they are made from is the same."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .places import ROOT, VENVS


class VenvError(Exception):
    """An environment could not be made; the message says what to do."""


def can_make_venvs(python: str = sys.executable) -> bool:
    """Return False where Debian's python3-venv package is missing: `venv` is there, the pip it would install is not."""
    probe = [python, "-c", "import ensurepip, venv"]
    return subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode == 0


def requirement_files(name: str) -> list[Path]:
    """Return requirements/NAME.txt and the files that it takes in by `-r`, and these in turn."""
    return _with_those_taken_in(ROOT / "requirements" / f"{name}.txt")


def _with_those_taken_in(path: Path) -> list[Path]:
    lines = path.read_text(encoding="utf-8").splitlines()
    inner = [(path.parent / line[3:].strip()).resolve() for line in lines if line.startswith("-r ")]
    return [path, *(found for one in inner for found in _with_those_taken_in(one))]


def key_of(python: str, files: list[Path], extra: str = "") -> str:
    """Return a hash of all that an environment is made from: the interpreter and the requirements."""
    about = "import sys; print(sys.version, sys.base_prefix)"
    version = subprocess.run([python, "-c", about], stdout=subprocess.PIPE, check=True).stdout
    digest = hashlib.sha256(version + extra.encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def ensure(name: str, python: str = sys.executable, packages: tuple[str, ...] = ()) -> Path:
    """Return the `bin` directory of .venv/NAME, made first if need be.

    It holds PACKAGES if any are given, otherwise what requirements/NAME.txt lists.
    """
    files = [] if packages else requirement_files(name)
    home = VENVS / name
    stamp = home / "made-from"
    VENVS.mkdir(parents=True, exist_ok=True)
    with open(VENVS / f"{name}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        key = key_of(python, files, " ".join(packages))
        if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == key):
            _make(home, python, [*packages, *(f"--requirement={path}" for path in files[:1])])
            stamp.write_text(key, encoding="utf-8")
    return home / "bin"


def _make(home: Path, python: str, wanted: list[str]) -> None:
    if not can_make_venvs(python):
        raise VenvError(f"{python} cannot make virtual environments: install python3-venv, or use PYTHON=...")
    print(f"==> {home.relative_to(ROOT)}: a virtual environment", flush=True)
    began = time.monotonic()
    # An environment that knows it is inside of another one would take that one's packages for its own.
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    shutil.rmtree(home, ignore_errors=True)
    try:
        subprocess.run([python, "-m", "venv", str(home)], check=True, env=env)
        pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-qq"]
        subprocess.run([*pip, "install", *wanted], check=True, env=env)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(home, ignore_errors=True)
        raise VenvError(f"could not make {home}: `{' '.join(error.cmd)}` ended with {error.returncode}") from error
    print(f"<== {home.relative_to(ROOT)}: ready in {time.monotonic() - began:.1f} s", flush=True)
