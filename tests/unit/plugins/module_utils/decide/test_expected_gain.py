# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a remedy can gain, and what is worth doing first."""

from __future__ import annotations

from typing import Any, List, Optional

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide import expected_gain
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.expected_gain import (
    band,
    expectation,
    is_measured,
    verdict,
    weigh,
    worth_doing,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import CRITICAL, INFO, OK, WARNING, Finding
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts

RK3588 = ("friendlyelec,cm3588-nas", "rockchip,rk3588")
WORDS = (
    "LLM decode 1.2 to 2 times as fast, single inferences 3 to 92 % at 1 ms, 3 to 17 % at 4 ms, 2 to 7 % at 10 ms, "
    "none above about 50 ms"
)


def finding(name: str, severity: str = WARNING, remedy: str = "", role: Optional[str] = None) -> Finding:
    return Finding(name, severity, name + " is amiss", {}, remedy or "Mend %s." % name, role)


class TestBand:
    @pytest.mark.parametrize(
        ("latency_ms", "low", "middle", "high"),
        [
            (0.5, 0, 45, 92),
            (1.0, 3, 41, 92),
            (2.0, 4, 21, 37),
            (4.0, 3, 11, 18),
            (7.0, 2, 6.6, 10),
            (10.0, 1.6, 4.8, 7),
            (20.0, 1.0, 2.6, 3.7),
            (50.0, 0.5, 1.2, 1.6),
        ],
    )
    def test_published(self, latency_ms: float, low: float, middle: float, high: float) -> None:
        """The table that goes with the formulas; its figures come from coefficients with more digits."""
        found = band(latency_ms)
        assert found is not None
        for number, printed in zip(found, (low, middle, high)):
            assert number == pytest.approx(printed, abs=0.06 if printed % 1 else 0.7)

    @pytest.mark.parametrize("latency_ms", [-1.0, 0.0, 0.19, 50.1, 600.0, float("nan"), float("inf")])
    def test_nothing_is_said_where_nothing_can_be(self, latency_ms: float) -> None:
        assert band(latency_ms) is None

    def test_never_below_nothing(self) -> None:
        for hundredths in range(20, 5001):
            found = band(hundredths / 100)
            assert found is not None
            assert 0 <= found.low_percent <= found.middle_percent <= found.high_percent


class TestMeasured:
    @pytest.mark.parametrize(
        ("card", "compatible", "expected"),
        [
            ({}, RK3588, True),
            ({}, ("radxa,rock-5a", "rockchip,rk3588s"), True),
            ({}, ("raspberrypi,5-model-b", "brcm,bcm2712"), False),
            ({}, (), False),
            ({"device": 0x8860}, RK3588, False),
            ({"vendor": 0x1E60, "device": 0x2864}, RK3588, False),
        ],
    )
    def test_card_and_board(self, card: Any, compatible: Any, expected: bool) -> None:
        assert is_measured([hosts.card(**card)], compatible) is expected

    def test_no_card(self) -> None:
        assert not is_measured([], RK3588)


class TestWords:
    @pytest.mark.parametrize("other", ["interrupt_on_slow_core", "interrupt_undone"])
    @pytest.mark.parametrize("clock", ["clock_drops", "clock_conflict"])
    def test_both(self, other: str, clock: str) -> None:
        found = weigh([finding(other), finding(clock)], True)
        assert {one.expected_gain for one in found} == {"interrupt and clocks together: " + WORDS}
        told = expectation(found, True)
        assert told["text"] == found[0].expected_gain
        assert told["llm_decode_times"] == {"low": 1.2, "high": 2.0}
        assert [one["default_latency_ms"] for one in told["single_inference"]] == [1.0, 4.0, 10.0]
        assert told["single_inference"][1] == {
            "default_latency_ms": 4.0,
            "low_percent": 2.7,
            "middle_percent": 10.9,
            "high_percent": 17.4,
        }

    @pytest.mark.parametrize("name", expected_gain.PAIR)
    def test_one_alone_was_never_measured(self, name: str) -> None:
        [one] = weigh([finding(name)], True)
        assert (
            one.expected_gain == "at most: %s; measured for interrupt and clocks together, never for one alone" % WORDS
        )

    def test_a_note_is_no_part_of_it(self) -> None:
        found = weigh([finding("interrupt_on_slow_core", INFO), finding("clock_drops")], True)
        assert found[0].expected_gain is None
        assert str(found[1].expected_gain).startswith("at most: ")

    def test_elsewhere(self) -> None:
        found = weigh([finding("clock_drops")], False)
        assert found[0].expected_gain == (
            "not measured for this card on this board, only for an Axera AX650N in an RK3588"
        )
        told = expectation(found, False)
        assert (told["applies"], told["llm_decode_times"], told["single_inference"]) == (False, None, [])

    @pytest.mark.parametrize(
        ("name", "beginning"),
        [
            ("card_unbound", "all of it"),
            ("link_degraded", "not measured"),
            ("not_kept", "none now"),
            ("mrrs_unusual", "seen once"),
            ("something_else", "None"),
        ],
    )
    def test_others(self, name: str, beginning: str) -> None:
        [one] = weigh([finding(name)], True)
        assert str(one.expected_gain).startswith(beginning)

    @pytest.mark.parametrize(
        ("found", "text"),
        [
            ([], "none from interrupts and clocks: they are in order, or as wished"),
            (
                [finding("not_kept"), finding("link_at_limit", INFO)],
                "none from interrupts and clocks: they are in order, or as wished",
            ),
            ([finding("card_unbound")], "not to be told before the card works"),
            ([finding("card_silent"), finding("clock_drops")], "not to be told before the card works"),
            ([finding("log_card_dead", CRITICAL), finding("clock_drops")], "not to be told before the card works"),
            ([finding("interrupt_unsteerable")], "not measured for what is amiss here"),
            ([finding("mrrs_unusual", CRITICAL)], "not measured for what is amiss here"),
        ],
    )
    def test_nothing_measured_is_amiss(self, found: List[Finding], text: str) -> None:
        told = expectation(found, True)
        assert (told["text"], told["llm_decode_times"], told["single_inference"]) == (text, None, [])


class TestWorthDoing:
    def test_order(self) -> None:
        """What gains most comes first, whatever the order in which it was found; what is broken comes before all."""
        names = ["something_else", "not_kept", "link_degraded", "clock_drops", "card_unbound"]
        found = [*(finding(name) for name in names), finding("mrrs_unusual", CRITICAL)]
        assert [deed.findings for deed in worth_doing(found)] == [
            ("mrrs_unusual",),
            ("card_unbound",),
            ("clock_drops",),
            ("link_degraded",),
            ("not_kept",),
            ("something_else",),
        ]

    def test_one_thing_that_answers_several(self) -> None:
        found = [
            finding("not_kept", remedy="Run the role irq_affinity.", role="irq_affinity"),
            finding("interrupt_on_slow_core", remedy="Run the role irq_affinity: fast.", role="irq_affinity"),
            finding("clock_drops", remedy="Run the role governor: it holds them.", role="governor"),
            finding("clock_drops", remedy="Run the role governor: it holds them.", role="governor"),
        ]
        first, second = worth_doing(found)
        assert (first.what, first.role) == ("Run the role irq_affinity: fast.", "irq_affinity")
        assert first.findings == ("interrupt_on_slow_core", "not_kept")
        assert second.findings == ("clock_drops",)
        assert verdict(found) == "Not as fast as it can be: 2 things to do"

    def test_notes_are_not(self) -> None:
        assert worth_doing([finding("clock_drops", INFO), finding("clock_held", OK)]) == []


def test_the_lists_name_findings_once() -> None:
    lists = (
        expected_gain.PAIR,
        expected_gain.FIRST,
        expected_gain.COSTS,
        tuple(expected_gain.SEEN),
        expected_gain.KEEPS,
    )
    names = [name for one in lists for name in one]
    assert len(names) == len(set(names))
