# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PCI trees of machines that others have shown with lspci: switches, dead cards, processors' own NPUs, empty slots."""

from __future__ import annotations

import struct
from typing import Dict, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.tests.unit.plugins.module_utils.observe.trees import (
    Tree,
    config_space,
    hex_dump,
    pcie,
)

BRIDGE = 0x060400
AXERA = (0x1F4B, 0x0650)
ROOT, UPSTREAM, DOWNSTREAM = 4, 5, 6
BUS01 = "pci0000:00/0000:00:01.0/0000:01:00.0"  # of the switch on the PC with eight cards
# The port of the switch above each card's bus, and those with nothing behind them
ABOVE = {3: 0x00, 4: 0x02, 5: 0x03, 9: 0x08, 0x0A: 0x0A, 0x0B: 0x0B, 0x0D: 0x0E, 0x0E: 0x0F}
EMPTY = {6: 0x04, 7: 0x06, 8: 0x07, 0x0C: 0x0C}


def bridge(
    kind: int,
    capable: Tuple[int, int],
    negotiated: Tuple[int, int],
    ids: Tuple[int, int] = (0x1B21, 0x2824),
    buses: Tuple[int, int] = (0, 0),
    slot: Optional[Tuple[int, bool]] = None,
    active: Optional[bool] = None,
    target: int = 0,
    payload: Tuple[int, int] = (0, 0),
    aspm: Tuple[int, int] = (0, 0),
    extended: Sequence[Tuple[int, bytes]] = (),
) -> bytes:
    """Return the configuration space of one end of a link that is a bridge.

    SLOT: its number, and whether presence detection sees something. ACTIVE: the data link layer, None if not told.
    TARGET: the code of the target link speed.
    """
    number, body = pcie(kind, capable, negotiated, payload, aspm=aspm, speeds=(1 << capable[0]) - 1)
    registers = bytearray(body + bytes(8))  # (two bytes of identity and pointer go before them)
    if slot is not None:
        registers[0x01] |= 1
        struct.pack_into("<I", registers, 0x12, slot[0] << 19)
        struct.pack_into("<H", registers, 0x18, 0x40 * slot[1])
    if active is not None:
        registers[0x0C] |= 0x10
        registers[0x11] |= 0x20 * active
    struct.pack_into("<H", registers, 0x2E, target)
    space = bytearray(config_space(ids, BRIDGE, [(number, bytes(registers))], extended, header_type=1))
    space[0x19:0x1B] = bytes(buses)
    return bytes(space)


def card(
    negotiated: Tuple[int, int] = (2, 1),
    ids: Tuple[int, int] = AXERA,
    capable: Tuple[int, int] = (2, 2),
    payload: Tuple[int, int] = (0, 0),
    class_code: int = 0x040000,
) -> bytes:
    """Return the configuration space of an AX650N, or of another endpoint with such a link."""
    return config_space(ids, class_code, [pcie(0, capable, negotiated, payload)], subsystem=ids)


def eight_cards(tree: Tree, uplink: Tuple[int, int] = (3, 8)) -> Dict[int, int]:
    """Make the PC with eight AX650N behind one ASM2824; return the switch's port (device) above each card's bus.

    UPLINK: what the link above the switch has negotiated, codes of speed and width.
    """
    ax650n = hex_dump("config/ax650n.txt")
    tree.pci("pci0000:00/0000:00:00.0", config_space((0x8086, 1), 0x060000))
    tree.pci("pci0000:00/0000:00:02.0", config_space((0x8086, 0x3E92), 0x030000))
    root_port = bridge(ROOT, (3, 16), uplink, ids=(0x8086, 0x1901), buses=(1, 14), slot=(1, True))
    tree.pci("pci0000:00/0000:00:01.0", root_port)
    tree.pci(BUS01, bridge(UPSTREAM, (3, 8), uplink, buses=(2, 14)))
    for bus, number in {**ABOVE, **EMPTY}.items():
        used = bus in ABOVE
        negotiated = (2, 1) if used else (1, 0)
        space = bridge(DOWNSTREAM, (3, 2), negotiated, buses=(bus, bus), slot=(number, used), active=used)
        tree.pci("%s/0000:02:%02x.0" % (BUS01, number), space)
    for bus, number in ABOVE.items():
        path = "%s/0000:02:%02x.0/0000:%02x:00.0" % (BUS01, number, bus)
        driver(tree, tree.pci(path, ax650n, {"power_state": "D0"}), "ax_pcie_dev_host")
    return ABOVE


