# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any, List, Optional, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import (
    AffinityPlan,
    AffinityWishes,
    check_cpus,
    plan,
    summary,
    vectors,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.board import Board
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list, parse_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpus import Cpu, read_cpus
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import Interrupt
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree, captured

WISHES = AffinityWishes(BUILT_IN)
PATH = "/proc/irq/38/smp_affinity_list"


def planned(
    cpus: Sequence[Cpu], count: int = 1, wishes: AffinityWishes = WISHES, found: Optional[Interrupt] = None
) -> AffinityPlan:
    """Return the plan for COUNT cards whose interrupts are where the kernel puts them; FOUND: the first one's."""
    seen = {38 + number: hosts.interrupt(38 + number) for number in range(count)}
    if found is not None:
        seen[38] = found
    return plan(hosts.cards(count), seen, cpus, wishes)


def targets(cpus: Sequence[Cpu], count: int = 1, wishes: AffinityWishes = WISHES) -> List[str]:
    return [placement.target for placement in planned(cpus, count, wishes).placements]


def why(cpus: Sequence[Cpu], wishes: AffinityWishes = WISHES) -> str:
    return planned(cpus, 1, wishes).placements[0].why


class TestFastTier:
    def test_one_card_of_a_cm3588(self) -> None:
        found = planned(hosts.rk3588())
        assert len(found.placements) == 1
        placement = found.placements[0]
        assert (placement.bdf, placement.vector, placement.irq) == ("0000:01:00.0", 0, 38)
        assert (placement.before, placement.effective_before, placement.target) == ("0-7", "0", "4")
        assert (placement.state, placement.unknown_until) == ("change", None)
        assert placement.why == "fastest tier, CPUs 4-7 (capacity 1024 of 414/1024); CPU 7 left to the application"
        [(key, change)] = found.changes
        assert key == "0000:01:00.0#0"
        assert (change.path, change.before, change.after) == (PATH, "0-7", "4")
        assert change.why == "vector 0 of 0000:01:00.0: " + placement.why
        assert found.unknown == []

    def test_cards_take_turns_and_one_cpu_is_kept_free(self) -> None:
        assert targets(hosts.rk3588(), 5) == ["4", "5", "6", "4", "5"]

    @pytest.mark.parametrize(
        ("keep_free", "expected"),
        [(0, ["4", "5", "6", "7"]), (2, ["4", "5", "4", "5"]), (3, ["4"] * 4), (4, ["4"] * 4), (9, ["4"] * 4)],
    )
    def test_keep_free(self, keep_free: int, expected: List[str]) -> None:
        """However many are kept free, one is left to serve the card."""
        assert targets(hosts.rk3588(), 4, WISHES._replace(keep_free=keep_free)) == expected

    def test_nothing_is_said_of_cpus_kept_free_where_none_are(self) -> None:
        assert "left to" not in why(hosts.rk3588(), WISHES._replace(keep_free=0))

    def test_three_tiers(self) -> None:
        """A prime core, three big and four little ones: one fast CPU, so nothing can be kept free."""
        cpus = hosts.cpus([325, 325, 325, 325, 830, 830, 830, 1024])
        assert targets(cpus, 2) == ["7", "7"]
        assert why(cpus) == "fastest tier, CPUs 7 (capacity 1024 of 325/830/1024)"

    def test_fast_cpus_need_not_be_the_last(self) -> None:
        assert targets(hosts.cpus([1024, 1024, 512, 512]), 2) == ["0", "0"]

    def test_isolated_cpus_are_the_user_s(self) -> None:
        cpus = [cpu._replace(isolated=cpu.number == 4, nohz_full=cpu.number == 5) for cpu in hosts.rk3588()]
        assert targets(cpus, 3) == ["6", "6", "6"]
        assert why(cpus) == (
            "fastest tier, CPUs 4-7 (capacity 1024 of 414/1024); not the isolated or nohz_full ones; "
            "CPU 7 left to the application"
        )

    def test_the_next_tier_if_all_fast_ones_are_isolated(self) -> None:
        cpus = [cpu._replace(isolated=cpu.number > 3) for cpu in hosts.rk3588()]
        assert targets(cpus, 3) == ["1", "2", "1"]
        assert why(cpus) == (
            "fastest tier that may be used, CPUs 0-3 (capacity 414 of 414/1024); CPUs 4-7 are faster, but isolated or "
            "nohz_full: name them to use them; not CPU0, which serves most other interrupts; "
            "CPU 3 left to the application"
        )

    def test_isolated_ones_by_name(self) -> None:
        cpus = [cpu._replace(isolated=cpu.number > 5) for cpu in hosts.rk3588()]
        assert targets(cpus, 3, WISHES._replace(cpus="5-7")) == ["5", "6", "7"]
        assert why(cpus, WISHES._replace(cpus="5-7")) == (
            "asked for by name (cpus: 5-7); CPUs 6-7 are isolated or nohz_full, and used because they were named"
        )

    def test_every_cpu_isolated(self) -> None:
        """No kernel allows that; a damaged capture may say so."""
        found = planned([cpu._replace(isolated=True) for cpu in hosts.rk3588()])
        assert found.changes == []
        assert "name those that may serve the card (cpus)" in found.unknown[0]

    def test_near_equal_clusters_are_filled_one_after_the_other(self) -> None:
        """The application keeps a cluster, and its clock, for itself as long as there are few cards."""
        clocks = [1800000] * 4 + [2304000] * 2 + [2352000] * 2
        cpus = [hosts.cpu(number, max_freq_khz=khz) for number, khz in enumerate(clocks)]
        assert targets(cpus, 4) == ["4", "5", "6", "4"]
        assert "CPUs 4-7 (maximum frequency 2352000 of 1800000/2352000)" in why(cpus)


