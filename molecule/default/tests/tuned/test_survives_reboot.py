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
UNITS = "/etc/systemd/system"
# The driver's load sleeps when the card is bound and the kernel's events are sent. systemd wants dollar signs doubled.
EARLY_DRIVER = """\
[Unit]
DefaultDependencies=no
Before=systemd-udevd-kernel.socket
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'modprobe ax_pcie_host_dev & \
    for try in $$(seq 100); do grep -q msleep /proc/$$!/wchan && exit; sleep 0.1; done; exit 1'
"""
OTHER_CLOCKS = """\
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for policy in 4 6; do \
    echo schedutil > /sys/devices/system/cpu/cpufreq/policy$$policy/scaling_governor; done'
"""


@pytest.fixture
def adverse_boot(box: Box) -> Iterator[None]:
    """Make the next boot a hard one.

    The card is bound before anybody listens to the kernel's events, as by an initramfs, and the driver's load takes
    long: all that loads the driver again waits for it, and sysinit.target for that. Late in the boot a service sets
    the clocks to its own liking.
    """
    units = {"early-driver": (EARLY_DRIVER, "sysinit.target"), "other-clocks": (OTHER_CLOCKS, "multi-user.target")}
    script = [f"echo 'options ax_pcie_host_dev load_delay_ms={FIRMWARE_S * 1000}' > {OPTIONS}"]
    for name, (text, target) in units.items():
        script.append(f"cat > {UNITS}/{name}.service <<'END'\n{text}END")
        script.append(f"ln -s ../{name}.service {UNITS}/{target}.wants/")
    box.shell("\n".join(script))
    yield
    box.shell(f"rm {OPTIONS} {' '.join(f'{UNITS}/{name}.service {UNITS}/*.wants/{name}.service' for name in units)}")


@pytest.mark.usefixtures("adverse_boot")
def test_all_is_in_force_after_a_boot_and_the_interrupt_long_before(box: Box) -> None:
    """Nobody has heard of the card's driver, and sysinit.target is far off when the agent looks by itself."""
    box.twin.reboot_and_wait()
    box.hang_up()
    box.shell("systemctl is-system-running --wait; systemctl is-active early-driver.service other-clocks.service")
    assert box.state() == TUNED
    assert box.served_by(20) == {4: 20}

    milestones = "early-driver.service systemd-udevd-kernel.socket sysinit.target"
    times = box.shell(f"systemctl show {milestones} --property=ActiveEnterTimestampMonotonic --value")
    bound_us, udev_listens_us, sysinit_reached_us = (int(time) for time in times.split())
    assert bound_us < udev_listens_us, "somebody may have heard of the driver"
    assert sysinit_reached_us - bound_us > FIRMWARE_S * 0.9e6, "the driver's load has not held up the boot"

    path = f"/proc/irq/{box.irq()}/smp_affinity_list"
    told = map(json.loads, box.shell(f"journalctl --boot --output=json _SYSTEMD_UNIT={UNIT}").splitlines())
    placed_us = [int(line["__MONOTONIC_TIMESTAMP"]) for line in told if path in line["MESSAGE"]]
    assert len(placed_us) == 1
    assert placed_us[0] < sysinit_reached_us
