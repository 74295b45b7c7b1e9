# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Dict, List, Optional, Sequence

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import ledger as ledger_module
from ansible_collections.edgenpu.tuning.plugins.module_utils.act import persist
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import SHARED, Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import (
    BASE,
    COMMAND,
    CURRENT,
    ENABLED,
    IRQBALANCE_DROP_IN,
    UDEV_RULES,
    UNIT,
    keep,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import UNSTEERABLE
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.tune import (
    CLOCKS,
    INTERRUPTS,
    npu_cards,
    tune_clocks,
    tune_interrupts,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.undo import Undone, undo
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import ClockWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpufreq import read_policies
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Ran
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

IRQ = "/proc/irq/38/smp_affinity_list"
ROLES = (INTERRUPTS, CLOCKS)


def governor(first: int) -> str:
    return "/sys/devices/system/cpu/cpufreq/policy%d/scaling_governor" % first


@pytest.fixture(name="board")
def fixture_board(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> hosts.Board:
    """A board whose agent is made of little, since it is installed and removed a hundred times here."""
    monkeypatch.setattr(persist, "AGENT_MODULES", ("act", "act.look"))
    return hosts.Board(tree)


def apply(board: hosts.Board, *roles: str, persist: bool = True) -> None:
    """Tune and keep, as the modules do."""
    for role in roles or ROLES:
        ledger = Ledger(board.kernel)
        wishes: Dict[str, Any] = AffinityWishes(BUILT_IN).to_data() if role == INTERRUPTS else ClockWishes().to_data()
        if persist:
            keep(board.kernel, ledger, role, wishes, hosts.FRONT_DOOR, sys.executable, hosts.Commands(), False)
        if role == INTERRUPTS:
            cards = npu_cards(board.root, BUILT_IN)
            tune_interrupts(board.kernel, ledger, AffinityWishes.from_data(wishes), cards)
        else:
            tune_clocks(board.kernel, ledger, ClockWishes.from_data(wishes), read_policies(board.root))


def undone(
    board: hosts.Board,
    role: str,
    runner: Optional[Callable[[Sequence[str], float], Ran]] = None,
    check: bool = False,
    before_it: Sequence[str] = (),
) -> Undone:
    """Give back one role, with the ledger as it stands on disk."""
    return undo(board.kernel, Ledger(board.kernel), role, runner or hosts.Commands(), check, before_it)


def values(board: hosts.Board) -> List[Optional[str]]:
    return [board.affinity(), board.governor(0), board.governor(4), board.governor(6)]


FRESH = ["0-7", "schedutil", "schedutil", "schedutil"]
NOTHING = Undone([], [], [], [])


class TestRoundTrip:
    @pytest.mark.parametrize("order", [ROLES, ROLES[::-1]])
    def test_everything_is_as_it_was(self, board: hosts.Board, order: Sequence[str]) -> None:
        board.irqbalance()
        before = board.snapshot()
        apply(board)
        assert values(board) == ["4", "schedutil", "performance", "performance"]
        assert board.snapshot() != before
        for role in order:
            found = undone(board, role)
            assert (found.refused, found.left) == ([], [])
            assert found.changes
        assert board.snapshot() == before
        assert values(board) == FRESH

    def test_what_stood_there_comes_back_byte_for_byte(self, board: hosts.Board) -> None:
        """Content of any encoding, modes, links and what they point to."""
        board.irqbalance()
        board.tree.file(UDEV_RULES, b"# f\xfcr mich\r\n\0")
        (board.tree.path / UDEV_RULES[1:]).chmod(0o600)
        board.tree.link(COMMAND, "/opt/mine")
        board.tree.link(UNIT, "/dev/null")
        board.tree.file(IRQBALANCE_DROP_IN, "[Service]\nNice=5\n")
        (board.tree.path / IRQBALANCE_DROP_IN[1:]).parent.chmod(0o750)
        before = board.snapshot()
        apply(board)
        for role in ROLES:
            undone(board, role)
        assert board.snapshot() == before

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_owners_come_back(self, board: hosts.Board) -> None:
        board.tree.file(UDEV_RULES, "theirs")
        os.chown(str(board.tree.path / UDEV_RULES[1:]), 1234, 5678)
        apply(board, CLOCKS)
        assert os.stat(str(board.tree.path / UDEV_RULES[1:])).st_uid == 0
        undone(board, CLOCKS)
        found = os.stat(str(board.tree.path / UDEV_RULES[1:]))
        assert (found.st_uid, found.st_gid) == (1234, 5678)

    def test_a_second_time_does_nothing(self, board: hosts.Board) -> None:
        apply(board)
        for role in ROLES:
            undone(board, role)
        del board.kernel.events[:]
        runner = hosts.Commands()
        for role in (*ROLES, SHARED):
            assert undone(board, role, runner) == NOTHING
        assert (board.kernel.events, runner.run) == ([], [])

    def test_nothing_was_ever_done(self, board: hosts.Board) -> None:
        before, runner = board.snapshot(), hosts.Commands()
        assert undone(board, INTERRUPTS, runner) == NOTHING
        assert (board.snapshot(), runner.run) == (before, [])

    def test_values_of_this_boot_only(self, board: hosts.Board) -> None:
        """persist: false leaves nothing on the host but the ledger."""
        before = board.snapshot()
        apply(board, persist=False)
        for role in ROLES:
            undone(board, role)
        assert board.snapshot() == before
        assert values(board) == FRESH

    def test_after_an_upgrade(self, board: hosts.Board) -> None:
        before = board.snapshot()
        apply(board)
        wishes = ClockWishes().to_data()
        keep(board.kernel, Ledger(board.kernel), CLOCKS, wishes, "newer", sys.executable, hosts.Commands(), False)
        for role in ROLES:
            undone(board, role)
        assert board.snapshot() == before

    def test_repaired_files_do_not_become_originals(self, board: hosts.Board) -> None:
        before = board.snapshot()
        apply(board)
        board.tree.file(UNIT, "changed")
        apply(board)
        for role in ROLES:
            undone(board, role)
        assert board.snapshot() == before


class TestCheckMode:
    @pytest.mark.parametrize("order", [ROLES, ROLES[::-1]])
    def test_predicts_and_writes_nothing(self, board: hosts.Board, order: Sequence[str]) -> None:
        board.irqbalance()
        apply(board)
        before, runner = board.snapshot(), hosts.Commands()
        del board.kernel.events[:]
        predicted = [undone(board, role, runner, True, order[:at]) for at, role in enumerate(order)]
        assert (board.snapshot(), board.kernel.events, runner.run) == (before, [], [])
        made = [undone(board, role) for role in order]
        assert [one.left for one in predicted] == [one.left for one in made]
        for expected, real in zip(predicted, made):
            assert [change.path for change in expected.changes] == [change.path for change in real.changes]
            assert [change.after for change in expected.changes] == [change.after for change in real.changes]

    def test_the_agent_is_among_the_changes(self, board: hosts.Board) -> None:
        apply(board, CLOCKS)
        [tree] = Ledger(board.kernel).entries(kind="tree")
        for check in (True, False):
            found = undone(board, CLOCKS, check=check)
            assert (tree.id, "the agent", None) in [
                (change.path, change.before, change.after) for change in found.changes
            ]


class TestOneOfTwo:
    @pytest.mark.parametrize(("gone", "stays"), [(INTERRUPTS, CLOCKS), (CLOCKS, INTERRUPTS)])
    def test_the_agent_stays(self, board: hosts.Board, gone: str, stays: str) -> None:
        apply(board)
        runner = hosts.Commands()
        found = undone(board, gone, runner)
        assert found.refused == []
        assert board.root.exists(CURRENT + "/edgenpu-tuning")
        for path in (UNIT, ENABLED, UDEV_RULES, "/etc/edgenpu-tuning/wishes.d/%s.json" % stays):
            assert board.root.exists(path)
        assert not board.root.exists("/etc/edgenpu-tuning/wishes.d/%s.json" % gone)
        rules = board.root.text(UDEV_RULES) or ""
        assert ("cpufreq" in rules, "0x1f4b" in rules) == (stays == CLOCKS, stays == INTERRUPTS)
        assert "udevadm control --reload" in runner.run
        assert {entry.role for entry in Ledger(board.kernel).entries()} == {stays, SHARED}

    def test_its_values_only(self, board: hosts.Board) -> None:
        apply(board)
        undone(board, INTERRUPTS)
        assert values(board) == ["0-7", "schedutil", "performance", "performance"]

    def test_the_other_one_is_as_if_alone(self, board: hosts.Board) -> None:
        before = board.snapshot()
        apply(board, CLOCKS)
        alone = {path: state for path, state in board.snapshot().items() if not path.startswith("/var")}
        apply(board, INTERRUPTS)
        undone(board, INTERRUPTS)
        assert {path: state for path, state in board.snapshot().items() if not path.startswith("/var")} == alone
        undone(board, CLOCKS)
        assert board.snapshot() == before

    def test_irqbalance_is_let_loose(self, board: hosts.Board) -> None:
        board.irqbalance()
        apply(board)
        runner = hosts.Commands()
        undone(board, INTERRUPTS, runner)
        assert not board.root.exists(IRQBALANCE_DROP_IN)
        assert runner.run[-1] == "systemctl try-restart irqbalance.service"

    def test_damaged_wishes_of_the_other_role_do_not_hold_it_up(self, board: hosts.Board) -> None:
        apply(board)
        board.wishes(INTERRUPTS, {"catalogue": 5})
        assert undone(board, CLOCKS).refused == []
        assert board.governor(4) == "schedutil"


class TestDirectories:
    def test_those_that_were_there_stay(self, board: hosts.Board) -> None:
        (board.tree.path / "etc/systemd/system/irqbalance.service.d").mkdir(parents=True)
        (board.tree.path / "usr/lib/edgenpu-tuning").mkdir()
        board.irqbalance()
        before = board.snapshot()
        apply(board)
        for role in ROLES:
            undone(board, role)
        assert board.snapshot() == before

    def test_somebody_else_s_file_in_one_of_ours_stays(self, board: hosts.Board) -> None:
        """Then the directory does, too; and it goes with a later undo, once it is empty."""
        before = board.snapshot()
        apply(board)
        board.tree.file("/etc/edgenpu-tuning/notes", "mine")
        for role in ROLES:
            assert undone(board, role).refused == []
        assert board.root.text("/etc/edgenpu-tuning/notes") == "mine"
        assert [entry.id for entry in Ledger(board.kernel).entries()] == ["/etc/edgenpu-tuning"]
        (board.tree.path / "etc/edgenpu-tuning/notes").unlink()
        assert undone(board, INTERRUPTS) == NOTHING
        assert board.snapshot() == before


class TestValues:
    def test_of_an_older_boot(self, board: hosts.Board) -> None:
        """The originals of another boot are void; what the kernel gives by default is not."""
        apply(board)
        board.boot("another")
        board.tree.file("/proc/irq/default_smp_affinity", "3f\n")
        found = undone(board, INTERRUPTS)
        assert board.affinity() == "0-5"
        assert found.changes[0].why == "the kernel's default: the original is from an earlier boot"
        undone(board, CLOCKS)
        assert values(board) == ["0-5", *FRESH[1:]]

    def test_defaults_that_are_not_known(self, board: hosts.Board) -> None:
        apply(board, persist=False)
        board.boot("another")
        (board.tree.path / "proc/irq/default_smp_affinity").unlink()
        (board.tree.path / ("boot/config-" + hosts.RELEASE)).unlink()
        assert undone(board, INTERRUPTS) == Undone(
            [], [], [], ["interrupt 38 of 0003:31:00.0: its original is not known, left as it is"]
        )
        assert undone(board, CLOCKS).left == [
            "policy%d: the kernel's default governor is not known, left at performance" % first for first in (4, 6)
        ]
        assert Ledger(board.kernel).entries() == []

    def test_interrupt_has_another_number_now(self, board: hosts.Board) -> None:
        """After a reload number 38 may be the network card's: the address and the vector find ours."""
        apply(board, INTERRUPTS, persist=False)
        card = board.tree.path / "sys/devices" / hosts.SLOT / hosts.BDF
        (card / "msi_irqs/38").unlink()
        board.tree.file("/sys/devices/%s/%s/msi_irqs/52" % (hosts.SLOT, hosts.BDF), "msi\n")
        board.irq(52, "4", "4")
        found = undone(board, INTERRUPTS)
        assert [(change.path, change.after) for change in found.changes] == [("/proc/irq/52/smp_affinity_list", "0-7")]
        assert board.affinity(38) == "4"

    @pytest.mark.parametrize("gone", ["driver", "card", "handler", "vector"])
    def test_no_interrupt_now(self, board: hosts.Board, gone: str) -> None:
        apply(board, INTERRUPTS, persist=False)
        card = board.tree.path / "sys/devices" / hosts.SLOT / hosts.BDF
        if gone == "card":
            (board.tree.path / "sys/bus/pci/devices" / hosts.BDF).unlink()
        elif gone == "handler":
            for path in (board.tree.path / "proc/irq/38").iterdir():
                path.unlink()
            (board.tree.path / "proc/irq/38").rmdir()
        else:
            (card / "msi_irqs/38").unlink()
            if gone == "driver":
                (card / "driver").unlink()
        assert undone(board, INTERRUPTS) == Undone(
            [],
            [],
            [],
            ["vector 0 of 0003:31:00.0: it has no interrupt now, so there is nothing to give back"],
        )
        assert Ledger(board.kernel).entries() == []

    def test_policy_that_is_offline(self, board: hosts.Board) -> None:
        apply(board, CLOCKS, persist=False)
        (board.tree.path / governor(4)[1:]).unlink()
        found = undone(board, CLOCKS)
        assert found.left == ["policy4: not there or all its CPUs are offline, so there is nothing to give back"]
        assert [change.path for change in found.changes] == [governor(6)]

    def test_given_back_by_somebody_else(self, board: hosts.Board) -> None:
        apply(board, INTERRUPTS, persist=False)
        board.tree.files("/proc/irq/38", {"smp_affinity_list": "0-7"})
        assert undone(board, INTERRUPTS) == NOTHING

    def test_refused_value_can_be_given_back_later(self, board: hosts.Board) -> None:
        apply(board)
        board.kernel.refusals[IRQ] = "EINVAL: not now"
        found = undone(board, INTERRUPTS)
        assert [(change.path, change.after, change.why) for change in found.refused] == [
            (IRQ, "0-7", "EINVAL: not now")
        ]
        assert [entry.id for entry in Ledger(board.kernel).entries(INTERRUPTS)] == [hosts.BDF + "#0"]
        board.kernel.refusals.clear()
        found = undone(board, INTERRUPTS)
        assert [change.path for change in found.changes] == [IRQ]
        assert board.affinity() == "0-7"
        assert Ledger(board.kernel).entries(INTERRUPTS) == []

    def test_interrupt_that_nobody_can_move_is_no_obstacle_for_ever(self, board: hosts.Board) -> None:
        apply(board)
        board.kernel.refusals[IRQ] = UNSTEERABLE[0]
        found = undone(board, INTERRUPTS)
        assert (found.refused, found.left) == ([], ["%s: %s" % (IRQ, UNSTEERABLE[0])])
        assert Ledger(board.kernel).entries(INTERRUPTS) == []

    def test_command_that_fails_is_named_and_made_up_for(self, board: hosts.Board) -> None:
        apply(board, CLOCKS)
        found = undone(board, CLOCKS, hosts.Commands({"systemctl daemon-reload": "no"}))
        assert [change.path for change in found.refused] == ["systemctl daemon-reload"]
        again = hosts.Commands()
        made_up = undone(board, CLOCKS, again)
        assert made_up._replace(changes=[]) == NOTHING
        assert {(change.before, change.after) for change in made_up.changes} == {("not told", "told")}
        assert {UNIT, UDEV_RULES} <= {change.path for change in made_up.changes}
        assert "systemctl daemon-reload" in again.run
        assert undone(board, CLOCKS) == NOTHING
        assert not board.root.exists(ledger_module.PATH)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class Killer:
    """Ends a run when something is done for the NTH time: a file put, a value written, a command run."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def __call__(self, *args: Any) -> Ran:
        if self.left == 0:
            raise Killed
        self.left -= 1
        return Ran(0, "")


def killed_at(board: hosts.Board, nth: int, run: Callable[[Killer], Any]) -> bool:
    """Run until the NTH event; tell whether it was killed."""
    killer = Killer(nth)
    board.kernel.before_put = board.kernel.before_value = killer  # type: ignore[assignment]
    try:
        run(killer)
    except Killed:
        return True
    finally:
        board.kernel.before_put = board.kernel.before_value = lambda path: None
    return False


@pytest.mark.parametrize("nth", range(32))
def test_undo_that_is_killed_and_repeated_ends_clean(board: hosts.Board, nth: int) -> None:
    board.irqbalance()
    board.tree.file(UDEV_RULES, "theirs")
    before = board.snapshot()
    apply(board)
    killed = killed_at(board, nth, lambda killer: [undone(board, role, killer) for role in ROLES])
    assert killed == (nth < 30)
    commands = hosts.Commands()
    for role in ROLES:
        told = len(commands.run)
        repeated = undone(board, role, commands)
        assert repeated.refused == []
        # To tell systemd, udev or irqbalance is a change, even where the killed run has left none of a file to make.
        assert repeated.changes or commands.run[told:] == []
    assert board.snapshot() == before
    assert values(board) == FRESH


@pytest.mark.parametrize("nth", range(24))
def test_tuning_that_is_killed_can_be_undone(board: hosts.Board, nth: int) -> None:
    board.irqbalance()
    board.tree.file(UDEV_RULES, "theirs")
    before = board.snapshot()
    killed = killed_at(board, nth, lambda killer: apply(board))
    assert killed == (nth < 22)
    for role in ROLES:
        assert undone(board, role).refused == []
    assert board.snapshot() == before
    assert values(board) == FRESH


def test_killed_between_scratch_file_and_rename(board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one moment at which something of ours stands beside the files: undo finds it."""
    before = board.snapshot()
    apply(board, CLOCKS)
    real = os.rename

    def killed(source: str, target: str) -> None:
        if target.endswith(".rules"):
            raise Killed
        real(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "rename", killed)
        apply(board, INTERRUPTS)
    for role in ROLES:
        undone(board, role)
    assert board.snapshot() == before


def test_undo_reads_back(board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that writes its file anew at once is told of, not believed to be gone."""
    apply(board, CLOCKS)

    def restored(argv: Sequence[str], timeout_s: float) -> Ran:
        board.tree.file(UDEV_RULES, "somebody else's")
        return Ran(0, "")

    found = undone(board, CLOCKS, restored)
    assert [(change.path, change.before, change.why) for change in found.refused] == [
        (UDEV_RULES, "somebody else's", "given back, but something else stands there now")
    ]


def test_ledger_of_an_unfinished_agent(board: hosts.Board) -> None:
    """An agent of which only the ledger's entry exists is no obstacle."""
    ledger = Ledger(board.kernel)
    ledger.remember_made("directory", BASE)
    ledger.remember_made("tree", BASE + "/agent-0")
    ledger.save()
    found = undone(board, INTERRUPTS)
    assert found.refused == []
    assert not board.root.exists(ledger_module.PATH)