class TestEquallyFast:
    def test_not_cpu_0(self) -> None:
        cpus = hosts.cpus([None] * 4)
        assert targets(cpus, 4) == ["1", "2", "1", "2"]
        assert why(cpus) == (
            "all CPUs are equally fast, so nothing is gained by tier; not CPU0, which serves most other interrupts; "
            "CPU 3 left to the application"
        )

    def test_one_cpu(self) -> None:
        cpus = hosts.cpus([1024])
        assert targets(cpus, 2) == ["0", "0"]
        assert why(cpus) == "this host has one CPU, so there is nothing to choose"
        found = planned(cpus, 1, WISHES, hosts.interrupt(38, "0-3", "0"))
        assert (found.changes, found.unknown) == ([], [])
        assert found.placements[0].state == "right"

    def test_two_cpus(self) -> None:
        assert targets(hosts.cpus([None, None]), 2) == ["1", "1"]

    def test_local_to_the_node(self) -> None:
        far = hosts.card(local_cpus=(4, 5, 6, 7))
        found = plan([far], hosts.interrupts(hosts.interrupt()), hosts.cpus([None] * 8), WISHES)
        assert found.placements[0].target == "4"
        assert "; local to the card's NUMA node; CPU 7 left" in found.placements[0].why

    def test_local_to_the_first_node(self) -> None:
        near = hosts.card(local_cpus=(0, 1, 2, 3))
        found = plan([near], hosts.interrupts(hosts.interrupt()), hosts.cpus([None] * 8), WISHES)
        assert found.placements[0].target == "1"

    def test_a_node_without_cpus_does_not_matter(self) -> None:
        for local in ((), None, (100, 101), tuple(range(8))):
            lost = hosts.card(local_cpus=local)
            found = plan([lost], hosts.interrupts(hosts.interrupt()), hosts.cpus([None] * 8), WISHES)
            assert found.placements[0].target == "1"
            assert "NUMA" not in found.placements[0].why

    def test_not_the_quiet_ones(self) -> None:
        cpus = [cpu._replace(nohz_full=cpu.number in (1, 2)) for cpu in hosts.cpus([None] * 5)]
        assert targets(cpus, 2) == ["3", "3"]

    def test_nothing_known_of_any_cpu(self) -> None:
        """A tree without CPUs: the interrupt stays where it is."""
        found = planned(())
        assert found.changes == []
        assert [placement.state for placement in found.placements] == ["right"]
        assert found.unknown[0].startswith("CPU for 0000:01:00.0: unknown until ")


class TestOffline:
    def test_next_of_the_tier_stands_in(self) -> None:
        cpus = hosts.rk3588(offline=[4])
        assert targets(cpus, 3) == ["5", "5", "6"]
        assert why(cpus).endswith("; CPU 4, the first choice, is offline")

    def test_return(self) -> None:
        """What was first chosen is chosen again once its CPU is back, whatever happened in between."""
        before = targets(hosts.rk3588(), 3)
        targets(hosts.rk3588(offline=[4, 5]), 3)
        assert targets(hosts.rk3588(), 3) == before

    def test_other_cards_stay_where_they_are(self) -> None:
        assert targets(hosts.rk3588(offline=[5]), 3) == ["4", "6", "6"]

    def test_search_goes_round(self) -> None:
        assert targets(hosts.rk3588(offline=[6]), 3) == ["4", "5", "4"]

    def test_the_free_one_before_a_slow_one(self) -> None:
        assert targets(hosts.rk3588(offline=[4, 5, 6]), 2) == ["7", "7"]

    def test_whole_tier_offline(self) -> None:
        """It stays where the kernel put it: a slow CPU is no better than another."""
        found = planned(hosts.rk3588(offline=[4, 5, 6, 7]))
        assert found.changes == []
        assert (found.placements[0].target, found.placements[0].state) == ("", "right")
        assert len(found.unknown) == 1
        assert found.unknown[0] == (
            "CPU for 0000:01:00.0: unknown until one of the wanted ones is online: no CPU to serve it is online "
            "(fastest tier, CPUs 4-7 (capacity 1024 of 414/1024); CPU 7 left to the application)"
        )

    def test_moved_by_the_kernel(self) -> None:
        """CPU 4 went offline and the kernel let the interrupt fall to CPU 0: back to the fast tier at once."""
        found = planned(hosts.rk3588(offline=[4]), found=hosts.interrupt(38, "0-7", "0"))
        assert [(change.before, change.after) for _key, change in found.changes] == [("0-7", "5")]


