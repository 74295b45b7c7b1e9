# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the pages show of a report."""

from __future__ import annotations

import copy
from typing import Any, Dict, List, Optional, Tuple

import pytest

from ansible_collections.edgenpu.tuning.plugins.plugin_utils.report_view import (
    Link,
    Node,
    NotAReport,
    View,
    view,
    with_before,
)
from ansible_collections.edgenpu.tuning.tests.unit.plugins.plugin_utils.staged import Stage

Shape = Tuple[str, str, Optional[str], List[Any]]


def shown(report: Dict[str, Any]) -> View:
    return view("nas", "box", report)


def shape(node: Node) -> Shape:
    """Return kind, name, what the link above does, and what is below."""
    link = node.link and "%s %s/%s" % (node.link.health, node.link.negotiated, node.link.possible)
    return (node.kind, node.name, link, [shape(lower) for lower in node.below])


class TestTopology:
    def test_two_controllers(self, stage: Stage) -> None:
        slow = ("card", "0002:21:00.0", "warning 2.5 GT/s x1/5 GT/s x1", [])
        full = ("card", "0003:31:00.0", "ok 5 GT/s x1/5 GT/s x1", [])
        assert [shape(root) for root in shown(stage("two_cards")).topology] == [
            ("complex", "fe170000.pcie", None, [("port", "0002:20:00.0", None, [slow])]),
            ("complex", "fe180000.pcie", None, [("port", "0003:30:00.0", None, [full])]),
        ]

    def test_switch_with_an_empty_slot(self, stage: Stage) -> None:
        """The switch is drawn once, with its own link; its downstream ports are named by what is behind them."""
        [root] = shown(stage("behind_a_switch")).topology
        [port] = root.below
        [switch] = port.below
        assert (switch.kind, switch.name) == ("switch", "0003:31:00.0")
        assert switch.link == Link(
            "ok",
            "as fast as both ends can",
            "8 GT/s x1",
            "8 GT/s x1",
            "switch and slot agree on 8 GT/s, the slot sets x1",
        )
        assert [(one.kind, one.name) for one in switch.below] == [
            ("card", "0003:33:00.0"),
            ("card", "0003:35:00.0"),
            ("card", "0003:36:00.0"),
            ("slot", "0003:32:01.0"),
        ]
        assert "port 0003:32:00.0" in switch.below[0].about
        assert "269 and 298 MB/s while all cards work" in switch.below[0].about

    def test_eight_cards(self, stage: Stage) -> None:
        [root] = shown(stage("eight_cards")).topology
        assert (root.name, root.below[0].name) == ("0000:00", "0000:00:01.0")
        kinds = [one.kind for one in root.below[0].below[0].below]
        assert kinds == ["card"] * 8 + ["slot"] * 4

    def test_dead_card(self, stage: Stage) -> None:
        """Nothing is known of its link, and that is not drawn as a good one."""
        [root] = shown(stage("dead_card")).topology
        [card] = root.below[0].below
        assert (card.health, card.link and card.link.health) == ("critical", "critical")
        assert card.link is not None and card.link.negotiated is None

    def test_processor_s_own(self, stage: Stage) -> None:
        report = stage("two_cards")
        card = report["cards"][0]
        card.update(internal=True, hops=[], path=["0000:c6:00.1", "0000:00:08.1"], bdf="0000:c6:00.1", controller=None)
        [complex_] = [root for root in shown(report).topology if root.name == "0000:00"]
        [npu] = complex_.below[0].below
        assert npu.link is None and "part of the processor" in npu.about

    @pytest.mark.parametrize(
        ("state", "health"),
        [
            ("full", "ok"),
            ("held", "warning"),
            ("degraded", "warning"),
            ("down", "critical"),
            ("asleep", "unknown"),
            ("unread", "unknown"),
            ("unseen", "unknown"),
        ],
    )
    def test_health_of_a_link(self, stage: Stage, state: str, health: str) -> None:
        report = stage("two_cards")
        report["cards"][0]["hops"][0]["state"] = state
        link = shown(report).topology[0].below[0].below[0].link
        assert link is not None and link.health == health

    def test_port_that_needs_a_rescan(self, stage: Stage) -> None:
        report = stage("behind_a_switch")
        report["needs_rescan"] = [dict(report["empty_slots"].pop(), has_link=True)]
        slot = shown(report).topology[0].below[0].below[0].below[-1]
        assert (slot.title, slot.health) == ("Link up, no device: rescan", "warning")


