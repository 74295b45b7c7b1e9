# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
from typing import Any, Callable

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.blocks import (
    lost_original,
    no_room,
    put_block,
    take_blocks,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import FileState
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.blocks import with_block
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import pis
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

ROLE = "raspberry_pi_boot"
MADE = with_block(pis.RASPBERRY_PI_OS, ["dtparam=pciex1"])


@pytest.fixture
def pi(tree: Tree) -> pis.Pi:
    return pis.Pi(tree)


def put(pi: pis.Pi) -> None:
    before = pi.kernel.state(pis.CONFIG)
    put_block(pi.kernel, Ledger(pi.kernel), ROLE, pis.CONFIG, before.content or b"", before._replace(content=MADE))


def take(pi: pis.Pi, check: bool = False) -> Any:
    ledger = Ledger(pi.kernel)
    taken = take_blocks(pi.kernel, ledger, ROLE, check)
    ledger.save()
    return taken


def recorded(pi: pis.Pi) -> int:
    return len(Ledger(pi.kernel).entries(ROLE))


def test_put_and_taken(pi: pis.Pi) -> None:
    os.chmod(str(pi.tree.path) + pis.CONFIG, 0o755)
    put(pi)
    assert (pi.content, recorded(pi)) == (MADE, 1)
    assert pi.kernel.state(pis.CONFIG).mode == 0o755
    assert take(pi, check=True).files == [
        (
            pis.CONFIG,
            FileState(MADE, None, 0o755, os.getuid(), os.getgid()),
            FileState(pis.RASPBERRY_PI_OS, None, 0o755, os.getuid(), os.getgid()),
        )
    ]
    assert (pi.content, recorded(pi)) == (MADE, 1)
    assert take(pi).refused == []
    assert (pi.content, recorded(pi)) == (pis.RASPBERRY_PI_OS, 0)
    assert take(pi).files == []


def test_original_is_recorded_before_the_file_is_written(pi: pis.Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is that without our block, whoever puts it in."""

    def killed(path: str, state: FileState) -> None:
        if path == pis.CONFIG:
            raise KeyboardInterrupt
        really(path, state)

    really = pi.kernel.put
    monkeypatch.setattr(pi.kernel, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        put(pi)
    monkeypatch.undo()
    (pi.tree.path / "boot/firmware/config.txt").unlink()
    assert lost_original(pi.kernel, Ledger(pi.kernel), ROLE) == (pis.CONFIG, pis.RASPBERRY_PI_OS)
    assert take(pi).refused == []
    assert pi.content == pis.RASPBERRY_PI_OS


def test_lost_original_is_not_written_where_nothing_is_mounted(pi: pis.Pi) -> None:
    put(pi)
    (pi.tree.path / "boot/firmware").rename(pi.tree.path / "boot/elsewhere")
    (pi.tree.path / "boot/firmware").mkdir()
    assert lost_original(pi.kernel, Ledger(pi.kernel), ROLE) is None
    [refused] = take(pi).refused
    assert (refused.path, refused.why) == (pis.CONFIG, "its partition is not mounted; mount it and run again")
    assert (pi.content, recorded(pi)) == (None, 1)


def failing(code: int) -> Callable[..., None]:
    def fail(*arguments: Any, **more: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize(
    ("call", "code", "hint"),
    [
        ("open", errno.EROFS, "mount its partition to be written to"),
        ("fsync", errno.ENOSPC, "make room on its partition"),
        ("rename", errno.EIO, "check its partition"),
        ("rename", errno.EACCES, "mend that"),
    ],
)
def test_a_write_that_fails_leaves_all_as_it_was(
    pi: pis.Pi, monkeypatch: pytest.MonkeyPatch, call: str, code: int, hint: str
) -> None:
    real = getattr(os, call)

    def broken(*arguments: Any, **more: Any) -> Any:
        where = str(arguments[0]) if call != "fsync" else os.readlink("/proc/self/fd/%d" % arguments[0])
        reads = call == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR)
        if "/boot/firmware/" in where and not reads:
            failing(code)()
        return real(*arguments, **more)

    monkeypatch.setattr(os, call, broken)
    with pytest.raises(WishError, match="^/boot/firmware/config.txt could not be written and is as it was: .*" + hint):
        put(pi)
    monkeypatch.undo()
    assert (pi.content, recorded(pi)) == (pis.RASPBERRY_PI_OS, 0)
    assert sorted(os.listdir(str(pi.tree.path / "boot/firmware"))) == ["config.txt", "kernel8.img", "overlays"]
    put(pi)
    monkeypatch.setattr(os, call, broken)
    [refused] = take(pi).refused
    assert refused.path == pis.CONFIG
    assert hint in refused.why
    monkeypatch.undo()
    assert (pi.content, recorded(pi)) == (MADE, 1)


def test_what_reads_back_different_is_put_back(pi: pis.Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    really = pi.kernel.put

    def damaging(path: str, state: FileState) -> None:
        really(path, state._replace(content=b"\0" * 100) if state.content == MADE else state)

    monkeypatch.setattr(pi.kernel, "put", damaging)
    with pytest.raises(WishError, match="reads back different, so it was put back"):
        put(pi)
    assert (pi.content, recorded(pi)) == (pis.RASPBERRY_PI_OS, 0)


def test_damaged_marks_are_refused(pi: pis.Pi) -> None:
    put(pi)
    pi.write(MADE.replace(b"# END edgenpu.tuning", b""))
    [refused] = take(pi).refused
    assert "no longer one pair" in refused.why
    assert recorded(pi) == 1


def test_room(pi: pis.Pi, monkeypatch: pytest.MonkeyPatch) -> None:
    assert no_room(pi.kernel, pis.CONFIG, 1000) is None

    class Full:
        f_bavail, f_frsize = 1, 512

    monkeypatch.setattr(os, "statvfs", lambda path: Full())
    assert no_room(pi.kernel, pis.CONFIG, 512) is None
    assert str(no_room(pi.kernel, pis.CONFIG, 513)).startswith(
        "the partition of /boot/firmware/config.txt has 512 bytes free, and 513 are needed"
    )
