# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""OBSERVE -> DECIDE -> ACT -> read back, for interrupts and for clocks. Modules, agent and command all come here."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import UNSTEERABLE, Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide import affinity, clocks, steering
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes, Placement
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import CardKind, cards
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import ClockWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.board import Board, read_board
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpufreq import (
    Policy,
    loadable_governors,
    read_policies,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list, parse_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpus import CPUS, read_cpus
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
    """A placement with what the ledger has as its original and what was read after acting (CPU lists).

    STEERABLE: whether it can be moved, None if that is not known; REASON: what was said when it was refused.
    """

    placement: Placement
    original: Optional[str]
    after: Optional[str]
    effective_after: Optional[str]
    steerable: Optional[bool] = None
    reason: Optional[str] = None

    @property
    def done(self) -> bool:
        """True if it is where it belongs (in check mode: would be)."""
        return self.placement.state == "right" or self.after == self.placement.target


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


def gone_vectors(root: Root, ledger: Ledger, boot: Optional[str]) -> List[affinity.Vector]:
    """Return the vectors that were moved during this boot, of cards that are not on the bus any more."""
    there = set(root.names(DEVICES))
    found = []
    for entry in ledger.entries(INTERRUPTS, "interrupt"):
        bdf, _hash, vector = entry.id.partition("#")
        if entry.boot_id == boot and bdf not in there:
            found.append((bdf, int(vector)))
    return found


def _key(placement: Placement) -> str:
    return "%s#%d" % (placement.bdf, placement.vector)


class _Verdict(NamedTuple):
    steerable: Optional[bool]
    reason: Optional[str]  # why it was refused


def _elsewhere(now: Interrupt, target: Optional[str]) -> bool:
    """True if an interrupt is wanted on TARGET and served by another CPU, as far as the kernel tells."""
    wanted = set(parse_list(target or "") or ())
    return bool(now.effective) and set(now.affinity or ()) == wanted and not set(now.effective or ()) <= wanted


def _verdicts(
    made: Sequence[Change],
    refused: Sequence[Change],
    before: Dict[int, Interrupt],
    after: Dict[int, Interrupt],
    board: Board,
) -> Tuple[List[Change], List[Change], Dict[str, _Verdict]]:
    """Return MADE and REFUSED as they look after reading back, refusals with their remedy, and a verdict by path."""
    verdicts = {}
    truly_made, all_refused = [], []
    for change in refused:
        interrupt = before.get(_irq(change))
        why, stuck = change.why, change.why in UNSTEERABLE
        if stuck:
            controller = steering.controller_of(None if interrupt is None else interrupt.chip, board)
            why = "%s. %s" % (why, steering.remedy(controller, board))
        all_refused.append(change._replace(why=why))
        verdicts[change.path] = _Verdict(False if stuck else None, why)
    for change in made:
        now = after.get(_irq(change))
        if now is None or not _elsewhere(now, change.after) or steering.moves_later(now, board):
            truly_made.append(change)
            verdicts[change.path] = _Verdict(True, None)
            continue
        if change.before != change.after:
            truly_made.append(change)
        served = format_list(now.effective or ())
        reason = "accepted, but CPU %s serves it still: its controller takes the wish and does not follow" % served
        all_refused.append(change._replace(why=reason))
        verdicts[change.path] = _Verdict(False, reason)
    return truly_made, all_refused, verdicts


def _irq(change: Change) -> int:
    return int(change.path.split("/")[3])  # /proc/irq/N/smp_affinity_list


def tune_interrupts(
    sink: Sink, ledger: Ledger, wishes: AffinityWishes, devices: Sequence[PciDevice], check: bool = False
) -> Tuple[Outcome, List[Served]]:
    """Put the interrupts of DEVICES where they belong. Never raises for what the kernel refuses.

    If a CPU goes or comes meanwhile and something was refused, all is decided again, once.
    """
    online = sink.root.text(CPUS + "/online")
    outcome, served = _tune_once(sink, ledger, wishes, devices, check)
    if check or not outcome.refused or sink.root.text(CPUS + "/online") == online:
        return outcome, served
    again, finally_served = _tune_once(sink, ledger, wishes, devices, check)
    first = {_key(one.placement): one.placement for one in served}
    merged = []
    for one in finally_served:
        found = first.get(_key(one.placement), one.placement)
        # One that was right and has lost its CPU meanwhile is not right any more.
        state = found.state if one.placement.state == "right" else one.placement.state
        placement = one.placement._replace(before=found.before, effective_before=found.effective_before, state=state)
        merged.append(one._replace(placement=placement))
    return again._replace(changes=outcome.changes + again.changes), merged


def _tune_once(
    sink: Sink, ledger: Ledger, wishes: AffinityWishes, devices: Sequence[PciDevice], check: bool
) -> Tuple[Outcome, List[Served]]:
    root = sink.root
    boot, board = boot_id(root), read_board(root)
    found = _interrupts_of(root, devices)
    plan = affinity.plan(devices, found, read_cpus(root), wishes, board, gone_vectors(root, ledger, boot))
    if check:
        predicted = [_predicted(one, ledger.value(INTERRUPTS, "interrupt", _key(one), boot)) for one in plan.placements]
        doubts = [
            "interrupt %s of %s: unknown until %s" % (one.irq, one.bdf, one.unknown_until)
            for one in plan.placements
            if one.steerable is False
        ]
        return Outcome([change for _key, change in plan.changes], [], plan.unknown + doubts), predicted
    made, refused = _apply(sink, ledger, INTERRUPTS, "interrupt", plan.changes + plan.attempts, check)
    after = _interrupts_of(root, devices) if made or refused else found
    made, refused, verdicts = _verdicts(made, refused, found, after, board)
    unknown, served = list(plan.unknown), []
    for one in plan.placements:
        original = ledger.value(INTERRUPTS, "interrupt", _key(one), boot)
        now = after.get(one.irq) if one.irq is not None else None
        if now is None or not now.has_proc_irq:
            served.append(Served(one, original, None, None))
            continue
        steerable, reason = verdicts.get("/proc/irq/%d/smp_affinity_list" % now.irq, _Verdict(one.steerable, None))
        waits = _elsewhere(now, one.target) and steering.moves_later(now, board)
        if waits and steerable:  # else the plan has said so
            unknown.append(
                "effective CPU of interrupt %d: unknown until the next interrupt comes, the move waits for it" % now.irq
            )
        effective = None if now.effective is None or waits else format_list(now.effective)
        affinity_now = None if now.affinity is None else format_list(now.affinity)
        served.append(Served(one, original, affinity_now, effective, steerable, reason))
    return Outcome(made, refused, unknown), served


def _predicted(placement: Placement, original: Optional[str]) -> Served:
    """Return what check mode can tell."""
    if placement.state != "change":
        return Served(placement, original, placement.before, placement.effective_before, placement.steerable)
    single = placement.target if placement.target.isdigit() else None
    return Served(placement, original, placement.target, single)


def _stuck(root: Root, catalogue: Sequence[CardKind], board: Board) -> List[int]:
    """Return the CPUs that serve interrupts of cards which nobody can move, as far as that is known beforehand."""
    there = npu_cards(root, catalogue)
    stuck = [irq for irq, one in _interrupts_of(root, there).items() if steering.judge(one, board) is not None]
    return sorted({cpu for one in _counted(root, stuck) for cpu in steering.served_by(one) or ()})


def _counted(root: Root, irqs: Sequence[int]) -> List[Interrupt]:
    found = read_interrupts(root, irqs) if irqs else {}
    return [one for one in found.values() if one.has_proc_irq]


def tune_clocks(
    sink: Sink, ledger: Ledger, wishes: ClockWishes, policies: Sequence[Policy], check: bool = False
) -> Tuple[Outcome, List[Clocked]]:
    """Give every policy its governor. Raises WishError for a governor this kernel cannot have, before any write."""
    root = sink.root
    board = read_board(root)
    loadable = loadable_governors(root, board.kernel or "")
    plan = clocks.plan(policies, read_cpus(root), wishes, loadable, _stuck(root, wishes.catalogue, board))
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
