# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is different here: without it this scenario would prove nothing that the default one does not."""

from __future__ import annotations

import re

from box import Box


def test_the_release_is_the_newer_one(box: Box) -> None:
    """Debian 13 with its kernel, which writes the lines of /proc/interrupts in another way."""
    assert box.shell(". /etc/os-release; echo $VERSION_ID $(uname -r)").startswith("13 6.12.")
    assert re.search(r"ITS-PCI-MSIX?-0003:31:00\.0", box.shell("cat /proc/interrupts"))


def test_irqbalance_runs_in_a_sandbox(box: Box) -> None:
    """It sees /proc/irq alone writable: whatever it is told to run has to do without writing."""
    settings = box.shell("systemctl show irqbalance.service --property=ProtectSystem,ReadOnlyPaths,ReadWritePaths")
    assert set(settings.splitlines()) == {"ProtectSystem=strict", "ReadOnlyPaths=/", "ReadWritePaths=/proc/irq"}
