# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A card in a bad way: its link comes up slow, then it dies, and a reboot brings it back."""

from __future__ import annotations

from box import CARD, COMMAND, TUNED, Box


def test_a_slow_link_is_found(box: Box) -> None:
    """The kernel says 2.5 GT/s where card and slot can do 5."""
    assert "link_degraded" not in box.findings()
    box.twin.set_link(CARD, 2.5, 1)
    assert box.shell(f"cat /sys/bus/pci/devices/{CARD}/current_link_speed").strip() == "2.5 GT/s PCIe"
    found = box.findings()["link_degraded"]
    assert found["severity"] == "warning"
    assert CARD in found["summary"]
    assert "2.5 GT/s x1" in found["summary"]


def test_the_interrupt_is_where_it_belongs_all_the_same(box: Box) -> None:
    """A slow link is no reason to leave it on a slow core."""
    assert box.state() == TUNED
    assert box.served_by(20) == {4: 20}


def test_a_dead_card_is_found(box: Box) -> None:
    """Its configuration space reads all ones, while the kernel goes on listing it under its name."""
    assert "card_dead" not in box.findings()
    box.twin.kill(CARD)
    told = box.shell(f"cd /sys/bus/pci/devices/{CARD}; od -An -tx1 -N4 config; cat vendor")
    assert told.split() == ["ff", "ff", "ff", "ff", "0x1f4b"]
    assert box.attempt(f"{COMMAND} diagnose").rc == 1
    found = box.findings()
    assert found["card_dead"]["severity"] == "critical"
    assert CARD in found["card_dead"]["summary"]
    assert "link_degraded" not in found, "nothing is known of a dead card's link"


def test_a_dead_card_upsets_nothing(box: Box) -> None:
    """Neither what looks nor what applies fails, and nothing is written."""
    assert CARD in box.shell(f"{COMMAND} status")
    assert box.changed_files(f"{COMMAND} apply") == []
    assert box.attempt("systemctl is-failed 'edgenpu-tuning*'").rc


def test_a_reboot_brings_it_back(box: Box) -> None:
    """And its interrupt to its core, its link to its speed."""
    box.twin.reboot_and_wait()
    box.hang_up()
    box.shell("systemctl is-system-running --wait")
    assert box.state() == TUNED
    assert box.served_by(20) == {4: 20}
    assert not box.findings().keys() & {"card_dead", "link_degraded"}
