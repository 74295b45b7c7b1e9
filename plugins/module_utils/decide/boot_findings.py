# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a Raspberry Pi's boot configuration means for its cards. Pure: values in, findings out."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import CardKind, cards, kind_of
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.raspberry_pi import (
    PAGES_4K,
    old_bootloader,
    pending,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WARNING, Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import PciDevice
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.raspberry_pi import RaspberryPi

ROLE = "axcl_driver"
# Drivers whose user-space library maps memory in pages of 4 KiB and fails with larger ones (gasket's libedgetpu).
# Axera's and Hailo's work with 16 KiB.
NEED_4K = ("apex",)


def _port_off(pi: RaspberryPi) -> Optional[Finding]:
    """The slot is off, now and at the next boot. Only worth a word where no card was found: that is why."""
    setting = pi.settings.get("pcie")
    if pi.running.pcie is not False or (setting is not None and setting.value is True):
        return None
    evidence: Dict[str, Any] = {"device tree, pciex1/status": "disabled", str(pi.config): setting and setting.line}
    return Finding(
        "boot_port_off",
        WARNING,
        "the PCIe slot of %s is switched off, so no card can be seen in it" % pi.model,
        evidence,
        "Set axcl_driver_raspberry_pi: true and run the role axcl_driver: it adds dtparam=pciex1; then reboot.",
        ROLE,
    )


def _reboot_pending(pi: RaspberryPi) -> Optional[Finding]:
    waiting = pending(pi, pi.settings)
    if not waiting:
        return None
    said = [one for one in pi.settings.values() if any(sentence.startswith(one.line) for sentence in waiting)]
    evidence = {
        name: "; ".join(sorted({one.line for one in said if one.file == name})) for name in {one.file for one in said}
    }
    return Finding(
        "boot_reboot_pending",
        WARNING,
        "the boot configuration was changed since this boot: " + "; ".join(waiting),
        evidence,
        "Reboot. If that changes nothing, this file is not the one that the board boots from.",
        ROLE,
    )


def _bootloader_old(pi: RaspberryPi) -> Optional[Finding]:
    sentence = old_bootloader(pi)
    if sentence is None:
        return None
    return Finding(
        "boot_eeprom_old",
        WARNING,
        sentence,
        {"device tree, chosen/bootloader/build-timestamp": pi.bootloader_date},
        "Run `rpi-eeprom-update -a` and reboot.",
        None,
    )


def _pages(pi: RaspberryPi, card: PciDevice, kind: Optional[CardKind]) -> Optional[Finding]:
    drivers = () if kind is None else kind.drivers
    if pi.page_size is None or pi.page_size <= PAGES_4K or not set(drivers) & set(NEED_4K):
        return None
    return Finding(
        "boot_pages_large",
        WARNING,
        "the kernel's pages have %d KiB, and what uses the driver %s of %s needs 4 KiB"
        % (pi.page_size >> 10, drivers[0], card.bdf),
        {"page size": pi.page_size},
        "Boot the kernel with 4 KiB pages: kernel=kernel8.img in config.txt (axcl_driver_raspberry_pi_4k_pages), with "
        "the card's driver built for it.",
        None,
    )


def boot_findings(
    pi: Optional[RaspberryPi], devices: Sequence[PciDevice], catalogue: Sequence[CardKind]
) -> List[Finding]:
    """Return the findings on the boot configuration; none for boards without the slot."""
    if pi is None or not pi.has_port:
        return []
    found = cards(devices, catalogue)
    findings = [_reboot_pending(pi), *(_pages(pi, card, kind_of(card, catalogue)) for card in found)]
    if not found:
        findings += [_port_off(pi)]
    if pi.running.pcie or found:
        findings += [_bootloader_old(pi)]
    return [finding for finding in findings if finding is not None]
