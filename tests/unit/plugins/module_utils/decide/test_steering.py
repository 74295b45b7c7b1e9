# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Dict, Optional, Sequence, Tuple

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.steering import (
    BROADCOM,
    DESIGNWARE,
    TEGRA,
    VMD,
    Unsteerable,
    controller_of,
    judge,
    moves_later,
    remedy,
    served_by,
    what_helps,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.board import UNKNOWN, Board
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import parse_proc_interrupts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import captured

ARM = Board("aarch64", "6.1.43", ())
PC = Board("x86_64", "6.1.0", ())
PI5 = Board("aarch64", "6.6.51", ("raspberrypi,5-model-b", "brcm,bcm2712"))
OVERLAY = "dtoverlay=pciex1-compat-pi5,no-mip"


@pytest.mark.parametrize(
    ("chip", "board", "controller"),
    [
        ("BRCM STB PCIe MSI", ARM, BROADCOM),
        ("BRCM-PCI-MSI-0001:01:00.0", PI5, BROADCOM),
        ("MIP-MSI", PI5, None),
        ("MIP-MSI-PCI-MSI-0001:01:00.0", PI5, None),
        ("ITS-MSI", ARM, None),
        ("ITS-PCI-MSI-0003:31:00.0", ARM, None),
        ("PCI-MSI", ARM, DESIGNWARE),
        ("PCI-MSI", PC, None),
        ("PCI-MSI", Board("i686", "6.1.0", ()), None),
        ("PCI-MSI", UNKNOWN, None),
        ("IR-PCI-MSI-0000:03:00.0", PC, None),
        ("DW-PCI-MSI-0000:01:00.0", ARM, DESIGNWARE),
        ("tegra PCIe MSI", ARM, TEGRA),
        ("Tegra PCIe MSI", ARM, TEGRA),
        ("VMD-MSI", PC, VMD),
        ("GICv3", ARM, None),
        ("", ARM, None),
        (None, ARM, None),
    ],
)
def test_controllers(chip: Optional[str], board: Board, controller: Optional[str]) -> None:
    assert controller_of(chip, board) == controller


def test_raspberry_pi_4_as_captured() -> None:
    """Its USB controller's MSI was refused with EINVAL; its network's interrupts are the GIC's and moved."""
    lines = parse_proc_interrupts(captured("interrupts/rpi4.txt")).lines
    board = Board("aarch64", "5.15.4-0-rpi4", ("raspberrypi,4-model-b", "brcm,bcm2711"))
    verdicts = {irq: judge(hosts.interrupt(irq)._replace(chip=lines[irq].chip), board) for irq in (38, 39, 46)}
    assert verdicts == {
        38: None,
        39: None,
        46: Unsteerable(BROADCOM, BROADCOM + " serves it (BRCM STB PCIe MSI), which cannot steer"),
    }


@pytest.mark.parametrize(
    ("kernel", "settable", "stuck"),
    [
        ("5.10.110", None, True),
        ("6.11.0-rc1", True, True),
        ("6.12.1", True, False),
        ("6.12.1", False, True),
        ("7.0", True, False),
        ("7.0", False, True),
        ("", None, False),
        (None, None, False),
        (None, False, True),
    ],
)
def test_designware_by_release(kernel: Optional[str], settable: Optional[bool], stuck: bool) -> None:
    """It learnt to steer with 7.0; since 6.12 the kernel itself tells, and before that it always refused."""
    interrupt = hosts.interrupt()._replace(chip="PCI-MSI", settable=settable)
    assert (judge(interrupt, ARM._replace(kernel=kernel)) is not None) is stuck


def test_the_kernel_tells() -> None:
    """A managed interrupt of any controller, since 6.12."""
    told = judge(hosts.interrupt()._replace(settable=False), ARM)
    assert told == Unsteerable(None, "the kernel shows its affinity as read-only")
    assert judge(hosts.interrupt()._replace(settable=True), ARM) is None


@pytest.mark.parametrize(
    ("chip", "board", "later"),
    [
        ("PCI-MSI", PC, True),
        ("PCI-MSIX-0000:03:00.0", PC, True),
        ("IR-PCI-MSI-0000:03:00.0", PC, True),
        ("IO-APIC", PC, True),
        ("IR-IO-APIC", UNKNOWN, True),
        ("IO-APIC", ARM, False),
        ("ITS-MSI", ARM, False),
        ("ITS-PCI-MSI-0003:31:00.0", UNKNOWN, False),
        (None, PC, False),
    ],
)
def test_moves_that_wait(chip: Optional[str], board: Board, later: bool) -> None:
    assert moves_later(hosts.interrupt()._replace(chip=chip), board) is later


@pytest.mark.parametrize(
    ("counts", "effective", "affinity", "served"),
    [
        ({0: 5, 1: 900, 2: 0}, "0", "0-3", (1,)),
        ({3: 7, 1: 7}, "", "0-3", (1,)),
        ({0: 0, 1: 0}, "2", "0-3", (2,)),
        ({}, "", "0-3", (0, 1, 2, 3)),
        ({}, None, None, None),
    ],
)
def test_served_by(
    counts: Dict[int, int], effective: Optional[str], affinity: Optional[str], served: Optional[Tuple[int, ...]]
) -> None:
    """One that never moves has been served by one CPU since boot, whatever the effective affinity says."""
    assert served_by(hosts.interrupt(38, affinity, effective)._replace(counts=counts)) == served


class TestRemedy:
    def test_raspberry_pi_5_with_the_overlay(self) -> None:
        said = remedy(BROADCOM, PI5._replace(boot_options=(("/boot/firmware/config.txt", OVERLAY),)))
        assert "two MSI controllers" in said
        assert "`%s` in config.txt selects it; without `no-mip` the MIP serves the card" % OVERLAY in said
        assert "may give a driver that asks for several at once none at all" in said

    def test_raspberry_pi_5_by_its_device_tree(self) -> None:
        options = (("/boot/firmware/config.txt", "dtparam=pciex1_gen=3"),)
        assert "the device tree in use selects it" in remedy(BROADCOM, PI5._replace(boot_options=options))

    def test_raspberry_pi_4_has_no_choice(self) -> None:
        board = PI5._replace(compatible=("raspberrypi,4-model-b", "brcm,bcm2711"))
        assert remedy(BROADCOM, board) == "This board has no other controller for the slot."

    @pytest.mark.parametrize(
        ("controller", "words"),
        [(DESIGNWARE, "Linux 7.0"), (VMD, "Switch VMD off"), (TEGRA, "No kernel"), (None, "managed ones")],
    )
    def test_others(self, controller: Optional[str], words: str) -> None:
        assert words in remedy(controller, ARM)
        assert remedy(controller, ARM).endswith(".")


@pytest.mark.parametrize(
    ("served", "fast", "words"),
    [
        ((0,), None, "served by CPU 0. All CPUs are equally fast"),
        (None, None, "served by an unknown CPU. All CPUs are equally fast"),
        ((5,), (4, 5), "served by CPU 5, a fast one"),
        ((0,), (4, 5), "CPU 0, not of the fastest: the role governor holds the clock of that one, too"),
        ((0, 4), (4, 5), "not of the fastest"),
        (None, (4, 5), "irqaffinity=4-5"),
    ],
)
def test_what_helps(served: Optional[Sequence[int]], fast: Optional[Sequence[int]], words: str) -> None:
    assert words in what_helps(served, fast)
