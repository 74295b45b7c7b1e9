# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the last of several deaths the machine is as it was: card, driver, interrupt, and nothing left of recovery."""

from __future__ import annotations

from box import CARD, DRIVER, TUNED, Box

MODULES = ["ax_pcie_host_dev", "ax_pcie_msg", "ax_pcie_mmb", "axcl_host", "ax_pcie_p2p_rc"]


def test_card_is_bound_and_alive(box: Box) -> None:
    """By the kernel, and by the tool that came with the driver."""
    assert box.root.file(f"{DRIVER}/{CARD}").exists
    assert CARD in box.shell("/usr/bin/axcl/axcl-smi")
    assert box.shell(f"od -An -tx2 -N4 /sys/bus/pci/devices/{CARD}/config").split() == ["1f4b", "0650"]


def test_modules_are_loaded_in_the_vendors_order(box: Box) -> None:
    """The kernel tells the newest first."""
    loaded = [line.split()[0] for line in box.shell("cat /proc/modules").splitlines()]
    assert [name for name in reversed(loaded) if name in MODULES] == MODULES


def test_interrupt_is_on_the_chosen_core(box: Box) -> None:
    """It has had a new number after each reload."""
    assert box.state() == TUNED
    assert set(box.served_by(20)) == {4}


def test_nothing_is_left(box: Box) -> None:
    """No record of what was taken away, no port that is held in reset, no unit that failed for good."""
    assert not box.root.file("/run/edgenpu-tuning-recovery.json").exists
    control = box.shell("od -An -tx1 -j62 -N1 /sys/bus/pci/devices/0003:30:00.0/config").strip()
    assert not int(control, 16) & 0x40
    assert box.root.service("edgenpu-axcl-load.service").is_running
    assert box.shell("systemctl is-system-running --wait").strip() == "running"
