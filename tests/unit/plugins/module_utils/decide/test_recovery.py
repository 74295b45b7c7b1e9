# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is decided of a dead card from its signs alone; whole recoveries are in act/test_recovery.py."""

from __future__ import annotations

from typing import Any, List, Optional

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.driver import card_proof
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.recovery import (
    LADDER,
    CardSigns,
    RecoveryWishes,
    Situation,
    User,
    indexes,
    judge,
    kernel_lines,
    next_step,
    place,
    reboot_reason,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import parse_kernel_log, parse_table, problem
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.hosts import BDF
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import captured
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.patients import HEAD, PROCESSES, ROW

PORT = "0003:30:00.0"
GOOD = HEAD + ROW % (0, BDF) + PROCESSES
UP = "axcl wait dev 31 handshake...\nbase_addr: 0x1, size: 0x2\n"


def signs(life: str = "dead", **more: Any) -> CardSigns:
    return CardSigns(BDF, True, True, life, "why", PORT)._replace(**more)


def situation(*cards: CardSigns, **more: Any) -> Situation:
    return Situation(cards or (signs(),), (), False, True, True)._replace(**more)


@pytest.mark.parametrize(
    ("more", "said", "log", "life", "why"),
    [
        ({}, GOOD, UP, "alive", "it is bound"),
        ({}, GOOD, "", "alive", "it is bound"),  # the log may have forgotten the handshake
        ({"alive": False}, GOOD, UP, "dead", "all ones"),
        ({"alive": False, "bars_lost": True}, GOOD, UP, "dead", "lost its memory addresses"),
        ({"driver": None}, GOOD, UP, "dead", "bound to no driver"),
        ({"driver": "vfio-pci"}, GOOD, UP, "dead", "bound to vfio-pci"),
        ({}, GOOD, UP + "device 31: dead!\n", "alive", "it is bound"),  # it has answered since
        ({}, HEAD + PROCESSES, UP + "device 31: dead!\n", "dead", "heartbeat was lost"),
        ({}, GOOD, UP + "device 11: dead!\n", "alive", "it is bound"),
        ({}, HEAD + PROCESSES, UP, "dead", "no row"),
        ({}, "request ports from device 49 fail, errno: 1\n" + HEAD + PROCESSES, UP, "dead", "does not answer"),
        ({}, "axcl-smi is already running, please try later.\n", UP, "unknown", "another axcl-smi is running"),
        ({}, "open /dev/axcl_host fail, errno: 13 Permission denied\n", UP, "unknown", "may not open"),
        ({}, "axcl-smi is already running, please try later.\n", "device 31: dead!", "dead", "heartbeat was lost"),
    ],
)
def test_signs_of_life(more: Any, said: str, log: str, life: str, why: str) -> None:
    device, table = hosts.card(**more), parse_table(said)
    found = judge(device, card_proof(BDF, device.driver, table, parse_kernel_log(log)), table, None)
    assert found[0] == life
    assert not found[1].startswith(BDF + ": ")
    assert why in found[1]


def test_signs_without_a_table() -> None:
    proof = card_proof(BDF, "ax_pcie_dev_host", None, ())
    assert judge(None, proof, None, None) == ("dead", "it is not on the PCI bus")
    assert judge(hosts.card(), proof, None, problem("no_driver"))[0] == "dead"
    assert judge(hosts.card(), proof, None, None) == ("unknown", "axcl-smi is not there to be asked")


def test_captured_dead_card_is_dead() -> None:
    table = parse_table(captured("axcl/smi-error-dead-card-table.txt"))
    assert judge(hosts.card(), card_proof(BDF, "ax_pcie_dev_host", table, ()), table, None)[0] == "dead"


def test_port_and_what_is_below_it() -> None:
    """A switch: only the port right above the card counts, with everything that is behind it."""
    card = hosts.card("0003:33:00.0", parent="0003:32:00.0")
    above = hosts.port()._replace(bdf="0003:32:00.0", port_type="downstream port", parent="0003:31:00.0")
    beside = hosts.card("0003:34:00.0", driver="r8169", parent="0003:32:01.0", vendor=0x10EC)
    below = hosts.card("0003:33:00.1", driver=None, parent="0003:32:00.0", vendor=0x10EC)
    found = {one.bdf: one for one in (hosts.port(), above, beside, card)}
    assert place(found, card.bdf, None, [card.bdf]) == (above.bdf, ())
    found[below.bdf] = below
    assert place(found, card.bdf, None, [card.bdf]) == (above.bdf, ("0003:33:00.1 (no driver)",))
    assert place(found, card.bdf, None, [card.bdf, below.bdf]) == (above.bdf, ())


def test_port_of_a_card_that_is_gone() -> None:
    ports = {PORT: hosts.port(secondary_bus=0x31), "0001:30:00.0": hosts.port(secondary_bus=0x31)}
    ports["0001:30:00.0"] = ports["0001:30:00.0"]._replace(bdf="0001:30:00.0")
    assert place(ports, BDF, None, [BDF])[0] == PORT
    assert place(ports, BDF, "0001:30:00.0", [BDF])[0] == "0001:30:00.0", "where it was when it was removed"
    assert place(ports, "0003:51:00.0", None, [])[0] is None
    root = {BDF: hosts.card(parent=None)}
    assert place(root, BDF, None, [BDF]) == (None, ())


def test_ladder_from_weak_to_strong() -> None:
    tried: List[str] = []
    for step in LADDER:
        decision = next_step(situation(), RecoveryWishes(), tried)
        assert (decision.outcome, decision.step, decision.cards) == ("go", step, (BDF,))
        tried.append(step)
    decision = next_step(situation(), RecoveryWishes(), tried)
    assert (decision.outcome, decision.step) == ("exhausted", None)
    assert reboot_reason(decision) == decision.why


@pytest.mark.parametrize(
    ("now", "first", "why"),
    [
        (situation(ready=False), "reload", "the driver is not loaded"),
        (situation(signs(responds=False)), "rescan", "nothing reaches 0003:31:00.0"),
        (situation(signs(on_bus=False, responds=False)), "rescan", "is not on the PCI bus"),
        (situation(signs(), signs("alive", bdf="0001:11:00.0")), "card_reboot", None),
        (situation(signs(), unfinished=("the driver",)), "finish", None),
        (situation(signs("alive"), unfinished=("the driver",)), "finish", None),
        (situation(users=(User(1, "x", "/dev/p2p", None),)), "stop_users", None),
    ],
)
def test_first_step(now: Situation, first: str, why: Optional[str]) -> None:
    decision = next_step(now, RecoveryWishes(stop_users=True))
    assert (decision.outcome, decision.step) == ("go", first)
    assert why is None or why in decision.passed_over[0][1]


def test_driver_is_not_loaded_over_a_card_without_a_link() -> None:
    """Another dead card might be helped by that, but loading reads them all."""
    now = situation(signs(), signs(bdf="0001:11:00.0", responds=False))
    decision = next_step(now, RecoveryWishes(), ["card_reboot"])
    assert (decision.step, decision.cards) == ("rescan", (BDF, "0001:11:00.0"))
    assert decision.passed_over == (("reload", "nothing reaches 0001:11:00.0, since why"),)


def test_port_that_is_not_known_is_not_reset() -> None:
    decision = next_step(situation(signs(port=None)), RecoveryWishes(), LADDER[:3])
    assert decision.outcome == "exhausted"
    assert decision.passed_over == (("bus_reset", "no port is known above 0003:31:00.0"),)


def test_number_of_a_card_without_a_row() -> None:
    table = parse_table(HEAD + ROW % (1, "0003:31:00.0") + PROCESSES)
    cards = ("0001:11:00.0", "0003:31:00.0", "0004:41:00.0")
    assert indexes("0001:11:00.0", table, cards) == (0, 2)
    assert indexes("0003:31:00.0", table, cards) == (1,)
    old = parse_table(captured("axcl/smi-table-v2.18.0-one-process.txt"))
    assert indexes("0003:31:00.0", old, cards) == (0x31,), "up to V2.25 the number was that of the bus"
    assert indexes(BDF, parse_table(HEAD.replace("V3.6.4", "") + PROCESSES), (BDF,)) == (0,)


def test_lines_of_the_kernel() -> None:
    before = "[ 1.0] pci 0003:31:00.0: old\n[ 2.0] device 31: dead!\n"
    after = (
        before
        + "[ 3.0] device 31: dead!\n[ 4.0] usb 1-1: x\n<6>[ 5.0] pci 0003:31:00.0: new\n[ 8.0] device 31: dead!\n"
    )
    found = kernel_lines(before, after, ["0003:31:00.0"], ["device 31: dead!"])
    assert found == ("[ 3.0] device 31: dead!", "<6>[ 5.0] pci 0003:31:00.0: new")
    many = "".join("[ %d.0] pci 0003:31:00.0: %d\n" % (number, number) for number in range(99))
    assert len(kernel_lines("", many, ["0003:31:00.0"], [])) == 40
