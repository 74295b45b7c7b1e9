# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any, List, Optional

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import born
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.born import DEFAULT, LOCK_PATH, Loaded, born_there
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import LOCK_PATH as WRITERS_LOCK
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger, Locked
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

MODULE = "ax_pcie_host_dev"
WISHES = AffinityWishes(BUILT_IN, born_there=True).to_data()


@pytest.fixture(name="board")
def fixture_board(tree: Tree) -> hosts.Board:
    board = hosts.Board(tree, driver=False)
    board.wishes("irq_affinity", WISHES)
    return board


class Load:
    """Stands for modprobe: remembers the default mask that interrupts are born with."""

    def __init__(self, board: hosts.Board, status: int = 0) -> None:
        self.board = board
        self.status = status
        self.masks: List[Optional[str]] = []

    def __call__(self) -> int:
        self.masks.append(self.board.root.text(DEFAULT))
        return self.status


@pytest.mark.parametrize("status", [0, 1, 255])
def test_default_is_narrow_while_the_module_loads(board: hosts.Board, status: int) -> None:
    load = Load(board, status)
    assert born_there(board.kernel, MODULE, load) == Loaded(status, [])
    assert load.masks == ["10"]
    assert board.root.text(DEFAULT) == "ff"


def test_whole_tier(board: hosts.Board) -> None:
    board.wishes("irq_affinity", dict(WISHES, spread="tier"))
    load = Load(board)
    born_there(board.kernel, MODULE, load)
    assert load.masks == ["f0"]


def test_card_by_its_place_among_all_cards(board: hosts.Board) -> None:
    """The second card, of another module, is born on the CPU that it will be served by."""
    board.tree.pci("platform/fe190000.pcie/pci0004:40/0004:41:00.0", contents={"vendor": "0x1e60", "device": "0x2864"})
    load = Load(board)
    born_there(board.kernel, "hailo_pci", load)
    assert load.masks == ["20"]


def test_card_keeps_its_place_when_another_has_dropped_off_the_bus(board: hosts.Board) -> None:
    """As for the interrupts themselves: until the next boot the others stay where they are."""
    ledger = Ledger(board.kernel)
    ledger.remember_value("irq_affinity", "interrupt", "0001:11:00.0#0", "0-7", hosts.BOOT)
    ledger.save()
    load = Load(board)
    born_there(board.kernel, MODULE, load)
    assert load.masks == ["20"]


def test_load_that_is_interrupted(board: hosts.Board) -> None:
    def interrupted() -> int:
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        born_there(board.kernel, MODULE, interrupted)
    assert board.root.text(DEFAULT) == "ff"


@pytest.mark.parametrize(
    "trouble", ["no wishes", "damaged", "unheard of", "no card", "tier offline", "refused", "no default"]
)
def test_module_is_loaded_whatever_else_fails(board: hosts.Board, trouble: str) -> None:
    module = "unheard_of" if trouble == "unheard of" else MODULE
    if trouble == "no wishes":
        (board.tree.path / "etc/edgenpu-tuning/wishes.d/irq_affinity.json").unlink()
    elif trouble == "damaged":
        board.wishes("irq_affinity", {"catalogue": 5})
    elif trouble == "no card":
        (board.tree.path / "sys/bus/pci/devices" / hosts.BDF).unlink()
    elif trouble == "tier offline":
        board.online("0-3")
    elif trouble == "refused":
        board.kernel.refusals[DEFAULT] = "EINVAL"
    elif trouble == "no default":
        (board.tree.path / DEFAULT[1:]).unlink()
    load = Load(board, 7)
    loaded = born_there(board.kernel, module, load)
    assert loaded.status == 7
    assert len(load.masks) == 1
    assert load.masks[0] in ("ff", None)
    assert bool(loaded.problems) == (trouble != "no default")
    assert not board.root.exists(DEFAULT) or board.root.text(DEFAULT) == "ff"


def test_no_lock_is_no_obstacle(board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> int:
        raise OSError(errno.EROFS, "Read-only file system", LOCK_PATH)

    monkeypatch.setattr(os, "open", refuse)
    load = Load(board, 3)
    assert born_there(board.kernel, MODULE, load) == Loaded(3, [LOCK_PATH + ": Read-only file system"])
    assert load.masks == ["ff"]


def test_load_of_another_module_that_hangs(board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long while the module is loaded all the same."""
    monkeypatch.setattr(born, "LOCK_LIMIT_S", 0.1)
    load = Load(board)
    with Locked(board.kernel, LOCK_PATH):
        loaded = born_there(board.kernel, MODULE, load)
    assert (loaded.status, load.masks) == (0, ["ff"])
    [problem] = loaded.problems
    assert problem.startswith(LOCK_PATH + " could not be locked within 0.1 s")


def test_writers_do_not_wait_for_it(board: hosts.Board) -> None:
    """A load may take minutes (firmware), and the agent runs when the driver binds, that is within the load."""

    def load() -> int:
        board.tree.file(WRITERS_LOCK)
        with open(str(board.tree.path / WRITERS_LOCK[1:]), "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with open(str(board.tree.path / LOCK_PATH[1:]), "rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return 0

    assert born_there(board.kernel, MODULE, load).status == 0
