# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Machines that are known by listings of lspci and sbc-bench only, from reading to verdict."""

from __future__ import annotations

from typing import Dict, List

import pytest

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import BUILT_IN, cards, kind_of
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.pcie_findings import pcie_findings
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.topology import survey
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import cpufreq, cpus, pci
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import Aspm, Link, Msi, PciDevice
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.listings import (
    lspci,
    pci_tree,
    sbc_bench,
    tree_view,
)
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import Tree, captured, hex_dump

CARDS = ["0000:%02x:00.0" % bus for bus in (0x03, 0x04, 0x05, 0x09, 0x0A, 0x0B, 0x0D, 0x0E)]


def read(tree: Tree, name: str) -> Dict[str, PciDevice]:
    pci_tree(tree, lspci(captured("lspci/%s.txt" % name)))
    return {device.bdf: device for device in pci.read_devices(tree.root)}


def found(devices: Dict[str, PciDevice]) -> Dict[str, List[Finding]]:
    by_id: Dict[str, List[Finding]] = {}
    for finding in pcie_findings(list(devices.values()), BUILT_IN, None):
        by_id.setdefault(finding.id, []).append(finding)
    return by_id


class TestAx650n:
    def test_healthy_card(self, tree: Tree) -> None:
        card = read(tree, "ax650n-vvv")["0000:04:00.0"]
        assert (card.vendor, card.device, card.revision, card.class_code) == (0x1F4B, 0x0650, 1, 0x040000)
        assert (card.subsystem_vendor, card.subsystem_device) == (0x1F4B, 0x0650)
        assert (card.msi, card.msix) == (Msi(True, 4, 4), None)
        assert (card.mps_capable_bytes, card.mps_bytes, card.mrrs_bytes) == (128, 128, 512)
        assert (card.link, card.aspm) == (Link(5.0, 2, 5.0, 1), Aspm((), ()))
        assert (card.driver, card.module) == ("ax_pcie_dev_host", "ax_pcie_host_dev")  # the names differ
        assert (card.legacy_irq, card.alive, card.port_type) == (147, True, "endpoint")
        assert (card.correctable_status, card.uncorrectable_status) == ((), ())

    def test_both_listings_of_one_card_say_the_same(self) -> None:
        """lspci -vvv and lspci -xxx of 04:00.0; the bytes know nothing beyond the first 256."""
        shown = pci.decode_config(lspci(captured("lspci/ax650n-vvv.txt"))[0].config)
        dumped = pci.decode_config(hex_dump("config/ax650n.txt"))
        assert [capability[0] for capability in shown.extended] == [
            0x0001,
            0x0018,
            0x001E,
            0x000B,
            0x000B,
            0x0015,
            0x0024,
        ]
        beyond = {"length", "extended", "correctable_status", "uncorrectable_status"}
        same = {name: value for name, value in shown._asdict().items() if name not in beyond}
        # lspci prints both times as "unlimited" and leaves the one that ASPM would need out
        assert {name: value for name, value in dumped._asdict().items() if name in same} == dict(
            same, l1_acceptable_us=dumped.l1_acceptable_us, l1_exit_us=dumped.l1_exit_us
        )

    def test_link_status_word(self) -> None:
        data = hex_dump("config/ax650n.txt")
        assert int.from_bytes(data[0x82:0x84], "little") == 0x1012
        config = pci.decode_config(data)
        assert config.capabilities == ((0x01, 0x40), (0x05, 0x50), (0x10, 0x70))
        assert config.link == Link(5.0, 2, 5.0, 1)

    def test_card_that_fell_off(self, tree: Tree) -> None:
        """Dead, rather than a link of which nothing is known."""
        devices = read(tree, "dropped-ax650n-vvv")
        card = devices["0000:03:00.0"]
        assert (card.alive, card.bars_lost, card.legacy_irq, card.numa_node) == (False, True, 87, 0)
        assert (card.vendor, card.device) == (0x1F4B, 0x0650)
        findings = found(devices)
        assert [finding.severity for finding in findings["card_dead"]] == ["critical"]
        assert not [name for name in findings if name.startswith("link")]

    def test_card_whose_registers_read_all_ones(self, tree: Tree) -> None:
        shown = lspci(captured("lspci/dropped-ax650n-vvv.txt"))
        identity = {"vendor": "0x1f4b", "device": "0x0650", "class": "0x040000"}
        pci_tree(tree, [one._replace(config=b"\xff" * 256, files={**one.files, **identity}) for one in shown])
        devices = {device.bdf: device for device in pci.read_devices(tree.root)}
        assert [finding.id for finding in found(devices)["card_dead"]] == ["card_dead"]


