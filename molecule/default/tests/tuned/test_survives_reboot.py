# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine boots, with everything in the kernel as by default."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from box import CARD, DRIVER, TUNED, UNIT, Box

FIRMWARE_S = 8
OPTIONS = "/etc/modprobe.d/slow-firmware.conf"
EARLY = "/etc/systemd/system/early-driver.service"


@pytest.fixture
def early_driver_with_slow_firmware(box: Box) -> Iterator[None]:
    """Bind the card before anybody listens to the kernel's events, as an initramfs does, and let the load take long.

    All that loads the driver again waits for the first load, and sysinit.target for that.
    """
    load = f"modprobe ax_pcie_host_dev & until test -e {DRIVER}/{CARD}; do sleep 0.1; done"
    unit = (
        "[Unit]", "DefaultDependencies=no", "Before=systemd-udevd-kernel.socket",
        "[Service]", "Type=oneshot", "RemainAfterExit=yes", f"ExecStart=/bin/sh -c \"{load}\"",
        "[Install]", "WantedBy=sysinit.target",
    )  # fmt: skip
    box.shell(
        f"echo 'options ax_pcie_host_dev load_delay_ms={FIRMWARE_S * 1000}' > {OPTIONS}\n"
        f"cat > {EARLY} <<'END'\n{chr(10).join(unit)}\nEND\n"
        f"systemctl enable {EARLY}"
    )
    yield
    box.shell(f"systemctl disable $(basename {EARLY}); rm {EARLY} {OPTIONS}; systemctl daemon-reload")


def _journal(box: Box, match: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in box.shell(f"journalctl --boot --output=json {match}").splitlines()]


@pytest.mark.usefixtures("early_driver_with_slow_firmware")
def test_interrupt_is_placed_before_anything_uses_the_card(box: Box) -> None:
    """Nobody has heard of the card's driver, and sysinit.target is far off when the agent looks by itself."""
    box.twin.reboot_and_wait()
    box.hang_up()
    box.shell("systemctl is-system-running --wait")
    assert box.state() == TUNED
    assert box.served_by(20) == {4: 20}

    units = ("systemd-udevd-kernel.socket", "sysinit.target")
    times = box.shell(f"systemctl show {' '.join(units)} --property=ActiveEnterTimestampMonotonic --value")
    udev_listens, sysinit_reached = (int(time) for time in times.split())
    bound = next(
        int(entry["_SOURCE_MONOTONIC_TIMESTAMP"])
        for entry in _journal(box, "_TRANSPORT=kernel")
        if entry["MESSAGE"].startswith(f"ax_pcie_dev_host {CARD}")
    )
    assert bound < udev_listens, "somebody may have heard of the driver"
    assert sysinit_reached - bound > FIRMWARE_S * 0.9e6, "the driver's load has not held up the boot"

    told = [(entry, json.loads(entry["MESSAGE"])) for entry in _journal(box, f"_SYSTEMD_UNIT={UNIT}")]
    placed = [
        int(entry["__MONOTONIC_TIMESTAMP"])
        for entry, change in told
        if change["event"] == "changed" and change["path"] == f"/proc/irq/{box.irq()}/smp_affinity_list"
    ]
    assert len(placed) == 1
    assert placed[0] < sysinit_reached
