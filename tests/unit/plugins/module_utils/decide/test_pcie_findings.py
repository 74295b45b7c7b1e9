# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of cards, links and slots: each where it belongs, and not on the same host put right."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.pcie_findings import pcie_findings
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import CRITICAL, INFO, WARNING, Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import (
    Aer,
    Aspm,
    Link,
    PciDevice,
    Slot,
    read_devices,
)
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils import hosts
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe import pcie_trees
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree

SYSFS = "/sys/bus/pci/devices/"
CARD, PORT = SYSFS + hosts.BDF, SYSFS + "0003:30:00.0"


def said(*devices: PciDevice, uptime_s: Any = None) -> Dict[str, Finding]:
    return {finding.id: finding for finding in pcie_findings(devices, BUILT_IN, uptime_s)}


def seen(tree: Tree) -> List[Finding]:
    return pcie_findings(read_devices(tree.root), BUILT_IN)


def test_healthy_host() -> None:
    """A card at its slot's limit is all there is to say."""
    assert list(said(hosts.port(), hosts.card(), uptime_s=3600.0)) == ["link_at_limit"]


def test_cm3588_as_it_is(tree: Tree) -> None:
    hosts.Board(tree)
    assert [(finding.id, finding.severity) for finding in seen(tree)] == [("link_at_limit", INFO)]


class TestCards:
    def test_dropped_card_is_dead(self, tree: Tree) -> None:
        pcie_trees.dropped_card(tree)
        [finding] = seen(tree)
        assert (finding.id, finding.severity) == ("card_dead", CRITICAL)
        assert finding.summary == (
            "Axera AX650N at 0000:03:00.0 is dead: its configuration space reads no address, and the kernel had given "
            "it some: it was reset, or its link dropped"
        )
        assert finding.evidence == {
            SYSFS + "0000:03:00.0/config": "Mem-, base addresses 0",
            SYSFS + "0000:03:00.0/resource": "addresses assigned",
        }

    def test_processor_s_own_npu(self, tree: Tree) -> None:
        """Nothing is said of its link, and the dummy function beside it is not spoken of."""
        pcie_trees.strix(tree)
        assert seen(tree) == []

    def test_errors_inside_the_processor(self) -> None:
        """The bridge above its NPU is no connection that anybody could mend."""
        bridge = hosts.port(correctable_status=("RxErr",))
        assert said(bridge, hosts.card(vendor=0x1022, device=0x17F0, driver="amdxdna")) == {}

    def test_processor_s_own_npu_without_a_driver(self) -> None:
        xdna = hosts.card(vendor=0x1022, device=0x17F0, driver=None)
        assert said(hosts.port(), xdna)["card_unbound"].severity == INFO
        assert said(hosts.port(), hosts.card(driver=None))["card_unbound"].severity == WARNING

    def test_read_requests_of_the_next_generation(self) -> None:
        """What is known of the AX650N's driver does not hold for the AX8860."""
        assert "mrrs_unusual" in said(hosts.port(), hosts.card(mrrs_bytes=256))
        assert "mrrs_unusual" not in said(hosts.port(), hosts.card(device=0x8860, mrrs_bytes=256, driver="x"))

    def test_unknown_device_of_a_maker(self) -> None:
        stranger = hosts.card("0003:31:00.1", device=0x0651)
        finding = said(hosts.port(), hosts.card(), stranger)["card_unknown"]
        assert finding.severity == INFO
        assert finding.summary == (
            "0003:31:00.1 is a device of Axera that is not in the catalogue (1f4b:0651); it is left alone"
        )
        assert finding.evidence == {
            SYSFS + "0003:31:00.1/vendor": "0x1f4b",
            SYSFS + "0003:31:00.1/device": "0x0651",
            SYSFS + "0003:31:00.1/class": "0x040000",
        }

    def test_missing_while_something_is_seated(self) -> None:
        seated = hosts.port(Link(8.0, 1, None, 0), slot=Slot(2, True, False))
        finding = said(seated)["card_missing"]
        assert finding.evidence == {"/sys/bus/pci/devices": 1, PORT + "/config": "slot occupied, link down"}
        assert finding.remedy.startswith("Something is seated at 0003:30:00.0, and its link is down: reseat it. Seat ")
        empty = said(seated._replace(slot=Slot(2, False, False)))["card_missing"]
        assert empty.evidence == {"/sys/bus/pci/devices": 1}


