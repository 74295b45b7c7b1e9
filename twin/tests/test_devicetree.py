# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The device tree's text, and what dtc makes of it where dtc is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from twin.board import FUNCTION_BYTES, Board, load_named, names
from twin.devicetree import append_board

#: As much of QEMU's own tree as the appended text refers to.
QEMU_DTS = """/dts-v1/;
/ {
  #address-cells = <2>; #size-cells = <2>;
  flash@0 { }; fw-cfg@9020000 { }; pcie@10000000 { }; platform-bus@c000000 { };
  intc@8000000 { #address-cells = <2>; #size-cells = <2>; #interrupt-cells = <3>; its@8080000 { }; };
  cpus { #address-cells = <1>; #size-cells = <0>; cpu-map { }; CPUS };
  VIRTIO
};
""".replace("CPUS", " ".join(f"cpu@{n} {{ }};" for n in range(8))).replace(
    "VIRTIO", " ".join(f"virtio_mmio@{0xA000000 + n * 0x200:x} {{ }};" for n in range(32))
)


def node(text: str, start: str) -> str:
    """A node's text by the beginning of its line, up to the line that closes it."""
    match = re.search(rf"^(\t*){re.escape(start)}.*?^\1\}};", text, re.MULTILINE | re.DOTALL)
    assert match, f"no {start} in the device tree"
    return match[0]


def test_the_cards_controller_has_the_boards_addresses() -> None:
    board = load_named("cm3588")
    text = node(append_board(QEMU_DTS, board), "pcie@fe180000")
    assert f"reg = <0 0xfe180000 0 0x10000>, <0 {board.controllers[3].config_base:#x} 0 0x8000>;" in text
    assert "linux,pci-domain = <3>;" in text
    assert "bus-range = <0x30 0x3f>;" in text


def test_msis_of_the_card_alone_have_the_device_id_of_the_outside() -> None:
    text = append_board(QEMU_DTS, load_named("cm3588"))
    its = "&{/intc@8000000/its@8080000}"
    assert f"<0x3100 {its} 0x0 0x1>" in node(text, "pcie@fe180000")
    assert text.count(f"{its} 0x0 0x1>") == 1
    assert f"msi-map = <0x0 {its} 0x8000 0x1000>;" in node(text, "pcie@fe150000")


def test_msis_of_all_buses_behind_a_switch_are_mapped() -> None:
    board = load_named("switch")
    text = node(append_board(QEMU_DTS, board), "pcie@fe180000")
    assert f"<0 {board.controllers[3].config_base:#x} 0 {9 * FUNCTION_BYTES:#x}>;" in text
    mapped = []
    for line in re.findall(r"msi-map = (.*);", text):
        for entry in re.findall(r"<(\S+) &{\S+} (\S+) (\S+)>", line):
            first, device_id, length = (int(number, 16) for number in entry)
            mapped += [(requester, requester - first + device_id) for requester in range(first, first + length)]
    assert [requester for requester, _unused in mapped] == list(range(0x3000, 0x4000))
    device_ids = [device_id for _unused, device_id in mapped]
    assert len(set(device_ids)) == len(device_ids) and dict(mapped)[0x3300] == 0


def test_nodes_behind_a_switch_lie_in_those_of_its_ports() -> None:
    board = load_named("switch")
    controller = board.controllers[3]
    functions = tuple(replace(f, of_node=f.bdf == "0003:35:00.0") for f in controller.functions)
    text = append_board(QEMU_DTS, replace(board, controllers=(replace(controller, functions=functions),)))
    regs = re.findall(r"pcie@(\S+),0 { reg = <(\S+) 0 0 0 0>", text)
    assert regs == [("0", "0x300000"), ("0", "0x310000"), ("2", "0x321000"), ("0", "0x350000")]


def test_only_the_slot_that_asks_for_it_has_child_nodes() -> None:
    text = append_board(QEMU_DTS, load_named("cm3588"))
    assert "reg = <0x410000 0 0 0 0>" in node(text, "pcie@fe190000")
    assert "pcie@0,0" not in node(text, "pcie@fe180000")


def test_clusters_give_capacity_clock_and_frequencies() -> None:
    board = load_named("cm3588")
    text = append_board(QEMU_DTS, board)
    assert text.count("capacity-dmips-mhz = <530>") == 4 and text.count("capacity-dmips-mhz = <1024>") == 4
    assert "clocks = <&cpu_clocks 2>" in next(line for line in text.splitlines() if line.startswith("&{/cpus/cpu@6}"))
    assert re.findall(r"opp-hz = /bits/ 64 <(\d+)>", node(text, "opp0"))[-1] == "1800000000"
    assert f"linux,usable-memory-range = <0 0x40000000 0 {board.memory_mb << 20:#x}>" in text


@pytest.mark.skipif(shutil.which("dtc") is None, reason="dtc is not installed")
@pytest.mark.parametrize("board", [*map(load_named, names()), replace(load_named("cm3588"), controllers=())])
def test_dtc_compiles_it(board: Board, tmp_path: Path) -> None:
    source = tmp_path / "board.dts"
    source.write_text(append_board(QEMU_DTS, board), encoding="utf-8")
    result = subprocess.run(
        ["dtc", "-q", "-I", "dts", "-O", "dts", str(source)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "pcie@10000000" not in result.stdout
    assert result.stdout.count("virtio_mmio@") == 3
    assert result.stdout.count('compatible = "edgenpu,twin-pcie"') == len(board.controllers)