class TestInterrupts:
    def test_before_and_since(self, stage: Stage) -> None:
        box = shown(stage("tuned"))
        assert box.was_moved
        slow, fast = box.clusters
        assert (slow.cpus, slow.speed) == ("0-3", "slowest, capacity 414")
        assert (fast.cpus, fast.speed) == ("4-7", "fastest, capacity 1024")
        assert (slow.served[0].before, slow.served[0].since, slow.served[0].now) == (182_340, 172, [])
        assert (fast.served[0].before, fast.served[0].since) == (0, 96_204)
        assert fast.served[0].now == ["0003:31:00.0"]
        assert slow.served[0].before_share == 1.0
        assert fast.served[0].since_share == pytest.approx(96_204 / 182_340)
        [place] = box.places
        assert (place.before, place.now, place.allowed, place.times) == ("0", "4", "4", 278_716)

    def test_never_moved(self, stage: Stage) -> None:
        box = shown(stage("behind_a_switch"))
        assert not box.was_moved
        assert box.clusters[0].served[0].since == 20_000 + 60_000 + 80_000
        assert [place.before for place in box.places] == [None] * 3

    def test_predicted(self, stage: Stage) -> None:
        box = shown(stage("two_cards"))
        assert box.check_mode
        assert [(place.now, place.predicted) for place in box.places] == [("0", "4"), ("0", "5")]

    def test_equal_cores_and_no_counts(self, stage: Stage) -> None:
        report = stage("equal_cores")
        for one in report["cards"][0]["interrupts"]:
            one.pop("before", None)
            one["counts"] = {}
        box = shown(report)
        assert [cluster.speed for cluster in box.clusters] == ["all equally fast"]
        assert box.places[0].times is None
        assert sum(one.since for one in box.clusters[0].served) == 0

    def test_cpu_that_no_tier_has(self, stage: Stage) -> None:
        report = stage("eight_cards")
        report["tiers"] = []
        assert [(cluster.cpus, cluster.speed) for cluster in shown(report).clusters] == [("0-5", "")]


class TestBefore:
    """Where an interrupt was is known from the report that is replaced."""

    @pytest.fixture(name="pair")
    def fixture_pair(self, stage: Stage) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        later = stage("tuned")
        interrupt = later["cards"][0]["interrupts"][0]
        interrupt.pop("before")
        earlier = copy.deepcopy(later)
        earlier["cards"][0]["interrupts"][0].update(effective="0", counts={"0": 100})
        return later, earlier

    def test_moved(self, pair: Tuple[Dict[str, Any], Dict[str, Any]]) -> None:
        later, earlier = pair
        found = with_before(later, earlier)["cards"][0]["interrupts"][0]
        assert found["before"] == {"effective": "0", "counts": {"0": 100}}
        assert "before" not in later["cards"][0]["interrupts"][0], "what is handed over stays as it was"

    def test_stayed_and_is_handed_on(self, pair: Tuple[Dict[str, Any], Dict[str, Any]]) -> None:
        later, earlier = pair
        first = with_before(later, earlier)
        again = with_before(copy.deepcopy(later), first)
        assert again["cards"][0]["interrupts"][0]["before"] == {"effective": "0", "counts": {"0": 100}}
        assert "before" not in with_before(later, later)["cards"][0]["interrupts"][0]

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda earlier: earlier["host"].update(boot_id="another"),
            lambda earlier: earlier["host"].update(boot_id=None),
            lambda earlier: earlier.update(schema=0),
            lambda earlier: earlier["cards"][0]["interrupts"][0].update(hwirq="77"),
            lambda earlier: earlier["cards"][0].update(bdf="0000:01:00.0"),
            lambda earlier: earlier["cards"][0]["interrupts"][0].update(counts={}),
            lambda earlier: earlier.pop("cards"),
            lambda earlier: earlier.update(cards=[7]),
        ],
    )
    def test_another_boot_interrupt_or_no_report(self, pair: Tuple[Dict[str, Any], Dict[str, Any]], spoil: Any) -> None:
        later, earlier = pair
        spoil(earlier)
        assert with_before(later, earlier) == later

    @pytest.mark.parametrize("earlier", [None, 7, "text", [], {}, {"host": 7}])
    def test_anything_else(self, pair: Tuple[Dict[str, Any], Dict[str, Any]], earlier: Any) -> None:
        assert with_before(pair[0], earlier) == pair[0]