class TestLink:
    @pytest.mark.parametrize(
        ("ident", "severity", "card", "port", "summary"),
        [
            (
                "link_held_back",
                INFO,
                hosts.card(link=Link(8.0, 4, 5.0, 1)),
                hosts.port(target_gt_s=5.0),
                (
                    "the link of 0003:31:00.0 runs at 5 GT/s x1: both ends can do 8 GT/s x1; the port was told to "
                    "train for 5 GT/s at most (firmware, device tree)"
                ),
            ),
            (
                "link_degraded",
                WARNING,
                hosts.card(link=Link(5.0, 2, 2.5, 1)),
                hosts.port(),
                "the link of 0003:31:00.0 runs at 2.5 GT/s x1, below what card and slot can do",
            ),
            (
                "link_asleep",
                INFO,
                hosts.card(link=Link(5.0, 2, 2.5, 1), power_state="D3hot"),
                hosts.port(),
                (
                    "the link of 0003:31:00.0 is not judged: both ends can do 5 GT/s x1; it sleeps, and may come back "
                    "to that when it works"
                ),
            ),
            (
                "link_unseen",
                INFO,
                hosts.card(),
                hosts.port(vendor=0x1B36),
                (
                    "the link of 0003:31:00.0 is not visible here: the port above it is a virtual machine's; run the "
                    "diagnosis on the machine around it"
                ),
            ),
            (
                "link_unseen",
                INFO,
                hosts.card(parent=None),
                hosts.port(),
                (
                    "the link of 0003:31:00.0 is not visible here: no port stands above it: it was handed to this "
                    "virtual machine, or is behind a bridge"
                ),
            ),
            (
                "link_unseen",
                INFO,
                hosts.card(link=Link(None, 2, 5.0, 1)),
                hosts.port(),
                "the link of 0003:31:00.0 is not visible here: its registers hold values that nobody has defined",
            ),
            (
                "link_unknown",
                INFO,
                hosts.card(link=None, config_bytes=64),
                hosts.port(),
                "the link of 0003:31:00.0 could not be read",
            ),
        ],
    )
    def test_one_sentence(self, ident: str, severity: str, card: Any, port: Any, summary: str) -> None:
        found = said(port, card)
        assert [name for name in found if name.startswith("link")] == [ident]
        assert (found[ident].severity, found[ident].summary) == (severity, summary)
        assert found[ident].remedy.endswith(".")
        assert all(name.startswith(SYSFS) for name in found[ident].evidence)

    def test_evidence_names_both_ends(self) -> None:
        assert said(hosts.port(), hosts.card())["link_at_limit"].evidence == {
            CARD + "/config": "can 5 GT/s x2, negotiated 5 GT/s x1",
            PORT + "/config": "can 8 GT/s x1",
        }


