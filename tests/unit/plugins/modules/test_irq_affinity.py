# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils import module as shared
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import LOCK_PATH
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import PATH as LEDGER
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import UNIT
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import read_wishes
from ansible_collections.edgenpu.tuning.plugins.modules import irq_affinity
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree
from ansible_collections.edgenpu.tuning.tests.unit.plugins.modules.running import Modules

IRQ = "/proc/irq/38/smp_affinity_list"
DOOR = {"front_door": hosts.FRONT_DOOR}


def test_keeps(modules: Modules, board: hosts.Board) -> None:
    status, data = modules.run(irq_affinity, **DOOR)
    assert (status, data["changed"]) == (0, True)
    assert data["msg"] == "1 interrupt of 1 NPU card is on the wanted CPU"
    assert data["cards"] == [hosts.BDF]
    [placement] = data["placements"]
    assert {name: placement[name] for name in ("bdf", "vector", "irq", "state", "target")} == {
        "bdf": hosts.BDF,
        "vector": 0,
        "irq": 38,
        "state": "change",
        "target": "4",
    }
    assert (placement["original"], placement["before"], placement["effective_before"]) == ("0-7", "0-7", "0")
    assert (placement["after"], placement["effective_after"], placement["unknown_until"]) == ("4", "4", None)
    assert (placement["steerable"], placement["reason"]) == (True, None)
    assert (data["refused"], data["unknown"]) == ([], [])
    assert board.affinity() == "4"
    assert board.root.exists(UNIT)
    assert modules.commands == ["systemctl daemon-reload", "udevadm control --reload"]


def test_second_run_changes_nothing(modules: Modules) -> None:
    modules.run(irq_affinity, **DOOR)
    modules.commands.clear()
    status, data = modules.run(irq_affinity, **DOOR)
    assert (status, data["changed"], data["changes"], data["diff"]) == (0, False, [], [])
    assert modules.commands == []


@pytest.mark.parametrize("check", [True, False])
def test_interpreter_that_others_may_change(
    modules: Modules, board: hosts.Board, monkeypatch: pytest.MonkeyPatch, check: bool
) -> None:
    """Root would run it at every boot; for this boot alone the user's own is as good as any."""
    monkeypatch.setattr(shared, "unfit", lambda path: "it is below /home")
    before = board.snapshot()
    status, data = modules.run(irq_affinity, check, **DOOR)
    assert (status, data["failed"]) == (1, True)
    assert "cannot be what root runs at every boot: it is below /home" in data["msg"]
    assert "set ansible_python_interpreter to one that only root can change" in data["msg"]
    assert (board.snapshot(), board.kernel.events) == (before, [])
    assert modules.run(irq_affinity, check, persist=False).data["changed"]


@pytest.mark.parametrize("persist", [True, False])
def test_check_mode_predicts(modules: Modules, board: hosts.Board, persist: bool) -> None:
    before = board.snapshot()
    predicted = modules.run(irq_affinity, check=True, persist=persist, **DOOR)
    assert (board.snapshot(), board.kernel.events, modules.commands) == (before, [], [])
    assert not board.root.exists(LOCK_PATH)
    assert predicted.data["msg"] == "1 interrupt of 1 NPU card would be on the wanted CPU"
    made = modules.run(irq_affinity, persist=persist, **DOOR)
    for name in ("changed", "changes", "diff", "unknown", "refused", "cards"):
        assert predicted.data[name] == made.data[name]
    assert predicted.data["placements"][0]["after"] == made.data["placements"][0]["after"]


def test_this_boot_only(modules: Modules, board: hosts.Board) -> None:
    result = modules.run(irq_affinity, persist=False)
    assert result.paths == [IRQ]
    assert not board.root.exists(UNIT)
    assert modules.commands == []


def test_difference(modules: Modules, board: hosts.Board) -> None:
    board.tree.file(UNIT, "theirs")
    data = modules.run(irq_affinity, **DOOR).data
    shown = {entry["before_header"]: entry for entry in data["diff"]}
    assert (shown[IRQ]["before"], shown[IRQ]["after"]) == ("0-7\n", "4\n")
    assert shown[UNIT]["before"] == "theirs\n"
    assert shown[UNIT]["after"] == (board.root.data(UNIT) or b"").decode()
    assert sorted(entry["before_header"] for entry in data["diff"]) == sorted(one["path"] for one in data["changes"])


def test_wishes_reach_the_box(modules: Modules, board: hosts.Board) -> None:
    mine = {"vendor": "abcd", "device": "0001", "name": "mine"}
    modules.run(
        irq_affinity, cpus="5-6", spread="tier", keep_free=2, born_there=True, vectors="apart", devices=[mine], **DOOR
    )
    kept = read_wishes(board.root)[0]["irq_affinity"]
    assert (kept["cpus"], kept["spread"], kept["keep_free"], kept["born_there"]) == ("5-6", "tier", 2, True)
    assert kept["vectors"] == "apart"
    assert kept["catalogue"][0]["vendor"] == "abcd"
    assert board.affinity() == "5-6"


