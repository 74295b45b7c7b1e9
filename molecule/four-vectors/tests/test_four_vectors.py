# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A card with four interrupts whose names say nothing of its address."""

from __future__ import annotations

import pytest
from box import CARD, RELOAD, Box, Place

NAMES = ["axcl-msi0", "axcl-msi1", "axcl-msi2", "axcl-msi3"]
TOGETHER = {CARD: [Place("4", "4")] * 4}
MSIS = 100


def test_the_driver_has_four_with_names_of_its_own(box: Box) -> None:
    """Without this the rest would prove nothing."""
    lines = [box.shell(f"grep '^ *{irq}:' /proc/interrupts").split() for irq in box.irqs()]
    assert [line[-1] for line in lines] == NAMES


def test_all_four_are_on_the_cards_core(box: Box) -> None:
    """Vectors of one card belong together."""
    assert box.places(CARD) == TOGETHER


@pytest.mark.parametrize("vector", range(4))
def test_the_core_serves_each(box: Box, vector: int) -> None:
    """Counted by the kernel."""
    served = box.fire(MSIS, CARD, vector)
    assert sum(served.values()) >= 0.99 * MSIS
    assert served[4] >= 0.99 * sum(served.values())


def test_all_four_are_back_after_a_reload(box: Box) -> None:
    """And each of them serves."""
    box.shell(RELOAD)
    assert box.places(CARD) == TOGETHER
    assert [box.fire(20, CARD, vector) for vector in range(4)] == [{4: 20}] * 4
