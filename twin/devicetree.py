# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The twin's device tree: QEMU's own for its virt machine, with the board's parts appended and QEMU's PCIe removed.

Appended text may repeat and extend any node, so the result stays one file that dtc can compile.
"""

from __future__ import annotations

from .board import BUSES, RAM_BASE, Board, Cluster, Controller, Function

#: virtio-mmio places that the twin uses (disk, network, random numbers); the other ones cost boot time.
VIRTIO_USED = 3
VIRTIO_PLACES = 32
VIRTIO_BASE = 0xA000000
VIRTIO_STRIDE = 0x200

_GIC = "&{/intc@8000000}"
_ITS = "&{/intc@8000000/its@8080000}"
#: Functions that nothing outside reaches get DeviceIDs from here on, out of the way of the ones the board gives.
_DEVICE_ID_BASE = 0x8000
#: SPIs above those that QEMU's virt machine wires up.
_FIRST_SPARE_SPI = 200


def append_board(qemu_dts: str, board: Board) -> str:
    """QEMU's device tree in source form -> the board's."""
    return "\n".join([qemu_dts, *_removals(), *_root(board), *_cpus(board), ""])


def _removals() -> list[str]:
    lines = [
        f"/ {{ /delete-node/ {name}; }};"
        for name in ("flash@0", "fw-cfg@9020000", "pcie@10000000", "platform-bus@c000000")
    ]
    lines += [
        f"/ {{ /delete-node/ virtio_mmio@{VIRTIO_BASE + place * VIRTIO_STRIDE:x}; }};"
        for place in range(VIRTIO_USED, VIRTIO_PLACES)
    ]
    lines.append("&{/cpus} { /delete-node/ cpu-map; };")
    return lines


def _root(board: Board) -> list[str]:
    compatible = ", ".join(f'"{name}"' for name in board.compatible)
    clocks = ", ".join(f'"{cluster.clock}"' for cluster in board.clusters)
    lines = [
        "/ {",
        f'\tmodel = "{board.model}";',
        f"\tcompatible = {compatible};",
        f"\tchosen {{ linux,usable-memory-range = <0 {RAM_BASE:#x} 0 {board.memory_mb << 20:#x}>; }};",
        '\tcpu_clocks: cpu-clocks { compatible = "edgenpu,twin-cpu-clock"; #clock-cells = <1>;',
        f"\t\tclock-output-names = {clocks};",
        "\t};",
    ]
    for number, cluster in enumerate(board.clusters):
        lines += _opp_table(number, cluster)
    for number, controller in enumerate(board.controllers):
        lines += _controller(number, controller)
    return [*lines, "};"]


def _opp_table(number: int, cluster: Cluster) -> list[str]:
    lines = [f'\topp{number}: opp-table-{number} {{ compatible = "operating-points-v2"; opp-shared;']
    for mhz in cluster.opp_mhz:
        hz = mhz * 1000000
        lines.append(
            f"\t\topp-{hz} {{ opp-hz = /bits/ 64 <{hz}>; opp-microvolt = <{675000 + mhz * 130}>; "
            "clock-latency-ns = <40000>; };"
        )
    return [*lines, "\t};"]


def _controller(number: int, controller: Controller) -> list[str]:
    io_start, io_bytes = controller.io_window
    mem_start, mem_bytes = controller.memory_window
    config = f"<0 {controller.config_base:#x} 0 {controller.config_bytes:#x}>"
    io_range = f"<0x01000000 0 {io_start:#x} 0 {io_start:#x} 0 {io_bytes:#x}>"
    memory_range = f"<0x02000000 0 {mem_start:#x} 0 {mem_start:#x} 0 {mem_bytes:#x}>"
    # The controller's own registers come first: the kernel names the platform device after them, as on the board.
    lines = [
        f'\tpcie@{controller.address:x} {{ compatible = "edgenpu,twin-pcie"; device_type = "pci"; dma-coherent;',
        "\t\t#address-cells = <3>; #size-cells = <2>;",
        f"\t\treg = <0 {controller.address:#x} 0 0x10000>, {config};",
        '\t\treg-names = "apb", "config";',
        f"\t\tlinux,pci-domain = <{controller.domain}>;",
        f"\t\tbus-range = <{controller.first_bus:#x} {controller.first_bus + BUSES - 1:#x}>;",
        f"\t\tranges = {io_range}, {memory_range};",
        f"\t\tmsi-map = {_msi_map(controller)};",
        "\t\t#interrupt-cells = <1>; interrupt-map-mask = <0 0 0 7>;",
        f"\t\tinterrupt-map = {_interrupt_map(number)};",
    ]
    for function in controller.functions:
        if function.of_node:
            lines += _node_of(controller, function)
    return [*lines, "\t};"]


def _node_of(controller: Controller, function: Function) -> list[str]:
    """A node for a function, inside those of the ports above it."""
    path = [function]
    while path[0].parent:
        path.insert(0, next(port for port in controller.functions if port.bdf == path[0].parent))
    lines = []
    for step in path:
        lines.append(f"\t\tpcie@{step.slot:x},0 {{ reg = <{step.requester_id << 8:#x} 0 0 0 0>;")
        if step.is_port:
            lines.append('\t\t\tdevice_type = "pci"; #address-cells = <3>; #size-cells = <2>; ranges;')
    return lines + ["\t\t};"] * len(path)


def _msi_map(controller: Controller) -> str:
    """Requester id -> DeviceID: entries of <requester id, ITS, DeviceID, length>, for all the controller's buses."""
    entries = []
    start, end = controller.first_bus << 8, controller.first_bus + BUSES << 8
    for function in sorted(controller.functions, key=lambda function: function.requester_id):
        if function.its_device_id is not None:
            requester = function.requester_id
            entries.append((start, _DEVICE_ID_BASE + start, requester - start))
            entries.append((requester, function.its_device_id, 1))
            start = requester + 1
    entries.append((start, _DEVICE_ID_BASE + start, end - start))
    return ", ".join(f"<{first:#x} {_ITS} {device:#x} {length:#x}>" for first, device, length in entries if length)


def _interrupt_map(number: int) -> str:
    """INTA..INTD to spare SPIs: nothing raises them, but drivers complain when a pin leads nowhere."""
    return ", ".join(f"<0 0 0 {pin} {_GIC} 0 0 0 {_FIRST_SPARE_SPI + 4 * number + pin - 1} 4>" for pin in range(1, 5))


def _cpus(board: Board) -> list[str]:
    lines = []
    for number, cluster in enumerate(board.clusters):
        for cpu in cluster.cpus:
            lines.append(
                f'&{{/cpus/cpu@{cpu}}} {{ compatible = "{cluster.core}"; '
                f"capacity-dmips-mhz = <{cluster.capacity_dmips_mhz}>; "
                f"dynamic-power-coefficient = <{cluster.power_coefficient}>; #cooling-cells = <2>; "
                f"clocks = <&cpu_clocks {number}>; operating-points-v2 = <&opp{number}>; }};"
            )
    lines.append("&{/cpus} { cpu-map {")
    for number, cluster in enumerate(board.clusters):
        cores = " ".join(f"core{i} {{ cpu = <&{{/cpus/cpu@{cpu}}}>; }};" for i, cpu in enumerate(cluster.cpus))
        lines.append(f"\tcluster{number} {{ {cores} }};")
    return [*lines, "}; };"]
