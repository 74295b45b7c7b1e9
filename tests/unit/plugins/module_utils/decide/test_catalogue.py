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
    relatives,
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
        hint = "; was it 0650 without quotes? YAML takes that for an octal number" if bad == 424 else ""
        assert str(caught.value) == (
            'devices, entry 2: %s %r is no PCI identity; write four hexadecimal digits in quotes, such as "1f4b"%s'
            % (field, bad, hint)
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


class TestClass:
    MINE = CardKind("mine", *hosts.AXERA, class_code="0b40")

    @pytest.mark.parametrize(
        ("beginning", "expected"),
        [("04", "mine"), ("0400", "mine"), ("040000", "mine"), ("00", None), ("0401", None), ("040001", None)],
    )
    def test_beginning(self, beginning: str, expected: Any) -> None:
        assert name_of((self.MINE._replace(class_code=beginning),), class_code=0x040000) == expected

    def test_two_functions_of_one_identity(self) -> None:
        """What the class is for: a chip whose functions share vendor and device."""
        codes = (0x130000, 0x0B4000)
        two = [hosts.card("0000:c6:00.%d" % number, class_code=code) for number, code in enumerate(codes)]
        assert [found.bdf for found in cards(two, (self.MINE,))] == ["0000:c6:00.1"]

    def test_not_known(self) -> None:
        assert name_of((self.MINE,), class_code=None) is None

    @pytest.mark.parametrize(
        ("given", "kept"), [("0b40", "0b40"), ("0x0B4000", "0b4000"), ("12", "12"), (1200, "1200"), (None, None)]
    )
    def test_entry(self, given: Any, kept: Any) -> None:
        kind = resolve([{"vendor": "1f4b", "device": "0650", "class_code": given}])[0]
        assert kind.class_code == kept

    @pytest.mark.parametrize("bad", ["", "b40", "0b4", "0b40000", "xx", 256, True, "0b4000ff", " 0b40"])
    def test_no_class(self, bad: Any) -> None:
        """256 is what YAML makes of an unquoted 0400."""
        with pytest.raises(WishError) as caught:
            resolve([{"vendor": "1f4b", "device": "0650", "class_code": bad}])
        assert str(caught.value) == (
            "devices, entry 1: class_code %r is no PCI class; write its first two, four or six hexadecimal digits in "
            'quotes, such as "0b40"' % (bad,)
        )

    @pytest.mark.parametrize("entry", [{"class_code": "0b40"}, {"class_code": "0b40", "vendor": "1e60"}])
    def test_is_no_identity(self, entry: Any) -> None:
        with pytest.raises(WishError) as caught:
            resolve([entry])
        assert str(caught.value) == "devices, entry 1: a class is no identity; name the vendor and the device, too"


class TestMistakes:
    @staticmethod
    def told(*entries: Any) -> str:
        with pytest.raises(WishError) as caught:
            resolve(entries)
        return str(caught.value)

    def test_changed_places(self) -> None:
        assert self.told({"vendor": "0650", "device": "1f4b"}) == (
            "devices, entry 1: vendor 0650 and device 1f4b have changed places"
        )

    @pytest.mark.parametrize(("vendor", "device"), [("ffff", "0650"), ("1f4b", "ffff"), ("0000", "0650")])
    def test_nothing_there(self, vendor: str, device: str) -> None:
        assert self.told({"vendor": vendor, "device": device}) == (
            "devices, entry 1: %s:%s is what a slot with no device reads as" % (vendor, device)
        )

    def test_twice(self) -> None:
        entry = {"vendor": "1f4b", "device": "0650", "drivers": ["a"]}
        other = dict(entry, subsystem_device="0001")
        again = dict(entry, device="0x0650", drivers=["b"])
        assert self.told(entry, other, again) == ("devices, entry 3: it has the identity of entry 1; make one of them")

    def test_same_but_for_the_class(self) -> None:
        entry = {"vendor": "1f4b", "device": "0650"}
        kinds = resolve([dict(entry, class_code="12"), dict(entry, class_code="04")])
        assert [kind.class_code for kind in kinds[:3]] == ["12", "04", None]

    def test_internal(self) -> None:
        assert resolve([{"vendor": "1f4b", "device": "0001", "internal": True}])[0].internal
        assert self.told({"vendor": "1f4b", "device": "0001", "internal": "maybe"}) == (
            "devices, entry 1: internal 'maybe' is neither true nor false"
        )


class TestRelatives:
    @pytest.mark.parametrize(
        ("vendor", "device", "class_code", "maker"),
        [
            (0x1F4B, 0x0651, 0x040000, "Axera"),
            (0x1F4B, 0x8861, 0x120000, "Axera"),
            (0x1E60, 0x1234, 0x0B4000, "Hailo"),
            (0x1F4B, 0x0650, 0x040000, None),  # in the catalogue
            (0x1F4B, 0x8860, 0x120000, None),
            (0x1F4B, 0x0651, 0x060400, None),  # a bridge
            (0x1F4B, 0x0651, 0x130000, None),  # a dummy function
            (0x1F4B, 0x0651, None, None),
            (0x1022, 0x150D, 0x118000, None),  # makes other things, too
            (None, None, 0x040000, None),
        ],
    )
    def test_relatives(self, vendor: Any, device: Any, class_code: Any, maker: Any) -> None:
        one = hosts.card(vendor=vendor, device=device, class_code=class_code)
        assert relatives([one], BUILT_IN) == ([] if maker is None else [(maker, one)])
        assert cards([one], BUILT_IN) == ([one] if device in (0x0650, 0x8860) else [])

    def test_named_by_the_user(self) -> None:
        one = hosts.card(device=0x0651)
        assert relatives([one], resolve([{"vendor": "1f4b", "device": "0651"}])) == []


identities = st.integers(1, 0xFFFE)
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
    class_code=st.none() | st.from_regex("([0-9a-f]{2}){1,3}", fullmatch=True),
    internal=st.booleans(),
)


@hosts.STEADY
@given(st.lists(kinds, max_size=4, unique_by=lambda kind: kind.identity))
def test_round_trip(mine: Any) -> None:
    """What is kept on the box means there what it meant to the module."""
    wanted = resolve(to_data(mine))
    assert wanted[: len(mine)] == tuple(mine)
    assert resolve(to_data(wanted)) == wanted


def test_built_in_identities_are_distinct() -> None:
    assert len({kind.identity for kind in BUILT_IN}) == len(BUILT_IN)
