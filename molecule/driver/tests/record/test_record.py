# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine before a driver has come."""

from __future__ import annotations

import driven
from box import CARD, DRIVER, SHIPPED_GOVERNORS, Box


def test_the_machine_has_no_driver(box: Box) -> None:
    """It has a card and what building needs, and nothing of the driver or of ours."""
    found = driven.fingerprint(box)
    assert box.root.file(f"/sys/bus/pci/devices/{CARD}").exists
    assert not box.root.file(DRIVER).exists
    assert found["values"] == {"card": "", **SHIPPED_GOVERNORS}
    assert not [path for path in found["files"] if "edgenpu" in path]
    assert not [line for line in found["driver"] if line.startswith(("ax", "/usr/src/ax"))]
    box.note("as_found", found)


def test_the_machine_reaches_no_mirror(box: Box) -> None:
    """So what is installed is what it has, and what it is given."""
    assert not box.shell("ip route show default")
    assert box.attempt("apt-get update --error-on=any").rc
