# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Dict

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.look import look
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.findings import findings
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Finding
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import pis
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree


@pytest.fixture
def pi(tmp_path_factory: pytest.TempPathFactory) -> pis.Pi:
    """A Raspberry Pi 5 that works: slot on, card bound, firmware of today."""
    pi = pis.Pi(Tree(tmp_path_factory.mktemp("pi")))
    pi.write(pis.RASPBERRY_PI_OS + b"dtparam=pciex1\n")
    pi.boots(pcie=True)
    pi.card()
    return pi


def found(pi: pis.Pi) -> Dict[str, Finding]:
    """Return the findings on the boot configuration, as a diagnosis has them."""
    return {one.id: one for one in findings(look(pi.root, BUILT_IN)) if one.id.startswith("boot_")}


def take_card(pi: pis.Pi) -> None:
    (pi.tree.path / "sys/bus/pci/devices/0001:01:00.0").unlink()


def test_nothing_on_a_healthy_one(pi: pis.Pi) -> None:
    assert found(pi) == {}
    take_card(pi)
    assert found(pi) == {}


def test_slot_is_off_and_no_card_is_seen(pi: pis.Pi) -> None:
    pi.write(pis.RASPBERRY_PI_OS)
    pi.boots(pcie=False)
    assert found(pi) == {}, "a card is there, so it is not in that slot"
    take_card(pi)
    finding = found(pi)["boot_port_off"]
    assert (finding.severity, finding.role) == ("warning", "axcl_driver")
    assert finding.summary == (
        "the PCIe slot of Raspberry Pi 5 Model B Rev 1.0 is switched off, so no card can be seen in it"
    )
    assert finding.evidence == {"device tree, pciex1/status": "disabled", pis.CONFIG: None}
    assert "axcl_driver_raspberry_pi: true" in finding.remedy
    pi.write(b"dtparam=nvme=off\n")
    assert found(pi)["boot_port_off"].evidence[pis.CONFIG] == "dtparam=nvme=off"


def test_slot_that_only_waits_for_a_reboot_is_not_called_off(pi: pis.Pi) -> None:
    take_card(pi)
    pi.boots(pcie=False)
    assert list(found(pi)) == ["boot_reboot_pending"]


def test_reboot_pending(pi: pis.Pi) -> None:
    pi.write(b"dtparam=pciex1,pciex1_gen=3\nkernel=kernel8.img\ndtoverlay=pcie-32bit-dma\n")
    finding = found(pi)["boot_reboot_pending"]
    assert finding.severity == "warning"
    assert finding.summary == (
        "the boot configuration was changed since this boot: dtparam=pciex1,pciex1_gen=3 (%(file)s), but until a "
        "reboot the slot runs at generation 2 at most; dtoverlay=pcie-32bit-dma (%(file)s), but until a reboot "
        "the card sees memory below 4 GiB: no; kernel=kernel8.img (%(file)s), but until a reboot pages have 16 KiB"
        % {"file": pis.CONFIG}
    )
    assert finding.evidence == {pis.CONFIG: "dtoverlay=pcie-32bit-dma; dtparam=pciex1,pciex1_gen=3; kernel=kernel8.img"}


def test_a_doubtful_line_waits_for_nothing(pi: pis.Pi) -> None:
    pi.write(b"dtparam=pciex1\n[gpio4=1]\ndtparam=pciex1_gen=3\n[pi4]\nkernel=kernel8.img\n")
    assert found(pi) == {}


def test_what_a_hat_switches_on_waits_for_nothing(pi: pis.Pi) -> None:
    """It is on without a line for it."""
    pi.write(pis.RASPBERRY_PI_OS)
    assert found(pi) == {}


@pytest.mark.parametrize(("built", "old"), [(pis.OLD, True), (1701820799, True), (1701820800, False)])
def test_old_boot_loader(pi: pis.Pi, built: int, old: bool) -> None:
    pi.tree.file("/proc/device-tree/chosen/bootloader/build-timestamp", pis.cell(built))
    assert list(found(pi)) == (["boot_eeprom_old"] if old else [])
    if built == pis.OLD:
        finding = found(pi)["boot_eeprom_old"]
        assert finding.summary == (
            "the boot loader in the EEPROM is of 2023-09-28, and cards need one of 2023-12-06 or later"
        )
        assert finding.remedy == "Run `rpi-eeprom-update -a` and reboot."


def test_large_pages_matter_to_coral_only(pi: pis.Pi) -> None:
    take_card(pi)
    (pi.tree.path / "sys/devices/platform/axi").rename(pi.tree.path / "sys/devices/old")
    pi.card(driver="apex", device="1ac1:089a")
    finding = found(pi)["boot_pages_large"]
    assert finding.summary == (
        "the kernel's pages have 16 KiB, and what uses the driver apex of 0001:01:00.0 needs 4 KiB"
    )
    pi.pages(4096)
    assert found(pi) == {}


def test_boards_without_the_slot(tree: Tree) -> None:
    for compatible in (pis.PI4, b"friendlyelec,cm3588-nas\0rockchip,rk3588\0"):
        pi = pis.Pi(tree, compatible)
        pi.write(b"dtparam=pciex1\n")
        assert found(pi) == {}