class TestEightCards:
    @pytest.fixture
    def devices(self, tree: Tree) -> Dict[str, PciDevice]:
        shown = lspci(captured("lspci/eight-ax650n.txt"))
        pci_tree(tree, shown, tree_view(captured("lspci/eight-ax650n-vt.txt")))
        return {device.bdf: device for device in pci.read_devices(tree.root)}

    def test_two_views_of_one_tree(self) -> None:
        behind = tree_view(captured("lspci/eight-ax650n-vt.txt"))
        assert len(behind) == 14
        assert {bdf: bus for bdf, bus in behind.items() if bdf[5:7] != "02"} == {"0000:00:01.0": 1, "0000:01:00.0": 2}
        assert set(behind) < {one.bdf for one in lspci(captured("lspci/eight-ax650n.txt"))}

    def test_parents(self, devices: Dict[str, PciDevice]) -> None:
        """The bus of the card less one is not the bus above it."""
        assert sorted(card.bdf for card in cards(devices.values(), BUILT_IN)) == CARDS
        above = {3: "00", 4: "02", 5: "03", 9: "08", 0x0A: "0a", 0x0B: "0b", 0x0D: "0e", 0x0E: "0f"}
        for bdf in CARDS:
            port = "0000:02:%s.0" % above[int(bdf[5:7], 16)]
            path = [device.bdf for device in pci.path_to_root(devices.values(), bdf)]
            assert path == [bdf, port, "0000:01:00.0", "0000:00:01.0"]
        assert (devices["0000:00:02.0"].parent, devices["0000:00:01.0"].parent) == (None, None)

    def test_uplink_is_shared(self, devices: Dict[str, PciDevice]) -> None:
        ways = survey(list(devices.values()), BUILT_IN)
        assert sorted(ways) == CARDS
        for bdf, way in ways.items():
            assert sorted(way.shared_with) == sorted(set(CARDS) - {bdf})
            assert [hop.upper for hop in way.hops][-1] == "0000:00:01.0"

    def test_without_their_registers_nothing_is_made_up(self, devices: Dict[str, PciDevice]) -> None:
        assert {device.link for device in devices.values()} == {None}
        for way in survey(list(devices.values()), BUILT_IN).values():
            assert (way.bandwidth, way.bottleneck) == (None, None)


class TestRock5Itx:
    def test_three_domains(self, tree: Tree) -> None:
        devices = read(tree, "rock5itx-vv")
        assert {bdf: device.parent for bdf, device in devices.items()} == {
            "0001:10:00.0": None,
            "0001:11:00.0": "0001:10:00.0",
            "0003:30:00.0": None,
            "0003:31:00.0": "0003:30:00.0",
            "0004:40:00.0": None,
            "0004:41:00.0": "0004:40:00.0",
        }
        for bdf, device in devices.items():
            root_port = device.parent is None
            assert device.port_type == ("root port" if root_port else "endpoint")
            if root_port:
                assert (device.vendor, device.device, device.driver) == (0x1D87, 0x3588, "pcieport")
            speed, width = (8.0, 2) if bdf.startswith("0001") else (5.0, 1)
            assert device.link == Link(speed, width, speed, width)
            assert (device.mps_capable_bytes, device.mps_bytes) == (256, 128)  # though both ends can do 256
            assert device.aspm is not None
            assert device.aspm.enabled == ()

    def test_errors_of_the_past(self, tree: Tree) -> None:
        status = {bdf: device.correctable_status for bdf, device in read(tree, "rock5itx-vv").items()}
        assert status.pop("0001:10:00.0") == ("RxErr", "BadDLLP", "Timeout")
        assert set(status.values()) == {()}

    def test_kinds_of_interrupts(self, tree: Tree) -> None:
        devices = read(tree, "rock5itx-vv")
        assert (devices["0001:10:00.0"].msi, devices["0001:10:00.0"].msix) == (Msi(True, 32, 16), Msi(False, 128, 0))
        assert devices["0001:11:00.0"].msi == Msi(True, 1, 1)
        network = devices["0004:41:00.0"]
        assert (network.msi, network.msix) == (Msi(False, 1, 0), Msi(True, 32, 0))
        assert (network.vendor, network.device, network.driver, network.mrrs_bytes) == (0x10EC, 0x8125, "r8125", 4096)

    def test_no_npu_among_them(self, tree: Tree) -> None:
        assert list(found(read(tree, "rock5itx-vv"))) == ["card_missing"]


