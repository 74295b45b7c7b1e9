# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A kernel is there that would boot without the driver: the machine says so before it does."""

from __future__ import annotations

import driven
from box import Box


def test_diagnosis_names_the_kernel(box: Box) -> None:
    """By its release, with what is to be done before a reboot."""
    (release,) = set(box.shell("ls /lib/modules").split()) - {box.shell("uname -r").strip()}
    finding = box.findings()["next_kernel_without_driver"]
    assert finding["severity"] == "warning"
    assert release in finding["summary"]
    assert "before a reboot" in finding["remedy"]


def test_driver_of_the_running_kernel_works(box: Box) -> None:
    """A build that fails for another kernel takes nothing away from this one."""
    driven.works(box, "3.6.5")
    driven.is_served_on_the_chosen_core(box)