class TestUplink:
    @staticmethod
    def ids(tree: Tree, uplink: Any) -> Dict[str, Finding]:
        pcie_trees.eight_cards(tree, uplink)
        return {finding.id: finding for finding in seen(tree)}

    def test_wide_enough(self, tree: Tree) -> None:
        """Eight cards at 5 GT/s x1 do not fill 8 GT/s x8: what is to be said is about the cards' own links."""
        assert set(self.ids(tree, (3, 8))) == {"link_degraded"}

    def test_narrow(self, tree: Tree) -> None:
        found = self.ids(tree, (3, 1))
        assert found["uplink_degraded"].severity == WARNING
        assert found["uplink_degraded"].summary == (
            "the link above switch 0000:01:00.0, which serves 8 cards, runs at 8 GT/s x1, below what both ends can do"
        )
        assert found["uplink_narrow"].severity == INFO
        assert found["uplink_narrow"].summary == (
            "8 cards share the link above switch 0000:01:00.0, 8 GT/s x1: it carries 808 MB/s read, they could take "
            "3282; while all work each gets 101"
        )
        assert found["uplink_narrow"].evidence == {
            SYSFS + "0000:01:00.0/config": "can 8 GT/s x8, negotiated 8 GT/s x1",
            SYSFS + "0000:00:01.0/config": "can 8 GT/s x16",
        }

    def test_degraded_but_wide_enough_is_a_note(self, tree: Tree) -> None:
        found = self.ids(tree, (3, 6))
        assert found["uplink_degraded"].severity == INFO
        assert "uplink_narrow" not in found

    def test_told_once_for_all_cards(self, tree: Tree) -> None:
        pcie_trees.eight_cards(tree, (1, 1))
        told = [finding.id for finding in seen(tree)]
        assert told.count("uplink_narrow") == told.count("uplink_degraded") == 1


BIG: Dict[str, Any] = {"vendor": 0x1E60, "device": 0x2864, "driver": "hailo", "mps_capable_bytes": 256}


class TestPayload:
    def test_smaller_than_it_could_be(self) -> None:
        found = said(hosts.port(mps_capable_bytes=512), hosts.card(**BIG))
        assert found["payload_small"].severity == INFO
        assert found["payload_small"].summary == (
            "0003:31:00.0 moves payloads of 128 bytes; all on its way can take 256 (451 instead of 410 MB/s read)"
        )
        assert found["payload_small"].evidence == {
            CARD + "/config": "MPS 128 of 256",
            PORT + "/config": "MPS 128 of 512",
        }

    @pytest.mark.parametrize(
        ("card", "port"),
        [
            (hosts.card(), hosts.port(mps_capable_bytes=512)),  # an AX650N takes no more than 128
            (hosts.card(**BIG), hosts.port()),
            (hosts.card(**BIG), hosts.port(mps_capable_bytes=None)),
            (hosts.card(**BIG, mps_bytes=256), hosts.port(mps_capable_bytes=512, mps_bytes=256)),
        ],
    )
    def test_as_it_should_be(self, card: Any, port: Any) -> None:
        assert "payload_small" not in said(port, card)


class TestPowerSaving:
    @staticmethod
    def told(card: Sequence[str], port: Sequence[str], **more: Any) -> Any:
        mine = hosts.card(aspm=Aspm(("L0s", "L1"), tuple(card)), l1_exit_us=16, **more)
        theirs = hosts.port(aspm=Aspm(("L0s", "L1"), tuple(port)), l1_exit_us=32)
        return said(theirs, mine).get("link_power_saving")

    @pytest.mark.parametrize(
        ("card", "port", "states"),
        [
            (["L1"], ["L1"], "(L1), and waking it takes up to 32 us"),
            (["L0s", "L1"], ["L1"], "(L0s, L1), and waking it takes up to 32 us"),
            (["L0s"], [], "(L0s)"),
            ([], ["L0s"], "(L0s)"),
        ],
    )
    def test_in_force(self, card: Any, port: Any, states: str) -> None:
        finding = self.told(card, port)
        assert finding.severity == INFO
        assert finding.summary == "the link of 0003:31:00.0 sleeps between transfers " + states
        assert finding.evidence == {
            CARD + "/config": "ASPM " + (" ".join(card) or "off"),
            PORT + "/config": "ASPM " + (" ".join(port) or "off"),
        }

    @pytest.mark.parametrize(("card", "port"), [([], []), (["L1"], []), ([], ["L1"])])
    def test_not_in_force(self, card: Any, port: Any) -> None:
        """L1 needs both ends."""
        assert self.told(card, port) is None

    def test_not_known(self) -> None:
        assert "link_power_saving" not in said(hosts.port(aspm=Aspm(("L1",), ("L1",))), hosts.card())

    def test_longer_than_the_card_can_wait(self) -> None:
        finding = self.told(["L1"], ["L1"], l1_acceptable_us=16)
        assert finding.severity == WARNING
        assert finding.summary.endswith("waking it takes up to 32 us; the card can wait for 16")
        assert self.told(["L1"], ["L1"], l1_acceptable_us=32).severity == INFO
        assert self.told(["L0s"], ["L0s"], l1_acceptable_us=16).severity == INFO

    def test_nobody_knows_how_long(self) -> None:
        card = hosts.card(aspm=Aspm(("L1",), ("L1",)), l1_exit_us=65, l1_acceptable_us=64)
        finding = said(hosts.port(aspm=Aspm(("L1",), ("L1",))), card)["link_power_saving"]
        assert (finding.severity, "takes more than 64 us" in finding.summary) == (WARNING, True)

    def test_remedy_names_the_files(self) -> None:
        assert "`echo 0 | sudo tee %s/link/l1_aspm`" % CARD in self.told(["L1"], ["L1"]).remedy