def smt(count: int, step: int, offline: Sequence[int] = ()) -> List[Cpu]:
    """Return COUNT equal CPUs, two of a core STEP apart; as in sysfs, an offline one is in nobody's list."""
    found = []
    for number in range(count):
        first = number - step if number // step % 2 else number
        both = [one for one in (first, first + step) if one not in offline]
        siblings = () if number in offline else tuple(both)
        found.append(hosts.cpu(number, online=number not in offline, siblings=siblings))
    return found


class TestHardwareThreads:
    @pytest.mark.parametrize("step", [1, 4])
    def test_one_thread_of_each_core_first(self, step: int) -> None:
        """Four cores: CPU0's is left out, the last one is the application's with both its threads."""
        expected = {1: ["2", "4", "3", "5", "2"], 4: ["1", "2", "5", "6", "1"]}[step]
        assert targets(smt(8, step), 5) == expected
        assert why(smt(8, step)).endswith(
            "; not CPU0, which serves most other interrupts; one hardware thread of each core first; CPU %s left to "
            "the application" % {1: "6-7", 4: "3,7"}[step]
        )

    @pytest.mark.parametrize("step", [1, 4])
    @pytest.mark.parametrize("gone", range(1, 8))
    def test_others_stay_when_a_thread_goes(self, step: int, gone: int) -> None:
        before, after = targets(smt(8, step), 4), targets(smt(8, step, [gone]), 4)
        stay = [old for old in before if old != str(gone)]
        assert [new for old, new in zip(before, after) if old != str(gone)] == stay
        assert str(gone) not in after

    def test_hybrid(self, tree: Tree) -> None:
        tree.listing(captured("sysfs/i7-1370p-cpu.txt"))
        cpus = read_cpus(tree.root)
        assert targets(cpus, 6) == ["2", "4", "6", "8", "3", "5"]
        assert why(cpus) == (
            "fastest tier, CPUs 0-11 (cppc highest_perf 67 of 39/67); not CPU0, which serves most other interrupts; "
            "one hardware thread of each core first; CPU 10-11 left to the application"
        )

    def test_hybrid_by_the_kind_of_core(self) -> None:
        cpus = [hosts.cpu(number, core_kind=3 if number < 2 else 2) for number in range(6)]
        assert targets(cpus) == ["0"]
        assert "(core kind cpu_core of cpu_atom/cpu_core)" in why(cpus)


