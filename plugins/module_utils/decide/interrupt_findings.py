# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Interrupts that do not stay where they were put, and cards with fewer vectors than they could have. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide import affinity, steering
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import INFO, WARNING, Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list, parse_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import Interrupt
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import PciDevice

if TYPE_CHECKING:
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.findings import Snapshot


def _moving(interrupt: Interrupt, card: PciDevice, arrived: Dict[int, int]) -> Optional[Finding]:
    """Judge by what came while the host was looked at: counts since boot tell where it was, not where it is."""
    if not interrupt.effective:
        return None
    astray = {cpu: count for cpu, count in arrived.items() if count and cpu not in interrupt.effective}
    if not astray:
        return None
    irq = interrupt.irq
    return Finding(
        "interrupt_moving",
        WARNING,
        "interrupt %d of %s came on CPU %s while the kernel had it on CPU %s: something moves it"
        % (irq, card.bdf, format_list(astray), format_list(interrupt.effective)),
        {
            "/proc/irq/%d/effective_affinity_list" % irq: format_list(interrupt.effective),
            "new counts between two readings, by CPU": {cpu: count for cpu, count in arrived.items() if count},
        },
        "Look for what writes to /proc/irq (irqbalance, a script, a tuned profile with a plugin for interrupts).",
        None,
    )


def _undone(
    interrupt: Interrupt, card: PciDevice, snapshot: Snapshot, fast: Optional[Tuple[int, ...]], balancer: Finding
) -> Optional[Finding]:
    """An interrupt that is not where the role put it, on a host whose irqbalance was not told to leave it alone."""
    asked = parse_list(str(snapshot.wishes["irq_affinity"].get("cpus") or "")) or fast
    board = snapshot.host.board
    where = interrupt.effective or interrupt.affinity
    if not asked or not where or set(where) <= set(asked) or steering.judge(interrupt, board) is not None:
        return None
    waits = interrupt.affinity is not None and set(interrupt.affinity) <= set(asked)
    if waits and steering.moves_later(interrupt, board):
        return None
    evidence = {
        "/etc/edgenpu-tuning/wishes.d/irq_affinity.json": "CPUs %s" % format_list(asked),
        "/proc/irq/%d/smp_affinity_list" % interrupt.irq: interrupt.affinity and format_list(interrupt.affinity),
        "/proc/irq/%d/effective_affinity_list" % interrupt.irq: interrupt.effective
        and format_list(interrupt.effective),
    }
    return Finding(
        "interrupt_undone",
        WARNING,
        "interrupt %d of %s is on CPU %s, though CPUs %s are wished for: irqbalance runs without our policy and has "
        "probably moved it" % (interrupt.irq, card.bdf, format_list(where), format_list(asked)),
        dict(evidence, **balancer.evidence),
        balancer.remedy,
        balancer.role,
    )


def _vectors(card: PciDevice) -> Optional[Finding]:
    """A card with fewer vectors than it could have. One of several is what a driver asks for that needs but one."""
    msi = card.msi
    if card.driver is None or msi is None:
        return None
    path = "/sys/bus/pci/devices/%s/config" % card.bdf
    evidence: Dict[str, Any] = {path: "MSI %d of %d vectors" % (msi.granted_vectors, msi.capable_vectors)}
    if 1 < msi.granted_vectors < msi.capable_vectors:
        return Finding(
            "msi_vectors_few",
            INFO,
            "%s was granted %d of the %d MSI vectors that it can have"
            % (card.bdf, msi.granted_vectors, msi.capable_vectors),
            evidence,
            "If its driver asked for more, its interrupt controller has run out: take other cards off that controller.",
            None,
        )
    if not msi.enabled and (card.msix is None or not card.msix.enabled) and affinity.vectors(card):
        evidence["/sys/bus/pci/devices/%s/irq" % card.bdf] = card.legacy_irq
        return Finding(
            "msi_off",
            INFO,
            "%s can do MSI, but its driver uses the old interrupt line" % card.bdf,
            evidence,
            "Take pci=nomsi off the kernel's command line, see to the driver's options, look for a failed "
            "allocation in the kernel log.",
            None,
        )
    return None


def interrupt_findings(
    snapshot: Snapshot, fast: Optional[Tuple[int, ...]], balancer: Optional[Finding]
) -> List[Finding]:
    """Return what there is to say of interrupts that move, and of vectors. BALANCER: what was found of irqbalance."""
    free = balancer is not None and balancer.id == "irqbalance_may_move" and snapshot.irqbalance.policy_script is None
    found: List[Optional[Finding]] = []
    for card in snapshot.cards:
        if not card.alive:
            continue
        found.append(_vectors(card))
        for irq in affinity.vectors(card):
            interrupt = snapshot.interrupts.get(irq)
            if interrupt is None or not interrupt.has_proc_irq:
                continue
            found.append(_moving(interrupt, card, snapshot.arrived.get(irq, {})))
            if free and balancer is not None and "irq_affinity" in snapshot.wishes:
                found.append(_undone(interrupt, card, snapshot, fast, balancer))
    return [one for one in found if one is not None]
