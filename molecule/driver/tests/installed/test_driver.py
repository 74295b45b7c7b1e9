# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The driver is there, works, has nothing of what its package spoils, and its interrupt is where it should be."""

from __future__ import annotations

import driven
from box import Box

SDK = "3.6.5"


def test_driver_works(box: Box) -> None:
    """It is loaded, built by DKMS, alive, for one group only, held; apt has its sandbox."""
    driven.works(box, SDK)


def test_driver_is_loaded_by_a_unit_of_its_own(box: Box) -> None:
    """Not by systemd-modules-load, whose time limit is shorter than a card's start; and no boot waits for it."""
    assert box.root.service(driven.LOADER).is_enabled
    places = "/etc/modules-load.d /usr/lib/modules-load.d /run/modules-load.d"
    assert not box.shell(f"grep -rhE '^ *ax' {places} 2>/dev/null || true")
    waited_for = box.shell("systemctl show multi-user.target --property=After --value").split()
    assert "ssh.service" in waited_for
    assert driven.LOADER not in waited_for


def test_interrupt_is_on_the_chosen_core(box: Box) -> None:
    """The roles that come after the driver have found its interrupt."""
    driven.is_served_on_the_chosen_core(box)


def test_driver_comes_back_with_a_boot(box: Box) -> None:
    """By that unit; the nodes get their group, and the interrupt its core."""
    driven.boots(box)
    driven.works(box, SDK)
    driven.is_served_on_the_chosen_core(box)
