# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
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


SECOND = "platform/fe190000.pcie/pci0004:40/0004:41:00.0"
EINVAL = "EINVAL: the interrupt controller cannot steer this interrupt"


def chip(board: hosts.Board, name: str, irq: int = 38) -> None:
    board.tree.files("/sys/kernel/irq/%d" % irq, {"chip_name": name})


class TestWhatCannotBeMoved:
    @pytest.mark.parametrize(
        ("error", "name", "words"),
        [
            (errno.EINVAL, "PCI-MSI", EINVAL + ". Linux 7.0 and newer can steer it"),
            (errno.EINVAL, "ITS-MSI", EINVAL + ". The kernel spreads such interrupts itself"),
            (errno.EIO, "ITS-MSI", "EIO: nobody can move this interrupt"),
            (errno.EPERM, "BRCM-PCI-MSI-0001:01:00.0", "EPERM: nobody can move this interrupt"),
        ],
    )
    def test_refused_for_good(self, board: hosts.Board, error: int, name: str, words: str) -> None:
        chip(board, name)
        board.tree.files("/proc/sys/kernel", {"arch": "aarch64"})
        board.kernel.errors[IRQ] = error
        outcome, [served] = interrupts(board)
        assert outcome.changes == []
        [refusal] = outcome.refused
        assert (refusal.path, refusal.before, refusal.after) == (IRQ, "0-7", "4")
        assert refusal.why.startswith(words)
        assert refusal.why.endswith(".")
        assert (served.steerable, served.reason, served.done) == (False, refusal.why, False)
        assert (served.after, served.effective_after) == ("0-7", "0")

    @pytest.mark.parametrize("error", [errno.EOVERFLOW, errno.ENOENT, errno.EACCES])
    def test_refused_this_time(self, board: hosts.Board, error: int) -> None:
        board.kernel.errors[IRQ] = error
        _outcome, [served] = interrupts(board)
        assert served.steerable is None
        assert (served.reason or "").startswith(errno.errorcode[error] + ": ")

    def test_check_mode_writes_nothing_and_does_not_predict(self, board: hosts.Board) -> None:
        chip(board, "BRCM STB PCIe MSI")
        outcome, [served] = interrupts(board, True)
        assert (outcome.changes, outcome.refused, board.kernel.events) == ([], [], [])
        [line] = outcome.unknown
        assert line.startswith(
            "interrupt 38 of 0003:31:00.0: unknown until it is written: on this controller the kernel refuses ("
        )
        assert (served.steerable, served.after, served.done) == (False, "0-7", False)

    def test_tried_all_the_same(self, board: hosts.Board) -> None:
        """A kernel of tomorrow may have learnt it: what it does counts, not what we know."""
        chip(board, "BRCM STB PCIe MSI")
        outcome, [served] = interrupts(board)
        assert [change.after for change in outcome.changes] == ["4"]
        assert (outcome.refused, outcome.unknown) == ([], [])
        assert (served.steerable, served.after, served.done) == (True, "4", True)

    def test_accepted_but_not_followed(self, board: hosts.Board) -> None:
        """What was written is a change once; that it did not help is told each time."""

        def stay(path: str) -> None:
            board.tree.files("/proc/irq/38", {"effective_affinity_list": "0"})

        board.kernel.after_value = stay
        for changes in (["4"], []):
            outcome, [served] = interrupts(board)
            assert [change.after for change in outcome.changes] == changes
            assert [change.why for change in outcome.refused] == [
                "accepted, but CPU 0 serves it still: its controller takes the wish and does not follow"
            ]
            assert (served.after, served.effective_after, served.steerable) == ("4", "0", False)

    def test_empty_effective_affinity(self, board: hosts.Board) -> None:
        """As with the RP1: it works, and what was asked for counts."""
        board.kernel.after_value = lambda path: board.tree.files("/proc/irq/38", {"effective_affinity_list": ""})
        outcome, [served] = interrupts(board)
        assert (len(outcome.changes), outcome.refused, outcome.unknown) == (1, [], [])
        assert (served.after, served.effective_after, served.steerable, served.done) == ("4", "", True, True)
        assert interrupts(board)[0] == Outcome([], [], [])

    def test_a_move_that_waits_for_the_next_interrupt(self, board: hosts.Board) -> None:
        chip(board, "PCI-MSI")
        board.tree.files("/proc/sys/kernel", {"arch": "x86_64"})
        board.kernel.after_value = lambda path: board.tree.files("/proc/irq/38", {"effective_affinity_list": "0"})
        outcome, [served] = interrupts(board)
        assert (len(outcome.changes), outcome.refused) == (1, [])
        assert outcome.unknown == [
            "effective CPU of interrupt 38: unknown until the next interrupt comes, the move waits for it"
        ]
        assert (served.after, served.effective_after, served.steerable, served.done) == ("4", None, True, True)
        del board.kernel.events[:]
        outcome, [served] = interrupts(board)
        assert (outcome.changes, outcome.refused, board.kernel.events) == ([], [], [])
        assert [line.endswith("has been accepted and waits for it") for line in outcome.unknown] == [True]
        assert (served.effective_after, served.done) == (None, True)

    def test_clamped(self, board: hosts.Board) -> None:
        board.kernel.keeps[IRQ] = "0-3"
        _outcome, [served] = interrupts(board)
        assert (served.steerable, served.reason, served.done) == (None, "clamped", False)


