# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine boots the second kernel, which its boot loader would take, and everything is as it was."""

from __future__ import annotations

import driven
from box import Box


def test_the_second_kernel_has_driver_interrupt_and_clocks(box: Box) -> None:
    """Nobody has done anything for it but to install the kernel's packages."""
    before = box.shell("uname -r").strip()
    after = driven.boots(box)
    assert box.shell("uname -r").strip() == after != before
    driven.works(box, "3.6.5")
    driven.is_served_on_the_chosen_core(box)
    assert {finding["severity"] for finding in box.diagnosis()["findings"]} <= {"ok", "info"}
