# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the next run would change: told before it, and nothing after it."""

from __future__ import annotations

import os
import sys
from typing import Any, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.agent import keep_in_force
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.look import look
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import ENABLED, UDEV_RULES, keep
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.undo import undo
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import ClockWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.drift import Held, drift, held
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.findings import findings
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WARNING, Change, Finding
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

AFFINITY = AffinityWishes(BUILT_IN).to_data()
CLOCKS = dict(ClockWishes(catalogue=BUILT_IN).to_data(), only_with_card=True)
METRICS = {"directory": "/var/lib/node_exporter", "interval": "5min"}
IRQ = "/proc/irq/38/smp_affinity_list"
GOVERNOR = "/sys/devices/system/cpu/cpufreq/policy%d/scaling_governor"


@pytest.fixture(name="board")
def fixture_board(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> hosts.Board:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    if os.geteuid() != 0:
        hosts.let_root_own_nothing(monkeypatch)
    board = hosts.Board(tree)
    board.wishes("irq_affinity", AFFINITY)
    board.wishes("governor", CLOCKS)
    return board


def told(board: hosts.Board) -> List[Finding]:
    return drift(look(board.root, BUILT_IN))


def test_told_before_a_run_and_not_after_it(board: hosts.Board) -> None:
    interrupts, clocks = told(board)
    assert (interrupts.id, interrupts.severity, interrupts.role) == ("drift", WARNING, "irq_affinity")
    assert interrupts.summary == ("1 interrupt is not as the wishes on this host say: %s is 0-7, wished 4" % IRQ)
    assert clocks.summary == (
        "2 clocks are not as the wishes on this host say: %s is schedutil, wished performance, and 1 more"
        % (GOVERNOR % 4)
    )
    predicted = keep_in_force(board.kernel, check=True).changes
    evidence = {**interrupts.evidence, **clocks.evidence}
    assert evidence == {one.path: {"before": one.before, "after": one.after, "why": one.why} for one in predicted}
    assert set(evidence) == {IRQ, GOVERNOR % 4, GOVERNOR % 6}
    keep_in_force(board.kernel)
    assert told(board) == []


def test_among_all_findings(board: hosts.Board) -> None:
    assert [one.role for one in findings(look(board.root, BUILT_IN)) if one.id == "drift"] == [
        "irq_affinity",
        "governor",
    ]


def test_none_without_wishes(board: hosts.Board) -> None:
    for role in ("irq_affinity", "governor"):
        (board.tree.path / ("etc/edgenpu-tuning/wishes.d/%s.json" % role)).unlink()
    assert told(board) == []


def test_states(board: hosts.Board) -> None:
    keep_in_force(board.kernel)
    board.tree.files("/sys/devices/system/cpu/cpufreq/policy6", {"scaling_governor": "powersave"})
    found = held(look(board.root, BUILT_IN))
    assert found["irq_affinity"] == Held({(hosts.BDF, "0"): True}, [])
    assert found["governor"].states == {("policy0",): True, ("policy4",): True, ("policy6",): False}


def test_what_cannot_be_told(board: hosts.Board) -> None:
    """A card without a driver has no interrupt; that is no drift, and no state either."""
    card = board.tree.path / "sys/devices" / hosts.SLOT / hosts.BDF
    (card / "driver").unlink()
    (card / "msi_irqs/38").unlink()
    assert held(look(board.root, BUILT_IN))["irq_affinity"] == Held({}, [])


def test_no_card_no_clocks(tree: Tree) -> None:
    board = hosts.Board(tree, card=False)
    board.wishes("governor", CLOCKS)
    assert told(board) == []


def test_cards_that_went_keep_their_turn(board: hosts.Board) -> None:
    """The second card stays on CPU 5 while the first one is away; the ledger knows of it."""
    second = "0002:21:00.0"
    board.add_card(second, "platform/fe170000.pcie/pci0002:20/0002:20:00.0/" + second, (40,))
    keep_in_force(board.kernel)
    assert (board.affinity(40), board.affinity(38)) == ("4", "5")
    (board.tree.path / "sys/bus/pci/devices" / second).unlink()
    assert told(board) == []
    board.tree.file("/var/lib/edgenpu-tuning/ledger.json", "{")
    assert told(board) == [], "what is not known is no drift"
    (board.tree.path / "var/lib/edgenpu-tuning/ledger.json").unlink()
    assert [one.evidence[IRQ]["after"] for one in told(board)] == ["4"]


def test_what_a_run_would_change_goes_before_what_is_kept(board: hosts.Board) -> None:
    snapshot = look(board.root, BUILT_IN)
    assert [one.role for one in drift(snapshot)] == ["irq_affinity", "governor"]
    text = Change("/etc/x", None, "a\nb\n", "kept")
    [finding] = drift(snapshot._replace(planned={"governor": [text], "irq_affinity": []}))
    assert finding.summary == "the role governor would change 1 thing: /etc/x: nothing, wished 2 lines"
    assert finding.evidence == {"/etc/x": {"before": None, "after": "2 lines", "why": "kept"}}
    assert drift(snapshot._replace(planned={"governor": [], "irq_affinity": []})) == [], "a run would change nothing"
    both = drift(snapshot._replace(planned={"governor": [text]}))
    assert [one.role for one in both] == ["governor", "irq_affinity"], "the other role was not in the play"


class TestFiles:
    @pytest.fixture(autouse=True)
    def installed(self, board: hosts.Board) -> None:
        for role, wishes in (("irq_affinity", AFFINITY), ("governor", CLOCKS), ("diagnostics", METRICS)):
            if role != "diagnostics":
                (board.tree.path / ("etc/edgenpu-tuning/wishes.d/%s.json" % role)).unlink()
            ledger = Ledger(board.kernel)
            keep(board.kernel, ledger, role, wishes, hosts.FRONT_DOOR, sys.executable, hosts.Commands(), False)
        keep_in_force(board.kernel)

    def test_all_there(self, board: hosts.Board) -> None:
        """The metrics have not been written yet; that is no drift."""
        assert told(board) == []

    def test_switched_off(self, board: hosts.Board) -> None:
        """As `systemctl disable` does it."""
        (board.tree.path / ENABLED[1:]).unlink()
        [finding] = told(board)
        assert finding.summary == "1 file that keeps the wishes in force is gone: " + ENABLED
        assert (finding.id, finding.severity, list(finding.evidence)) == ("drift", WARNING, [ENABLED])

    def test_rules_and_agent(self, board: hosts.Board) -> None:
        (board.tree.path / UDEV_RULES[1:]).unlink()
        [agent] = (board.tree.path / "usr/lib/edgenpu-tuning").glob("agent-*")
        agent.rename(agent.parent / "away")
        [finding] = told(board)
        assert len(finding.evidence) > 2 and UDEV_RULES in finding.evidence
        assert "/usr/lib/edgenpu-tuning/" + agent.name in finding.evidence
        assert finding.summary.startswith("%d files that keep the wishes in force are gone: " % len(finding.evidence))

    def test_file_that_another_role_has_removed(self, board: hosts.Board) -> None:
        """The driver's package switches apt's sandbox off, and the role takes that file away: it is to be gone."""
        ledger = Ledger(board.kernel)
        ledger.remember_file("axcl_driver", "/etc/apt/apt.conf.d/10sandbox")
        ledger.save()
        assert told(board) == []

    def test_given_back(self, board: hosts.Board) -> None:
        for role in ("irq_affinity", "diagnostics", "governor"):
            undo(board.kernel, Ledger(board.kernel), role, hosts.Commands(), False)
            assert told(board) == []

    def test_without_the_ledger(self, board: hosts.Board) -> None:
        (board.tree.path / ENABLED[1:]).unlink()
        board.tree.file("/var/lib/edgenpu-tuning/ledger.json", "{")
        assert told(board) == []


def test_interrupt_that_nobody_can_move(board: hosts.Board) -> None:
    """A run tries, and is refused; what cannot be changed is no drift."""
    board.tree.files("/sys/kernel/irq/38", {"chip_name": "Brcm stb PCIe MSI"})
    assert [one.role for one in told(board)] == ["governor"]


def test_a_user_s_governor_that_does_not_exist(board: hosts.Board) -> None:
    board.wishes("governor", dict(CLOCKS, fast="turbo"))
    assert told(board)[1].evidence[GOVERNOR % 4]["after"] == "turbo"


@pytest.mark.parametrize("role", ["irq_affinity", "governor"])
def test_damaged_wishes(board: hosts.Board, role: str) -> None:
    board.wishes(role, {"catalogue": 5, "spread": "x"})
    assert [one.role for one in told(board)] == [name for name in ("irq_affinity", "governor") if name != role]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_NAMES = st.sampled_from(
    ["catalogue", "cpus", "spread", "keep_free", "vectors", "born_there", "fast", "others", "only_with_card"]
)


@hosts.STEADY
@given(st.dictionaries(_NAMES, _JSON), st.dictionaries(_NAMES, _JSON))
def test_a_stranger_s_wishes(affinity: Any, clocks: Any) -> None:
    """Wishes come out of bundles, too: whatever they hold, the diagnosis goes on."""
    snapshot = SNAPSHOT._replace(wishes={"irq_affinity": affinity, "governor": clocks})
    assert len(drift(snapshot)) <= 2


def _snapshot() -> Any:
    import pathlib
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        return look(hosts.Board(Tree(pathlib.Path(directory))).root, BUILT_IN)


SNAPSHOT = _snapshot()
