# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import read_wishes
from ansible_collections.edgenpu.tuning.plugins.modules import cpufreq, irq_affinity
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.modules.running import Modules

DOOR = {"front_door": hosts.FRONT_DOOR}


def governor(first: int) -> str:
    return "/sys/devices/system/cpu/cpufreq/policy%d/scaling_governor" % first


def test_keeps(modules: Modules, board: hosts.Board) -> None:
    result = modules.run(cpufreq, **DOOR)
    assert (result.status, result.data["changed"], result.data["msg"]) == (0, True, "2 of 3 policies changed")
    assert result.paths[:2] == [governor(4), governor(6)]
    assert result.data["policies"][1] == {
        "policy": "policy4",
        "cpus": "4-5",
        "original": "schedutil",
        "before": "schedutil",
        "after": "performance",
    }
    kept = read_wishes(board.root)[0]["governor"]
    assert (kept["fast"], kept["others"], kept["only_with_card"]) == ("performance", "keep", True)
    assert modules.run(cpufreq, **DOOR).data["changed"] is False


@pytest.mark.parametrize("persist", [True, False])
def test_check_mode_predicts(modules: Modules, board: hosts.Board, persist: bool) -> None:
    before = board.snapshot()
    predicted = modules.run(cpufreq, check=True, persist=persist, others="powersave", **DOOR)
    assert (board.snapshot(), board.kernel.events, modules.commands) == (before, [], [])
    assert predicted.data["msg"] == "3 of 3 policies would be changed"
    made = modules.run(cpufreq, persist=persist, others="powersave", **DOOR)
    for name in ("changed", "changes", "diff", "unknown", "refused"):
        assert predicted.data[name] == made.data[name]
    assert [one["after"] for one in predicted.data["policies"]] == [one["after"] for one in made.data["policies"]]


def test_given_back_while_the_other_stays(modules: Modules, board: hosts.Board) -> None:
    modules.run(irq_affinity, **DOOR)
    modules.run(cpufreq, **DOOR)
    result = modules.run(cpufreq, state="absent")
    assert (result.status, result.data["msg"]) == (0, "given back and read back")
    assert (board.governor(4), board.affinity()) == ("schedutil", "4")
    assert modules.run(irq_affinity, **DOOR).data["changed"] is False


def test_governor_that_does_not_exist(modules: Modules, board: hosts.Board) -> None:
    """Refused before anything is left on the host."""
    before = board.snapshot()
    status, data = modules.run(cpufreq, fast="turbo", **DOOR)
    assert status == 1
    assert data["msg"] == (
        "governor 'turbo' does not exist for policy4 on this kernel; choose one of ondemand, performance, powersave, "
        "schedutil"
    )
    assert (board.snapshot(), board.kernel.events) == (before, [])


def test_no_governor_s_name(modules: Modules) -> None:
    status, data = modules.run(cpufreq, others="Power Save", **DOOR)
    assert (status, data["msg"]) == (
        1,
        "others: 'Power Save' is no governor's name; write one such as performance or schedutil",
    )


def test_governor_that_is_a_module(modules: Modules) -> None:
    data = modules.run(cpufreq, fast="ondemand", check=True, **DOOR).data
    assert data["unknown"][0] == (
        "governor of policy4: unknown until the kernel has loaded the module cpufreq_ondemand"
    )


def test_no_policies(modules: Modules, board: hosts.Board) -> None:
    shutil.rmtree(str(board.tree.path / "sys/devices/system/cpu/cpufreq"))
    before = board.snapshot()
    status, data = modules.run(cpufreq, **DOOR)
    assert (status, data["changed"], data["policies"]) == (0, False, [])
    assert data["msg"] == (
        "FriendlyElec CM3588 NAS has no cpufreq policies (its firmware or hypervisor sets the clocks), so nothing was "
        "changed"
    )
    assert board.snapshot() == before


class TestNoCard:
    @pytest.fixture(autouse=True)
    def gone(self, board: hosts.Board) -> None:
        (board.tree.path / "sys/bus/pci/devices" / hosts.BDF).unlink()

    def test_nothing_is_changed(self, modules: Modules, board: hosts.Board) -> None:
        before = board.snapshot()
        status, data = modules.run(cpufreq, **DOOR)
        assert (status, data["changed"], data["policies"]) == (0, False, [])
        assert data["msg"].startswith("no NPU card on FriendlyElec CM3588 NAS among 1 PCI devices, so nothing was ")
        assert (board.snapshot(), board.kernel.events) == (before, [])

    def test_unless_wished(self, modules: Modules, board: hosts.Board) -> None:
        assert modules.run(cpufreq, only_with_card=False, **DOOR).data["changed"] is True
        assert board.governor(4) == "performance"

    def test_a_user_s_card_is_one(self, modules: Modules, board: hosts.Board) -> None:
        board.tree.pci("pci0000:00/0000:00:02.0", contents={"vendor": "0xabcd", "device": "0x0001"})
        mine = [{"vendor": "abcd", "device": "0001"}]
        assert modules.run(cpufreq, devices=mine, **DOOR).data["changed"] is True

    def test_it_can_be_given_back(self, modules: Modules, board: hosts.Board) -> None:
        """The card was taken out after the clocks were set."""
        modules.run(cpufreq, only_with_card=False, **DOOR)
        assert modules.run(cpufreq, state="absent").data["changed"] is True
        assert board.governor(4) == "schedutil"


def test_refused(modules: Modules, board: hosts.Board) -> None:
    board.kernel.refusals[governor(4)] = "EBUSY: all CPUs of this policy are offline"
    status, data = modules.run(cpufreq, persist=False)
    assert (status, data["msg"], len(data["refused"])) == (0, "1 of 3 policies changed", 1)
    assert "EBUSY" in str(data["warnings"])
    status, data = modules.run(cpufreq, persist=False, strict=True)
    assert (status, data["failed"]) == (1, True)
    assert data["msg"] == "refused: %s: EBUSY: all CPUs of this policy are offline" % governor(4)


@pytest.mark.parametrize("obstacle", ["root", "container", "systemd"])
def test_obstacles(modules: Modules, board: hosts.Board, monkeypatch: pytest.MonkeyPatch, obstacle: str) -> None:
    if obstacle == "root":
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
    elif obstacle == "container":
        board.tree.file("/proc/mounts", "proc /proc proc rw 0 0\nproc /proc/irq proc ro 0 0\n")
    else:
        shutil.rmtree(str(board.tree.path / "run/systemd"))
    status, data = modules.run(cpufreq, **DOOR)
    expected: Any = {
        "root": "user id 1000 may not write",
        "container": "/proc/irq is mounted read-only here, as in a container; run this on the host itself",
        "systemd": "systemd does not run here",
    }
    assert status == 1
    assert data["msg"].startswith(expected[obstacle])
    assert board.kernel.events == []