class TestErrors:
    def test_of_the_root_port(self) -> None:
        received = {"aer_rootport_total_err_cor": 7, "aer_rootport_total_err_fatal": 0}
        port = hosts.port(aer=Aer({"RxErr": 4}, {}, {}), port_errors=received)
        finding = said(port, hosts.card(), uptime_s=7200.0)["link_errors"]
        assert finding.severity == INFO
        assert finding.summary == (
            "0003:30:00.0 has reported corrected PCIe errors since boot: 7 corrected, 3.5 an hour"
        )
        assert finding.evidence == {
            PORT + "/aer_dev_correctable": {"RxErr": 4},
            PORT + "/aer_rootport_total_err_cor": 7,
        }

    def test_fatal_messages(self) -> None:
        port = hosts.port(port_errors={"aer_rootport_total_err_fatal": 1})
        assert said(port, hosts.card())["link_errors"].severity == WARNING

    @pytest.mark.parametrize(("more", "told"), [({}, False), ({"CmpltTO": 1}, True)])
    def test_what_the_search_for_devices_leaves_behind(self, more: Any, told: bool) -> None:
        """No finding by itself, and evidence beside what is one."""
        found = said(hosts.port(aer=Aer({}, {"UnsupReq": 2, **more}, {})), hosts.card())
        assert ("link_errors" in found) == told
        if told:
            assert found["link_errors"].severity == WARNING
            assert found["link_errors"].evidence == {PORT + "/aer_dev_nonfatal": {"UnsupReq": 2, "CmpltTO": 1}}

    def test_none(self) -> None:
        port = hosts.port(aer=Aer({"RxErr": 0}, {}, {}), port_errors={"aer_rootport_total_err_cor": 0})
        assert "link_errors" not in said(port, hosts.card(), uptime_s=10.0)

    @pytest.mark.parametrize(
        ("count", "uptime_s", "severity"),
        [
            (100, 3600.0, WARNING),
            (99, 10.0, INFO),  # a few at boot are as many an hour for a moment
            (100, 3600.0 * 2, INFO),
            (1000000, None, INFO),  # since when is not known
            (1000, 3600.0 * 16, WARNING),
        ],
    )
    def test_how_often(self, count: int, uptime_s: Any, severity: str) -> None:
        card = hosts.card(aer=Aer({"BadTLP": count}, {}, {}))
        assert said(hosts.port(), card, uptime_s=uptime_s)["link_errors"].severity == severity

    def test_of_a_port_on_no_card_s_way(self) -> None:
        other = hosts.port(bdf="0004:40:00.0", aer=Aer({"RxErr": 4}, {}, {}), correctable_status=("RxErr",))
        assert set(said(hosts.port(), hosts.card(), other)) == {"link_at_limit"}

    def test_once_for_a_port_that_cards_share(self, tree: Tree) -> None:
        pcie_trees.eight_cards(tree)
        devices = [
            device._replace(aer=Aer({"RxErr": 1}, {}, {})) if device.bdf == "0000:00:01.0" else device
            for device in read_devices(tree.root)
        ]
        assert [finding.id for finding in pcie_findings(devices, BUILT_IN)].count("link_errors") == 1

    def test_past(self, tree: Tree) -> None:
        """A ROCK 5 ITX whose kernel takes no error messages: the bits of the root port are all there is."""
        pcie_trees.rock5itx(tree)
        devices = [
            device._replace(vendor=0x1F4B, device=0x0650, driver="ax_pcie_dev_host", mrrs_bytes=512)
            if device.bdf == "0001:11:00.0"
            else device
            for device in read_devices(tree.root)
        ]
        finding = {one.id: one for one in pcie_findings(devices, BUILT_IN)}["past_errors"]
        assert finding.severity == INFO
        assert finding.summary == "PCIe errors left their mark at 0001:10:00.0; when and how many is not known"
        assert finding.evidence == {SYSFS + "0001:10:00.0/config": "AER status: RxErr BadDLLP Timeout"}

    def test_counted_errors_are_not_told_twice(self) -> None:
        port = hosts.port(aer=Aer({"RxErr": 1}, {}, {}), correctable_status=("RxErr",))
        assert set(said(port, hosts.card())) == {"link_at_limit", "link_errors"}

    def test_bits_that_every_boot_sets(self) -> None:
        port = hosts.port(correctable_status=("NonFatalErr",), uncorrectable_status=("UnsupReq",))
        assert set(said(port, hosts.card())) == {"link_at_limit"}
        worse = port._replace(uncorrectable_status=("UnsupReq", "CmpltTO"))
        assert said(worse, hosts.card())["past_errors"].evidence == {PORT + "/config": "AER status: CmpltTO"}


