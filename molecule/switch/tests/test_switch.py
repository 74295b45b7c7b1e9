# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Three cards behind a switch with an empty fourth slot, all behind one lane."""

from __future__ import annotations

import pytest
from box import RELOAD, Box, Place

CARDS = ("0003:33:00.0", "0003:35:00.0", "0003:36:00.0")
#: CPU7, the last of the fast ones, is left to the application.
CPUS = (4, 5, 6)
SPREAD = {card: [Place(str(cpu), str(cpu))] for card, cpu in zip(CARDS, CPUS, strict=True)}
MSIS = 100


def test_the_kernel_sees_the_switch(box: Box) -> None:
    """Root port, upstream port, downstream ports and what is behind them; a link each, the first the narrowest."""
    script = """
    cd /sys/bus/pci/devices
    for bdf in 0003:*; do
        echo "$bdf $(cat $bdf/current_link_speed) x$(cat $bdf/current_link_width) $(basename $(readlink -f $bdf/..))"
    done
    """
    assert box.shell(script).splitlines() == [
        "0003:30:00.0 8.0 GT/s PCIe x1 pci0003:30",
        "0003:31:00.0 8.0 GT/s PCIe x1 0003:30:00.0",
        "0003:32:00.0 5.0 GT/s PCIe x2 0003:31:00.0",
        "0003:32:01.0 2.5 GT/s PCIe x0 0003:31:00.0",
        "0003:32:02.0 5.0 GT/s PCIe x2 0003:31:00.0",
        "0003:32:03.0 5.0 GT/s PCIe x2 0003:31:00.0",
        "0003:33:00.0 5.0 GT/s PCIe x2 0003:32:00.0",
        "0003:35:00.0 5.0 GT/s PCIe x2 0003:32:02.0",
        "0003:36:00.0 5.0 GT/s PCIe x2 0003:32:03.0",
    ]


def test_each_card_has_a_core_of_its_own(box: Box) -> None:
    """And the application has one."""
    assert box.places(*CARDS) == SPREAD


@pytest.mark.parametrize("card, cpu", list(zip(CARDS, CPUS, strict=True)))
def test_its_core_serves_the_card(box: Box, card: str, cpu: int) -> None:
    """Counted by the kernel."""
    served = box.fire(MSIS, card)
    assert sum(served.values()) >= 0.99 * MSIS
    assert served[cpu] >= 0.99 * sum(served.values())


def test_interrupts_from_outside_come_through_the_switch(box: Box) -> None:
    """The first card's requester id is mapped, though its bus is two below the root port's."""
    assert box.served_by(MSIS, card=CARDS[0]) == {4: MSIS}


def test_all_are_back_after_a_reload(box: Box) -> None:
    """Three events in a row."""
    box.shell(RELOAD)
    assert box.places(*CARDS) == SPREAD


def test_the_diagnosis_takes_no_bridge_for_a_card(box: Box) -> None:
    """Three cards, none of them dead, without driver or on a link that is worse than what both its ends can do."""
    report = box.diagnosis()
    assert [card["bdf"] for card in report["cards"]] == list(CARDS)
    assert not {finding["id"] for finding in report["findings"]} & {"card_dead", "card_unbound", "link_degraded"}
