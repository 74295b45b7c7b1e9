# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration space of the board's root ports and endpoints, as bytes that the twin's host controller serves.

A function is four pages: the registers, the bits that a write changes, the bits that a written one clears, and a header
that says which function it is (kernel/twin_pcie.c reads them). Register layouts: PCI Local Bus 3.0, PCI Express 3.0.
"""

from __future__ import annotations

import struct

from .board import FUNCTION_BYTES, Board, Controller, Device, Link

PAGE = 0x1000
PRESENT = 0x80000000

#: Offsets of the capabilities, the same in every function (those of the Designware cores that RK3588 and AX650N use).
PM_CAP = 0x40
MSI_CAP = 0x50
PCIE_CAP = 0x70
AER_CAP = 0x100
EVENT_CAP = 0x160
#: Link Status, relative to the PCI Express capability.
LNKSTA = 0x12
#: Event counter data, relative to its capability (Designware's "RAS DES": vendor specific, id 2, revision 4).
EVENT_DATA = 0x0C

ROOT_PORT_ID = (0x1D87, 0x3588)
ROOT_PORT_TYPE = 4
ENDPOINT_TYPE = 0

#: Speed in GT/s -> the code in Link Capabilities and Link Status.
SPEED_CODES = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5}

_BAR_TYPE_BITS = {"io": 0x1, "mem32": 0x0, "mem64": 0x4, "mem32-prefetch": 0x8, "mem64-prefetch": 0xC}


class Function:
    """One function's registers under construction: each register with its write behaviour."""

    def __init__(self, bus: int, devfn: int = 0) -> None:
        self._pages = bytearray(FUNCTION_BYTES)
        struct.pack_into("<I", self._pages, 3 * PAGE, PRESENT | bus << 8 | devfn)
        self._last_pointer = 0x34
        self._last_extended: int | None = None

    def put(self, offset: int, bits: int, value: int, writable: int = 0, clears: int = 0) -> None:
        """Set a register of 8, 16 or 32 bits: its value, and the bits that a write changes or clears."""
        for page, content in enumerate((value, writable, clears)):
            struct.pack_into({8: "<B", 16: "<H", 32: "<I"}[bits], self._pages, page * PAGE + offset, content)

    def begin_capability(self, offset: int, capability: int) -> None:
        """Chain a capability into the list that starts at 0x34."""
        self.put(self._last_pointer, 8, offset)
        self.put(offset, 8, capability)
        self._last_pointer = offset + 1

    def begin_extended(self, offset: int, capability: int, version: int) -> None:
        """Chain an extended capability; the first one has to stand at 0x100."""
        if self._last_extended is None:
            if offset != 0x100:
                raise ValueError("the first extended capability stands at 0x100")
        else:
            (header,) = struct.unpack_from("<I", self._pages, self._last_extended)
            self.put(self._last_extended, 32, header | offset << 20)
        self.put(offset, 32, capability | version << 16)
        self._last_extended = offset

    def image(self) -> bytes:
        return bytes(self._pages)


def board_image(board: Board) -> bytes:
    """The hidden RAM of all controllers, from ``board.hidden_base`` on."""
    image = bytearray(board.hidden_bytes)
    for controller in board.controllers:
        start = controller.config_base - board.hidden_base
        functions = root_port(controller)
        if controller.slot:
            functions += endpoint(controller.first_bus + 1, controller.slot.device, controller.slot.link)
        image[start : start + len(functions)] = functions
    return bytes(image)


def root_port(controller: Controller) -> bytes:
    """The root port of a controller. An empty slot is a root port whose link has width 0."""
    link = controller.slot.link if controller.slot else Link(2.5, 0)
    function = Function(controller.first_bus)
    _header(function, ROOT_PORT_ID, class_code=0x060400, revision=0x01, header_type=1)
    for offset, number in (
        (0x18, controller.first_bus),
        (0x19, controller.first_bus + 1),
        (0x1A, controller.first_bus + 1),
    ):
        function.put(offset, 8, number, writable=0xFF)
    function.put(0x1B, 8, 0, writable=0xFF)
    # Windows behind the bridge: base above limit means closed until the kernel opens them.
    function.put(0x1C, 8, 0xF1, writable=0xF0)
    function.put(0x1D, 8, 0x01, writable=0xF0)
    function.put(0x1E, 16, 0, clears=0xF900)
    function.put(0x20, 16, 0xFFF0, writable=0xFFF0)
    function.put(0x22, 16, 0x0000, writable=0xFFF0)
    function.put(0x24, 16, 0xFFF1, writable=0xFFF0)
    function.put(0x26, 16, 0x0001, writable=0xFFF0)
    for offset in (0x28, 0x2C, 0x30):
        function.put(offset, 32, 0, writable=0xFFFFFFFF)
    function.put(0x3C, 8, 0, writable=0xFF)
    function.put(0x3D, 8, 1)
    function.put(0x3E, 16, 0, writable=0x005F)
    _power_management(function)
    _msi(function, vectors=32, maskable=False)
    _pci_express(function, ROOT_PORT_TYPE, capability=controller.port, negotiated=link, max_payload=256)
    _advanced_error_reporting(function, root=True)
    return function.image()


