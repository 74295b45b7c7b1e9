# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Interrupts that nobody can put on another CPU: how they are told, and what helps instead. Pure.

Sources: kernel/irq/proc.c (write_irq_affinity, register_irq_proc) and the drivers below drivers/pci/controller that
refuse in their irq_set_affinity or, since 6.12, have none (MSI_FLAG_NO_AFFINITY). The names are those of the chips in
/proc/interrupts; with 6.16 and newer they end in the card's address.
"""

from __future__ import annotations

import re
from typing import Dict, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.board import Board
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import Interrupt

BROADCOM, DESIGNWARE, TEGRA, VMD = (
    "the MSI controller inside Broadcom's PCIe block",
    "the MSI controller inside the DesignWare PCIe block",
    "the MSI controller inside Tegra's PCIe block",
    "Intel's VMD, which gathers the interrupts of all that is behind it",
)
_CHIPS = (  # beginnings, lower case
    ("brcm stb pcie msi", BROADCOM),
    ("brcm-pci-msi", BROADCOM),
    ("dw-pci-msi", DESIGNWARE),
    ("tegra pcie msi", TEGRA),
    ("vmd-", VMD),
)
_RELEASE = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})")
TELLS_BEFOREHAND = (6, 12)  # from this release on the mode of smp_affinity says whether it can be written at all
# x86 without interrupt remapping moves an interrupt only while it is handled (kernel/irq/migration.c)
_MOVES_LATER = re.compile(r"(?:IR-)?(?:IO-APIC|PCI-MSIX?|HPET)")


class Unsteerable(NamedTuple):
    """An interrupt that cannot be moved. CONTROLLER: who refuses; None if it is not told. WHY: how that is known."""

    controller: Optional[str]
    why: str


def _is_x86(board: Board) -> Optional[bool]:
    if board.architecture is None:
        return None
    return board.architecture in ("x86_64", "amd64") or bool(re.fullmatch("i[3-6]86", board.architecture))


def controller_of(chip: Optional[str], board: Board) -> Optional[str]:
    """Return the controller behind a chip's name if it is one of those that cannot steer."""
    name = (chip or "").lower()
    if name == "pci-msi" and _is_x86(board) is False:
        return DESIGNWARE  # x86 calls its own, which steers, the same
    return next((controller for beginning, controller in _CHIPS if name.startswith(beginning)), None)


def judge(interrupt: Interrupt, board: Board) -> Optional[Unsteerable]:
    """Return why INTERRUPT cannot be moved if that is known without trying; None if nothing says so."""
    controller = controller_of(interrupt.chip, board)
    if interrupt.settable is False:
        if controller is None:
            return Unsteerable(None, "the kernel shows its affinity as read-only")
        return Unsteerable(controller, "%s serves it, and the kernel shows its affinity as read-only" % controller)
    if controller is None:
        return None
    if controller == DESIGNWARE:  # the only one of these that has learnt it: with 7.0, which would say so beforehand
        match = _RELEASE.match(board.kernel or "")
        if match is None or (int(match.group(1)), int(match.group(2))) >= TELLS_BEFOREHAND:
            return None
    return Unsteerable(controller, "%s serves it (%s), which cannot steer" % (controller, interrupt.chip))


def moves_later(interrupt: Interrupt, board: Board) -> bool:
    """True if a move that was accepted may be carried out only when the interrupt comes next."""
    return bool(_MOVES_LATER.match(interrupt.chip or "")) and _is_x86(board) is not False


def served_by(interrupt: Interrupt) -> Optional[Tuple[int, ...]]:
    """Return the CPUs that serve an interrupt that does not move: by its counts since boot, else as the kernel says."""
    if any(interrupt.counts.values()):
        return (max(sorted(interrupt.counts), key=lambda cpu: interrupt.counts[cpu]),)
    return interrupt.effective or interrupt.affinity


def remedy(controller: Optional[str], board: Board) -> str:
    """Return what can be done about the controller itself, in a sentence or two."""
    if controller == BROADCOM and "brcm,bcm2712" in board.compatible:
        mine = [line for _path, line in board.boot_options if "no-mip" in line]
        chosen = "`%s` in config.txt selects it" % mine[0] if mine else "the device tree in use selects it"
        return (
            "This board has two MSI controllers for the slot: %s; without `no-mip` the MIP serves the card, and that "
            "one steers. But it has few vectors and may give a driver that asks for several at once none at all "
            "(AXCL before 3.10.2, cards behind a switch): try it only if the card then still gets its interrupt."
        ) % chosen
    if controller == BROADCOM:
        return "This board has no other controller for the slot."
    if controller == DESIGNWARE:
        return "Linux 7.0 and newer can steer it; with an older kernel nothing can."
    if controller == VMD:
        return "Switch VMD off for this slot in the firmware's setup, if nothing else needs it."
    if controller == TEGRA:
        return "No kernel can steer it."
    return (
        "The kernel spreads such interrupts itself (managed ones, as drivers ask for), or they belong to one CPU, or "
        "their controller has no way to steer; only another driver or kernel changes that."
    )


def what_helps(served: Optional[Sequence[int]], fast: Optional[Sequence[int]]) -> str:
    """Return what helps where the interrupt stays on the CPUs SERVED; FAST: the fastest tier, None if all are equal."""
    here = "an unknown CPU" if served is None else "CPU %s" % format_list(served)
    if fast is None:
        return (
            "It is served by %s. All CPUs are equally fast, so which one it is matters little: hold the clocks (role "
            "governor) and keep the application off that one." % here
        )
    if served is not None and set(served) <= set(fast):
        return "It is served by %s, a fast one: hold its clock (role governor)." % here
    return (
        "It is served by %s, not of the fastest: the role governor holds the clock of that one, too. Booting with "
        "irqaffinity=%s may move the controller's own line, and all others with it." % (here, format_list(fast))
    )


def evidence(interrupt: Interrupt, board: Board) -> Dict[str, object]:
    """Return what was read that shows it."""
    found: Dict[str, object] = {"/sys/kernel/irq/%d/chip_name" % interrupt.irq: interrupt.chip}
    if interrupt.settable is False:
        found["/proc/irq/%d/smp_affinity_list" % interrupt.irq] = "read-only (mode 0444)"
    for path, line in board.boot_options:
        found[path] = "%s; %s" % (found[path], line) if path in found else line
    return found
