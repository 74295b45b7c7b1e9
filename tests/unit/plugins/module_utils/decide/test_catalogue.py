# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import (
    BUILT_IN,
    CardKind,
    cards,
    kind_of,
    resolve,
    to_data,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WishError
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts


def name_of(kinds: Any, **identity: Any) -> Any:
    kind = kind_of(hosts.card(**identity), kinds)
    return None if kind is None else kind.name


def test_built_in() -> None:
    assert resolve(None) == resolve([]) == BUILT_IN
    assert name_of(BUILT_IN) == "Axera AX650N"
    assert name_of(BUILT_IN, vendor=0x1E60, device=0x2864) == "Hailo-8"
    assert name_of(BUILT_IN, device=0x0651) is None


def test_both_halves_of_the_identity_count() -> None:
    assert name_of(BUILT_IN, vendor=0x1E60) is None
    assert name_of(BUILT_IN, vendor=None) is None
    assert name_of(BUILT_IN, vendor=0x0650, device=0x1F4B) is None


def test_other_functions_of_the_same_chip_are_no_npu() -> None:
    """Beside a Strix' NPU sit functions of the same vendor: a dummy function, audio, USB."""
    functions = [
        hosts.card("0000:c6:00.%d" % number, vendor=0x1022, device=device)
        for number, device in enumerate((0x150D, 0x17F0, 0x150C))
    ]
    assert [found.bdf for found in cards(functions, BUILT_IN)] == ["0000:c6:00.1"]


def test_cards_keep_their_order() -> None:
    three = hosts.cards(3)
    assert cards([*three, hosts.port()], BUILT_IN) == three


class TestSubsystem:
    KINDS = (
        CardKind("both", 1, 2, 3, 4),
        CardKind("vendor only", 1, 2, 5),
        CardKind("device only", 1, 2, None, 6),
        CardKind("any", 1, 2),
    )

    @pytest.mark.parametrize(
        ("vendor", "device", "expected"),
        [
            (3, 4, "both"),
            (3, 6, "device only"),
            (5, 9, "vendor only"),
            (5, None, "vendor only"),
            (9, 9, "any"),
            (None, None, "any"),
        ],
    )
    def test_first_that_matches(self, vendor: Any, device: Any, expected: str) -> None:
        assert name_of(self.KINDS, vendor=1, device=2, subsystem_vendor=vendor, subsystem_device=device) == expected

    def test_none_matches(self) -> None:
        assert name_of(self.KINDS[:3], vendor=1, device=2, subsystem_vendor=3, subsystem_device=5) is None


class TestEntries:
    def test_entry(self) -> None:
        entry = {
            "name": "mine",
            "vendor": "0xABCD",
            "device": "0001",
            "subsystem_vendor": "1234",
            "subsystem_device": None,
            "drivers": ["one", "two"],
        }
        kinds = resolve([entry])
        assert kinds == (CardKind("mine", 0xABCD, 1, 0x1234, None, ("one", "two")), *BUILT_IN)

    def test_unnamed(self) -> None:
        assert resolve([{"vendor": "abcd", "device": "0001"}])[0].name == "abcd:0001"

    def test_wins_over_ours_of_the_same_identity(self) -> None:
        kinds = resolve([{"vendor": "1f4b", "device": "0650", "name": "mine", "drivers": []}])
        assert name_of(kinds) == "mine"
        assert len(kinds) == len(BUILT_IN)

    def test_a_narrower_one_leaves_ours_for_the_others(self) -> None:
        kinds = resolve([{"vendor": "1f4b", "device": "0650", "subsystem_device": "0001", "name": "mine"}])
        assert name_of(kinds, subsystem_device=1) == "mine"
        assert name_of(kinds, subsystem_device=2) == "Axera AX650N"

    def test_digits_that_yaml_took_for_a_number(self) -> None:
        assert resolve([{"vendor": 1022, "device": 1502}])[0][1:3] == (0x1022, 0x1502)

    @pytest.mark.parametrize("bad", ["", "1f4", "01f4b", "wxyz", "-1f4", "1_f4", " 1f4b", "1f4b\n", 424, True, 1.5, []])
    @pytest.mark.parametrize("field", ["vendor", "device", "subsystem_vendor", "subsystem_device"])
    def test_no_identity(self, field: str, bad: Any) -> None:
        """424 is what YAML makes of an unquoted 0650."""
        entry = {"vendor": "1f4b", "device": "0650", field: bad}
        with pytest.raises(WishError) as caught:
            resolve([{"vendor": "1f4b", "device": "0650"}, entry])
        assert str(caught.value) == (
            'devices, entry 2: %s %r is no PCI identity; write four hexadecimal digits in quotes, such as "1f4b"'
            % (field, bad)
        )

    @pytest.mark.parametrize("entry", [{}, {"vendor": "1f4b"}, {"device": "0650", "vendor": None}])
    def test_half_an_identity(self, entry: Any) -> None:
        with pytest.raises(WishError) as caught:
            resolve([entry])
        assert str(caught.value) == (
            "devices, entry 1: vendor and device are needed, each four hexadecimal digits in quotes"
        )

    @pytest.mark.parametrize("entry", ["1f4b:0650", 5, None, ["1f4b", "0650"]])
    def test_no_entry(self, entry: Any) -> None:
        with pytest.raises(WishError) as caught:
            resolve([entry])
        assert str(caught.value) == "devices, entry 1: %r is no device; write vendor and device" % (entry,)

    @pytest.mark.parametrize("names", ["hailo", 5, {"hailo": 1}, ["a b"], ["x\ninstall y /bin/z"], [""]])
    @pytest.mark.parametrize("field", ["drivers", "modules"])
    def test_no_list_of_names(self, field: str, names: Any) -> None:
        with pytest.raises(WishError) as caught:
            resolve([{"vendor": "1f4b", "device": "0650", field: names}])
        assert str(caught.value) == "devices, entry 1: %s %r is no list of names" % (field, names)


identities = st.integers(0, 0xFFFF)
names = st.lists(st.from_regex(r"[A-Za-z0-9_.-]+", fullmatch=True), max_size=3).map(tuple)
kinds = st.builds(
    CardKind,
    name=st.text(min_size=1),
    vendor=identities,
    device=identities,
    subsystem_vendor=st.none() | identities,
    subsystem_device=st.none() | identities,
    drivers=names,
    modules=names,
)


@hosts.STEADY
@given(st.lists(kinds, max_size=4))
def test_round_trip(mine: Any) -> None:
    """What is kept on the box means there what it meant to the module."""
    wanted = resolve(to_data(mine))
    assert wanted[: len(mine)] == tuple(mine)
    assert resolve(to_data(wanted)) == wanted


def test_built_in_identities_are_distinct() -> None:
    assert len({kind[1:5] for kind in BUILT_IN}) == len(BUILT_IN)