def test_given_back(modules: Modules, board: hosts.Board) -> None:
    board.irqbalance()
    before = board.snapshot()
    modules.run(irq_affinity, **DOOR)
    predicted = modules.run(irq_affinity, check=True, state="absent")
    status, data = modules.run(irq_affinity, state="absent")
    assert (status, data["changed"], data["msg"]) == (0, True, "given back and read back")
    assert predicted.data["changes"] == data["changes"]
    assert board.snapshot() == before
    assert board.affinity() == "0-7"
    status, data = modules.run(irq_affinity, state="absent")
    assert (status, data["changed"], data["msg"]) == (0, False, "nothing of ours was left to give back")


def test_several_cards(modules: Modules, board: hosts.Board) -> None:
    for number in range(3):
        bdf = "0004:4%d:00.0" % number
        board.add_card(bdf, "platform/fe190000.pcie/pci0004:40/" + bdf, (40 + number,))
    data = modules.run(irq_affinity, persist=False).data
    assert data["msg"] == "4 interrupts of 4 NPU cards are on CPUs 4-6, 2+1+1"


class TestNoCard:
    def test_nothing_is_changed(self, tmp_path: Any, modules: Modules, board: hosts.Board) -> None:
        (board.tree.path / "sys/bus/pci/devices" / hosts.BDF).unlink()
        before = board.snapshot()
        status, data = modules.run(irq_affinity, **DOOR)
        assert (status, data["changed"], data["cards"], data["placements"]) == (0, False, [], [])
        assert data["msg"] == (
            "no NPU card on FriendlyElec CM3588 NAS among 1 PCI devices, so nothing was changed; seat the card, or add "
            "its identity to devices"
        )
        assert (board.snapshot(), board.kernel.events) == (before, [])

    def test_no_driver_yet(self, modules: Modules, board: hosts.Board) -> None:
        """The wishes are kept, so that the driver's bind event puts the interrupt in place."""
        card = board.tree.path / "sys/devices" / hosts.SLOT / hosts.BDF
        (card / "driver").unlink()
        (card / "msi_irqs/38").unlink()
        status, data = modules.run(irq_affinity, **DOOR)
        assert (status, data["changed"]) == (0, True)
        assert data["msg"] == "0 interrupts of 1 NPU card are on the wanted CPU"
        assert data["unknown"] == ["interrupt of 0003:31:00.0: unknown until a driver binds to it"]
        assert board.root.exists(UNIT)


class TestRefusals:
    def test_a_warning(self, modules: Modules, board: hosts.Board) -> None:
        board.kernel.refusals[IRQ] = "EIO: nobody can move it"
        status, data = modules.run(irq_affinity, persist=False)
        assert (status, data["changed"]) == (0, False)
        assert [(one["path"], one["why"]) for one in data["refused"]] == [(IRQ, "EIO: nobody can move it")]
        assert "refused: %s: EIO: nobody can move it" % IRQ in str(data["warnings"])
        assert data["msg"] == "0 interrupts of 1 NPU card are on the wanted CPU"

    @pytest.mark.parametrize(("strict", "status"), [(False, 0), (True, 1)])
    def test_a_controller_that_cannot_steer(
        self, modules: Modules, board: hosts.Board, strict: bool, status: int
    ) -> None:
        board.tree.files("/sys/kernel/irq/38", {"chip_name": "BRCM STB PCIe MSI"})
        board.kernel.errors[IRQ] = errno.EINVAL
        checked = modules.run(irq_affinity, check=True, persist=False, strict=strict)
        assert (checked.status, checked.data["changed"], checked.data["refused"]) == (0, False, [])
        assert "unknown until it is written: on this controller the kernel refuses" in checked.data["unknown"][0]
        result = modules.run(irq_affinity, persist=False, strict=strict)
        assert (result.status, result.data["changed"]) == (status, False)
        [placement] = result.data["placements"]
        assert placement["steerable"] is False
        assert placement["reason"] == result.data["refused"][0]["why"]
        assert placement["reason"] == (
            "EINVAL: the interrupt controller cannot steer this interrupt. "
            "This board has no other controller for the slot."
        )

    def test_strict(self, modules: Modules, board: hosts.Board) -> None:
        board.kernel.refusals[IRQ] = "EIO: nobody can move it"
        status, data = modules.run(irq_affinity, strict=True, **DOOR)
        assert (status, data["failed"]) == (1, True)
        assert data["msg"] == "refused: %s: EIO: nobody can move it" % IRQ
        assert data["changed"], "what was kept on the host was kept all the same"

    def test_user_s_irqbalance_policy_does_not_fail_a_strict_run(self, modules: Modules, board: hosts.Board) -> None:
        board.irqbalance("--policyscript=/etc/mine.sh")
        for _run in range(2):
            status, data = modules.run(irq_affinity, strict=True, **DOOR)
            assert status == 0
            assert not data.get("warnings")
            assert data["unknown"][0].startswith("whether irqbalance leaves the cards alone: unknown until ")
        assert data["changed"] is False

    def test_systemd(self, modules: Modules) -> None:
        modules.failing["systemctl daemon-reload"] = "Connection refused\n"
        _status, data = modules.run(irq_affinity, **DOOR)
        assert data["refused"][0]["why"] == "exit status 1: Connection refused"

    def test_on_the_way_back(self, modules: Modules, board: hosts.Board) -> None:
        modules.run(irq_affinity, persist=False)
        board.kernel.refusals[IRQ] = "EINVAL: not now"
        status, data = modules.run(irq_affinity, state="absent")
        assert (status, data["msg"]) == (1, "not given back: %s: EINVAL: not now" % IRQ)
        assert data["refused"][0]["after"] == "0-7"


