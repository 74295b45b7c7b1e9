# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The newer driver is there."""

from __future__ import annotations

import driven
from box import Box


def test_newer_driver_works(box: Box) -> None:
    """It was loaded at once: the card has its firmware."""
    driven.works(box, "3.10.2")
    box.note("upgraded", driven.fingerprint(box))
