# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import KEEP, ClockPlan, ClockWishes, plan
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpufreq import Policy
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import parse_list
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts

OFFERED = ("performance", "powersave", "schedutil")
WISHES = ClockWishes()


def policy(listed: str, governor: Optional[str] = "schedutil", offered: Sequence[str] = OFFERED) -> Policy:
    cpus = parse_list(listed) or ()
    name = "policy%d" % cpus[0]
    return Policy(name, cpus, cpus, "cpufreq-dt", governor, tuple(offered), *[None] * 5, (), None, False)


def offline(first: int) -> Policy:
    """Return a policy as the kernel shows one whose CPUs are all offline: it refuses to tell anything."""
    return policy(str(first), None, ())._replace(affected=(), driver=None, all_offline=True)


CM3588 = (policy("0-3"), policy("4-5"), policy("6-7"))


def decided(
    policies: Sequence[Policy] = CM3588,
    wishes: ClockWishes = WISHES,
    loadable: Optional[Sequence[str]] = (),
    offline: Sequence[int] = (),
) -> ClockPlan:
    return plan(policies, hosts.rk3588(offline), wishes, loadable)


def changed(found: ClockPlan) -> List[Tuple[str, Optional[str], Optional[str]]]:
    return [(key, change.before, change.after) for key, change in found.changes]


def test_fast_policies_only() -> None:
    found = decided()
    assert changed(found) == [("policy4", "schedutil", "performance"), ("policy6", "schedutil", "performance")]
    change = found.changes[0][1]
    assert change.path == "/sys/devices/system/cpu/cpufreq/policy4/scaling_governor"
    assert change.why == (
        "policy4 serves the fastest tier, CPUs 4-7: between the short calls to the card its clock must not drop"
    )
    assert found.unknown == []


def test_both() -> None:
    found = decided(wishes=ClockWishes("performance", "powersave"))
    assert changed(found)[0] == ("policy0", "schedutil", "powersave")
    assert found.changes[0][1].why == "policy0 serves CPUs 0-3, outside the fastest tier"
    assert len(found.changes) == 3


def test_right_already() -> None:
    assert decided([policy("0-3"), policy("4-7", "performance")]) == ClockPlan([], [])


@pytest.mark.parametrize(("fast", "others"), [(KEEP, KEEP), (KEEP, "schedutil"), ("schedutil", KEEP)])
def test_kept_as_they_are(fast: str, others: str) -> None:
    assert decided(wishes=ClockWishes(fast, others)) == ClockPlan([], [])


def test_a_governor_that_does_not_exist_is_no_matter_where_none_is_wanted() -> None:
    assert decided([policy("0-3", "performance", ())], ClockWishes("unheard_of", KEEP)) == ClockPlan([], [])


def test_equally_fast_cpus_all_hold_their_clock() -> None:
    found = plan([policy("0-1"), policy("2-3")], hosts.cpus([1024] * 4), WISHES, ())
    assert [change.after for _key, change in found.changes] == ["performance", "performance"]
    assert "CPUs that are all equally fast" in found.changes[0][1].why


def test_no_cpu_known() -> None:
    assert plan([], (), WISHES, ()) == ClockPlan([], [])


def test_one_clock_for_fast_and_slow_cpus() -> None:
    """A policy that serves a fast CPU, too, counts as fast."""
    assert changed(decided([policy("0-7")])) == [("policy0", "schedutil", "performance")]


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        (ClockWishes(), ["policy0", "policy4", "policy6"]),
        (ClockWishes("schedutil"), []),
        (ClockWishes("performance", "schedutil"), ["policy4", "policy6"]),
        (ClockWishes(KEEP, KEEP), []),
    ],
)
def test_policy_that_an_interrupt_is_stuck_on(wishes: ClockWishes, expected: List[str]) -> None:
    found = plan(CM3588, hosts.rk3588(), wishes, (), [1])
    assert [key for key, _change in found.changes] == expected


def test_stuck_on_a_fast_one() -> None:
    assert plan(CM3588, hosts.rk3588(), WISHES, (), [5]) == decided()


def test_all_offline() -> None:
    found = decided([policy("0-3"), offline(4), policy("6-7")], offline=[4, 5])
    assert [key for key, _change in found.changes] == ["policy6"]
    assert found.unknown == ["governor of policy4: unknown until one of its CPUs 4 is online"]


def test_offline_and_left_alone() -> None:
    assert decided([offline(0)], offline=[0, 1, 2, 3]) == ClockPlan([], [])


class TestGovernorThatIsNotOffered:
    def test_refused_with_the_choices(self) -> None:
        with pytest.raises(WishError) as caught:
            decided(wishes=ClockWishes("turbo"), loadable=("ondemand", "schedutil"))
        assert str(caught.value) == (
            "governor 'turbo' does not exist for policy4 on this kernel; "
            "choose one of ondemand, performance, powersave, schedutil"
        )

    def test_refused_before_anything_is_changed(self) -> None:
        """The plan is whole or not at all, so that a mistake about the slow CPUs leaves the fast ones alone."""
        with pytest.raises(WishError):
            decided([policy("4-7"), policy("0-3")], ClockWishes("performance", "turbo"))

    def test_stands_as_a_module(self) -> None:
        found = decided(wishes=ClockWishes("ondemand"), loadable=("ondemand",))
        assert [change.after for _key, change in found.changes] == ["ondemand", "ondemand"]
        assert found.unknown == [
            "governor of %s: unknown until the kernel has loaded the module cpufreq_ondemand" % name
            for name in ("policy4", "policy6")
        ]

    def test_modules_cannot_be_told(self) -> None:
        """Without modules.dep nobody knows, so it is tried; the kernel then refuses it by EINVAL."""
        found = decided(wishes=ClockWishes("ondemand"), loadable=None)
        assert [change.after for _key, change in found.changes] == ["ondemand", "ondemand"]
        assert len(found.unknown) == 2

    def test_in_force_though_not_listed(self) -> None:
        """Without modules.dep a list that lacks the governor in force is no reason to write it again."""
        assert decided([policy("4-7", "ondemand")], ClockWishes("ondemand"), None) == ClockPlan([], [])


class TestWishes:
    def test_defaults(self) -> None:
        assert ClockWishes.from_data({}) == ClockWishes("performance", "keep", catalogue=BUILT_IN)

    @hosts.STEADY
    @given(*[st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True)] * 2, st.booleans())
    def test_round_trip(self, fast: str, others: str, only_with_card: bool) -> None:
        wishes = ClockWishes(fast, others, only_with_card, BUILT_IN)
        assert ClockWishes.from_data(wishes.to_data()) == wishes

    @pytest.mark.parametrize("name", ["", "Performance", "performance\n", "../x", "a b", "0", None, 5, True, ["a"], {}])
    def test_senseless(self, name: Any) -> None:
        for field in ("fast", "others"):
            with pytest.raises(WishError) as caught:
                ClockWishes.from_data({field: name})
            assert str(caught.value) == (
                "%s: %r is no governor's name; write one such as performance or schedutil" % (field, str(name))
            )

    @hosts.STEADY
    @given(st.dictionaries(st.sampled_from(["fast", "others", "x"]), st.none() | st.text() | st.lists(st.text())))
    def test_any_wishes_are_understood_or_refused(self, data: Dict[str, Any]) -> None:
        try:
            wishes = ClockWishes.from_data(data)
        except WishError as error:
            assert "\n" not in str(error)
            return
        assert decided(wishes=wishes, loadable=None).changes is not None