class TestSlots:
    EMPTY = hosts.port(Link(8.0, 4, None, 0), bdf="0000:00:00.0")

    def test_better_one(self) -> None:
        finding = said(self.EMPTY, hosts.port(), hosts.card())["better_slot"]
        assert finding.severity == INFO
        assert finding.summary == (
            "0003:31:00.0 runs at 5 GT/s x1 where it is; empty ports could give it more: 0000:00:00.0 (5 GT/s x2)"
        )
        assert finding.evidence == {SYSFS + "0000:00:00.0/config": "empty, 5 GT/s x2 with this card"}

    @pytest.mark.parametrize(
        "port",
        [
            EMPTY._replace(link=Link(8.0, 1, None, 0)),
            EMPTY._replace(link=Link(2.5, 2, None, 0)),
            EMPTY._replace(board_width=1),
            EMPTY._replace(of_node=None),
        ],
    )
    def test_no_better_one(self, port: Any) -> None:
        assert set(said(port, hosts.port(), hosts.card())) == {"link_at_limit"}

    def test_card_is_at_its_own_limit(self) -> None:
        whole = Link(5.0, 2, 5.0, 2)
        assert set(said(self.EMPTY, hosts.port(Link(8.0, 4, 5.0, 2)), hosts.card(link=whole))) == {"link_at_limit"}

    def test_link_without_a_device(self) -> None:
        port = self.EMPTY._replace(link=Link(8.0, 4, 5.0, 1), link_active=True)
        finding = said(port, hosts.port(), hosts.card())["port_needs_rescan"]
        assert finding.severity == WARNING
        assert finding.summary == "the link of port 0000:00:00.0 is up, but no device is known behind it"
        assert finding.evidence == {SYSFS + "0000:00:00.0/config": "link active"}
        assert "echo 1 | sudo tee /sys/bus/pci/rescan" in finding.remedy
        assert "port_needs_rescan" not in said(port._replace(link_active=False), hosts.port(), hosts.card())

    def test_a_port_with_a_link_is_no_empty_slot(self) -> None:
        port = self.EMPTY._replace(link=Link(8.0, 4, 5.0, 1), link_active=True)
        assert "better_slot" not in said(port, hosts.port(), hosts.card())

    def test_link_that_may_be_from_before_is_a_note(self) -> None:
        port = self.EMPTY._replace(link=Link(8.0, 4, 5.0, 1), slot=Slot(1, True, False))
        assert said(port, hosts.port(), hosts.card())["port_needs_rescan"].severity == INFO
