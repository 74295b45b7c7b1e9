# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine boots, with everything in the kernel as by default."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from box import TUNED, UNIT, Box

FIRMWARE_S = 8
OPTIONS = "/etc/modprobe.d/slow-firmware.conf"
EARLY = "/etc/systemd/system/early-driver.service"
WANTED = "/etc/systemd/system/sysinit.target.wants/early-driver.service"


@pytest.fixture
def early_driver_with_slow_firmware(box: Box) -> Iterator[None]:
    """Bind the card before anybody listens to the kernel's events, as an initramfs does, and let the load take long.

    All that loads the driver again waits for the first load, and sysinit.target for that.
    """
    # The load sleeps when the card is bound and the kernel's events are sent. A dollar sign is doubled for systemd.
    asleep = "grep -q msleep /proc/$$!/wchan"
    load = f"modprobe ax_pcie_host_dev & for try in $$(seq 100); do {asleep} && exit; sleep 0.1; done; exit 1"
    unit = (
        "[Unit]", "DefaultDependencies=no", "Before=systemd-udevd-kernel.socket",
        "[Service]", "Type=oneshot", "RemainAfterExit=yes", f"ExecStart=/bin/sh -c '{load}'",
    )  # fmt: skip
    box.shell(
        f"echo 'options ax_pcie_host_dev load_delay_ms={FIRMWARE_S * 1000}' > {OPTIONS}\n"
        f"cat > {EARLY} <<'END'\n{chr(10).join(unit)}\nEND\n"
        f"ln -s {EARLY} {WANTED}"
    )
    yield
    box.shell(f"rm {WANTED} {EARLY} {OPTIONS}")


@pytest.mark.usefixtures("early_driver_with_slow_firmware")
def test_interrupt_is_placed_before_anything_uses_the_card(box: Box) -> None:
    """Nobody has heard of the card's driver, and sysinit.target is far off when the agent looks by itself."""
    box.twin.reboot_and_wait()
    box.hang_up()
    box.shell("systemctl is-system-running --wait")
    assert box.state() == TUNED
    assert box.served_by(20) == {4: 20}

    units = (EARLY.rpartition("/")[2], "systemd-udevd-kernel.socket", "sysinit.target")
    times = box.shell(f"systemctl show {' '.join(units)} --property=ActiveEnterTimestampMonotonic --value")
    bound_us, udev_listens_us, sysinit_reached_us = (int(time) for time in times.split())
    assert 0 < bound_us < udev_listens_us, "somebody may have heard of the driver"
    assert sysinit_reached_us - bound_us > FIRMWARE_S * 0.9e6, "the driver's load has not held up the boot"

    path = f"/proc/irq/{box.irq()}/smp_affinity_list"
    told = map(json.loads, box.shell(f"journalctl --boot --output=json _SYSTEMD_UNIT={UNIT}").splitlines())
    placed_us = [int(line["__MONOTONIC_TIMESTAMP"]) for line in told if path in line["MESSAGE"]]
    assert len(placed_us) == 1
    assert placed_us[0] < sysinit_reached_us
