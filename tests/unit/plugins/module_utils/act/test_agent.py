# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import fcntl
import json
import os
import pathlib
import tempfile
from typing import Any, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.act import ledger as ledger_module
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.agent import MAX_ROUNDS, Report, keep_in_force
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import LOCK_PATH
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import ClockWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import read_wishes
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

AFFINITY = AffinityWishes(BUILT_IN).to_data()
CLOCKS = ClockWishes().to_data()
IRQ = "/proc/irq/38/smp_affinity_list"
WISHES = "/etc/edgenpu-tuning/wishes.d/"


@pytest.fixture(name="board")
def fixture_board(tree: Tree) -> hosts.Board:
    board = hosts.Board(tree)
    board.wishes("irq_affinity", AFFINITY)
    board.wishes("governor", CLOCKS)
    return board


def changed(report: Report) -> List[Any]:
    return [(change.path.split("/")[-2], change.after) for change in report.changes]


class TestWishes:
    def test_in_force(self, board: hosts.Board) -> None:
        report = keep_in_force(board.kernel)
        assert changed(report) == [("38", "4"), ("policy4", "performance"), ("policy6", "performance")]
        assert report._replace(changes=[]) == Report([], [], [], [], 1)
        assert (board.affinity(), board.governor(0), board.governor(4)) == ("4", "schedutil", "performance")

    def test_in_force_already(self, board: hosts.Board) -> None:
        keep_in_force(board.kernel)
        del board.kernel.events[:]
        assert keep_in_force(board.kernel) == Report([], [], [], [], 1)
        assert board.kernel.events == []

    def test_none(self, tree: Tree) -> None:
        board = hosts.Board(tree)
        assert keep_in_force(board.kernel) == Report([], [], [], [], 1)
        assert not board.root.exists(ledger_module.PATH)

    @pytest.mark.parametrize(("role", "served"), [("irq_affinity", ["38"]), ("governor", ["policy4", "policy6"])])
    def test_one_role(self, tree: Tree, role: str, served: List[str]) -> None:
        board = hosts.Board(tree)
        board.wishes(role, AFFINITY if role == "irq_affinity" else CLOCKS)
        assert [name for name, _after in changed(keep_in_force(board.kernel))] == served

    def test_catalogue_on_the_box_is_the_one_that_counts(self, board: hosts.Board) -> None:
        board.wishes("irq_affinity", dict(AFFINITY, catalogue=[{"vendor": "abcd", "device": "0001"}]))
        assert changed(keep_in_force(board.kernel))[0] == ("38", "4"), "the built-in one is behind the user's"

    def test_refusals(self, board: hosts.Board) -> None:
        board.kernel.refusals[IRQ] = "EIO"
        report = keep_in_force(board.kernel)
        assert [change.why for change in report.refused] == ["EIO"]
        assert [name for name, _after in changed(report)] == ["policy4", "policy6"]

    def test_nothing_to_do_yet(self, tree: Tree) -> None:
        """At boot the driver may come later; its bind event starts the agent again."""
        board = hosts.Board(tree, driver=False)
        board.wishes("irq_affinity", AFFINITY)
        report = keep_in_force(board.kernel)
        assert report.unknown == ["interrupt of 0003:31:00.0: unknown until a driver binds to it"]
        assert (report.changes, report.problems) == ([], [])