class TestManyCards:
    def test_nodes_take_turns_of_their_own(self) -> None:
        """Cards of two nodes by turns: each node's CPUs are dealt out to its own cards."""
        near, far = (0, 1, 2, 3), (4, 5, 6, 7)
        found = plan(
            [hosts.card("%04d:01:00.0" % number, (), local_cpus=near if number % 2 else far) for number in range(6)],
            {},
            hosts.cpus([None] * 8),
            WISHES,
        )
        assert [placement.target for placement in found.placements] == ["4", "1", "5", "2", "6", "1"]

    def test_a_card_that_is_gone_keeps_its_turn(self) -> None:
        cards = hosts.cards(5)
        whole = {one.bdf: one.target for one in plan(cards, {}, hosts.rk3588(), WISHES).placements}
        for gone in cards:
            rest = [card for card in cards if card is not gone]
            found = plan(rest, {}, hosts.rk3588(), WISHES, gone=[(gone.bdf, 0)]).placements
            assert {one.bdf: one.target for one in found} == {card.bdf: whole[card.bdf] for card in rest}

    def test_a_dead_card_keeps_its_turn_and_is_left_alone(self) -> None:
        cards = [card._replace(alive=number != 1) for number, card in enumerate(hosts.cards(3))]
        seen = {38 + number: hosts.interrupt(38 + number) for number in range(3)}
        found = plan(cards, seen, hosts.rk3588(), WISHES)
        assert [change.path for _key, change in found.changes] == [
            "/proc/irq/%d/smp_affinity_list" % irq for irq in (38, 40)
        ]
        assert [one.target for one in found.placements] == ["4", "5", "6"]
        assert found.unknown == [
            (
                "interrupt 39 of 0001:01:00.0: unknown until the card answers again; it is dead now, and nothing "
                "comes from it"
            )
        ]

    def test_displaced_cards_go_where_the_fewest_are(self) -> None:
        wishes = WISHES._replace(keep_free=0)
        assert targets(hosts.rk3588(offline=[4, 5]), 4, wishes) == ["6", "7", "6", "7"]

    def test_vectors_apart(self) -> None:
        """First vectors choose first, so that those that were granted and never asked for take nobody's CPU."""
        four = [hosts.card("%04d:01:00.0" % number, range(38 + 4 * number, 42 + 4 * number)) for number in range(2)]
        found = plan(four, {}, hosts.rk3588(), WISHES._replace(vectors="apart"))
        assert [one.target for one in found.placements] == ["4", "6", "5", "4", "5", "4", "6", "5"]
        together = plan(four, {}, hosts.rk3588(), WISHES)
        assert [one.target for one in together.placements] == ["4"] * 4 + ["5"] * 4

    def test_vectors_apart_of_a_card_that_is_gone(self) -> None:
        cards = [hosts.card("%04d:01:00.0" % number, (38 + 2 * number, 39 + 2 * number)) for number in range(3)]
        wishes = WISHES._replace(vectors="apart")
        whole = {(one.bdf, one.vector): one.target for one in plan(cards, {}, hosts.rk3588(), wishes).placements}
        gone = [(cards[0].bdf, 0), (cards[0].bdf, 1)]
        for one in plan(cards[1:], {}, hosts.rk3588(), wishes, gone=gone).placements:
            assert one.target == whole[one.bdf, one.vector]


class TestUnsteerable:
    BOARD = Board("aarch64", "5.15.4", ())

    def test_known_beforehand(self) -> None:
        stuck = hosts.interrupt()._replace(chip="BRCM STB PCIe MSI")
        found = plan([hosts.card()], hosts.interrupts(stuck), hosts.cpus([1024] * 4), WISHES, self.BOARD)
        [placement] = found.placements
        assert (placement.state, placement.steerable, placement.target) == ("unknown", False, "1")
        assert placement.unknown_until == (
            "it is written: on this controller the kernel refuses (the MSI controller inside Broadcom's PCIe block "
            "serves it (BRCM STB PCIe MSI), which cannot steer)"
        )
        assert found.changes == []
        assert [(key, change.path, change.after) for key, change in found.attempts] == [("0003:31:00.0#0", PATH, "1")]

    def test_right_by_chance(self) -> None:
        stuck = hosts.interrupt(38, "1", "1")._replace(chip="BRCM STB PCIe MSI")
        found = plan([hosts.card()], hosts.interrupts(stuck), hosts.cpus([1024] * 4), WISHES, self.BOARD)
        assert (found.placements[0].state, found.attempts) == ("right", [])

    @pytest.mark.parametrize("chip", ["IO-APIC", "PCI-MSI", "IR-PCI-MSI-0000:03:00.0"])
    def test_a_move_that_waits_for_the_next_interrupt(self, chip: str) -> None:
        board = Board("x86_64", "6.1.0", ())
        waits = hosts.interrupt(38, "1", "0")._replace(chip=chip)
        found = plan([hosts.card()], hosts.interrupts(waits), hosts.cpus([None] * 4), WISHES, board)
        assert (found.changes, found.attempts, found.placements[0].state) == ([], [], "unknown")
        assert found.unknown == [
            (
                "effective CPU of interrupt 38: unknown until the next interrupt comes: the move to CPU 1 has been "
                "accepted and waits for it"
            )
        ]


class TestSummary:
    @staticmethod
    def said(
        cpus: Sequence[Cpu], count: int, check: bool = False, wishes: AffinityWishes = WISHES, bad: int = 0
    ) -> str:
        found = planned(cpus, count, wishes).placements
        return summary([(one, at >= bad) for at, one in enumerate(found)], count, check)

    def test_shares(self) -> None:
        assert self.said(hosts.rk3588(), 8) == "8 interrupts of 8 NPU cards are on CPUs 4-6, 3+3+2"
        assert self.said(hosts.rk3588(), 8, True, bad=1) == "7 interrupts of 8 NPU cards would be on CPUs 4-6, 2+3+2"

    def test_one_cpu_of_many(self) -> None:
        assert self.said(hosts.rk3588(), 2, wishes=WISHES._replace(cpus="5")) == (
            "2 interrupts of 2 NPU cards are on CPU 5"
        )

    def test_one_card(self) -> None:
        assert self.said(hosts.rk3588(), 1) == "1 interrupt of 1 NPU card is on the wanted CPU"
        assert self.said(hosts.rk3588(), 1, bad=1) == "0 interrupts of 1 NPU card are on the wanted CPU"

    def test_tier(self) -> None:
        assert self.said(hosts.rk3588(), 2, wishes=WISHES._replace(spread="tier")) == (
            "2 interrupts of 2 NPU cards are on the wanted CPUs, 4-7"
        )

    def test_one_cpu(self) -> None:
        assert self.said(hosts.cpus([None]), 1) == (
            "1 interrupt of 1 NPU card is on the wanted CPU; this host has one CPU, so there is nothing to choose"
        )


