# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration space says what the board's file says: read back as the kernel and lspci read it."""

from __future__ import annotations

import struct
from typing import Iterator

import pytest

from twin import pciconfig
from twin.board import FUNCTION_BYTES, Board, Function, Kind, load_named, names

SPEEDS = {code: speed for speed, code in pciconfig.SPEED_CODES.items()}


class Registers:
    """A function as software meets it: reads, and writes that the masks let through (as kernel/twin_pcie.c does)."""

    def __init__(self, image: bytes) -> None:
        self.image = bytearray(image)

    def read(self, offset: int, bits: int = 32) -> int:
        return int.from_bytes(self.image[offset : offset + bits // 8], "little")

    def write(self, offset: int, value: int) -> None:
        writable = self.read(pciconfig.PAGE + offset)
        clears = self.read(2 * pciconfig.PAGE + offset)
        word = (self.read(offset) & ~writable | value & writable) & ~(value & clears)
        struct.pack_into("<I", self.image, offset, word)

    def capabilities(self) -> dict[int, int]:
        found, pointer = {}, self.read(0x34, 8)
        while pointer:
            found[self.read(pointer, 8)] = pointer
            pointer = self.read(pointer + 1, 8)
        return found

    def extended(self) -> dict[int, int]:
        found, offset = {}, 0x100
        while offset:
            header = self.read(offset)
            found[header & 0xFFFF] = offset
            offset = header >> 20
        return found


def functions(board: Board) -> Iterator[tuple[Function, Registers]]:
    image = pciconfig.board_image(board)
    for function in board.functions:
        start = function.config_base - board.hidden_base
        yield function, Registers(image[start : start + FUNCTION_BYTES])


def card() -> Registers:
    return next(registers for function, registers in functions(load_named("cm3588")) if function.bdf == "0003:31:00.0")


def link(registers: Registers, offset: int) -> tuple[float, int]:
    value = registers.read(pciconfig.PCIE_CAP + offset, 16)
    return SPEEDS.get(value & 0xF, 0.0), value >> 4 & 0x3F


@pytest.mark.parametrize("name", names())
def test_every_function_says_where_it_is(name: str) -> None:
    places = set()
    for function, registers in functions(load_named(name)):
        place = registers.read(3 * pciconfig.PAGE)
        domain, bus, rest = function.bdf.split(":")
        assert place == pciconfig.PRESENT | int(bus, 16) << 8 | int(rest[:2], 16) << 3
        places.add((domain, place))
    assert len(places) == len(list(load_named(name).functions))


@pytest.mark.parametrize("name", names())
def test_identity_and_link_of_every_function_are_the_boards(name: str) -> None:
    for function, registers in functions(load_named(name)):
        device = function.device
        assert (registers.read(0, 16), registers.read(2, 16)) == (device.vendor, device.device)
        assert registers.read(8) == device.class_code << 8 | device.revision
        assert link(registers, 0x0C) == (device.link.speed_gt_s, device.link.width)
        assert link(registers, 0x12) == (function.link.speed_gt_s, function.link.width)
        assert registers.read(0x72, 16) >> 4 & 0xF == function.kind
        assert registers.read(0x0E, 8) == (0 if function.kind is Kind.ENDPOINT else 1)
        if function.kind is Kind.ENDPOINT:
            subsystem = (registers.read(0x2C, 16), registers.read(0x2E, 16))
            assert subsystem == (device.subsystem_vendor, device.subsystem_device)


def test_root_ports_lead_to_their_bus_and_an_empty_slot_has_no_link() -> None:
    widths = {}
    for function, registers in functions(load_named("cm3588")):
        if function.kind is Kind.ROOT_PORT:
            assert (registers.read(0x18, 8), registers.read(0x19, 8)) == (function.bus, function.bus + 1)
            widths[function.domain] = link(registers, 0x12)[1]
    assert widths == {0: 1, 1: 1, 2: 0, 3: 1, 4: 1}


def test_bridges_of_a_switch_lead_to_their_buses() -> None:
    found = {}
    for function, registers in functions(load_named("switch")):
        if function.domain == 3 and function.is_port:
            active = bool(registers.read(0x82, 16) & 0x2000)
            numbers = tuple(registers.read(offset, 8) for offset in (0x18, 0x19, 0x1A))
            found[function.bdf[5:]] = (numbers, link(registers, 0x12)[1], active)
    assert found == {
        "30:00.0": ((0x30, 0x31, 0x36), 1, True),
        # An upstream port has its link above it, and does not report whether that one is active.
        "31:00.0": ((0x31, 0x32, 0x36), 1, False),
        "32:00.0": ((0x32, 0x33, 0x33), 2, True),
        "32:01.0": ((0x32, 0x34, 0x34), 0, False),
        "32:02.0": ((0x32, 0x35, 0x35), 2, True),
        "32:03.0": ((0x32, 0x36, 0x36), 2, True),
    }


def test_only_a_root_port_has_roots_registers() -> None:
    for function, registers in functions(load_named("switch")):
        root = function.kind is Kind.ROOT_PORT
        assert bool(registers.read(pciconfig.PAGE + 0x70 + 0x1C, 16)) == root, "Root Control"
        assert bool(registers.read(pciconfig.PAGE + 0x100 + 0x2C)) == root, "Root Error Command"


def test_the_card_is_what_lspci_shows_of_a_real_one() -> None:
    registers = card()
    assert registers.capabilities() == {0x01: 0x40, 0x05: 0x50, 0x10: 0x70}
    assert registers.extended() == {0x01: 0x100, 0x0B: 0x160}
    assert link(registers, 0x0C) == (5.0, 2) and link(registers, 0x12) == (5.0, 1)
    assert registers.read(0x70 + 0x0C) >> 10 & 3 == 0, "ASPM"
    assert registers.read(0x70 + 0x04) & 7 == 0, "MaxPayload 128 supported"
    control = registers.read(0x70 + 0x08, 16)
    assert (control >> 5 & 7, control >> 12 & 7) == (0, 2), "MaxPayload 128 in force, MaxReadReq 512"
    message_control = registers.read(0x52, 16)
    assert (message_control >> 1 & 7, message_control >> 7 & 3) == (2, 3), "MSI: 4 vectors, 64 bits, maskable"


@pytest.mark.parametrize("index, size, kind", [(0, 8 << 20, 0x8), (1, 64 << 10, 0x8), (4, 1 << 20, 0xC)])
def test_bars_answer_with_their_size(index: int, size: int, kind: int) -> None:
    registers = card()
    registers.write(0x10 + 4 * index, 0xFFFFFFFF)
    assert registers.read(0x10 + 4 * index) == 0x100000000 - size | kind


def test_absent_bars_and_rom_stay_zero() -> None:
    registers = card()
    for offset in (0x18, 0x1C, 0x30):
        registers.write(offset, 0xFFFFFFFF)
        assert registers.read(offset) == 0


def test_capabilities_cannot_be_written_and_status_bits_clear() -> None:
    registers = card()
    capability = registers.read(0x70 + 0x0C)
    registers.write(0x70 + 0x0C, 0)
    assert registers.read(0x70 + 0x0C) == capability
    struct.pack_into("<I", registers.image, 0x100 + 0x10, 0x41)
    registers.write(0x100 + 0x10, 0x01)
    assert registers.read(0x100 + 0x10) == 0x40
    registers.write(0x70 + 0x08, 0x0000502F | 0xF << 16)
    assert registers.read(0x70 + 0x08) == 0x502F