class TestDamage:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "null",
            "[]",
            pytest.param("[" * 100000, id="deep"),
            '{"schema": 1}',
            '{"schema": 1, "wishes": 5}',
            '{"schema": 1, "wishes": null}',
        ],
    )
    def test_file_that_holds_no_wishes(self, board: hosts.Board, text: str) -> None:
        """The other role is served all the same."""
        board.tree.file(WISHES + "irq_affinity.json", text)
        report = keep_in_force(board.kernel)
        [sentence] = report.problems
        assert sentence.startswith(WISHES + "irq_affinity.json holds no wishes (")
        assert sentence.endswith("); run the playbook again, or delete the file")
        assert [name for name, _after in changed(report)] == ["policy4", "policy6"]

    def test_file_of_a_newer_version(self, board: hosts.Board) -> None:
        board.tree.file(WISHES + "governor.json", '{"schema": 2, "wishes": {}}')
        report = keep_in_force(board.kernel)
        assert "schema 2, this version knows 1" in report.problems[0]
        assert [name for name, _after in changed(report)] == ["38"]

    @pytest.mark.parametrize(
        "wishes",
        [{"spread": "x"}, {"keep_free": "1"}, {"cpus": "x"}, {"catalogue": 5}, {"catalogue": [5]}],
    )
    def test_senseless_wishes_for_interrupts(self, board: hosts.Board, wishes: Any) -> None:
        board.wishes("irq_affinity", dict(AFFINITY, **wishes))
        report = keep_in_force(board.kernel)
        assert len(report.problems) == 1
        assert [name for name, _after in changed(report)] == ["policy4", "policy6"]

    @pytest.mark.parametrize("wishes", [{"fast": "turbo"}, {"fast": 5}])
    def test_senseless_wishes_for_clocks(self, board: hosts.Board, wishes: Any) -> None:
        board.wishes("governor", wishes)
        report = keep_in_force(board.kernel)
        assert len(report.problems) == 1
        assert [name for name, _after in changed(report)] == ["38"]

    def test_both(self, board: hosts.Board) -> None:
        board.wishes("irq_affinity", {"spread": "x"})
        board.tree.file(WISHES + "governor.json", "{")
        assert len(keep_in_force(board.kernel).problems) == 2

    def test_wishes_of_a_role_that_this_version_does_not_know(self, board: hosts.Board) -> None:
        board.wishes("something_new", {})
        assert keep_in_force(board.kernel).problems == []

    def test_damaged_ledger(self, board: hosts.Board) -> None:
        """Without a ledger no value can be given back, so none is set."""
        board.tree.file(ledger_module.PATH, "{")
        with pytest.raises(WishError, match="is damaged"):
            keep_in_force(board.kernel)
        assert board.affinity() == "0-7"
        assert board.kernel.events == []

    def test_cpus_that_are_not_there_today(self, board: hosts.Board) -> None:
        """A list that the module accepted holds for the agent at any moment, whoever is online."""
        board.wishes("irq_affinity", dict(AFFINITY, cpus="6"))
        board.online("0-5")
        report = keep_in_force(board.kernel)
        assert (report.problems, board.affinity()) == ([], "4")


class TestWhatCannotBeMoved:
    def test_one_attempt_and_one_line_a_run(self, board: hosts.Board) -> None:
        """No storm: the agent does not come back to a refusal, and each event's run tells it once."""
        board.tree.files("/sys/kernel/irq/38", {"chip_name": "BRCM STB PCIe MSI"})
        board.kernel.errors[IRQ] = errno.EINVAL
        tried: List[str] = []
        board.kernel.before_value = tried.append
        for _event in range(3):
            del tried[:]
            report = keep_in_force(board.kernel)
            assert (tried.count(IRQ), report.rounds) == (1, 1)
            assert [change.path for change in report.refused] == [IRQ]
            assert (report.unknown, report.problems) == ([], [])
        assert report.changes == []


