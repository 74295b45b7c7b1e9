# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The older driver is there, whether it came over the remains of another attempt or as a downgrade."""

from __future__ import annotations

import driven
from box import Box


def test_older_driver_works(box: Box) -> None:
    """It is the one that the card has its firmware of."""
    driven.works(box, "3.6.5")


def test_nothing_is_left_of_an_attempt_that_failed(box: Box) -> None:
    """Neither its log nor the package; DKMS has one tree only."""
    assert "axclhost-install.log.failed" not in box.shell("ls /var/log").split()
    assert box.shell("dpkg --audit") == ""
    assert len([line for line in box.shell("dkms status").splitlines() if "axcl" in line]) == 1
