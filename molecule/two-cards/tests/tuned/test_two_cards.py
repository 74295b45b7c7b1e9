# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two cards behind two controllers: each has a fast core of its own."""

from __future__ import annotations

from box import RELOAD, Box, Place

FIRST, SECOND = "0002:21:00.0", "0003:31:00.0"
SPREAD = {FIRST: [Place("4", "4")], SECOND: [Place("5", "5")]}
MSIS = 100


def test_each_card_has_a_core_of_its_own(box: Box) -> None:
    """In the order of their addresses, so that it is the same on every boot."""
    assert box.places(FIRST, SECOND) == SPREAD


def test_each_core_serves_its_card(box: Box) -> None:
    """Counted by the kernel: the second card's interrupts come from outside, the first's from its driver."""
    for card, cpu in ((FIRST, 4), (SECOND, 5)):
        served = box.fire(MSIS, card)
        assert sum(served.values()) >= 0.99 * MSIS
        assert served[cpu] >= 0.99 * sum(served.values())
    assert box.served_by(MSIS) == {5: MSIS}


def test_both_are_back_after_a_reload(box: Box) -> None:
    """One event for each card, shortly one after the other."""
    box.shell(RELOAD)
    assert box.places(FIRST, SECOND) == SPREAD
    assert box.fire(20, FIRST) == {4: 20}
    assert box.served_by(20) == {5: 20}


def test_one_card_that_goes_does_not_move_the_other(box: Box) -> None:
    """It keeps its turn, though the second card is now the first by address; and its place when it returns."""
    box.shell(f"echo 1 > /sys/bus/pci/devices/{FIRST}/remove")
    box.shell("edgenpu-tuning apply")
    assert box.places(SECOND)[SECOND] == SPREAD[SECOND]
    box.shell("echo 1 > /sys/bus/pci/rescan")
    assert box.places(FIRST, SECOND) == SPREAD


def test_the_diagnosis_knows_both(box: Box) -> None:
    """By their addresses, with nothing to complain of."""
    report = box.diagnosis()
    assert [card["bdf"] for card in report["cards"]] == [FIRST, SECOND]
    assert {finding["severity"] for finding in report["findings"]} <= {"ok", "info"}