class TestRaces:
    @pytest.mark.parametrize("late", [False, True])
    def test_cpu_goes_while_we_write(self, board: hosts.Board, late: bool) -> None:
        """Refused with EINVAL, or accepted and broken at once: decided again with the CPUs that are left, once."""

        def unplug(path: str) -> None:
            if board.root.text("/sys/devices/system/cpu/online") == "0-7":
                board.online("0-3,5-7")
                if late:
                    board.kernel.keeps[path] = "0-3,5-7"
                else:
                    board.kernel.errors[path] = errno.EINVAL
            else:
                board.kernel.errors.clear()
                board.kernel.keeps.clear()

        board.kernel.before_value = unplug
        outcome, [served] = interrupts(board)
        assert [change.after for change in outcome.changes] == ["5"]
        assert outcome.refused == []
        assert (served.placement.before, served.placement.state, served.after) == ("0-7", "change", "5")
        assert board.affinity() == "5"

    def test_one_that_was_right_and_is_refused_then_is_not_done(self, board: hosts.Board) -> None:
        board.add_card("0004:41:00.0", SECOND, (39,))
        board.irq(39, "5", "5")

        def unplug(path: str) -> None:
            board.online("0-4,6-7")
            board.irq(39, "0-4,6-7", "0")

        board.kernel.before_value = unplug
        board.kernel.errors.update({IRQ: errno.EINVAL, IRQ.replace("38", "39"): errno.EIO})
        _outcome, served = interrupts(board)
        assert [one.done for one in served] == [False, False]

    def test_once(self, board: hosts.Board) -> None:
        """CPUs that come and go for ever do not hold us."""
        tried = []

        def flap(path: str) -> None:
            tried.append(path)
            board.online("0-3,5-7" if len(tried) % 2 else "0-7")

        board.kernel.before_value = flap
        board.kernel.errors[IRQ] = errno.EINVAL
        outcome, _served = interrupts(board)
        assert (len(tried), len(outcome.refused)) == (2, 1)

    def test_a_refusal_is_not_tried_again_where_no_cpu_went(self, board: hosts.Board) -> None:
        tried: List[str] = []
        board.kernel.before_value = tried.append
        board.kernel.errors[IRQ] = errno.EINVAL
        interrupts(board)
        assert tried == [IRQ]


class TestManyCards:
    def test_card_that_drops_off_the_bus(self, board: hosts.Board) -> None:
        """The others stay where they are until the next boot; then the cards that are left are dealt out anew."""
        board.add_card("0004:41:00.0", SECOND, (39,))
        interrupts(board)
        (board.tree.path / "sys/bus/pci/devices" / hosts.BDF).unlink()
        outcome, [served] = interrupts(board)
        assert (outcome, served.after) == (Outcome([], [], []), "5")
        board.boot("another boot")
        assert [served.placement.target for served in interrupts(board)[1]] == ["4"]

    def test_device_that_is_no_card_any_more_has_no_turn(self, board: hosts.Board) -> None:
        """It is still on the bus, but somebody has taken it out of the catalogue."""
        board.add_card("0004:41:00.0", SECOND, (39,))
        interrupts(board)
        board.tree.files("/sys/bus/pci/devices/" + hosts.BDF, {"device": "0x0bad"})
        assert [served.placement.target for served in interrupts(board)[1]] == ["4"]

    def test_nothing_is_left_where_nothing_was_done(self, board: hosts.Board) -> None:
        board.irq(38, "4", "4")
        assert interrupts(board)[0] == Outcome([], [], [])
        assert board.kernel.events == []

    def test_vectors_apart(self, board: hosts.Board) -> None:
        board.tree.file("/sys/devices/%s/%s/msi_irqs/39" % (hosts.SLOT, hosts.BDF), "msi\n")
        board.irq(39)
        assert [served.after for served in interrupts(board, vectors="apart")[1]] == ["4", "5"]
        assert [served.after for served in interrupts(board)[1]] == ["4", "4"]


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

    @pytest.mark.parametrize(
        ("others", "held"), [("keep", "performance"), ("powersave", "powersave"), ("schedutil", "schedutil")]
    )
    def test_clock_of_the_cpu_that_an_interrupt_is_stuck_on(self, board: hosts.Board, others: str, held: str) -> None:
        """It answers the card, so its clock is held, unless the user has named a governor for the others."""
        chip(board, "BRCM STB PCIe MSI")
        board.tree.files("/sys/devices/system/cpu", {"possible": "0-7"})
        board.tree.files("/sys/kernel/irq/38", {"per_cpu_count": "0,0,70,0,0,0,0,0"})
        wishes = ClockWishes(others=others, catalogue=BUILT_IN)
        outcome, _clocked = clocks(board, wishes=wishes)
        assert board.governor(0) == held
        assert board.governor(4) == "performance"
        if others == "keep":
            assert outcome.changes[0].why == (
                "policy0 serves CPU 2, which has an interrupt of the card that cannot be moved: its clock is all that "
                "can be held there"
            )
        assert clocks(board, wishes=wishes)[0].changes == []

    def test_clock_where_the_interrupt_can_be_moved(self, board: hosts.Board) -> None:
        clocks(board, wishes=ClockWishes(catalogue=BUILT_IN))
        assert board.governor(0) == "schedutil"

    def test_roles_do_not_mix(self, board: hosts.Board) -> None:
        clocks(board)
        interrupts(board)
        assert {entry.role for entry in Ledger(board.kernel).entries(kind="governor")} == {CLOCKS}
        assert {entry.role for entry in Ledger(board.kernel).entries(kind="interrupt")} == {INTERRUPTS}