class TestTierSpread:
    WISHES = WISHES._replace(spread="tier")

    def test_all_of_the_tier(self) -> None:
        found = planned(hosts.rk3588(), 2, self.WISHES)
        assert [placement.target for placement in found.placements] == ["4-7", "4-7"]
        assert found.placements[0].why.endswith("; all of them, the interrupt controller picks one")
        assert found.unknown == [
            "effective CPU of interrupt %d: unknown until it is written, the controller picks one of 4-7" % irq
            for irq in (38, 39)
        ]

    def test_right_already(self) -> None:
        found = planned(hosts.rk3588(), 1, self.WISHES, hosts.interrupt(38, "4-7", "6"))
        assert (found.changes, found.unknown) == ([], [])

    def test_offline_cpus_stay_in_the_mask(self) -> None:
        """The mask fails over and returns by itself, so it is not touched when CPUs come and go."""
        assert targets(hosts.rk3588(offline=[4, 6]), 1, self.WISHES) == ["4-7"]

    def test_whole_tier_offline(self) -> None:
        found = planned(hosts.rk3588(offline=[4, 5, 6, 7]), 1, self.WISHES)
        assert found.changes == []
        assert found.placements[0].target == ""

    def test_asked_for_by_name(self) -> None:
        assert targets(hosts.rk3588(), 1, self.WISHES._replace(cpus="4,6")) == ["4,6"]

    def test_those_asked_for_are_offline(self) -> None:
        assert targets(hosts.rk3588(offline=[4, 6]), 1, self.WISHES._replace(cpus="4,6")) == ["5"]


class TestAskedFor:
    def test_in_turns(self) -> None:
        assert targets(hosts.rk3588(), 3, WISHES._replace(cpus="6-7")) == ["6", "7", "6"]
        assert why(hosts.rk3588(), WISHES._replace(cpus="6-7")) == "asked for by name (cpus: 6-7)"

    def test_keep_free_does_not_shorten_the_list(self) -> None:
        assert targets(hosts.rk3588(), 2, WISHES._replace(cpus="5", keep_free=3)) == ["5", "5"]

    def test_cpu_0_and_isolated_ones_can_be_asked_for(self) -> None:
        cpus = [cpu._replace(isolated=True) for cpu in hosts.cpus([None] * 4)]
        assert targets(cpus, 1, WISHES._replace(cpus="0")) == ["0"]

    def test_falls_back_within_the_list_first(self) -> None:
        assert targets(hosts.rk3588(offline=[6]), 2, WISHES._replace(cpus="6,2")) == ["2", "2"]

    def test_then_within_the_fast_tier(self) -> None:
        wishes = WISHES._replace(cpus="2")
        assert targets(hosts.rk3588(offline=[2]), 1, wishes) == ["4"]
        assert why(hosts.rk3588(offline=[2]), wishes) == (
            "asked for by name (cpus: 2); CPU 2, the first choice, is offline"
        )

    def test_those_that_do_not_exist_do_not_count(self) -> None:
        """The agent serves the card as well as it can; the module refuses such a list."""
        assert targets(hosts.rk3588(), 2, WISHES._replace(cpus="7,100")) == ["7", "7"]
        assert targets(hosts.rk3588(), 1, WISHES._replace(cpus="100")) == ["4"]

    def test_check_accepts(self) -> None:
        check_cpus(hosts.rk3588(), WISHES)
        check_cpus(hosts.rk3588(offline=[4]), WISHES._replace(cpus="4-5"))

    @pytest.mark.parametrize(
        ("listed", "sentence"),
        [
            ("4-9", "cpus: 4-9 names CPU 8-9, but this host has CPUs 0-7; name some of these"),
            (
                "6-7",
                (
                    "cpus: 6-7 is all offline on this host; "
                    "bring one online (chcpu -e) or name others: CPUs 0-5 are online"
                ),
            ),
        ],
    )
    def test_check_refuses(self, listed: str, sentence: str) -> None:
        with pytest.raises(WishError) as caught:
            check_cpus(hosts.rk3588(offline=[6, 7]), WISHES._replace(cpus=listed))
        assert str(caught.value) == sentence


