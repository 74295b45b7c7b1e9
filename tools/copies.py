# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A copy of the files that belong to the repository, for tools that must not see the others."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
from pathlib import Path

from .places import COPY, ROOT

# What tools keep in the copy from one run to the next.
KEPT = {".git", ".ansible"}

# Only for a tree that came without git (an unpacked archive): there nobody knows .gitignore.
NEVER = {".cache", ".venv", ".git", ".ansible", "__pycache__", "output"}


def belonging(root: Path = ROOT) -> list[str]:
    """Return the paths, relative to ROOT, of the files that are tracked, or new and not ignored."""
    if (root / ".git").exists():
        listing = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        paths = [os.fsdecode(name) for name in listing.split(b"\0") if name]
        # A file deleted but not yet committed is still in git's index.
        return sorted({path for path in paths if os.path.lexists(root / path)})
    found: list[str] = []
    for here, directories, names in os.walk(root):
        directories[:] = sorted(set(directories) - NEVER)
        found += [os.path.relpath(os.path.join(here, name), root) for name in names]
    return sorted(found)


def refresh(source: Path = ROOT, target: Path = COPY) -> Path:
    """Bring the copy up to date and return it. What has not changed keeps its time stamps: caches stay valid."""
    wanted = belonging(source)
    target.mkdir(parents=True, exist_ok=True)
    # First, since a directory may have become a file or the other way round.
    _remove_others(target, set(wanted))
    for path in wanted:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        _copy(source / path, target / path)
    if not (target / ".git").is_dir():
        # Tools look for git upwards from where they are; they would find the checkout's, which ignores this copy.
        subprocess.run(["git", "init", "--quiet", str(target)], check=True)
    return target


def _remove_others(target: Path, wanted: set[str]) -> None:
    for here, directories, names in os.walk(target, topdown=False):
        if KEPT.intersection(Path(here).relative_to(target).parts):
            continue
        for name in [*names, *directories]:
            path = Path(here) / name
            if path.is_dir() and not path.is_symlink():
                if name not in KEPT and not any(path.iterdir()):
                    path.rmdir()
            elif str(path.relative_to(target)) not in wanted:
                path.unlink()


def _copy(source: Path, target: Path) -> None:
    if target.is_symlink() or source.is_symlink():
        if target.is_symlink() and source.is_symlink() and os.readlink(target) == os.readlink(source):
            return
        target.unlink(missing_ok=True)
    elif target.is_file() and filecmp.cmp(source, target):
        if source.stat().st_mode != target.stat().st_mode:
            shutil.copymode(source, target)
        return
    shutil.copy2(source, target, follow_symlinks=False)