class TestOthers:
    def test_dummy_function_is_not_the_npu(self, tree: Tree) -> None:
        devices = read(tree, "strix-halo-nnk")
        (npu,) = cards(devices.values(), BUILT_IN)
        assert (npu.bdf, npu.device, npu.class_code, npu.revision) == ("0000:c6:00.1", 0x17F0, 0x118000, 0x11)
        assert (npu.driver, npu.module) == ("amdxdna", "amdxdna")
        dummy = devices["0000:c6:00.0"]
        assert (dummy.vendor, dummy.device, kind_of(dummy, BUILT_IN)) == (0x1022, 0x150D, None)
        assert len(devices) == 5

    @pytest.mark.parametrize(
        ("name", "card", "others"),
        [
            ("pi5-compat", "0000:01:00.0", ["0000:00:00.0", "0001:00:00.0", "0001:01:00.0"]),
            ("pi5-sipeed", "0001:01:00.0", ["0001:00:00.0", "0002:00:00.0", "0002:01:00.0"]),
        ],
    )
    def test_raspberry_pi_5(self, tree: Tree, name: str, card: str, others: List[str]) -> None:
        """The overlay decides on the domain; the revision stands there without its blank, too."""
        devices = read(tree, name)
        assert sorted(devices) == sorted([card, *others])
        assert [device.bdf for device in cards(devices.values(), BUILT_IN)] == [card]
        assert (devices[card].revision, devices[card].class_code) == (1, 0x040000)


class TestSbcBench:
    def test_rock5b(self, tree: Tree) -> None:
        """Kernel 5.10 shows each cluster as a package of its own."""
        sbc_bench(tree, captured("sbc-bench/rock5b-topology.txt"), captured("sbc-bench/rock5b-governors.txt"))
        found = cpus.read_cpus(tree.root)
        assert [cpu.package for cpu in found] == [0, 0, 0, 0, 1, 1, 2, 2]
        assert [(tier.cpus, tier.value) for tier in cpus.tiers(found)] == [
            ((0, 1, 2, 3), 1800000),
            ((4, 5, 6, 7), 2400000),
        ]
        policies = cpufreq.read_policies(tree.root)
        assert [(policy.name, policy.cpus) for policy in policies] == [
            ("policy0", (0, 1, 2, 3)),
            ("policy4", (4, 5)),
            ("policy6", (6, 7)),
        ]
        governors = ("conservative", "ondemand", "userspace", "powersave", "performance", "schedutil")
        for policy in policies:
            assert (policy.governor, policy.available_governors) == ("ondemand", governors)
            assert policy.available_khz[0] == policy.hw_min_khz == 408000
            assert policy.available_khz[-1] == policy.hw_max_khz
        assert [len(policy.available_khz) for policy in policies] == [8, 14, 14]

    def test_orange_pi_5_max(self, tree: Tree) -> None:
        """Kernel 6.1 shows one package; the fast cores of this SoC end at 2256 MHz."""
        sbc_bench(tree, captured("sbc-bench/opi5max-topology.txt"))
        found = cpus.read_cpus(tree.root)
        assert {cpu.package for cpu in found} == {0}
        assert [(tier.cpus, tier.value) for tier in cpus.tiers(found)] == [
            ((0, 1, 2, 3), 1800000),
            ((4, 5, 6, 7), 2256000),
        ]
        assert {policy.governor for policy in cpufreq.read_policies(tree.root)} == {None}, "nobody has said"
