# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""OBSERVE -> DECIDE -> ACT -> read back, for interrupts and for clocks. Modules, agent and command all come here."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide import affinity, clocks
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes, Placement
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import CardKind, cards
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import ClockWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpufreq import (
    Policy,
    loadable_governors,
    read_policies,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpus import read_cpus
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import Interrupt, read_interrupts
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import DEVICES, PciDevice, bdf_key, read_device

INTERRUPTS, CLOCKS = "irq_affinity", "governor"  # roles, as the ledger and the wishes' files name them


class Outcome(NamedTuple):
    """What was done (or would be, in check mode), what the kernel refused (the reason in WHY), what is unknown yet."""

    changes: List[Change]
    refused: List[Change]
    unknown: List[str]


class Served(NamedTuple):
    """A placement with what the ledger has as its original and what was read after acting (CPU lists)."""

    placement: Placement
    original: Optional[str]
    after: Optional[str]
    effective_after: Optional[str]


class Clocked(NamedTuple):
    """A policy's governor: the original that the ledger has, and as read before and after acting."""

    policy: str
    cpus: str
    original: Optional[str]
    before: Optional[str]
    after: Optional[str]


def boot_id(root: Root) -> Optional[str]:
    """Return the identity of this boot."""
    return root.text("/proc/sys/kernel/random/boot_id")


def _apply(
    sink: Sink, ledger: Ledger, role: str, kind: str, wanted: Sequence[Tuple[str, Change]], check: bool
) -> Tuple[List[Change], List[Change]]:
    """Write values after their originals are on disk; return (made, refused). Check mode writes nothing."""
    changes = [change for _key, change in wanted]
    if check or not changes:
        return changes, []
    boot = boot_id(sink.root)
    for key, change in wanted:
        ledger.remember_value(role, kind, key, change.before, boot)
    ledger.save()
    made: List[Change] = []
    refused: List[Change] = []
    for change in changes:
        reason = sink.set_value(change.path, change.after or "")
        if reason is None:
            made.append(change)
        else:
            refused.append(change._replace(why=reason))
    return made, refused


def npu_cards(root: Root, catalogue: Sequence[CardKind]) -> List[PciDevice]:
    """Return the NPU cards of this host, by address; what is no card by its identity is not read any further."""
    identities = {(kind.vendor, kind.device) for kind in catalogue}
    found = []
    for bdf in root.names(DEVICES):
        path = "%s/%s/" % (DEVICES, bdf)
        if (root.number(path + "vendor", 16), root.number(path + "device", 16)) in identities:
            device = read_device(root, bdf)
            if device is not None:
                found.append(device)
    return cards(sorted(found, key=lambda device: bdf_key(device.bdf)), catalogue)


def _interrupts_of(root: Root, devices: Sequence[PciDevice]) -> Dict[int, Interrupt]:
    irqs = [irq for card in devices for irq in affinity.vectors(card)]
    return read_interrupts(root, irqs, counts=False) if irqs else {}


def tune_interrupts(
    sink: Sink, ledger: Ledger, wishes: AffinityWishes, devices: Sequence[PciDevice], check: bool = False
) -> Tuple[Outcome, List[Served]]:
    """Put the interrupts of DEVICES where they belong. Never raises for what the kernel refuses."""
    root = sink.root
    plan = affinity.plan(devices, _interrupts_of(root, devices), read_cpus(root), wishes)
    made, refused = _apply(sink, ledger, INTERRUPTS, "interrupt", plan.changes, check)
    after = _interrupts_of(root, devices) if (made or refused) and not check else {}
    boot = boot_id(root)
    served = []
    for placement in plan.placements:
        key = "%s#%d" % (placement.bdf, placement.vector)
        original = ledger.value(INTERRUPTS, "interrupt", key, boot)
        now = after.get(placement.irq) if placement.irq is not None else None
        if now is None:
            predicted = check and placement.state == "change"
            single = placement.target if predicted and placement.target.isdigit() else None
            served.append(
                Served(
                    placement,
                    original,
                    placement.target if predicted else placement.before,
                    single if predicted else placement.effective_before,
                )
            )
        else:
            served.append(
                Served(
                    placement,
                    original,
                    None if now.affinity is None else format_list(now.affinity),
                    None if now.effective is None else format_list(now.effective),
                )
            )
    return Outcome(made, refused, plan.unknown), served


def tune_clocks(
    sink: Sink, ledger: Ledger, wishes: ClockWishes, policies: Sequence[Policy], check: bool = False
) -> Tuple[Outcome, List[Clocked]]:
    """Give every policy its governor. Raises WishError for a governor this kernel cannot have, before any write."""
    root = sink.root
    release = root.text("/proc/sys/kernel/osrelease") or ""
    plan = clocks.plan(policies, read_cpus(root), wishes, loadable_governors(root, release))
    made, refused = _apply(sink, ledger, CLOCKS, "governor", plan.changes, check)
    after = {policy.name: policy.governor for policy in read_policies(root)} if (made or refused) and not check else {}
    predicted = {key: change.after for key, change in plan.changes} if check else {}
    boot = boot_id(root)
    return Outcome(made, refused, plan.unknown), [
        Clocked(
            policy.name,
            format_list(policy.cpus),
            ledger.value(CLOCKS, "governor", policy.name, boot),
            policy.governor,
            predicted.get(policy.name) or after.get(policy.name, policy.governor),
        )
        for policy in policies
    ]