class TestState:
    def test_right(self) -> None:
        found = planned(hosts.rk3588(), found=hosts.interrupt(38, "4", "4"))
        assert [placement.state for placement in found.placements] == ["right"]
        assert found.changes == []

    def test_effective_elsewhere(self) -> None:
        """The mask is as wished, but the interrupt is served elsewhere: writing it again moves it."""
        found = planned(hosts.rk3588(), found=hosts.interrupt(38, "4", "0"))
        assert [placement.state for placement in found.placements] == ["change"]
        assert [(change.before, change.after) for _key, change in found.changes] == [("4", "4")]

    @pytest.mark.parametrize("effective", ["", None])
    def test_effective_not_told(self, effective: Optional[str]) -> None:
        found = planned(hosts.rk3588(), found=hosts.interrupt(38, "4", effective))
        assert found.changes == []
        assert found.placements[0].effective_before == effective

    def test_affinity_not_told(self) -> None:
        found = planned(hosts.rk3588(), found=hosts.interrupt(38, None, None))
        assert [(change.before, change.after) for _key, change in found.changes] == [(None, "4")]

    def test_wider_than_wished(self) -> None:
        """Served by the right CPU today, but allowed everywhere: not yet right."""
        found = planned(hosts.rk3588(), found=hosts.interrupt(38, "0-7", "4"))
        assert [change.after for _key, change in found.changes] == ["4"]

    def test_all_vectors_of_a_card_go_together(self) -> None:
        two = hosts.card(irqs=(38, 40))
        found = plan([two], hosts.interrupts(hosts.interrupt(38), hosts.interrupt(40)), hosts.rk3588(), WISHES)
        assert [(key, change.path, change.after) for key, change in found.changes] == [
            ("0003:31:00.0#0", "/proc/irq/38/smp_affinity_list", "4"),
            ("0003:31:00.0#1", "/proc/irq/40/smp_affinity_list", "4"),
        ]


class TestUnknown:
    def test_vectors_without_a_handler(self) -> None:
        """Four vectors granted, one of them requested: the others are reported, not guessed, and once only."""
        four = hosts.card(irqs=(38, 39, 40, 41))
        granted = [hosts.interrupt(irq, None, None, has_proc_irq=False) for irq in (39, 40)]
        found = plan([four], hosts.interrupts(hosts.interrupt(38), *granted), hosts.rk3588(), WISHES)
        assert [placement.state for placement in found.placements] == ["change", "unknown", "unknown", "unknown"]
        assert [placement.irq for placement in found.placements] == [38, 39, 40, 41]
        assert len(found.changes) == 1
        assert found.unknown == []
        assert found.placements[3].unknown_until == (
            "the driver asks for this vector (it has been granted, but has no handler)"
        )

    def test_first_vector_without_a_handler(self) -> None:
        found = plan([hosts.card()], {}, hosts.rk3588(), WISHES)
        assert found.changes == []
        until = "the driver asks for this vector (it has been granted, but has no handler)"
        assert found.unknown == ["interrupt 38 of 0003:31:00.0: unknown until " + until]

    def test_no_driver(self) -> None:
        found = plan([hosts.card(irqs=(), driver=None, legacy_irq=255)], {}, hosts.rk3588(), WISHES)
        [placement] = found.placements
        assert (placement.irq, placement.target, placement.state) == (None, "4", "unknown")
        assert found.unknown == ["interrupt of 0003:31:00.0: unknown until a driver binds to it"]

    def test_driver_without_an_interrupt(self) -> None:
        found = plan([hosts.card(irqs=())], {}, hosts.rk3588(), WISHES)
        assert found.unknown == ["interrupt of 0003:31:00.0: unknown until its driver has asked for an interrupt"]

    def test_no_card(self) -> None:
        assert plan([], {}, hosts.rk3588(), WISHES) == AffinityPlan([], [], [], [])


