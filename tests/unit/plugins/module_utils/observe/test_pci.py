# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import struct
from typing import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe import pci
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import Aer, Aspm, Link, Msi
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe import pcie_trees
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.pcie_trees import bridge, eight_cards
from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import (
    Tree,
    config_space,
    hex_dump,
    pcie,
)

AX650N = hex_dump("config/ax650n.txt")
BRIDGE = 0x060400


def aer(uncorrectable: int, correctable: int) -> tuple[int, bytes]:
    return 0x0001, struct.pack("<IIIII", uncorrectable, 0, 0, correctable, 0) + bytes(20)


# The RK3588's root port on fe160000 (ROCK 5 ITX) as lspci -vv prints it, register by register.
RK3588_ROOT_PORT = config_space(
    (0x1D87, 0x3588),
    BRIDGE,
    header_type=1,
    capabilities=[
        (0x01, bytes(6)),
        (0x05, struct.pack("<H", 1 | 5 << 1 | 4 << 4 | 0x80) + bytes(12)),
        pcie(4, (3, 2), (3, 2), payload=(1, 0), aspm=(2, 0), speeds=0b111),
        (0x11, struct.pack("<H", 127) + bytes(8)),
    ],
    extended=[aer(0, 1 << 0 | 1 << 7 | 1 << 12), (0x0019, bytes(12)), (0x001E, bytes(12))],
)
ENDPOINT = config_space((0x1F4B, 0x0650), 0x040000, [pcie(0, (2, 2), (2, 1), speeds=0b11)], subsystem=(0x1F4B, 0x0650))