class TestObstacles:
    """One sentence each: what is wrong, where, what to do; and nothing is changed."""

    @staticmethod
    def refused(modules: Modules, **arguments: Any) -> str:
        before = modules.board.snapshot()
        status, data = modules.run(irq_affinity, **arguments)
        assert (status, data["failed"]) == (1, True)
        assert (modules.board.snapshot(), modules.board.kernel.events) == (before, [])
        assert "Traceback" not in str(data)
        return str(data["msg"])

    def test_not_root(self, modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert self.refused(modules, **DOOR) == (
            "user id 1000 may not write to /proc/irq and /sys; run as root (become: true)"
        )

    def test_anybody_may_check(self, modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert modules.run(irq_affinity, check=True, **DOOR).status == 0

    def test_container(self, modules: Modules, board: hosts.Board) -> None:
        board.tree.file("/proc/mounts", "proc /proc proc rw 0 0\nsysfs /sys sysfs ro 0 0\n")
        board.tree.file("/.dockerenv")
        assert self.refused(modules, **DOOR) == (
            "/sys is mounted read-only here, as in a container (container: docker); run this on the host itself"
        )

    def test_no_systemd(self, modules: Modules, board: hosts.Board) -> None:
        (board.tree.path / "run/systemd/system/.keep").unlink()
        (board.tree.path / "run/systemd/system").rmdir()
        assert self.refused(modules, **DOOR).endswith("use persist: false to set this boot's values only")
        assert modules.run(irq_affinity, persist=False).status == 0
        assert modules.run(irq_affinity, state="absent").status == 0

    def test_no_front_door(self, modules: Modules) -> None:
        assert self.refused(modules) == (
            "front_door is needed with persist: true; the roles hand it over, or set persist: false"
        )

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ({"cpus": "4-9"}, "cpus: 4-9 names CPU 8-9, but this host has CPUs 0-7; name some of these"),
            (
                {"cpus": "fast"},
                'cpus: \'fast\' is no list of CPUs; write one as the kernel does, such as "4-7" or "4,6"',
            ),
            ({"keep_free": -1}, "keep_free: -1 is no count of cores; write 0 or more"),
            (
                {"devices": [{"vendor": "1f4b", "device": 424}]},
                (
                    "devices, entry 1: device '424' is no PCI identity; write four hexadecimal digits in quotes, such "
                    'as "1f4b"; was it 0650 without quotes? YAML takes that for an octal number'
                ),
            ),
        ],
    )
    def test_wishes_that_cannot_be_granted(self, modules: Modules, arguments: Any, sentence: str) -> None:
        assert self.refused(modules, **DOOR, **arguments) == sentence

    def test_all_asked_for_are_offline(self, modules: Modules, board: hosts.Board) -> None:
        board.online("0-3")
        assert self.refused(modules, cpus="6", **DOOR).startswith("cpus: 6 is all offline on this host; bring one ")

    def test_damaged_ledger(self, modules: Modules, board: hosts.Board) -> None:
        board.tree.file(LEDGER, "{")
        assert self.refused(modules, **DOOR).startswith(LEDGER + " is damaged (")

    def test_a_directory_in_the_way(self, modules: Modules, board: hosts.Board) -> None:
        (board.tree.path / UNIT[1:]).mkdir()
        status, data = modules.run(irq_affinity, **DOOR)
        assert (status, data["msg"]) == (
            1,
            UNIT + " is neither a file nor a link; move it away, one of our files belongs there",
        )

    def test_full_disk(self, modules: Modules, board: hosts.Board) -> None:
        def full(path: str) -> None:
            raise OSError(28, "No space left on device", path)

        board.kernel.before_put = full
        status, data = modules.run(irq_affinity, **DOOR)
        assert (status, data["msg"]) == (
            1,
            LEDGER + ": No space left on device (ENOSPC); mend that and run again",
        )


def test_empty_tree(tmp_path: Any, modules: Modules) -> None:
    """A host of which nothing can be read: a sentence, not a traceback."""
    modules.board = hosts.Board(Tree(tmp_path / "other"), card=False)
    for name in ("sys", "proc", "etc"):
        os.rename(str(tmp_path / "other" / name), str(tmp_path / ("away-" + name)))
    status, data = modules.run(irq_affinity, persist=False)
    assert (status, data["changed"]) == (0, False)
    assert data["msg"].startswith("no NPU card on this host among 0 PCI devices")