def endpoint(bus: int, device: Device, link: Link) -> bytes:
    """A device behind a root port, with the link that it negotiated."""
    function = Function(bus)
    _header(function, (device.vendor, device.device), device.class_code, device.revision, header_type=0)
    for base_register in device.bars:
        type_bits = _BAR_TYPE_BITS[base_register.kind]
        function.put(0x10 + 4 * base_register.index, 32, type_bits, writable=~(base_register.size - 1) & 0xFFFFFFFF)
        if base_register.kind.startswith("mem64"):
            function.put(0x14 + 4 * base_register.index, 32, 0, writable=0xFFFFFFFF)
    function.put(0x2C, 16, device.subsystem_vendor)
    function.put(0x2E, 16, device.subsystem_device)
    function.put(0x3C, 8, 0, writable=0xFF)
    function.put(0x3D, 8, 1)
    _power_management(function)
    _msi(function, device.msi_vectors, maskable=True)
    _pci_express(function, ENDPOINT_TYPE, capability=device.link, negotiated=link, max_payload=device.max_payload)
    _advanced_error_reporting(function, root=False)
    if device.event_counter:
        function.begin_extended(EVENT_CAP, 0x000B, version=1)
        function.put(EVENT_CAP + 0x04, 32, 0x0002 | 4 << 16 | 0x100 << 20)
        function.put(EVENT_CAP + EVENT_DATA, 32, 0, writable=0xFFFFFFFF)
    return function.image()


def link_status(link: Link) -> int:
    """Link Status for a negotiated link: slot clock, and width 0 for no link."""
    return SPEED_CODES[link.speed_gt_s] | link.width << 4 | 0x1000


def _header(function: Function, ids: tuple[int, int], class_code: int, revision: int, header_type: int) -> None:
    function.put(0x00, 16, ids[0])
    function.put(0x02, 16, ids[1])
    function.put(0x04, 16, 0, writable=0x0547)
    function.put(0x06, 16, 0x0010, clears=0xF900)
    function.put(0x08, 32, class_code << 8 | revision)
    function.put(0x0C, 8, 0, writable=0xFF)
    function.put(0x0E, 8, header_type)


def _power_management(function: Function) -> None:
    function.begin_capability(PM_CAP, 0x01)
    function.put(PM_CAP + 2, 16, 0x0003)
    function.put(PM_CAP + 4, 16, 0x0008, writable=0x0003)


def _msi(function: Function, vectors: int, maskable: bool) -> None:
    """MSI with 64-bit addresses. ``vectors`` is the capability: a power of two up to 32."""
    function.begin_capability(MSI_CAP, 0x05)
    log2 = vectors.bit_length() - 1
    function.put(MSI_CAP + 2, 16, 0x80 | (0x100 if maskable else 0) | log2 << 1, writable=0x0071)
    function.put(MSI_CAP + 4, 32, 0, writable=0xFFFFFFFC)
    function.put(MSI_CAP + 8, 32, 0, writable=0xFFFFFFFF)
    function.put(MSI_CAP + 12, 16, 0, writable=0xFFFF)
    if maskable:
        function.put(MSI_CAP + 16, 32, 0, writable=(1 << vectors) - 1)


def _pci_express(function: Function, port_type: int, capability: Link, negotiated: Link, max_payload: int) -> None:
    """The PCI Express capability, version 2. Max_Payload_Size in force is 128 and MaxReadReq 512, as after reset."""
    speed = SPEED_CODES[capability.speed_gt_s]
    root = port_type == ROOT_PORT_TYPE
    function.begin_capability(PCIE_CAP, 0x10)
    function.put(PCIE_CAP + 0x02, 16, 2 | port_type << 4)
    payload_code = (max_payload // 128).bit_length() - 1
    function.put(PCIE_CAP + 0x04, 32, payload_code | 0x8000 | (0 if root else 0x0FC0))
    function.put(PCIE_CAP + 0x08, 16, 0x2010, writable=0x7FFF)
    function.put(PCIE_CAP + 0x0A, 16, 0, clears=0x000F)
    # ASPM not supported: neither end of any link here offers it.
    function.put(PCIE_CAP + 0x0C, 32, speed | capability.width << 4 | (1 << 20 if root else 0) | 1 << 22)
    function.put(PCIE_CAP + 0x10, 16, 0x0040, writable=0x03CB)
    active = 0x2000 if root and negotiated.width else 0
    function.put(PCIE_CAP + LNKSTA, 16, link_status(negotiated) | active, clears=0xC000 if root else 0)
    if root:
        function.put(PCIE_CAP + 0x1C, 16, 0, writable=0x001F)
        function.put(PCIE_CAP + 0x1E, 16, 0x0001)
        function.put(PCIE_CAP + 0x20, 32, 0, clears=0x00010000)
    function.put(PCIE_CAP + 0x24, 32, 0x0010)
    function.put(PCIE_CAP + 0x28, 16, 0, writable=0x041F)
    function.put(PCIE_CAP + 0x2C, 32, ((1 << speed) - 1) << 1)
    function.put(PCIE_CAP + 0x30, 16, speed, writable=0x000F)
    function.put(PCIE_CAP + 0x32, 16, 0x001E if negotiated.speed_gt_s >= 8 else 0x0001)


def _advanced_error_reporting(function: Function, root: bool) -> None:
    function.begin_extended(AER_CAP, 0x0001, version=2)
    function.put(AER_CAP + 0x04, 32, 0, clears=0x03FFF030)
    function.put(AER_CAP + 0x08, 32, 0, writable=0x03FFF030)
    function.put(AER_CAP + 0x0C, 32, 0x00462030, writable=0x03FFF030)
    function.put(AER_CAP + 0x10, 32, 0, clears=0x0000F1C1)
    function.put(AER_CAP + 0x14, 32, 0x00002000, writable=0x0000F1C1)
    function.put(AER_CAP + 0x18, 32, 0x000000A0, writable=0x00000140)
    if root:
        function.put(AER_CAP + 0x2C, 32, 0, writable=0x00000007)
        function.put(AER_CAP + 0x30, 32, 0, clears=0x0000007F)
