# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is built again after a change and what is shared, what a prune keeps, and tools that bring their C library."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from twin import build, qemu
from twin.board import Board, load_named, names
from twin.modules import needed_by_headers, wrap_tools


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGENPU_CACHE", str(tmp_path))
    monkeypatch.setattr(qemu, "version", lambda: "QEMU emulator version 7.2")


@pytest.fixture(name="sources")
def _sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what twins are made from, to be changed."""
    package = tmp_path / "twin"
    shutil.copytree(build.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    monkeypatch.setattr(build, "PACKAGE", package)
    monkeypatch.setattr(build, "BOARDS", package / "boards")
    return package


def folders(name: str) -> tuple[Path, Path, Path]:
    board: Board = load_named(name)
    return build.rootfs_folder(board), build.image_folder(board), build.built_folder(board)


def test_boards_that_differ_in_hardware_share_all_but_their_own_folder() -> None:
    boards = [name for name in names() if _software(name) == _software("cm3588")]
    assert len(boards) > 2
    assert len({folders(name)[:2] for name in boards}) == 1
    assert len({folders(name)[2] for name in names()}) == len(names())


def _software(name: str) -> tuple[object, ...]:
    board = load_named(name)
    return board.release, board.driver, board.packages


def test_a_board_without_driver_has_an_image_and_one_with_more_packages_a_root_file_system_of_its_own() -> None:
    assert [one == other for one, other in zip(folders("cm3588"), folders("no-driver"), strict=True)] == [
        True,
        False,
        False,
    ]
    assert not set(folders("no-driver")) & set(folders("no-driver-tools"))


def test_releases_share_nothing() -> None:
    assert not set(folders("cm3588")) & set(folders("debian13"))


@pytest.mark.parametrize(
    "changed, rebuilt",
    [
        ("boards/two-cards.yml", (False, False, True)),
        ("boards/cm3588.yml", (False, False, True)),
        ("boards/switch.yml", (False, False, False)),
        ("pciconfig.py", (False, False, True)),
        ("kernel/twin_pcie.c", (False, True, True)),
        ("rootfs.py", (False, True, True)),
        ("README.md", (False, False, False)),
    ],
)
def test_a_change_rebuilds_what_depends_on_it(changed: str, rebuilt: tuple[bool, ...], sources: Path) -> None:
    before = folders("two-cards")
    with (sources / changed).open("a", encoding="utf-8") as stream:
        stream.write("# changed\n")
    assert tuple(old != new for old, new in zip(before, folders("two-cards"), strict=True)) == rebuilt


def test_prune_keeps_what_boards_and_running_twins_need(tmp_path: Path) -> None:
    root = tmp_path / "twin"
    needed = {folder for name in names() for folder in folders(name)}
    old, old_image, running, running_image = (root / name for name in ("old-1", "image-1", "cm3588-2", "image-2"))
    for folder in (*needed, old, old_image, running, running_image):
        folder.mkdir(parents=True, exist_ok=True)
    (running_image / build.KEY_FILE).write_text("", encoding="ascii")
    (running / build.KEY_FILE).symlink_to(Path("..", running_image.name, build.KEY_FILE))
    assert build.prune([running]) == sorted([old, old_image])
    assert {path for path in root.iterdir() if path.is_dir()} == needed | {running, running_image}


@pytest.mark.parametrize(
    "depends, needed",
    [
        (
            "linux-headers-6.1.0-56-common (= 6.1.192-2), linux-kbuild-6.1 (>= 6.1.192-2), gcc-12",
            ("linux-headers-6.1.0-56-common", "linux-kbuild-6.1"),
        ),
        (
            "linux-headers-6.1.0-56-common-rt (= 6.1.192-2), linux-kbuild-6.1 (>= 6.1.192-2), gcc-12",
            ("linux-headers-6.1.0-56-common-rt", "linux-kbuild-6.1"),
        ),
        (
            "linux-headers-6.12.117+deb12-common (= 6.12.117-1~deb12u1), linux-kbuild-6.12.117+deb12, gcc-12",
            ("linux-headers-6.12.117+deb12-common", "linux-kbuild-6.12.117+deb12"),
        ),
        ("gcc-12", ("", "")),
    ],
)
def test_headers_tell_what_else_they_need(depends: str, needed: tuple[str, str]) -> None:
    assert needed_by_headers(depends) == needed


def test_tools_run_with_their_own_library_wherever_they_are(tmp_path: Path) -> None:
    """The shell stands for a tool; the libraries are those that this very process has loaded."""
    tools, libc = tmp_path / "here/tools", tmp_path / "here/libc/lib"
    (tools / "mod").mkdir(parents=True)
    libc.mkdir(parents=True)
    loaded = {Path(line.split()[-1]) for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()}
    for library in loaded:
        if library.name.startswith(("ld-linux", "libc.so")):
            shutil.copy(library, libc)
    shutil.copy("/bin/sh", tools / "mod/tool")
    (tools / "script").write_text("#!/bin/sh\necho plain\n", encoding="ascii")
    (tools / "script").chmod(0o755)
    wrap_tools(tools, tmp_path / "here/libc")
    (tmp_path / "here").rename(tmp_path / "there")
    tool = tmp_path / "there/tools/mod/tool"
    script = 'echo "$0"; tr "\\0" " " < /proc/$$/cmdline; exit 3'
    result = subprocess.run([tool, "-c", script], capture_output=True, text=True, check=False)
    name, command = result.stdout.splitlines()
    assert (result.returncode, name) == (3, str(tool)), result.stderr
    assert "there/tools/mod/../../libc/lib/ld-linux" in command
    assert os.access(tmp_path / "there/tools/script", os.X_OK)
    assert (tmp_path / "there/tools/script").read_text(encoding="ascii") == "#!/bin/sh\necho plain\n"