class TestDecode:
    def test_ax650n(self) -> None:
        config = pci.decode_config(AX650N)
        assert (config.vendor, config.device, config.revision, config.class_code) == (0x1F4B, 0x0650, 1, 0x040000)
        assert (config.subsystem_vendor, config.subsystem_device) == (0x1F4B, 0x0650)
        assert config.capabilities == ((0x01, 0x40), (0x05, 0x50), (0x10, 0x70))
        assert config.port_type == "endpoint"
        assert config.link == Link(5.0, 2, 5.0, 1)
        assert (config.mps_capable_bytes, config.mps_bytes, config.mrrs_bytes) == (128, 128, 512)
        assert config.msi == Msi(True, 4, 4)
        assert config.msix is None
        assert config.aspm == Aspm((), ())
        assert config.alive
        assert config.length == 256
        assert (config.correctable_status, config.extended) == (None, ())

    def test_rk3588_root_port(self) -> None:
        config = pci.decode_config(RK3588_ROOT_PORT)
        assert config.port_type == "root port"
        assert config.link == Link(8.0, 2, 8.0, 2)
        assert (config.mps_capable_bytes, config.mps_bytes, config.mrrs_bytes) == (256, 128, 512)
        assert config.msi == Msi(True, 32, 16)
        assert config.msix == Msi(False, 128, 0)
        assert config.aspm == Aspm(("L1",), ())
        assert config.correctable_status == ("RxErr", "BadDLLP", "Timeout")
        assert config.uncorrectable_status == ()
        assert [number for number, _offset in config.extended] == [0x0001, 0x0019, 0x001E]
        assert (config.subsystem_vendor, config.header_type) == (None, 1)

    def test_64_bytes_name_the_device_and_no_more(self) -> None:
        config = pci.decode_config(AX650N[:64])
        assert (config.vendor, config.device, config.class_code) == (0x1F4B, 0x0650, 0x040000)
        assert (config.subsystem_vendor, config.length, config.alive) == (0x1F4B, 64, True)
        assert (config.capabilities, config.port_type, config.link, config.msi) == ((), None, None, None)
        assert pci.decode_config(RK3588_ROOT_PORT[:64]).port_type is None

    @pytest.mark.parametrize("length", [1, 4, 16, 64, 255, 256, 4096])
    def test_dead_card(self, length: int) -> None:
        config = pci.decode_config(b"\xff" * length)
        assert not config.alive
        assert (config.vendor, config.class_code, config.capabilities, config.link) == (None, None, (), None)
        assert config.length == length

    def test_virtual_function_is_not_dead(self) -> None:
        data = bytearray(AX650N)
        data[:4] = b"\xff" * 4
        assert pci.decode_config(bytes(data)).alive

    def test_nothing_to_decode(self) -> None:
        config = pci.decode_config(b"")
        assert (config.length, config.alive, config.vendor) == (0, True, None)

    def test_empty_slot_has_width_0_and_no_speed(self) -> None:
        data = config_space((1, 2), BRIDGE, [pcie(4, (3, 2), (1, 0), speeds=0b111)], header_type=1)
        assert pci.decode_config(data).link == Link(8.0, 2, None, 0)

    @pytest.mark.parametrize(
        ("capable", "speeds", "version", "expected"),
        [
            (1, 0b11, 2, 5.0),  # the vector tells of more than the field
            (3, 0, 2, 8.0),  # no vector: the field
            (2, 0b1111, 1, 5.0),  # version 1 has other registers there
            (9, 0, 2, None),
            (6, 0b111111, 2, 64.0),
            (1, 0b1000000, 2, None),
        ],
    )
    def test_speed_capability(self, capable: int, speeds: int, version: int, expected: float | None) -> None:
        data = config_space((1, 2), 0, [pcie(0, (capable, 1), (1, 1), version=version, speeds=speeds)])
        link = pci.decode_config(data).link
        assert link is not None
        assert link.capable_gt_s == expected

    @pytest.mark.parametrize(
        ("code", "name"),
        [
            (1, "legacy endpoint"),
            (5, "upstream port"),
            (6, "downstream port"),
            (7, "bridge"),
            (8, "bridge"),
            (9, "integrated endpoint"),
            (10, "event collector"),
            (3, None),
        ],
    )
    def test_port_types(self, code: int, name: str | None) -> None:
        config = pci.decode_config(config_space((1, 2), 0, [pcie(code, (2, 2), (2, 2))]))
        assert config.port_type == name
        assert (config.link is None) == (code in (9, 10))

    def test_conventional_bridge(self) -> None:
        assert pci.decode_config(config_space((1, 2), BRIDGE, header_type=1)).port_type == "bridge"
        assert pci.decode_config(config_space((1, 2), 0)).port_type is None

    def test_reserved_codes_are_not_known(self) -> None:
        data = config_space(
            (1, 2),
            0,
            [
                pcie(0, (2, 1), (2, 1), payload=(6, 7), read_request=6),
                (0x05, struct.pack("<H", 1 | 6 << 1)),
            ],
        )
        config = pci.decode_config(data)
        assert (config.mps_capable_bytes, config.mps_bytes, config.mrrs_bytes, config.msi) == (None, None, None, None)

    def test_msi_not_enabled_grants_nothing(self) -> None:
        data = config_space((1, 2), 0, [(0x05, struct.pack("<H", 2 << 1 | 2 << 4))])
        assert pci.decode_config(data).msi == Msi(False, 4, 0)

    def test_aspm(self) -> None:
        data = config_space((1, 2), 0, [pcie(0, (2, 1), (2, 1), aspm=(3, 2))])
        assert pci.decode_config(data).aspm == Aspm(("L0s", "L1"), ("L1",))

    def test_subsystem_of_a_bridge(self) -> None:
        data = config_space((1, 2), BRIDGE, [(0x0D, struct.pack("<HHH", 0, 0x1B21, 0x2824))], header_type=1)
        config = pci.decode_config(data)
        assert (config.subsystem_vendor, config.subsystem_device) == (0x1B21, 0x2824)

    def test_capability_that_points_to_itself(self) -> None:
        data = bytearray(AX650N)
        data[0x51] = 0x50
        assert pci.decode_config(bytes(data)).capabilities == ((0x01, 0x40), (0x05, 0x50))

    def test_capability_ring(self) -> None:
        data = bytearray(AX650N)
        data[0x71] = 0x40
        assert len(pci.decode_config(bytes(data)).capabilities) == 3

    def test_list_ends_in_ones(self) -> None:
        data = bytearray(AX650N)
        data[0x50:] = b"\xff" * (len(data) - 0x50)
        config = pci.decode_config(bytes(data))
        assert config.capabilities == ((0x01, 0x40),)
        assert config.alive

    def test_status_says_there_is_no_list(self) -> None:
        data = bytearray(AX650N)
        data[6] &= 0xEF
        assert pci.decode_config(bytes(data)).capabilities == ()

    def test_extended_ring(self) -> None:
        data = bytearray(RK3588_ROOT_PORT)
        struct.pack_into("<I", data, 0x100, 0x0001 | 1 << 16 | 0x100 << 20)
        assert pci.decode_config(bytes(data)).extended == ((0x0001, 0x100),)