class TestRounds:
    def test_cpu_goes_offline_meanwhile(self, board: hosts.Board) -> None:
        """Its event comes while we run, and systemd may start us again only when we are done: look once more."""

        def unplug(path: str) -> None:
            if board.root.text("/sys/devices/system/cpu/online") == "0-7":
                board.online("0-3,5-7")
                board.tree.files("/proc/irq/38", {"smp_affinity_list": "0-7", "effective_affinity_list": "0"})

        board.kernel.after_value = unplug
        report = keep_in_force(board.kernel)
        assert report.rounds == 2
        assert [after for name, after in changed(report) if name == "38"] == ["4", "5"]
        assert board.affinity() == "5"

    @pytest.mark.parametrize("what", ["interrupt", "card", "policy"])
    def test_something_appears_meanwhile(self, board: hosts.Board, what: str) -> None:
        def appear(path: str) -> None:
            if board.root.exists("/seen"):
                return
            board.tree.file("/seen")
            if what == "interrupt":
                board.tree.file("/sys/devices/%s/%s/msi_irqs/39" % (hosts.SLOT, hosts.BDF), "msi\n")
                board.irq(39)
            elif what == "card":
                board.add_card("0004:41:00.0", "platform/fe190000.pcie/pci0004:40/0004:41:00.0", (40,))
            else:
                board.tree.policy(5, "5", "5", board.policy_files(5))

        board.kernel.after_value = appear
        report = keep_in_force(board.kernel)
        assert report.rounds == 2
        assert {"interrupt": ("39", "4"), "card": ("40", "5"), "policy": ("policy5", "performance")}[what] in changed(
            report
        )

    def test_bounded(self, board: hosts.Board) -> None:
        """A host that never comes to rest does not hold us for ever; each of its events starts us again."""
        seen: List[str] = []

        def flap(path: str) -> None:
            seen.append(path)
            board.online("0-7" if len(seen) % 2 else "0-6")
            board.tree.files("/proc/irq/38", {"smp_affinity_list": "0-7", "effective_affinity_list": "0"})

        board.wishes("governor", {"fast": "keep"})
        board.online("0-6")
        board.kernel.after_value = flap
        report = keep_in_force(board.kernel)
        assert report.rounds == MAX_ROUNDS
        assert len(seen) == MAX_ROUNDS

    def test_what_is_said_is_of_the_last_round(self, board: hosts.Board) -> None:
        """A refusal that the next round made good is none; what was changed stays changed."""
        board.kernel.refusals[IRQ] = "EINVAL: none of CPUs 4 is online any more"

        def recover(path: str) -> None:
            board.kernel.refusals.clear()
            board.online("0-6")

        board.kernel.after_value = recover
        report = keep_in_force(board.kernel)
        assert (report.rounds, report.refused) == (2, [])
        assert changed(report) == [("policy4", "performance"), ("policy6", "performance"), ("38", "4")]

    def test_problems_are_told_once(self, board: hosts.Board) -> None:
        board.wishes("irq_affinity", {"spread": "x"})
        board.tree.file(WISHES + "other.json", "{")
        board.kernel.after_value = lambda path: board.online("0-6")
        report = keep_in_force(board.kernel)
        assert (report.rounds, len(report.problems)) == (2, 2)


class TestCheckMode:
    def test_writes_nothing(self, board: hosts.Board) -> None:
        before = board.snapshot()
        predicted = keep_in_force(board.kernel, check=True)
        assert (board.snapshot(), board.kernel.events) == (before, [])
        assert not board.root.exists(LOCK_PATH)
        assert predicted.changes == keep_in_force(board.kernel).changes

    def test_one_round(self, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(board.root, "names", lambda path, real=board.root.names: [*real(path), os.urandom(4).hex()])
        assert keep_in_force(board.kernel, check=True).rounds == 1


class TestLock:
    def test_held_while_values_are_written(self, board: hosts.Board) -> None:
        held: List[bool] = []

        def probe(path: str) -> None:
            with open(str(board.tree.path / LOCK_PATH[1:]), "rb") as other:
                try:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    held.append(True)

        board.kernel.before_value = board.kernel.before_put = probe
        keep_in_force(board.kernel)
        assert len(held) == len(board.kernel.events) == 5

    def test_wishes_are_read_under_it(self, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
        """Otherwise an undo that runs just before would be undone."""
        order: List[str] = []
        flock = fcntl.flock

        def locked(handle: int, how: int) -> None:
            order.append("lock")
            flock(handle, how)

        text = board.root.text
        monkeypatch.setattr(fcntl, "flock", locked)
        monkeypatch.setattr(board.root, "text", lambda path: order.append(path) or text(path))
        keep_in_force(board.kernel)
        assert order[0] == "lock"
        assert WISHES + "governor.json" in order

    def test_nobody_may_take_it(self, board: hosts.Board, monkeypatch: pytest.MonkeyPatch) -> None:
        """As it is without root: an error of the operating system, and nothing is changed."""

        def refuse(*args: Any) -> int:
            raise PermissionError(errno.EACCES, "Permission denied", LOCK_PATH)

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(PermissionError):
            keep_in_force(board.kernel)
        assert board.kernel.events == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
DOCUMENT = st.fixed_dictionaries({"schema": st.just(1), "wishes": JSON})


@hosts.STEADY
@given(st.binary(max_size=40) | (JSON | DOCUMENT).map(lambda data: json.dumps(data).encode()))
def test_any_file_holds_wishes_or_is_a_problem(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        tree = Tree(pathlib.Path(directory))
        tree.file(WISHES + "governor.json", raw)
        wishes, problems = read_wishes(tree.root)
        assert len(wishes) + len(problems) == 1
        assert not [line for line in problems if "\n" in line]