class TestClocks:
    def test_policies_that_are_alike_are_one_line(self, stage: Stage) -> None:
        slow, fast = shown(stage("tuned")).clocks
        assert (slow.cpus, slow.governor, slow.governor_before) == ("0-3", "schedutil", None)
        assert (fast.cpus, fast.names) == ("4-7", "policy4, policy6")
        assert (fast.governor, fast.governor_before, fast.current_mhz) == ("performance", "schedutil", (2400, 2400))
        assert (fast.min_mhz, fast.max_mhz, fast.hw_min_mhz, fast.hw_max_mhz) == (408, 2400, 408, 2400)
        assert (fast.min_share, fast.current_share, fast.max_share) == (0.0, 1.0, 1.0)

    def test_range_of_what_runs(self, stage: Stage) -> None:
        [all_] = shown(stage("eight_cards")).clocks
        assert (all_.names, all_.current_mhz, all_.epp) == ("policy0 to policy5", (800, 1105), "balance_performance")

    def test_capped_and_unknown(self, stage: Stage) -> None:
        report = stage("behind_a_switch")
        report["policies"][0].update(max_khz=1_104_000, current_khz=None)
        report["policies"][1].update(hw_min_khz=None, min_khz=None, governor=None)
        first, second, _third = shown(report).clocks
        assert (first.max_share, first.current_mhz, first.current_share) == (0.5, None, None)
        assert (second.min_share, second.current_share, second.governor) == (0.0, None, None)


class TestWhole:
    def test_findings_that_say_the_same_are_told_once(self, stage: Stage) -> None:
        box = shown(stage("eight_cards"))
        assert [(one.id, len(one.lines)) for one in box.todo] == [
            ("clock_drops", 6),
            ("link_degraded", 8),
            ("not_kept", 1),
        ]
        assert box.to_do == 3
        assert len(box.todo[0].evidence) == 6
        assert {path.rpartition("/")[2] for path in box.todo[0].evidence} == {"scaling_governor"}

    def test_one_remedy_for_two_findings(self, stage: Stage) -> None:
        [first, _second] = shown(stage("behind_a_switch")).todo
        assert first.id == "interrupt_on_slow_core, not_kept"
        assert "/etc/edgenpu-tuning/wishes.d" in first.evidence and "/proc/irq/43/smp_affinity_list" in first.evidence

    def test_report_that_does_not_say_what_is_worth_doing(self, stage: Stage) -> None:
        """What differs in its subject only is one thing, unless the gain differs."""
        report = stage("eight_cards")
        del report["worth_doing"], report["expected_gain"]
        before = [len(one.lines) for one in shown(report).todo]
        assert sorted(before) == [1, 6, 8]
        report["findings"][0]["expected_gain"] = "none"
        assert sorted(len(one.lines) for one in shown(report).todo) in ([1, 1, 5, 8], [1, 1, 6, 7])
        assert shown(report).gain is None

    def test_changes(self, stage: Stage) -> None:
        box = shown(stage("tuned"))
        assert [one["path"] for one in box.values] == [
            "/proc/irq/38/smp_affinity_list",
            "/sys/devices/system/cpu/cpufreq/policy4/scaling_governor",
            "/sys/devices/system/cpu/cpufreq/policy6/scaling_governor",
        ]
        assert "/etc/edgenpu-tuning/wishes.d/governor.json" in [one["path"] for one in box.files]
        assert box.acted and not shown(stage("dead_card")).acted

    def test_facts(self, stage: Stage) -> None:
        facts = dict(shown(stage("tuned")).facts)
        assert facts["Kept on the host"] == "governor, irq_affinity"
        assert facts["System"] == "Debian GNU/Linux 12 (bookworm)"
        assert "Virtualisation" not in facts

    @pytest.mark.parametrize(
        ("report", "why"),
        [
            (None, "it is no report"),
            ([], "it is no report"),
            ({"schema": 1}, "it is no report"),
            ({"schema": 2, "findings": []}, "its schema is 2, and this version knows 1"),
            ({"schema": 1, "findings": []}, "it is damaged (KeyError: 'cards')"),
            (
                {"schema": 1, "findings": [{"severity": "odd"}], "tiers": [], "cards": [], "verdict": ""},
                "it is damaged",
            ),
        ],
    )
    def test_what_is_no_report(self, report: Any, why: str) -> None:
        with pytest.raises(NotAReport) as caught:
            shown(report)
        assert str(caught.value).startswith(why)
