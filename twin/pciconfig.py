# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration space of the board's ports and endpoints, as bytes that the twin's host controller serves.

A function is four pages: the registers, the bits that a write changes, the bits that a written one clears, and a header
that says which function it is (kernel/twin_pcie.c reads them). Register layouts: PCI Local Bus 3.0, PCI Express 3.0.
"""

from __future__ import annotations

import struct

from .board import FUNCTION_BYTES, Board, Function, Kind, Link

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

#: Speed in GT/s -> the code in Link Capabilities and Link Status.
SPEED_CODES = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5}

_BAR_TYPE_BITS = {"io": 0x1, "mem32": 0x0, "mem64": 0x4, "mem32-prefetch": 0x8, "mem64-prefetch": 0xC}


class Registers:
    """One function's registers under construction: each register with its write behaviour."""

    def __init__(self, requester_id: int) -> None:
        self._pages = bytearray(FUNCTION_BYTES)
        struct.pack_into("<I", self._pages, 3 * PAGE, PRESENT | requester_id)
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
    for function in board.functions:
        start = function.config_base - board.hidden_base
        image[start : start + FUNCTION_BYTES] = function_image(function)
    return bytes(image)


def function_image(function: Function) -> bytes:
    """The four pages of a port or endpoint."""
    device = function.device
    registers = Registers(function.requester_id)
    registers.put(0x00, 16, device.vendor)
    registers.put(0x02, 16, device.device)
    registers.put(0x04, 16, 0, writable=0x0547)
    registers.put(0x06, 16, 0x0010, clears=0xF900)
    registers.put(0x08, 32, device.class_code << 8 | device.revision)
    registers.put(0x0C, 8, 0, writable=0xFF)
    registers.put(0x0E, 8, 1 if function.is_port else 0)
    registers.put(0x3C, 8, 0, writable=0xFF)
    registers.put(0x3D, 8, 1)
    if function.is_port:
        _bridge(registers, function)
    else:
        _base_registers(registers, function)
    _power_management(registers)
    _msi(registers, device.msi_vectors, maskable=not function.is_port)
    _pci_express(registers, function)
    _advanced_error_reporting(registers, root=function.kind is Kind.ROOT_PORT)
    if device.event_counter:
        registers.begin_extended(EVENT_CAP, 0x000B, version=1)
        registers.put(EVENT_CAP + 0x04, 32, 0x0002 | 4 << 16 | 0x100 << 20)
        registers.put(EVENT_CAP + EVENT_DATA, 32, 0, writable=0xFFFFFFFF)
    return registers.image()


def _bridge(registers: Registers, function: Function) -> None:
    """The registers of a port, which the PCI core sees as a bridge."""
    for offset, number in ((0x18, function.bus), (0x19, function.buses[0]), (0x1A, function.buses[1])):
        registers.put(offset, 8, number, writable=0xFF)
    registers.put(0x1B, 8, 0, writable=0xFF)
    # Windows behind the bridge: base above limit means closed until the kernel opens them.
    registers.put(0x1C, 8, 0xF1, writable=0xF0)
    registers.put(0x1D, 8, 0x01, writable=0xF0)
    registers.put(0x1E, 16, 0, clears=0xF900)
    registers.put(0x20, 16, 0xFFF0, writable=0xFFF0)
    registers.put(0x22, 16, 0x0000, writable=0xFFF0)
    registers.put(0x24, 16, 0xFFF1, writable=0xFFF0)
    registers.put(0x26, 16, 0x0001, writable=0xFFF0)
    for offset in (0x28, 0x2C, 0x30):
        registers.put(offset, 32, 0, writable=0xFFFFFFFF)
    registers.put(0x3E, 16, 0, writable=0x005F)


def _base_registers(registers: Registers, function: Function) -> None:
    for window in function.device.bars:
        type_bits = _BAR_TYPE_BITS[window.kind]
        registers.put(0x10 + 4 * window.index, 32, type_bits, writable=~(window.size - 1) & 0xFFFFFFFF)
        if window.kind.startswith("mem64"):
            registers.put(0x14 + 4 * window.index, 32, 0, writable=0xFFFFFFFF)
    registers.put(0x2C, 16, function.device.subsystem_vendor)
    registers.put(0x2E, 16, function.device.subsystem_device)