class TestVectors:
    def test_msi_before_the_line(self) -> None:
        assert vectors(hosts.card(irqs=(38, 39), legacy_irq=38)) == (38, 39)

    def test_line(self) -> None:
        shared = hosts.card(irqs=(), legacy_irq=16)
        assert vectors(shared) == (16,)
        found = plan([shared], hosts.interrupts(hosts.interrupt(16)), hosts.rk3588(), WISHES)
        assert [(key, change.path) for key, change in found.changes] == [
            ("0003:31:00.0#0", "/proc/irq/16/smp_affinity_list")
        ]

    def test_line_that_others_share(self) -> None:
        """The card's is moved all the same, and who moves along is said."""
        line = hosts.interrupt(16)._replace(actions=("ahci", "ax_pcie"))
        found = plan([hosts.card(irqs=(), legacy_irq=16)], hosts.interrupts(line), hosts.rk3588(), WISHES)
        [placement] = found.placements
        [(_key, change)] = found.changes
        sentence = "; its line has several handlers (ahci, ax_pcie), and all of them move"
        assert placement.why.endswith(sentence)
        assert change.why.endswith(sentence)
        assert (placement.target, placement.state) == ("4", "change")

    def test_msi_is_the_card_s_alone(self) -> None:
        msi = hosts.interrupt()._replace(actions=("a", "b"))
        [placement] = plan([hosts.card()], hosts.interrupts(msi), hosts.rk3588(), WISHES).placements
        assert "handlers" not in placement.why

    @pytest.mark.parametrize("now", ["0-7", "4", "5"])
    def test_line_of_two_cards(self, now: str) -> None:
        """It cannot be on both of their CPUs: it is on the first one's, and stays there at the next run."""
        two = [hosts.card("%04d:01:00.0" % number, (), legacy_irq=16) for number in range(2)]
        line = hosts.interrupt(16, now, now[0])
        found = plan(two, hosts.interrupts(line), hosts.rk3588(), WISHES)
        assert [placement.target for placement in found.placements] == ["4", "4"]
        assert [change.after for _key, change in found.changes] == ([] if now == "4" else ["4"])

    def test_line_of_a_device_without_driver(self) -> None:
        assert vectors(hosts.card(irqs=(), legacy_irq=16, driver=None)) == ()


class TestWishes:
    def test_defaults(self) -> None:
        assert AffinityWishes.from_data({}) == AffinityWishes(BUILT_IN, None, "single", 1, False, "together")

    @hosts.STEADY
    @given(
        st.builds(
            AffinityWishes,
            catalogue=st.just(BUILT_IN),
            cpus=st.none() | st.sets(st.integers(0, 9999), min_size=1).map(format_list),
            spread=st.sampled_from(["single", "tier"]),
            keep_free=st.integers(0, 10**6),
            born_there=st.booleans(),
            vectors=st.sampled_from(["together", "apart"]),
        )
    )
    def test_round_trip(self, wishes: AffinityWishes) -> None:
        assert AffinityWishes.from_data(wishes.to_data()) == wishes

    def test_a_number_is_a_list(self) -> None:
        """As a person may write it by hand into the wishes' file."""
        assert AffinityWishes.from_data({"cpus": 0}).cpus == "0"
        assert AffinityWishes.from_data({"cpus": 4}).cpus == "4"

    @pytest.mark.parametrize(
        ("data", "sentence"),
        [
            ({"spread": "all"}, "spread: 'all' is neither of single and tier"),
            ({"spread": ["tier"]}, "spread: ['tier'] is neither of single and tier"),
            ({"vectors": "near"}, "vectors: 'near' is neither of together and apart"),
            ({"keep_free": -1}, "keep_free: -1 is no count of cores; write 0 or more"),
            ({"keep_free": "1"}, "keep_free: '1' is no count of cores; write 0 or more"),
            ({"keep_free": None}, "keep_free: None is no count of cores; write 0 or more"),
            ({"keep_free": True}, "keep_free: True is no count of cores; write 0 or more"),
            (
                {"cpus": "fast"},
                'cpus: \'fast\' is no list of CPUs; write one as the kernel does, such as "4-7" or "4,6"',
            ),
            ({"cpus": ""}, 'cpus: \'\' is no list of CPUs; write one as the kernel does, such as "4-7" or "4,6"'),
            (
                {"cpus": ["4", "5"]},
                "cpus: ['4', '5'] is no list of CPUs; write one as the kernel does, such as \"4-7\" or \"4,6\"",
            ),
            ({"catalogue": 5}, "devices: 5 is no list of devices"),
            ({"catalogue": "1f4b"}, "devices: '1f4b' is no list of devices"),
            ({"catalogue": ["1f4b"]}, "devices, entry 1: '1f4b' is no device; write vendor and device"),
        ],
    )
    def test_senseless(self, data: Any, sentence: str) -> None:
        with pytest.raises(WishError) as caught:
            AffinityWishes.from_data(data)
        assert str(caught.value) == sentence


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ENTRY = st.dictionaries(
    st.sampled_from(["vendor", "device", "subsystem_vendor", "subsystem_device", "name", "drivers"]),
    st.sampled_from(["1f4b", "0650"]) | JSON,
)


@hosts.STEADY
@given(
    st.fixed_dictionaries({}, optional={"cpus": JSON, "spread": JSON, "keep_free": JSON, "catalogue": JSON})
    | st.fixed_dictionaries({"catalogue": st.lists(ENTRY | JSON, max_size=3)})
    | JSON.map(lambda value: {"catalogue": value})
)
def test_any_wishes_are_understood_or_refused(data: Any) -> None:
    """Whatever a wishes' file holds: wishes that can be planned with, or one sentence."""
    try:
        wishes = AffinityWishes.from_data(data)
    except WishError as error:
        assert "\n" not in str(error)
        return
    assert AffinityWishes.from_data(wishes.to_data()) == wishes
    found = planned(hosts.rk3588(), 1, wishes)
    assert len(found.placements) == 1