CM3588 = "platform/fe180000.pcie/pci0003:30/0003:30:00.0"


def cm3588(tree: Tree) -> None:
    tree.pci(CM3588, config_space((0x1D87, 0x3588), BRIDGE, [pcie(4, (3, 2), (2, 1))], header_type=1))
    card = tree.pci(
        CM3588 + "/0003:31:00.0",
        AX650N,
        {
            "vendor": "0x1f4b",
            "device": "0x0650",
            "numa_node": "-1",
            "local_cpulist": "0-7",
            "irq": "0",
            "power_state": "D0",
            "class": "0x040000",
            "revision": "0x01",
        },
    )
    tree.link("/sys/devices/platform/fe180000.pcie/of_node", "../../../firmware/devicetree/base/pcie@fe180000")
    tree.link(card + "/driver", "../../../../../../bus/pci/drivers/ax_pcie_dev_host")
    tree.link("/sys/bus/pci/drivers/ax_pcie_dev_host/module", "../../../../module/ax_pcie_host_dev")
    for irq in (103, 9, 1024, 96):
        tree.file("%s/msi_irqs/%d" % (card, irq), "msi\n")


class TestRead:
    def test_card_of_a_cm3588(self, tree: Tree) -> None:
        cm3588(tree)
        card = pci.read_device(tree.root, "0003:31:00.0")
        assert card is not None
        assert (card.vendor, card.device, card.class_code) == (0x1F4B, 0x0650, 0x040000)
        assert (card.driver, card.module) == ("ax_pcie_dev_host", "ax_pcie_host_dev")
        assert card.parent == "0003:30:00.0"
        assert card.controller == "fe180000.pcie"
        assert card.of_node == "/pcie@fe180000"  # though the node itself is not in the tree
        assert card.msi_irqs == (9, 96, 103, 1024)
        assert (card.legacy_irq, card.numa_node, card.local_cpus) == (None, None, tuple(range(8)))
        assert (card.alive, card.config_bytes, card.power_state) == (True, 256, "D0")
        assert card.link == Link(5.0, 2, 5.0, 1)
        assert card.aer is None
        root_port = pci.read_device(tree.root, "0003:30:00.0")
        assert root_port is not None
        assert (root_port.parent, root_port.controller, root_port.driver) == (None, "fe180000.pcie", None)

    def test_no_such_device(self, tree: Tree) -> None:
        cm3588(tree)
        assert pci.read_device(tree.root, "0003:31:00.1") is None
        assert pci.read_device(tree.root, "../../../etc") is None

    def test_nested_device_tree_node(self, tree: Tree) -> None:
        tree.pci("platform/axi/1000110000.pcie/pci0001:00/0001:00:00.0", ENDPOINT)
        tree.link(
            "/sys/devices/platform/axi/1000110000.pcie/of_node",
            "../../../../firmware/devicetree/base/axi/pcie@1000110000",
        )
        device = pci.read_devices(tree.root)[0]
        assert (device.controller, device.of_node) == ("1000110000.pcie", "/axi/pcie@1000110000")

    def test_x86_has_no_controller(self, tree: Tree) -> None:
        tree.pci("pci0000:00/0000:00:02.0", ENDPOINT, {"numa_node": "1", "irq": "16"})
        device = pci.read_devices(tree.root)[0]
        assert (device.parent, device.controller, device.of_node) == (None, None, None)
        assert (device.numa_node, device.legacy_irq, device.local_cpus) == (1, 16, None)

    def test_root_bus_behind_another_device(self, tree: Tree) -> None:
        tree.pci("pci0000:00/0000:00:0e.0", ENDPOINT)
        tree.pci("pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0", ENDPOINT)
        device = pci.read_devices(tree.root)[1]
        assert (device.bdf, device.parent, device.controller) == ("10000:e0:06.0", None, None)

    def test_controller_is_the_host_bridge_s_own(self, tree: Tree) -> None:
        tree.pci(CM3588 + "/pci10000:e0/10000:e0:06.0", ENDPOINT)
        device = pci.read_devices(tree.root)[0]
        assert (device.bdf, device.controller) == ("10000:e0:06.0", None)

    def test_tree_without_real_paths(self, tree: Tree) -> None:
        tree.file("/sys/bus/pci/devices/0000:01:00.0/config", ENDPOINT)
        device = pci.read_devices(tree.root)[0]
        assert (device.parent, device.controller, device.device) == (None, None, 0x0650)

    @pytest.mark.parametrize(("text", "state"), [("D3hot", "D3hot"), ("unknown", None), ("error", None)])
    def test_power_state(self, tree: Tree, text: str, state: str | None) -> None:
        tree.pci("pci0000:00/0000:00:02.0", ENDPOINT, {"power_state": text})
        assert pci.read_devices(tree.root)[0].power_state == state

    def test_order_is_numeric(self, tree: Tree) -> None:
        bdfs = ["0000:02:00.0", "0000:02:00.1", "0000:0a:00.0", "0001:00:00.0", "ffff:00:00.0", "10000:e0:06.0"]
        for bdf in reversed(bdfs):
            tree.pci("pci%s/%s" % (bdf[:-5], bdf), ENDPOINT)
        tree.file("/sys/bus/pci/devices/rubbish/config", ENDPOINT)
        assert [device.bdf for device in pci.read_devices(tree.root)] == bdfs

    def test_dead_card_keeps_the_kernel_s_names(self, tree: Tree) -> None:
        tree.pci(
            "pci0000:00/0000:00:1c.0/0000:03:00.0",
            b"\xff" * 256,
            {
                "vendor": "0x1f4b",
                "device": "0x0650",
                "subsystem_vendor": "0x1f4b",
                "class": "0x040000",
                "irq": "87",
                "current_link_width": "63",
                "current_link_speed": "Unknown",
                "numa_node": "0",
            },
        )
        device = pci.read_devices(tree.root)[0]
        assert not device.alive
        assert (device.vendor, device.device, device.class_code) == (0x1F4B, 0x0650, 0x040000)
        assert (device.link, device.msi, device.legacy_irq, device.numa_node) == (None, None, 87, 0)

    def test_virtual_function(self, tree: Tree) -> None:
        data = bytearray(ENDPOINT)
        data[:4] = b"\xff" * 4
        tree.pci("pci0000:00/0000:00:10.1", bytes(data), {"vendor": "0x8086", "device": "0x1515"})
        device = pci.read_devices(tree.root)[0]
        assert (device.vendor, device.device, device.alive) == (0x8086, 0x1515, True)

    def test_without_root_sysfs_tells_of_the_link(self, tree: Tree) -> None:
        path = tree.pci(
            "pci0000:00/0000:00:01.0/0000:01:00.0",
            AX650N[:64],
            {
                "current_link_speed": "2.5 GT/s PCIe",
                "max_link_speed": "5.0 GT/s PCIe",
                "current_link_width": "1",
                "max_link_width": "2",
            },
        )
        tree.files(path, {"link/l1_aspm": "1", "link/l0s_aspm": "0"})
        device = pci.read_devices(tree.root)[0]
        assert device.link == Link(5.0, 2, 2.5, 1)
        assert device.aspm == Aspm(("L0s", "L1"), ("L1",))
        assert (device.config_bytes, device.mps_bytes, device.msi) == (64, None, None)

    @pytest.mark.parametrize(
        ("contents", "link"),
        [
            ({}, None),
            (
                {
                    "current_link_speed": "Unknown speed",
                    "current_link_width": "0",
                    "max_link_width": "4",
                    "max_link_speed": "8.0 GT/s PCIe",
                },
                Link(8.0, 4, None, 0),
            ),
            ({"current_link_speed": "8 GT/s", "current_link_width": "4"}, Link(None, None, 8.0, 4)),  # 4.x kernels
            ({"current_link_width": "63", "max_link_width": "63"}, None),
        ],
    )
    def test_sysfs_links(self, tree: Tree, contents: dict[str, str], link: Link | None) -> None:
        tree.pci("pci0000:00/0000:00:01.0", AX650N[:64], contents)
        assert pci.read_devices(tree.root)[0].link == link

    def test_configuration_space_has_precedence(self, tree: Tree) -> None:
        tree.pci("pci0000:00/0000:00:01.0", AX650N, {"current_link_speed": "8.0 GT/s PCIe", "current_link_width": "4"})
        assert pci.read_devices(tree.root)[0].link == Link(5.0, 2, 5.0, 1)

    def test_unreadable_configuration_space(self, tree: Tree) -> None:
        path = tree.pci("pci0000:00/0000:00:01.0", b"", {"vendor": "0x1f4b", "device": "0x0650", "revision": "0x01"})
        (tree.path / path.lstrip("/") / "config").unlink()
        device = pci.read_devices(tree.root)[0]
        assert (device.vendor, device.revision, device.config_bytes, device.alive) == (0x1F4B, 1, 0, True)

    def test_msix_vectors_are_counted(self, tree: Tree) -> None:
        data = config_space((1, 2), 0, [(0x11, struct.pack("<H", 0x8000 | 63))])
        path = tree.pci("pci0000:00/0000:00:01.0", data)
        for irq in range(40, 45):
            tree.file("%s/msi_irqs/%d" % (path, irq), "msix\n")
        device = pci.read_devices(tree.root)[0]
        assert device.msix == Msi(True, 64, 5)
        assert pci.interrupts_of([device]) == dict.fromkeys(range(40, 45), "0000:00:01.0")

    def test_aer_counters(self, tree: Tree) -> None:
        tree.pci(
            "pci0000:00/0000:00:01.0",
            ENDPOINT,
            {
                "aer_dev_correctable": "RxErr 3\nBadTLP 0\nTOTAL_ERR_COR 3",
                "aer_dev_fatal": "DLP 1\nnonsense\nTLP x",
            },
        )
        assert pci.read_devices(tree.root)[0].aer == Aer({"RxErr": 3, "BadTLP": 0}, {}, {"DLP": 1})