def link_register(function: Function, link: Link) -> int:
    """Link Status of a function for a negotiated link: slot clock, width 0 for no link, and a port's "link active"."""
    active = 0x2000 if function.leads_down and link.width else 0
    return SPEED_CODES[link.speed_gt_s] | link.width << 4 | 0x1000 | active


def _power_management(registers: Registers) -> None:
    registers.begin_capability(PM_CAP, 0x01)
    registers.put(PM_CAP + 2, 16, 0x0003)
    registers.put(PM_CAP + 4, 16, 0x0008, writable=0x0003)


def _msi(registers: Registers, vectors: int, maskable: bool) -> None:
    """MSI with 64-bit addresses. ``vectors`` is the capability: a power of two up to 32."""
    registers.begin_capability(MSI_CAP, 0x05)
    log2 = vectors.bit_length() - 1
    registers.put(MSI_CAP + 2, 16, 0x80 | (0x100 if maskable else 0) | log2 << 1, writable=0x0071)
    registers.put(MSI_CAP + 4, 32, 0, writable=0xFFFFFFFC)
    registers.put(MSI_CAP + 8, 32, 0, writable=0xFFFFFFFF)
    registers.put(MSI_CAP + 12, 16, 0, writable=0xFFFF)
    if maskable:
        registers.put(MSI_CAP + 16, 32, 0, writable=(1 << vectors) - 1)


def _pci_express(registers: Registers, function: Function) -> None:
    """The PCI Express capability, version 2. Max_Payload_Size in force is 128 and MaxReadReq 512, as after reset."""
    kind, capability, down = function.kind, function.device.link, function.leads_down
    speed = SPEED_CODES[capability.speed_gt_s]
    root = kind is Kind.ROOT_PORT
    registers.begin_capability(PCIE_CAP, 0x10)
    registers.put(PCIE_CAP + 0x02, 16, 2 | kind << 4)
    payload_code = (function.device.max_payload // 128).bit_length() - 1
    registers.put(PCIE_CAP + 0x04, 32, payload_code | 0x8000 | (0 if function.is_port else 0x0FC0))
    registers.put(PCIE_CAP + 0x08, 16, 0x2010, writable=0x7FFF)
    registers.put(PCIE_CAP + 0x0A, 16, 0, clears=0x000F)
    # ASPM not supported: neither end of any link here offers it.
    port_number = function.slot << 24
    registers.put(PCIE_CAP + 0x0C, 32, port_number | speed | capability.width << 4 | (1 << 20 if down else 0) | 1 << 22)
    registers.put(PCIE_CAP + 0x10, 16, 0x0040, writable=0x03CB)
    registers.put(PCIE_CAP + LNKSTA, 16, link_register(function, function.link), clears=0xC000 if down else 0)
    if root:
        registers.put(PCIE_CAP + 0x1C, 16, 0, writable=0x001F)
        registers.put(PCIE_CAP + 0x1E, 16, 0x0001)
        registers.put(PCIE_CAP + 0x20, 32, 0, clears=0x00010000)
    registers.put(PCIE_CAP + 0x24, 32, 0x0010)
    registers.put(PCIE_CAP + 0x28, 16, 0, writable=0x041F)
    registers.put(PCIE_CAP + 0x2C, 32, ((1 << speed) - 1) << 1)
    registers.put(PCIE_CAP + 0x30, 16, speed, writable=0x000F)
    registers.put(PCIE_CAP + 0x32, 16, 0x001E if function.link.speed_gt_s >= 8 else 0x0001)


def _advanced_error_reporting(registers: Registers, root: bool) -> None:
    registers.begin_extended(AER_CAP, 0x0001, version=2)
    registers.put(AER_CAP + 0x04, 32, 0, clears=0x03FFF030)
    registers.put(AER_CAP + 0x08, 32, 0, writable=0x03FFF030)
    registers.put(AER_CAP + 0x0C, 32, 0x00462030, writable=0x03FFF030)
    registers.put(AER_CAP + 0x10, 32, 0, clears=0x0000F1C1)
    registers.put(AER_CAP + 0x14, 32, 0x00002000, writable=0x0000F1C1)
    registers.put(AER_CAP + 0x18, 32, 0x000000A0, writable=0x00000140)
    if root:
        registers.put(AER_CAP + 0x2C, 32, 0, writable=0x00000007)
        registers.put(AER_CAP + 0x30, 32, 0, clears=0x0000007F)