@hosts.STEADY
@given(
    st.lists(st.sampled_from([None, 200, 414, 830, 1024]), min_size=1, max_size=12),
    st.sets(st.integers(1, 11)),
    st.integers(1, 5),
    st.builds(
        AffinityWishes,
        catalogue=st.just(BUILT_IN),
        cpus=st.none() | st.sets(st.integers(0, 14), min_size=1).map(format_list),
        spread=st.sampled_from(["single", "tier"]),
        keep_free=st.integers(0, 4),
    ),
)
def test_every_plan_can_be_written_and_is_final(
    capacities: List[Optional[int]], offline: Any, count: int, wishes: AffinityWishes
) -> None:
    """A target always has an online CPU (the kernel refuses others), and what has been written is right."""
    cpus = hosts.cpus(capacities, offline)
    online = {cpu.number for cpu in cpus if cpu.online}
    found = planned(cpus, count, wishes)
    for placement in found.placements:
        target = set(parse_list(placement.target) or ())
        assert not target or target & online
        assert wishes.spread == "tier" or len(target) <= 1
    after = {}
    for number, placement in enumerate(found.placements):
        target = sorted(set(parse_list(placement.target) or ()) & online)
        done = hosts.interrupt(38 + number, placement.target, format_list(target[:1])) if target else None
        after[38 + number] = done or hosts.interrupt(38 + number)
    assert plan(hosts.cards(count), after, cpus, wishes).changes == []


@st.composite
def any_cpus(draw: Any) -> List[Cpu]:
    """Return a host: two or three kinds of core, hardware threads, isolated and offline CPUs, in any order."""
    step = draw(st.sampled_from([0, 1]))
    found: List[Cpu] = []
    for _core in range(draw(st.integers(1, 6))):
        capacity = draw(st.sampled_from([414, 830, 1024]))
        threads = tuple(range(len(found), len(found) + 1 + step))
        online = [number == 0 or draw(st.booleans()) for number in threads]
        isolated = draw(st.booleans())
        for number, here in zip(threads, online):
            siblings = tuple(one for one, there in zip(threads, online) if there) if here else ()
            found.append(hosts.cpu(number, capacity, here, siblings=siblings, isolated=isolated and number > 0))
    order: List[Cpu] = draw(st.permutations(found))
    return order


@hosts.STEADY
@given(
    any_cpus(),
    st.lists(st.integers(1, 4), min_size=1, max_size=9),
    st.builds(
        AffinityWishes,
        catalogue=st.just(BUILT_IN),
        cpus=st.none() | st.sets(st.integers(0, 11), min_size=1).map(format_list),
        keep_free=st.integers(0, 4),
        vectors=st.sampled_from(["together", "apart"]),
    ),
    st.randoms(use_true_random=False),
)
def test_any_spread(cpus: List[Cpu], counts: List[int], wishes: AffinityWishes, chance: Any) -> None:
    """Never offline where an online one may serve, never isolated unless named, even within one, and the same however
    the interrupts are numbered and in whatever order cards and CPUs were seen."""
    numbers = list(range(100, 100 + sum(counts)))
    cards, other = [], []
    for at, count in enumerate(counts):
        cards.append(hosts.card("%04x:01:00.0" % at, [numbers.pop(0) for _vector in range(count)]))
        other.append(cards[-1]._replace(msi_irqs=tuple(irq + 1000 for irq in cards[-1].msi_irqs)))
    chance.shuffle(other)
    found = plan(cards, {}, cpus, wishes).placements
    again = plan(other, {}, sorted(cpus, key=lambda cpu: -cpu.number), wishes).placements
    assert [(one.bdf, one.vector, one.target, one.why) for one in found] == [
        (one.bdf, one.vector, one.target, one.why) for one in again
    ]
    known = {cpu.number: cpu for cpu in cpus}
    named = set(parse_list(wishes.cpus or "") or ()) & set(known)
    seats = [one.target for one in found if wishes.vectors == "apart" or one.vector == 0]
    for target in set(seats) - {""}:
        assert known[int(target)].online
        assert not known[int(target)].quiet or int(target) in named
    if any(known[number].online for number in named):
        assert {int(target) for target in seats} <= named
    many = set(targets(cpus, 24, wishes))  # so many cards use every CPU that may serve one
    assert ("" in seats) == (many == {""})
    load = [seats.count(target) for target in many]
    assert max(load) - min(load) <= 1