class TestPorts:
    def test_slot(self) -> None:
        config = pci.decode_config(bridge(4, (3, 4), (1, 0), slot=(7, True)))
        assert config.slot == pci.Slot(7, True, False)
        assert pci.decode_config(bridge(4, (3, 4), (1, 0), slot=(7, False))).slot == pci.Slot(7, False, False)
        assert pci.decode_config(bridge(4, (3, 4), (1, 0))).slot is None
        assert pci.decode_config(bridge(5, (3, 4), (1, 0), slot=(7, True))).slot is None, "no slot is behind this end"

    @pytest.mark.parametrize("active", [True, False, None])
    def test_link_active(self, active: bool | None) -> None:
        """The bit means something only where the port says that it keeps it."""
        assert pci.decode_config(bridge(6, (3, 4), (2, 1), active=active)).link_active is active
        data = bytearray(bridge(6, (3, 4), (2, 1)))
        data[0x40 + 0x13] |= 0x20
        assert pci.decode_config(bytes(data)).link_active is None

    def test_target(self) -> None:
        assert pci.decode_config(bridge(4, (3, 4), (2, 1), target=2)).target_gt_s == 5.0
        assert pci.decode_config(bridge(4, (3, 4), (2, 1))).target_gt_s is None
        assert pci.decode_config(bridge(5, (3, 4), (2, 1), target=2)).target_gt_s is None

    def test_buses(self) -> None:
        config = pci.decode_config(bridge(4, (3, 4), (2, 1), buses=(1, 14))[:64])
        assert (config.secondary_bus, config.subordinate_bus) == (1, 14)
        assert pci.decode_config(AX650N).secondary_bus is None

    @pytest.mark.parametrize(("code", "expected"), [(0, 1), (4, 16), (6, 64), (7, 65)])
    def test_time_to_leave_l1(self, code: int, expected: int) -> None:
        number, body = pcie(0, (2, 1), (2, 1), aspm=(2, 0))
        registers = bytearray(body)
        registers[11] |= (code & 1) << 7
        registers[12] |= code >> 1
        data = pci.decode_config(config_space((1, 2), 0, [(number, bytes(registers))]))
        assert data.l1_exit_us == expected

    def test_times_of_an_ax650n(self) -> None:
        """Latency L0s unlimited, L1 unlimited; ASPM not supported."""
        config = pci.decode_config(AX650N)
        assert (config.l1_exit_us, config.l1_acceptable_us) == (None, None)

    def test_acceptable_time(self) -> None:
        data = config_space((1, 2), 0, [pcie(0, (2, 1), (2, 1), payload=(6 << 9, 0))])
        assert pci.decode_config(data).l1_acceptable_us == 64

    def test_thunderbolt_controller(self) -> None:
        head = struct.pack("<I", 0x1234 | 1 << 16 | 0x1C << 20)
        ours = bridge(5, (1, 4), (1, 4), ids=(0x8086, 0x15D3), extended=[(0x000B, head)])
        assert pci.decode_config(ours).tunnel
        other = bridge(5, (1, 4), (1, 4), ids=(0x1022, 0x15D3), extended=[(0x000B, head)])
        assert not pci.decode_config(other).tunnel
        another = bridge(5, (1, 4), (1, 4), ids=(0x8086, 0x15D3), extended=[(0x000B, bytes(4))])
        assert not pci.decode_config(another).tunnel

    def test_removable(self, tree: Tree) -> None:
        tree.pci("pci0000:00/0000:00:01.0", ENDPOINT, {"removable": "removable"})
        tree.pci("pci0000:00/0000:00:02.0", ENDPOINT, {"removable": "fixed"})
        assert [device.tunnel for device in pci.read_devices(tree.root)] == [True, False]

    def test_errors_received_by_a_root_port(self, tree: Tree) -> None:
        counts = {"aer_rootport_total_err_cor": "3", "aer_rootport_total_err_fatal": "0"}
        tree.pci("pci0000:00/0000:00:01.0", bridge(4, (3, 4), (2, 1)), counts)
        tree.pci("pci0000:00/0000:00:02.0", bridge(4, (3, 4), (2, 1)))
        first, second = pci.read_devices(tree.root)
        assert first.port_errors == {"aer_rootport_total_err_cor": 3, "aer_rootport_total_err_fatal": 0}
        assert second.port_errors is None

    @pytest.mark.parametrize(
        ("raw", "width"), [(b"\0\0\0\1", 1), (b"\0\0\0\4", 4), (b"\0\0\0\0", None), (b"\1", None), (b"\1\0\0\0", None)]
    )
    def test_lanes_by_the_device_tree(self, tree: Tree, raw: bytes, width: int | None) -> None:
        cm3588(tree)
        tree.file("/sys/firmware/devicetree/base/pcie@fe180000/num-lanes", raw)
        port, card = pci.read_devices(tree.root)
        assert (port.board_width, card.board_width) == (width, None)


