# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel that comes next has its driver, and nothing is left to say."""

from __future__ import annotations

from box import Box


def test_diagnosis_has_nothing_to_say_of_kernels(box: Box) -> None:
    """DKMS has built the driver, for both."""
    assert "next_kernel_without_driver" not in box.findings()
    installed = [line for line in box.shell("dkms status").splitlines() if line.endswith("installed")]
    assert len(installed) == len(box.shell("ls /lib/modules").split()) == 2
