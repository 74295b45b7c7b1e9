# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Four cores that are alike."""

from __future__ import annotations

from box import CARD, RELOAD, Box, Place

MSIS = 100


def test_the_interrupt_has_left_cpu0(box: Box) -> None:
    """CPU0 serves most other interrupts; among the rest the first is taken."""
    assert box.places(CARD) == {CARD: [Place("1", "1")]}
    assert box.served_by(MSIS) == {1: MSIS}


def test_it_is_back_after_a_reload(box: Box) -> None:
    """Nothing of this depends on there being a faster core."""
    box.shell(RELOAD)
    assert box.places(CARD) == {CARD: [Place("1", "1")]}
    assert box.served_by(20) == {1: 20}


def test_no_gain_is_promised(box: Box) -> None:
    """Who reads the result learns that this machine has no faster cores."""
    (placement,) = box.report()["actions"]["irq_affinity"]["placements"]
    assert "nothing is gained by tier" in placement["why"]