class TestDroppedAndAsleep:
    def test_dropped_card(self, tree: Tree) -> None:
        """Mem-, BusMaster-, [virtual]: it answers, but was reset behind the kernel's back."""
        pcie_trees.dropped_card(tree)
        card = pci.read_device(tree.root, "0000:03:00.0")
        assert card is not None
        assert (card.alive, card.bars_lost, card.memory_enabled, card.legacy_irq) == (False, True, False, 87)
        assert (card.vendor, card.device) == (0x1F4B, 0x0650)

    def test_no_driver_has_switched_it_on_yet(self, tree: Tree) -> None:
        """Memory off, and the addresses are there."""
        data = bytearray(ENDPOINT)
        data[0x13] = 0xE0
        tree.pci("pci0000:00/0000:00:01.0", bytes(data), {"resource": "0xe0000000 0xe07fffff 0x40200"})
        card = pci.read_devices(tree.root)[0]
        assert (card.alive, card.bars_lost, card.memory_enabled) == (True, False, False)

    def test_kernel_has_given_it_none(self, tree: Tree) -> None:
        tree.pci("pci0000:00/0000:00:01.0", ENDPOINT, {"resource": "0x0000000000000000 0x0000000000000000 0x0"})
        tree.pci("pci0000:00/0000:00:02.0", ENDPOINT)
        assert [card.alive for card in pci.read_devices(tree.root)] == [True, True]

    def test_kinds_of_addresses_are_no_address(self, tree: Tree) -> None:
        """The low bits of a base address register say which kind it is, not where."""
        data = bytearray(ENDPOINT)
        data[0x10], data[0x20] = 0x08, 0x0C
        tree.pci("pci0000:00/0000:00:01.0", bytes(data), {"resource": "0xe0000000 0xe07fffff 0x40200"})
        assert pci.read_devices(tree.root)[0].bars_lost

    def test_switched_on(self, tree: Tree) -> None:
        data = bytearray(ENDPOINT)
        data[4] = 2
        tree.pci("pci0000:00/0000:00:01.0", bytes(data), {"resource": "0xe0000000 0xe07fffff 0x40200"})
        assert pci.read_devices(tree.root)[0].alive

    def test_virtual_function_has_no_registers_of_its_own(self, tree: Tree) -> None:
        data = bytearray(ENDPOINT)
        data[:4] = b"\xff" * 4
        tree.pci("pci0000:00/0000:00:10.1", bytes(data), {"resource": "0xe0000000 0xe07fffff 0x40200"})
        assert pci.read_devices(tree.root)[0].alive

    def test_asleep_is_not_woken_up(self, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
        cold = {"power_state": "D3cold", "power/runtime_status": "suspended", "vendor": "0x1f4b", "device": "0x0650"}
        tree.pci("pci0000:00/0000:00:01.0", b"\xff" * 256, dict(cold, current_link_width="1"))
        monkeypatch.setattr(tree.root, "data", self.refusing(tree))
        card = pci.read_devices(tree.root)[0]
        assert (card.vendor, card.device, card.alive, card.suspended) == (0x1F4B, 0x0650, True, True)
        assert (card.config_bytes, card.link) == (0, None)

    @staticmethod
    def refusing(tree: Tree) -> Callable[..., bytes | None]:
        data = tree.root.data

        def read(path: str, limit: int = -1) -> bytes | None:
            assert not path.endswith(("/config", "_link_width", "_link_speed")), "this wakes it up"
            return data(path, limit)

        return read

    @pytest.mark.parametrize("status", ["active", "unsupported", "error"])
    def test_dead_card_says_d3cold_too(self, tree: Tree, status: str) -> None:
        tree.pci("pci0000:00/0000:00:01.0", b"\xff" * 256, {"power_state": "D3cold", "power/runtime_status": status})
        assert not pci.read_devices(tree.root)[0].alive


class TestPath:
    def test_cards_behind_a_switch(self, tree: Tree) -> None:
        above = eight_cards(tree)
        devices = pci.read_devices(tree.root)
        cards = [device for device in devices if device.vendor == 0x1F4B]
        assert len(cards) == 8
        for card in cards:
            port = "0000:02:%02x.0" % above[int(card.bdf[5:7], 16)]
            path = pci.path_to_root(devices, card.bdf)
            assert [device.bdf for device in path] == [card.bdf, port, "0000:01:00.0", "0000:00:01.0"]
            assert [device.port_type for device in path] == [
                "endpoint",
                "downstream port",
                "upstream port",
                "root port",
            ]
        empty = [device.bdf for device in devices if device.link is not None and device.link.negotiated_width == 0]
        assert empty == ["0000:02:04.0", "0000:02:06.0", "0000:02:07.0", "0000:02:0c.0"]

    def test_unknown_device_has_no_path(self, tree: Tree) -> None:
        cm3588(tree)
        assert pci.path_to_root(pci.read_devices(tree.root), "0000:00:00.0") == ()

    def test_ring_of_parents_ends(self, tree: Tree) -> None:
        cm3588(tree)
        port, card = pci.read_devices(tree.root)
        ring = [port._replace(parent=card.bdf), card, card._replace(bdf="0009:00:00.0")]
        assert [device.bdf for device in pci.path_to_root(ring, card.bdf)] == [card.bdf, port.bdf]


class TestBandwidth:
    @pytest.mark.parametrize(("gt_s", "raw", "read", "write"), [(5.0, 500, 411, 453), (2.5, 250, 206, 226)])
    def test_published_measurements(self, gt_s: float, raw: float, read: float, write: float) -> None:
        bandwidth = pci.bandwidth_mb_s(gt_s, 1, 128)
        assert bandwidth.raw_mb_s == pytest.approx(raw)
        assert bandwidth.read_mb_s == pytest.approx(read, rel=0.01)
        assert bandwidth.write_mb_s == pytest.approx(write, rel=0.01)

    def test_line_encodings(self) -> None:
        assert pci.bandwidth_mb_s(8.0, 1, 128).raw_mb_s == pytest.approx(984.6, abs=0.1)
        assert pci.bandwidth_mb_s(16.0, 4, 256).raw_mb_s == pytest.approx(7877, abs=1)
        assert pci.bandwidth_mb_s(64.0, 1, 256).raw_mb_s == pytest.approx(7375)

    @given(
        st.sampled_from([2.5, 5.0, 8.0, 16.0, 32.0, 64.0]),
        st.sampled_from([1, 2, 4, 8, 16]),
        st.sampled_from([128, 256, 512, 1024, 2048, 4096]),
    )
    @settings(deadline=None, database=None, derandomize=True)
    def test_bounds(self, gt_s: float, width: int, mps_bytes: int) -> None:
        bandwidth = pci.bandwidth_mb_s(gt_s, width, mps_bytes)
        assert 0 < bandwidth.read_mb_s < bandwidth.write_sustained_mb_s < bandwidth.write_mb_s <= bandwidth.raw_mb_s

    def test_no_link_carries_nothing(self) -> None:
        assert pci.bandwidth_mb_s(5.0, 0, 128) == (0.0, 0.0, 0.0, 0.0)