def driver(tree: Tree, path: str, name: str) -> None:
    """Bind a driver."""
    tree.link(path + "/driver", "../" * (path.count("/") - 1) + "bus/pci/drivers/" + name)


def dropped_card(tree: Tree) -> None:
    """Make the PC on which a card fell off: its registers were reset, and the kernel still has its addresses."""
    space = bytearray(64)
    struct.pack_into("<HHHHI", space, 0, *AXERA, 0, 0x10, 1 | 0x040000 << 8)
    struct.pack_into("<HH", space, 0x2C, *AXERA)
    tree.pci("pci0000:00/0000:00:1c.0", bridge(ROOT, (3, 1), (1, 1), ids=(0x8086, 0xA338), buses=(3, 3)))
    regions = [
        "0x00000000e0800000 0x00000000e0ffffff 0x0000000000040200",
        "0x00000000e1100000 0x00000000e110ffff 0x0000000000040200",
        *["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 2,
        "0x00000000e1000000 0x00000000e10fffff 0x0000000000140204",
        "0x0000000000000000 0x0000000000000000 0x0000000000000000",
    ]
    path = tree.pci(
        "pci0000:00/0000:00:1c.0/0000:03:00.0",
        bytes(space) + bytes(192),
        {"resource": "\n".join(regions), "irq": "87", "numa_node": "0"},
    )
    driver(tree, path, "ax_pcie_dev_host")


def strix(tree: Tree) -> None:
    """Make the processor whose NPU is the second function beside a dummy one, behind a bridge of its own."""
    inside = "pci0000:00/0000:00:08.1"
    tree.pci(inside, bridge(ROOT, (4, 16), (4, 16), ids=(0x1022, 0x150B), buses=(0xC6, 0xC6), active=True))
    functions = {0: (0x150D, 0x130000), 1: (0x17F0, 0x118000)}
    for number, (device, class_code) in functions.items():
        space = card((4, 16), (0x1022, device), (4, 16), class_code=class_code)
        path = tree.pci("%s/0000:c6:00.%d" % (inside, number), space)
        if device == 0x17F0:
            driver(tree, path, "amdxdna")


def rock5itx(tree: Tree) -> None:
    """Make the three root ports of a ROCK 5 ITX and what is behind them: two NICs and a SATA controller."""
    bits = struct.pack("<IIIII", 0, 0, 0, 1 << 0 | 1 << 7 | 1 << 12, 0) + bytes(20)
    for domain, bus, address, width, ids in (
        (1, 0x10, "fe160000", 2, (0x1B21, 0x1164)),
        (3, 0x30, "fe180000", 1, (0x10EC, 0x8125)),
        (4, 0x40, "fe190000", 1, (0x10EC, 0x8125)),
    ):
        speed = 3 if width == 2 else 2
        real = "platform/%s.pcie/pci%04x:%02x/%04x:%02x:00.0" % (address, domain, bus, domain, bus)
        port = bridge(
            ROOT,
            (speed, width),
            (speed, width),
            ids=(0x1D87, 0x3588),
            buses=(bus + 1, bus + 1),
            active=True,
            payload=(1, 0),
            aspm=(2, 0),
            extended=[(0x0001, bits if width == 2 else bytes(40))],
        )
        tree.pci(real, port)
        node = "../../../firmware/devicetree/base/pcie@" + address
        tree.link("/sys/devices/platform/%s.pcie/of_node" % address, node)
        end = card((speed, width), ids, (speed, width), (1, 0), 0x010601 if width == 2 else 0x020000)
        tree.pci("%s/%04x:%02x:00.0" % (real, domain, bus + 1), end)
