# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine on which nothing has been installed."""

from __future__ import annotations

import driven
from box import CARD, DRIVER, Box


def test_the_machine_has_nothing(box: Box) -> None:
    """A card, and neither a driver nor what building one needs."""
    assert box.root.file(f"/sys/bus/pci/devices/{CARD}").exists
    assert not box.root.file(DRIVER).exists
    for program in ("dkms", "gcc", "make", "patch"):
        assert not box.root.exists(program)
    assert not box.attempt("ls -d /lib/modules/*/build").stdout
    box.note("as_found", driven.fingerprint(box))
