# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet of six different boxes, each read, tuned and reported by the collection's own code."""

from __future__ import annotations

import copy
import os
import pathlib
from typing import Any, Dict, Sequence

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import (
    bdf_of_line,
    parse_proc_interrupts,
)
from ansible_collections.edgenpu.tuning.plugins.modules import cpufreq, irq_affinity, npu_host_info
from ansible_collections.edgenpu.tuning.plugins.plugin_utils.report_view import with_before
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe import pcie_trees
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import (
    Tree,
    captured,
)
from ansible_collections.edgenpu.tuning.tests.unit.plugins.modules.running import Modules

DOOR = {"front_door": hosts.FRONT_DOOR}
SWITCH = hosts.SLOT + "/0003:31:00.0"
BOXES = ("tuned", "dead_card", "two_cards", "behind_a_switch", "equal_cores", "eight_cards")
HOSTILE = "<script>alert('host')</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}"


class Stage:
    """Puts boxes below a directory and returns their reports as the role diagnostics writes them.

    MADE keeps the reports that are ready, by the name of their method: a tuned box takes seconds.
    """

    def __init__(
        self,
        path: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        made: Dict[str, Dict[str, Any]],
    ) -> None:
        self.path = path
        self.made = made
        self._pytest = (monkeypatch, capsys)
        monkeypatch.setattr(os, "fsync", lambda handle: None)
        if os.geteuid() != 0:
            hosts.let_root_own_nothing(monkeypatch)

    def fleet(self) -> Dict[str, Dict[str, Any]]:
        """Return the reports by the boxes' names."""
        return {report["inventory_hostname"]: report for report in map(self, BOXES)}

    def __call__(self, box: str) -> Dict[str, Any]:
        """Return the report of one of BOXES, for the caller to change."""
        if box not in self.made:
            self.made[box] = getattr(self, box)()
        return copy.deepcopy(self.made[box])

    def _tree(self, name: str) -> Tree:
        (self.path / name).mkdir(parents=True)
        tree = Tree(self.path / name)
        tree.file("/etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
        tree.files("/proc/sys/kernel", {"arch": "aarch64"})
        tree.files("/sys/devices/system/cpu", {"possible": "0-7"})
        return tree

    def _modules(self, board: hosts.Board) -> Modules:
        return Modules(board, *self._pytest)

    def _read(self, modules: Modules, name: str, **more: Any) -> Dict[str, Any]:
        report = modules.run(npu_host_info, root=str(modules.board.tree.path)).data["report"]
        return dict(report, inventory_hostname=name, check_mode=False, actions={}, **more)

    def tuned(self) -> Dict[str, Any]:
        """A CM3588 that has just been tuned, and was read before."""
        board = hosts.Board(self._tree("tuned"))
        modules = self._modules(board)
        counts(board, 38, [182_340, 0, 0, 0, 0, 0, 0, 0])
        earlier = self._read(modules, "nas-attic")
        affinity = modules.run(irq_affinity, **DOOR).data
        governor = modules.run(cpufreq, **DOOR).data
        for policy in (4, 6):
            board.tree.files("/sys/devices/system/cpu/cpufreq/policy%d" % policy, {"scaling_cur_freq": "2400000"})
        counts(board, 38, [182_512, 0, 0, 0, 96_204, 0, 0, 0])
        report = dict(self._read(modules, "nas-attic"), actions={"irq_affinity": affinity, "governor": governor})
        return with_before(report, earlier)

    def two_cards(self) -> Dict[str, Any]:
        """A CM3588 with two cards, one of which came up slow, and what tuning would do to it."""
        board = hosts.Board(self._tree("two"))
        real = "platform/fe170000.pcie/pci0002:20/0002:20:00.0"
        board.tree.pci(real, pcie_trees.bridge(4, (3, 1), (1, 1), ids=(0x1D87, 0x3588)))
        board.add_card("0002:21:00.0", real + "/0002:21:00.0", (52,))
        space = pcie_trees.card(negotiated=(1, 1))
        board.tree.file("/sys/devices/" + real + "/0002:21:00.0/config", space)
        board.irqbalance()
        counts(board, 38, [54_120, 0, 12, 0, 0, 0, 0, 0])
        counts(board, 52, [3_310, 880, 0, 0, 0, 0, 0, 0])
        modules = self._modules(board)
        affinity = modules.run(irq_affinity, check=True, **DOOR).data
        governor = modules.run(cpufreq, check=True, **DOOR).data
        return dict(
            self._read(modules, "nas-lab"),
            check_mode=True,
            actions={"irq_affinity": affinity, "governor": governor},
        )

    def behind_a_switch(self) -> Dict[str, Any]:
        """A CM3588 with a switch in its slot: three cards and an empty slot share one lane."""
        board = hosts.Board(self._tree("switch"), card=False)
        bridge = pcie_trees.bridge
        board.tree.pci(SWITCH, bridge(pcie_trees.UPSTREAM, (3, 4), (3, 1), buses=(0x32, 0x36)))
        for number in range(4):
            port = "%s/0003:32:%02x.0" % (SWITCH, number)
            used = number != 1
            board.tree.pci(
                port,
                bridge(
                    pcie_trees.DOWNSTREAM,
                    (3, 2),
                    (2, 2) if used else (1, 0),
                    slot=(number, used),
                    active=used,
                    buses=(0x33 + number, 0x33 + number),
                ),
            )
            if used:
                bdf = "0003:%02x:00.0" % (0x33 + number)
                board.add_card(bdf, "%s/%s" % (port, bdf), (40 + number,))
                board.tree.file("/sys/devices/%s/%s/config" % (port, bdf), pcie_trees.card((2, 2)))
                counts(board, 40 + number, [20_000 * (number + 1), 0, 0, 0, 0, 0, 0, 0])
        board.tree.file("/sys/devices/" + hosts.SLOT + "/config", bridge(4, (3, 1), (3, 1), ids=(0x1D87, 0x3588)))
        return self._read(self._modules(board), "nas-rack")

    def dead_card(self) -> Dict[str, Any]:
        """A CM3588 whose card reads all ones, and whose name and model are somebody's idea of a joke."""
        board = hosts.Board(self._tree("dead"))
        board.tree.file("/sys/devices/%s/%s/config" % (hosts.SLOT, hosts.BDF), b"\xff" * 4096)
        board.tree.file("/etc/os-release", 'PRETTY_NAME="%s"\n' % HOSTILE.replace('"', ""))
        counts(board, 38, [9_120, 0, 0, 0, 0, 0, 0, 0])
        return self._read(self._modules(board), "nas-cellar")

    def equal_cores(self) -> Dict[str, Any]:
        """Four equal cores, tuned."""
        tree = self._tree("equal")
        board = hosts.Board(tree)
        tree.file("/proc/device-tree/model", b"Board with four equal cores\0")
        for number in range(4, 8):
            (tree.path / "sys/devices/system/cpu" / ("cpu%d" % number) / "cpu_capacity").unlink()
        tree.cpus(4, "0-3", [1024] * 4)
        tree.files("/sys/devices/system/cpu", {"possible": "0-3"})
        for name in ("policy4", "policy6"):
            for path in (tree.path / "sys/devices/system/cpu/cpufreq" / name).iterdir():
                path.unlink()
            (tree.path / "sys/devices/system/cpu/cpufreq" / name).rmdir()
        modules = self._modules(board)
        counts(board, 38, [6_100, 0, 0, 0])
        earlier = self._read(modules, "kiosk-3")
        affinity = modules.run(irq_affinity, **DOOR).data
        governor = modules.run(cpufreq, **DOOR).data
        counts(board, 38, [6_100, 2_480, 0, 0])
        report = dict(self._read(modules, "kiosk-3"), actions={"irq_affinity": affinity, "governor": governor})
        return with_before(report, earlier)

    def eight_cards(self) -> Dict[str, Any]:
        """The PC with eight cards behind one switch, with its own /proc/interrupts."""
        tree = self._tree("eight")
        board = hosts.Board(tree, card=False)
        pcie_trees.eight_cards(tree)
        text = captured("interrupts/x86-eight-ax650n-no-header.txt")
        tree.file("/proc/device-tree/model", b"")
        tree.files("/proc/sys/kernel", {"arch": "x86_64", "osrelease": "6.8.0-45-generic"})
        tree.files("/sys/class/dmi/id", {"sys_vendor": "To Be Filled By O.E.M.", "product_name": "Z390 Pro4"})
        for line in parse_proc_interrupts(text).lines.values():
            bdf = bdf_of_line(line)
            used = [cpu for cpu, count in enumerate(line.counts) if count]
            path = tree.root.real("/sys/bus/pci/devices/%s" % bdf) if bdf else None
            if path is not None:
                tree.file("%s/msi_irqs/%d" % (path, line.irq), "msi\n")
                board.irq(line.irq, "0-5", str(used[0]))
                counts(board, line.irq, line.counts)
        for number in range(8):
            policy = tree.path / "sys/devices/system/cpu/cpufreq" / ("policy%d" % number)
            if policy.is_dir():
                for path in policy.iterdir():
                    path.unlink()
                policy.rmdir()
            capacity = tree.path / "sys/devices/system/cpu" / ("cpu%d" % number) / "cpu_capacity"
            capacity.unlink()
        tree.cpus(6, "0-5")
        tree.files("/sys/devices/system/cpu", {"possible": "0-5"})
        for number in range(6):
            files = {
                "scaling_governor": "powersave",
                "scaling_driver": "intel_pstate",
                "scaling_available_governors": "performance powersave",
                "scaling_min_freq": "800000",
                "scaling_max_freq": "4100000",
                "cpuinfo_min_freq": "800000",
                "cpuinfo_max_freq": "4100000",
                "scaling_cur_freq": str(800_000 + 61_000 * number),
                "energy_performance_preference": "balance_performance",
            }
            tree.policy(number, str(number), str(number), files)
        return self._read(self._modules(board), "workstation")


def counts(board: hosts.Board, irq: int, by_cpu: Sequence[int]) -> None:
    """Let an interrupt have been served so often."""
    board.tree.files("/sys/kernel/irq/%d" % irq, {"per_cpu_count": ",".join(map(str, by_cpu))})
