# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide import topology
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN, CardKind
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.topology import (
    CardPath,
    Hop,
    LinkVerdict,
    judge_link,
    link_above,
    open_ports,
    survey,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import (
    Link,
    PciDevice,
    Slot,
    bandwidth_mb_s,
    read_devices,
)
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe import pcie_trees
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.pcie_trees import bridge
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree


def judged(card: Optional[Link], slot: Optional[Link], **more: Any) -> Optional[LinkVerdict]:
    return judge_link(hosts.card(link=card, **more), hosts.port(slot))


def test_cm3588() -> None:
    """PCIe 2.0 x2 card in a PCIe 3.0 x1 slot."""
    assert judged(Link(5.0, 2, 5.0, 1), Link(8.0, 1, 5.0, 1)) == LinkVerdict(
        5.0, 1, 5.0, 1, False, "the card sets 5 GT/s, the slot sets x1"
    )


@pytest.mark.parametrize(
    ("card", "slot", "limit", "by"),
    [
        ((5.0, 2), (2.5, 2), "the slot sets 2.5 GT/s, card and slot agree on x2", ("card", "slot")),
        ((5.0, 2), (5.0, 4), "card and slot agree on 5 GT/s, the card sets x2", ("card", "slot")),
        ((8.0, 4), (8.0, 4), "card and slot agree on 8 GT/s, card and slot agree on x4", ("card", "slot")),
        ((5.0, 2), (8.0, 4), "the card sets 5 GT/s, the card sets x2", ("card",)),
        ((8.0, 4), (5.0, 1), "the slot sets 5 GT/s, the slot sets x1", ("slot",)),
    ],
)
def test_who_sets_the_limit(card: Any, slot: Any, limit: str, by: Any) -> None:
    speed, width = min(card[0], slot[0]), min(card[1], slot[1])
    ends = (Link(card[0], card[1], speed, width), Link(slot[0], slot[1], speed, width))
    assert judged(*ends) == LinkVerdict(speed, width, speed, width, False, limit)
    hop = link_above(hosts.card(link=ends[0]), hosts.port(ends[1]))
    assert hop is not None
    assert (hop.state, hop.limited_by) == ("full", by)


SETTLED = "both ends can do 5 GT/s x2; training settled for less: seating, cable, dust or power"


@pytest.mark.parametrize(
    ("speed", "width", "limit"),
    [(2.5, 1, SETTLED), (5.0, 1, SETTLED + ", or lanes that the board does not wire"), (2.5, 2, SETTLED)],
)
def test_degraded(speed: float, width: int, limit: str) -> None:
    verdict = judged(Link(5.0, 2, speed, width), Link(8.0, 2, speed, width))
    assert verdict == LinkVerdict(5.0, 2, speed, width, True, limit)


WHOLE = Link(5.0, 2, 5.0, 1)


@pytest.mark.parametrize(
    ("card", "slot"),
    [
        (None, WHOLE),
        (WHOLE, None),
        (WHOLE._replace(capable_gt_s=None), WHOLE),
        (WHOLE._replace(capable_width=None), WHOLE),
        (WHOLE._replace(negotiated_gt_s=None), WHOLE),
        (WHOLE._replace(negotiated_width=None), WHOLE),
        (WHOLE, WHOLE._replace(capable_gt_s=None)),
        (WHOLE, WHOLE._replace(capable_width=None)),
    ],
)
def test_unknown(card: Optional[Link], slot: Optional[Link]) -> None:
    assert judged(card, slot) is None


def test_the_card_s_own_registers_tell_what_was_negotiated() -> None:
    """A port may answer None there, and an upstream port above a switch has a link of its own."""
    assert judged(WHOLE, WHOLE._replace(negotiated_gt_s=None, negotiated_width=None)) is not None


def test_no_port_above() -> None:
    assert judge_link(hosts.card(link=WHOLE), None) is None


class TestOneLink:
    @staticmethod
    def hop(card: PciDevice, port: Optional[PciDevice]) -> Hop:
        hop = link_above(card, port)
        assert hop is not None
        return hop

    def test_port_told_to_train_for_less(self) -> None:
        """A Raspberry Pi 5 trains for 5 GT/s unless told otherwise."""
        card, port = hosts.card(link=Link(8.0, 4, 5.0, 1)), hosts.port(Link(8.0, 1, 5.0, 1), target_gt_s=5.0)
        hop = self.hop(card, port)
        assert (hop.state, hop.limited_by) == ("held", ("setting",))
        assert hop.limit == (
            "both ends can do 8 GT/s x1; the port was told to train for 5 GT/s at most (firmware, device tree)"
        )
        assert self.hop(card._replace(link=Link(8.0, 4, 2.5, 1)), port).state == "degraded"
        assert self.hop(card, port._replace(link=Link(8.0, 2, 5.0, 1))).state == "degraded", "width is no setting"
        assert self.hop(card, port._replace(target_gt_s=8.0)).state == "degraded"

    @pytest.mark.parametrize("more", [{"power_state": "D3hot"}, {"power_state": "D3cold"}, {"suspended": True}])
    def test_a_sleeping_card_is_not_degraded(self, more: Dict[str, Any]) -> None:
        slow = Link(5.0, 2, 2.5, 1)
        assert self.hop(hosts.card(link=slow, **more), hosts.port()).state == "asleep"
        assert self.hop(hosts.card(link=slow, power_state="D0"), hosts.port()).state == "degraded"
        assert self.hop(hosts.card(link=WHOLE, **more), hosts.port()).state == "full"

    def test_not_read_so_that_it_is_not_woken_up(self) -> None:
        cold = hosts.card(link=None, config_bytes=0, power_state="D3cold", suspended=True)
        assert self.hop(cold, hosts.port()).state == "asleep"
        assert judge_link(cold, hosts.port()) is None

    def test_lanes_that_the_board_gives_away(self) -> None:
        """A CM3588's first slot: the controller has four lanes, the device tree leaves it one."""
        card, port = hosts.card(), hosts.port(Link(8.0, 4, 5.0, 1))
        assert self.hop(card, port).state == "degraded"
        hop = self.hop(card, port._replace(board_width=1))
        assert (hop.state, hop.upper_width, hop.limit) == ("full", 1, "the card sets 5 GT/s, the slot sets x1")
        assert self.hop(card, port._replace(board_width=8)).upper_width == 4
        both = Link(8.0, 4, 5.0, 2)
        assert (
            self.hop(card._replace(link=Link(5.0, 2, 5.0, 2)), port._replace(link=both, board_width=1)).upper_width == 4
        )

    @pytest.mark.parametrize("vendor", [0x1B36, 0x15AD])
    def test_port_of_a_virtual_machine(self, vendor: int) -> None:
        hop = self.hop(hosts.card(), hosts.port(vendor=vendor))
        assert (hop.state, hop.limited_by) == ("unseen", ())
        assert "virtual machine" in hop.limit
        assert hop.read_mb_s == 410.3, "the card's own end is real"

    def test_handed_over_without_a_port(self) -> None:
        hop = self.hop(hosts.card(), None)
        assert (hop.state, hop.upper, hop.upper_gt_s, hop.negotiated_width) == ("unseen", None, None, 1)

    def test_behind_a_bridge_to_conventional_pci(self) -> None:
        assert self.hop(hosts.card(), hosts.port(port_type="bridge")).state == "unseen"

    @pytest.mark.parametrize("end", ["card", "port"])
    def test_tunnel(self, end: str) -> None:
        card, port = hosts.card(tunnel=end == "card"), hosts.port(tunnel=end == "port")
        hop = self.hop(card, port)
        assert (hop.state, hop.read_mb_s) == ("unseen", None)
        assert "Thunderbolt" in hop.limit

    def test_without_root(self) -> None:
        assert self.hop(hosts.card(link=None, config_bytes=64), hosts.port(None)).state == "unread"

    def test_no_link_at_all(self) -> None:
        """A virtual function shows zeros."""
        assert self.hop(hosts.card(link=Link(5.0, 2, None, 0)), hosts.port()).state == "down"

    @pytest.mark.parametrize("kind", ["root port", "downstream port", "integrated endpoint", "event collector"])
    def test_these_have_none_above(self, kind: str) -> None:
        assert link_above(hosts.card(port_type=kind), hosts.port()) is None

    def test_none_inside_a_switch(self) -> None:
        assert link_above(hosts.card(), hosts.port(port_type="upstream port")) is None

    def test_conventional_card(self) -> None:
        assert link_above(hosts.card(link=None, port_type=None), hosts.port(port_type="bridge")) is None

    def test_bridge_that_could_not_be_read(self) -> None:
        assert link_above(hosts.port(WHOLE, port_type=None, config_bytes=64), hosts.port()) is None


class TestEightCards:
    @staticmethod
    def ways(tree: Tree, uplink: Tuple[int, int] = (3, 8)) -> Dict[str, CardPath]:
        pcie_trees.eight_cards(tree, uplink)
        return survey(read_devices(tree.root), BUILT_IN)

    def test_way_of_each(self, tree: Tree) -> None:
        ways = self.ways(tree)
        assert sorted(ways) == ["0000:%02x:00.0" % bus for bus in sorted(pcie_trees.ABOVE)]
        for bdf, way in ways.items():
            port = "0000:02:%02x.0" % pcie_trees.ABOVE[int(bdf[5:7], 16)]
            first, second = way.hops
            assert first[:10] == (bdf, "endpoint", 5.0, 2, port, "downstream port", 8.0, 2, 5.0, 1)
            assert second[:10] == (
                "0000:01:00.0", "upstream port", 8.0, 8, "0000:00:01.0", "root port", 8.0, 16, 8.0, 8,
            )  # fmt: skip
            assert (first.state, second.state, second.limited_by) == ("degraded", "full", ("slot", "switch"))
            assert second.limit == "switch and slot agree on 8 GT/s, the switch sets x8"
            assert way.bottleneck == bdf

    def test_all_share_the_uplink(self, tree: Tree) -> None:
        ways = self.ways(tree)
        for bdf, way in ways.items():
            assert set(way.shared_with) == set(ways) - {bdf}

    @pytest.mark.parametrize(
        ("uplink", "code", "width", "alone"),
        [((3, 8), 8.0, 8, 410.3), ((3, 1), 8.0, 1, 410.3), ((1, 1), 2.5, 1, 205.1)],
    )
    def test_share(self, tree: Tree, uplink: Any, code: float, width: int, alone: float) -> None:
        carried = bandwidth_mb_s(code, width, 128)
        for way in self.ways(tree, uplink).values():
            assert way.bandwidth is not None
            assert way.share is not None
            assert way.bandwidth.read == pytest.approx(alone, abs=0.1)
            assert way.share.read == pytest.approx(min(alone, carried.read_mb_s / 8), abs=0.1)
            assert way.share.write == pytest.approx(min(way.bandwidth.write, carried.write_mb_s / 8), abs=0.1)

    def test_narrow_uplink_is_the_bottleneck(self, tree: Tree) -> None:
        assert {way.bottleneck for way in self.ways(tree, (1, 1)).values()} == {"0000:01:00.0"}

    def test_empty_ports(self, tree: Tree) -> None:
        pcie_trees.eight_cards(tree)
        ports = open_ports(read_devices(tree.root))
        assert [port.bdf for port in ports] == ["0000:02:%02x.0" % number for number in (0x04, 0x06, 0x07, 0x0C)]
        assert {port[1:5] for port in ports} == {
            ("downstream port", 8.0, 2, number) for number in pcie_trees.EMPTY.values()
        }
        assert {(port.occupied, port.has_link, port.certain) for port in ports} == {(False, False, False)}

    def test_without_root_ports_are_known_by_their_place(self, tree: Tree) -> None:
        """64 bytes tell no port type; what sysfs prints of links is enough all the same."""
        pcie_trees.eight_cards(tree)
        devices = [
            device._replace(port_type=None, config_bytes=64, slot=None, link_active=None, mps_bytes=None)
            for device in read_devices(tree.root)
        ]
        way = survey(devices, BUILT_IN)["0000:0e:00.0"]
        assert [(hop.lower, hop.upper_type, hop.state) for hop in way.hops] == [
            ("0000:0e:00.0", "downstream port", "degraded"),
            ("0000:01:00.0", "root port", "full"),
        ]
        assert open_ports(devices) == []

    def test_every_configuration_space_is_read_once(self, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
        pcie_trees.eight_cards(tree)
        read: List[str] = []
        data = tree.root.data

        def counting(path: str, limit: int = -1) -> Optional[bytes]:
            read.append(path)
            return data(path, limit)

        monkeypatch.setattr(tree.root, "data", counting)
        devices = read_devices(tree.root)
        spaces = [path for path in read if path.endswith("/config")]
        assert len(spaces) == len(set(spaces)) == len(devices) == 24


class TestShares:
    """Cards behind links of given capacities, the fair way."""

    @staticmethod
    def shares(*paths: Tuple[Tuple[str, float], ...]) -> Dict[str, float]:
        blank = Hop("", None, None, None, None, None, None, None, None, None, "full", (), "", None, None)
        ways = {
            "card %d" % at: tuple(blank._replace(lower=name, read_mb_s=mb_s, write_mb_s=mb_s) for name, mb_s in path)
            for at, path in enumerate(paths)
        }
        return {bdf: rate.read for bdf, rate in topology._shares(ways).items()}

    def test_even(self) -> None:
        assert self.shares((("a", 400.0), ("up", 600.0)), (("b", 400.0), ("up", 600.0))) == {
            "card 0": 300.0,
            "card 1": 300.0,
        }

    def test_what_one_cannot_use_the_other_gets(self) -> None:
        assert self.shares((("a", 100.0), ("up", 600.0)), (("b", 800.0), ("up", 600.0))) == {
            "card 0": 100.0,
            "card 1": 500.0,
        }

    def test_two_switches_in_a_row(self) -> None:
        near = [(("c%d" % at, 400.0), ("inner", 500.0), ("outer", 900.0)) for at in range(2)]
        assert self.shares(*near, (("d", 1000.0), ("outer", 900.0))) == {
            "card 0": 250.0,
            "card 1": 250.0,
            "card 2": 400.0,
        }

    def test_others_do_not_matter(self) -> None:
        assert self.shares((("a", 400.0),), (("b", 50.0),)) == {"card 0": 400.0, "card 1": 50.0}

    @hosts.STEADY
    @given(st.lists(st.tuples(st.floats(1, 1000), st.integers(0, 2)), min_size=1, max_size=8), st.floats(1, 2000))
    def test_no_link_carries_more_than_it_can(self, cards: Any, trunk: float) -> None:
        paths = [
            (("c%d" % at, own), ("switch %d" % switch, 300.0), ("trunk", trunk))
            for at, (own, switch) in enumerate(cards)
        ]
        shares = self.shares(*paths)
        assert len(shares) == len(cards)
        for link in {name for path in paths for name, _mb_s in path}:
            users = [at for at, path in enumerate(paths) if link in dict(path)]
            room = dict(paths[users[0]])[link]
            assert sum(shares["card %d" % at] for at in users) <= room * (1 + 1e-9)
        # and nobody could have more without another one having less
        for path in paths:
            full = [
                name
                for name, mb_s in path
                if sum(shares["card %d" % other] for other, way in enumerate(paths) if name in dict(way)) >= mb_s - 1e-6
            ]
            assert full


class TestSurvey:
    def test_payload_in_force_counts(self, tree: Tree) -> None:
        """Each device on the way can take 512 bytes, and one port is set to 256."""
        tree.pci("pci0000:00/0000:00:01.0", bridge(4, (3, 4), (3, 4), payload=(2, 1)))
        tree.pci("pci0000:00/0000:00:01.0/0000:01:00.0", pcie_trees.card((3, 4), capable=(3, 4), payload=(2, 2)))
        way = survey(read_devices(tree.root), BUILT_IN)["0000:01:00.0"]
        expected = bandwidth_mb_s(8.0, 4, 256)
        assert way.bandwidth == (round(expected.read_mb_s, 1), round(expected.write_mb_s, 1))

    def test_published_figures(self, tree: Tree) -> None:
        """5 GT/s x1 with payloads of 128 bytes reaches 411 MB/s read and 453 MB/s write."""
        hosts.Board(tree)
        way = survey(read_devices(tree.root), BUILT_IN)[hosts.BDF]
        assert way.bandwidth is not None
        assert way.bandwidth == way.share
        assert way.bandwidth.read == pytest.approx(411, rel=0.01)
        assert way.bandwidth.write == pytest.approx(453, rel=0.01)
        assert (way.bottleneck, way.shared_with) == (hosts.BDF, ())

    def test_processor_s_own_npu(self, tree: Tree) -> None:
        pcie_trees.strix(tree)
        devices = read_devices(tree.root)
        ways = survey(devices, BUILT_IN)
        assert list(ways) == ["0000:c6:00.1"], "the dummy function beside it is no NPU"
        assert ways["0000:c6:00.1"] == ((), None, (), None, None)
        as_card = (CardKind("not internal", 0x1022, 0x17F0),)
        assert len(survey(devices, as_card)["0000:c6:00.1"].hops) == 1

    def test_other_functions_of_a_card_do_not_share_with_it(self, tree: Tree) -> None:
        pcie_trees.strix(tree)
        way = survey(read_devices(tree.root), (CardKind("x", 0x1022, 0x17F0),))["0000:c6:00.1"]
        assert way.shared_with == ()

    def test_neighbours_that_are_no_npu(self, tree: Tree) -> None:
        """A NIC with two functions behind the same switch is told of once."""
        pcie_trees.eight_cards(tree)
        for number in (0, 1):
            path = "%s/0000:02:04.0/0000:06:00.%d" % (pcie_trees.BUS01, number)
            tree.pci(path, pcie_trees.card((3, 2), (0x8086, 0x1521), (3, 4), class_code=0x020000))
        way = survey(read_devices(tree.root), BUILT_IN)["0000:03:00.0"]
        assert [bdf for bdf in way.shared_with if bdf.startswith("0000:06")] == ["0000:06:00.0"]

    def test_dead_card_has_no_way(self, tree: Tree) -> None:
        pcie_trees.dropped_card(tree)
        assert survey(read_devices(tree.root), BUILT_IN)["0000:03:00.0"].hops == ()

    def test_dead_card_of_which_root_could_tell_more(self) -> None:
        dead = hosts.card(alive=False, link=None, config_bytes=64)
        assert survey([hosts.port(), dead], BUILT_IN)[hosts.BDF].hops == ()

    def test_part_of_the_way_unknown(self, tree: Tree) -> None:
        pcie_trees.eight_cards(tree)
        devices = [
            device._replace(link=device.link._replace(negotiated_gt_s=None))
            if device.bdf == "0000:01:00.0" and device.link is not None
            else device
            for device in read_devices(tree.root)
        ]
        way = survey(devices, BUILT_IN)["0000:03:00.0"]
        assert (way.bandwidth, way.share, way.bottleneck) == (None, None, "0000:03:00.0")

    def test_many(self) -> None:
        """2000 functions in a moment: nothing here looks at every pair."""
        ports = [hosts.port(bdf="0000:00:%02x.%d" % (at >> 3, at & 7)) for at in range(256)]
        cards = [
            hosts.card("0000:%02x:%02x.0" % (at, number), parent=ports[at].bdf)
            for at in range(256)
            for number in range(8)
        ]
        ways = survey([*ports, *cards], BUILT_IN)
        assert len(ways) == 2048
        assert len(ways["0000:07:03.0"].shared_with) == 7


class TestOpenPorts:
    @staticmethod
    def only(tree: Tree, space: bytes, real: str = "pci0000:00/0000:00:1c.0") -> Any:
        tree.pci(real, space)
        ports = open_ports(read_devices(tree.root))
        return ports[0] if ports else None

    def test_empty_slot(self, tree: Tree) -> None:
        port = self.only(tree, bridge(4, (3, 4), (1, 0), slot=(7, False), active=False))
        assert port == ("0000:00:1c.0", "root port", 8.0, 4, 7, None, False, False, False)

    def test_seated_and_no_link(self, tree: Tree) -> None:
        port = self.only(tree, bridge(4, (3, 4), (1, 0), slot=(7, True), active=False))
        assert (port.occupied, port.has_link) == (True, False)

    def test_link_and_no_device(self, tree: Tree) -> None:
        port = self.only(tree, bridge(4, (3, 4), (2, 1), slot=(7, True), active=True))
        assert (port.has_link, port.certain) == (True, True)

    def test_link_active_without_a_slot(self, tree: Tree) -> None:
        """RK3588's ports say that they have no slot."""
        port = self.only(tree, bridge(4, (3, 4), (2, 1), active=True))
        assert (port.has_link, port.occupied, port.certain) == (True, None, True)

    @pytest.mark.parametrize(("occupied", "width", "has_link"), [(True, 1, True), (False, 1, False), (True, 0, False)])
    def test_port_that_does_not_tell_of_its_link(self, tree: Tree, occupied: bool, width: int, has_link: bool) -> None:
        """Width and presence together; a width alone may be from before."""
        port = self.only(tree, bridge(4, (3, 4), (1, width), slot=(7, occupied)))
        assert (port.has_link, port.certain) == (has_link, False)

    def test_soldered_device_that_is_switched_off(self, tree: Tree) -> None:
        assert self.only(tree, bridge(4, (3, 4), (1, 0), active=False)) is None

    def test_slot_of_a_board_with_a_device_tree(self, tree: Tree) -> None:
        tree.link("/sys/devices/platform/fe170000.pcie/of_node", "../../../firmware/devicetree/base/pcie@fe170000")
        tree.file("/sys/firmware/devicetree/base/pcie@fe170000/num-lanes", b"\0\0\0\1")
        real = "platform/fe170000.pcie/pci0002:20/0002:20:00.0"
        port = self.only(tree, bridge(4, (3, 4), (1, 0), active=False), real)
        assert (port.bdf, port.of_node, port.occupied) == ("0002:20:00.0", "/pcie@fe170000", None)
        assert port.capable_width == 1, "the controller has four lanes, the board gives it one"

    def test_in_use(self, tree: Tree) -> None:
        tree.pci("pci0000:00/0000:00:1c.0/0000:01:00.0", pcie_trees.card())
        assert self.only(tree, bridge(4, (3, 4), (2, 1), slot=(7, True), active=True)) is None

    def test_in_use_by_a_device_whose_place_is_not_known(self, tree: Tree) -> None:
        tree.file("/sys/bus/pci/devices/0000:01:00.0/config", pcie_trees.card())
        assert self.only(tree, bridge(4, (3, 4), (2, 1), buses=(1, 1), slot=(7, True), active=True)) is None
        other = bridge(4, (3, 4), (2, 1), buses=(2, 2), slot=(8, True), active=True)
        assert self.only(tree, other, "pci0000:00/0000:00:1d.0").bdf == "0000:00:1d.0"

    def test_upstream_port_is_no_slot(self, tree: Tree) -> None:
        assert self.only(tree, bridge(5, (3, 4), (2, 1), slot=(7, True), active=True)) is None

    def test_thunderbolt_port(self) -> None:
        port = hosts.port(tunnel=True, slot=Slot(1, False, True))
        assert open_ports([port]) == []
        assert len(open_ports([port._replace(tunnel=False)])) == 1
