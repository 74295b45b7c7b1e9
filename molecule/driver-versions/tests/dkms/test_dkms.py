# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The driver of a package that comes with DKMS's own files is there."""

from __future__ import annotations

import driven
from box import Box


def test_driver_works(box: Box) -> None:
    """Its nodes are for the group that was asked for, not for the one that the package left to be filled in."""
    driven.works(box, "3.10.2")


def test_dkms_has_the_packages_tree_and_none_of_ours(box: Box) -> None:
    """Two of them would fight for the same modules."""
    (line,) = [line for line in box.shell("dkms status").splitlines() if "axcl" in line]
    assert line.startswith("axclhost/3.10.2")
    assert not box.shell("ls /usr/src | grep edgenpu || true")
