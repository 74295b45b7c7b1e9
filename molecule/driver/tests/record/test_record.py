# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine before a driver has come."""

from __future__ import annotations

from box import CARD, DRIVER, SHIPPED_GOVERNORS, Box


def test_the_machine_has_no_driver(box: Box, found: dict[str, dict[str, str]]) -> None:
    """It has a card and what building needs, and nothing of the driver or of ours."""
    assert box.root.file(f"/sys/bus/pci/devices/{CARD}").exists
    assert not box.root.file(DRIVER).exists
    assert found["values"] == {"card": "", **SHIPPED_GOVERNORS}
    assert not [path for path in found["files"] if "edgenpu" in path]
    assert not [line for line in found["driver"] if line.startswith(("ax", "/usr/src/ax"))]
    box.note("as_found", found)
