# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any, List, Optional, Tuple

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import ledger as ledger_module
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.tune import (
    CLOCKS,
    INTERRUPTS,
    Clocked,
    Outcome,
    Served,
    npu_cards,
    tune_clocks,
    tune_interrupts,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN, CardKind
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import ClockWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpufreq import read_policies
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

IRQ = "/proc/irq/38/smp_affinity_list"
WISHES = AffinityWishes(BUILT_IN)


@pytest.fixture(name="board")
def fixture_board(tree: Tree) -> hosts.Board:
    return hosts.Board(tree)


def governor(first: int) -> str:
    return "/sys/devices/system/cpu/cpufreq/policy%d/scaling_governor" % first


def interrupts(board: hosts.Board, check: bool = False, **wishes: Any) -> Tuple[Outcome, List[Served]]:
    cards = npu_cards(board.root, BUILT_IN)
    return tune_interrupts(board.kernel, Ledger(board.kernel), WISHES._replace(**wishes), cards, check)


def clocks(
    board: hosts.Board, check: bool = False, wishes: Optional[ClockWishes] = None
) -> Tuple[Outcome, List[Clocked]]:
    policies = read_policies(board.root)
    return tune_clocks(board.kernel, Ledger(board.kernel), wishes or ClockWishes(), policies, check)


class TestInterrupts:
    def test_put_in_place(self, board: hosts.Board) -> None:
        outcome, [served] = interrupts(board)
        assert [(change.path, change.before, change.after) for change in outcome.changes] == [(IRQ, "0-7", "4")]
        assert (outcome.refused, outcome.unknown) == ([], [])
        assert (served.placement.before, served.original, served.after, served.effective_after) == (
            "0-7",
            "0-7",
            "4",
            "4",
        )
        assert board.affinity() == "4"

    def test_second_run_changes_nothing(self, board: hosts.Board) -> None:
        interrupts(board)
        del board.kernel.events[:]
        outcome, [served] = interrupts(board)
        assert outcome == Outcome([], [], [])
        assert (served.original, served.after, served.effective_after) == ("0-7", "4", "4")
        assert board.kernel.events == []

    def test_original_is_on_disk_before_the_first_write(self, board: hosts.Board) -> None:
        """A run that is killed between the two can be undone."""
        interrupts(board)
        assert board.kernel.events == [("file", ledger_module.PATH), ("value", IRQ)]

    def test_original_survives_a_kill_before_the_write(self, board: hosts.Board) -> None:
        def kill(path: str) -> None:
            raise KeyboardInterrupt

        board.kernel.before_value = kill
        with pytest.raises(KeyboardInterrupt):
            interrupts(board)
        [entry] = Ledger(board.kernel).entries()
        assert (entry.role, entry.kind, entry.id, entry.value, entry.boot_id) == (
            INTERRUPTS,
            "interrupt",
            hosts.BDF + "#0",
            "0-7",
            hosts.BOOT,
        )

    def test_original_of_this_boot_outlives_a_reload(self, board: hosts.Board) -> None:
        """After a driver's reload the interrupt has another number and starts anywhere; its original is the first."""
        interrupts(board)
        board.tree.files("/proc/irq/38", {"smp_affinity_list": "0-3", "effective_affinity_list": "0"})
        _outcome, [served] = interrupts(board)
        assert (served.placement.before, served.original, served.after) == ("0-3", "0-7", "4")

    def test_original_of_an_older_boot_is_replaced(self, board: hosts.Board) -> None:
        interrupts(board)
        board.boot("another boot")
        board.irq(38, "0-3", "1")
        _outcome, [served] = interrupts(board)
        assert served.original == "0-3"
        assert [entry.boot_id for entry in Ledger(board.kernel).entries()] == ["another boot"]

    @pytest.mark.parametrize(
        ("spread", "after", "effective"),
        [("single", "4", "4"), ("tier", "4-7", None)],
    )
    def test_check_mode_predicts(self, board: hosts.Board, spread: str, after: str, effective: Optional[str]) -> None:
        predicted, [served] = interrupts(board, True, spread=spread)
        assert board.kernel.events == []
        assert not board.root.exists(ledger_module.PATH)
        assert (served.original, served.after, served.effective_after) == (None, after, effective)
        made, [really] = interrupts(board, spread=spread)
        assert predicted == made
        assert really.after == served.after
        assert effective in (None, really.effective_after)

    def test_check_mode_where_nothing_is_to_be_done(self, board: hosts.Board) -> None:
        interrupts(board)
        outcome, [served] = interrupts(board, True)
        assert (outcome.changes, served.after, served.effective_after) == ([], "4", "4")

    def test_refused(self, board: hosts.Board) -> None:
        board.kernel.refusals[IRQ] = "EIO: nobody can move it"
        outcome, [served] = interrupts(board)
        assert outcome.changes == []
        assert [(change.path, change.before, change.after, change.why) for change in outcome.refused] == [
            (IRQ, "0-7", "4", "EIO: nobody can move it")
        ]
        assert (served.after, served.effective_after) == ("0-7", "0")

    def test_kept_otherwise_by_the_kernel(self, board: hosts.Board) -> None:
        """What is reported after a value was clamped is what stands there, not what stood there before."""
        board.kernel.keeps[IRQ] = "0-3"
        outcome, [served] = interrupts(board)
        assert [change.why for change in outcome.refused] == ["clamped"]
        assert served.after == "0-3"

    def test_one_refusal_does_not_stop_the_others(self, board: hosts.Board) -> None:
        board.add_card("0004:41:00.0", "platform/fe190000.pcie/pci0004:40/0004:41:00.0", (39, 40))
        board.kernel.refusals["/proc/irq/39/smp_affinity_list"] = "EIO"
        outcome, served = interrupts(board)
        assert [change.path for change in outcome.changes] == [IRQ, "/proc/irq/40/smp_affinity_list"]
        assert [(one.placement.irq, one.after) for one in served] == [(38, "4"), (39, "0-7"), (40, "5")]

    def test_vectors_without_a_handler_are_left_alone(self, board: hosts.Board) -> None:
        board.tree.file("/sys/devices/%s/%s/msi_irqs/39" % (hosts.SLOT, hosts.BDF), "msi\n")
        outcome, served = interrupts(board)
        assert [change.path for change in outcome.changes] == [IRQ]
        assert [(one.placement.state, one.after) for one in served] == [("change", "4"), ("unknown", None)]
        assert not board.root.exists("/proc/irq/39")

    def test_no_driver(self, tree: Tree) -> None:
        board = hosts.Board(tree, driver=False)
        outcome, [served] = interrupts(board)
        assert outcome == Outcome([], [], ["interrupt of 0003:31:00.0: unknown until a driver binds to it"])
        assert served.placement.target == "4"
        assert board.kernel.events == []

    def test_no_card(self, tree: Tree) -> None:
        board = hosts.Board(tree, card=False)
        assert interrupts(board) == (Outcome([], [], []), [])

    def test_cpu_goes_offline_and_returns(self, board: hosts.Board) -> None:
        interrupts(board)
        board.online("0-3,5-7")
        board.tree.files("/proc/irq/38", {"smp_affinity_list": "0-7", "effective_affinity_list": "0"})
        assert [change.after for change in interrupts(board)[0].changes] == ["5"]
        board.online("0-7")
        assert [change.after for change in interrupts(board)[0].changes] == ["4"]
        assert [entry.value for entry in Ledger(board.kernel).entries()] == ["0-7"]


class TestCards:
    def test_by_address(self, tree: Tree) -> None:
        board = hosts.Board(tree)
        board.add_card("2000:01:00.0", "platform/a.pcie/pci2000:00/2000:01:00.0", (50,))
        board.add_card("10000:01:00.0", "platform/b.pcie/pci10000:00/10000:01:00.0", (51,))
        assert [card.bdf for card in npu_cards(board.root, BUILT_IN)] == [
            "0003:31:00.0",
            "2000:01:00.0",
            "10000:01:00.0",
        ]

    def test_what_is_no_card_is_not_read(self, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
        """Configuration space of the wrong device may hang a machine, and reading all of it costs time at boot."""
        read = []
        data = board.root.data
        monkeypatch.setattr(board.root, "data", lambda path, limit=-1: read.append(path) or data(path, limit))
        assert len(npu_cards(board.root, BUILT_IN)) == 1
        configs = [path for path in read if path.endswith("/config")]
        assert configs == ["/sys/bus/pci/devices/%s/config" % hosts.BDF]

    def test_subsystem(self, board: hosts.Board) -> None:
        other = (CardKind("x", *hosts.AXERA, 1, 2),)
        assert npu_cards(board.root, other) == []


class TestClocks:
    def test_put_in_place(self, board: hosts.Board) -> None:
        outcome, clocked = clocks(board)
        assert [(change.path, change.after) for change in outcome.changes] == [
            (governor(4), "performance"),
            (governor(6), "performance"),
        ]
        assert clocked == [
            Clocked("policy0", "0-3", None, "schedutil", "schedutil"),
            Clocked("policy4", "4-5", "schedutil", "schedutil", "performance"),
            Clocked("policy6", "6-7", "schedutil", "schedutil", "performance"),
        ]
        assert board.kernel.events[0] == ("file", ledger_module.PATH)

    def test_second_run_changes_nothing(self, board: hosts.Board) -> None:
        clocks(board)
        outcome, clocked = clocks(board)
        assert outcome == Outcome([], [], [])
        assert clocked[1] == Clocked("policy4", "4-5", "schedutil", "performance", "performance")

    def test_check_mode_predicts(self, board: hosts.Board) -> None:
        predicted, clocked = clocks(board, True)
        assert board.kernel.events == []
        assert [one.after for one in clocked] == ["schedutil", "performance", "performance"]
        assert clocks(board)[0] == predicted

    def test_refused(self, board: hosts.Board) -> None:
        board.kernel.refusals[governor(4)] = "EBUSY"
        outcome, clocked = clocks(board)
        assert [change.path for change in outcome.refused] == [governor(4)]
        assert [one.after for one in clocked] == ["schedutil", "schedutil", "performance"]

    def test_a_governor_that_is_a_module(self, board: hosts.Board) -> None:
        outcome, _clocked = clocks(board, wishes=ClockWishes("ondemand"))
        assert [change.after for change in outcome.changes] == ["ondemand", "ondemand"]
        assert len(outcome.unknown) == 2

    def test_a_governor_that_does_not_exist(self, board: hosts.Board) -> None:
        with pytest.raises(WishError, match="choose one of ondemand, performance, powersave, schedutil"):
            clocks(board, wishes=ClockWishes("turbo"))
        assert board.kernel.events == []

    def test_kept_otherwise_by_the_kernel(self, board: hosts.Board) -> None:
        board.kernel.keeps[governor(4)] = board.kernel.keeps[governor(6)] = "powersave"
        outcome, clocked = clocks(board)
        assert [change.why for change in outcome.refused] == ["clamped", "clamped"]
        assert [one.after for one in clocked] == ["schedutil", "powersave", "powersave"]

    def test_roles_do_not_mix(self, board: hosts.Board) -> None:
        clocks(board)
        interrupts(board)
        assert {entry.role for entry in Ledger(board.kernel).entries(kind="governor")} == {CLOCKS}
        assert {entry.role for entry in Ledger(board.kernel).entries(kind="interrupt")} == {INTERRUPTS}
