# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The card's driver comes and goes: each time the kernel hands out a new interrupt, allowed on all CPUs."""

from __future__ import annotations

import pytest
from box import CARD, DRIVER, RELOAD, TUNED, UNIT, Box


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(RELOAD, id="reload"),
        pytest.param(
            f"echo 1 > /sys/bus/pci/devices/{CARD}/remove; echo 1 > /sys/bus/pci/rescan", id="remove and rescan"
        ),
        pytest.param(f"echo {CARD} > {DRIVER}/unbind; echo {CARD} > {DRIVER}/bind", id="unbind and bind"),
    ],
)
def test_interrupt_is_back_on_its_core(box: Box, event: str) -> None:
    """And that core serves what comes."""
    assert box.after(event) == TUNED
    assert box.served_by(20) == {4: 20}


def test_a_bind_during_the_agents_run_is_not_lost(box: Box) -> None:
    """The agent is made so slow that the driver is reloaded while it is still busy with the reload before."""
    busy = f"systemctl show {UNIT} --property=ActiveState | grep -q activating"
    box.shell(f"systemctl set-property --runtime {UNIT} CPUQuota=50%")
    try:
        assert box.after(f"{RELOAD}\nuntil {busy}; do sleep 0.05; done\n{RELOAD}\n{busy}") == TUNED
    finally:
        box.shell(f"systemctl set-property --runtime {UNIT} CPUQuota=")
    assert box.served_by(20) == {4: 20}
