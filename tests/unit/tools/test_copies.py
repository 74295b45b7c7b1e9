# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The copy that linters and ansible-test see holds what a clone would hold, and keeps time stamps."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ansible_collections.edgenpu.tuning.tools import copies


@pytest.fixture(name="checkout")
def fixture_checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    (root / ".gitignore").write_text("ignored\n", encoding="utf-8")
    for name in ("kept", "ignored", "directory/file"):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name, encoding="utf-8")
    (root / "link").symlink_to("directory")
    return root


def listing(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if ".git" not in path.relative_to(root).parts)


def test_copy_holds_what_git_does_not_ignore(checkout: Path, tmp_path: Path) -> None:
    copy = copies.refresh(checkout, tmp_path / "copy")
    assert listing(copy) == [".gitignore", "directory", "directory/file", "kept", "link"]
    assert os.readlink(copy / "link") == "directory"


def test_unchanged_files_keep_their_time_stamps_and_leftovers_go(checkout: Path, tmp_path: Path) -> None:
    copy = copies.refresh(checkout, tmp_path / "copy")
    before = (copy / "kept").stat().st_mtime_ns
    (copy / "tests" / "output").mkdir(parents=True)
    (copy / "tests" / "output" / "junk").write_text("", encoding="utf-8")
    (checkout / "directory" / "file").write_text("changed", encoding="utf-8")
    copies.refresh(checkout, copy)
    assert (copy / "kept").stat().st_mtime_ns == before
    assert (copy / "directory" / "file").read_text(encoding="utf-8") == "changed"
    assert not (copy / "tests").exists()


def test_files_directories_and_links_may_change_places(checkout: Path, tmp_path: Path) -> None:
    copy = copies.refresh(checkout, tmp_path / "copy")
    (checkout / "link").unlink()
    (checkout / "link").mkdir()
    (checkout / "link" / "file").write_text("", encoding="utf-8")
    (checkout / "directory" / "file").unlink()
    (checkout / "directory").rmdir()
    (checkout / "directory").write_text("", encoding="utf-8")
    copies.refresh(checkout, copy)
    assert listing(copy) == [".gitignore", "directory", "kept", "link", "link/file"]
