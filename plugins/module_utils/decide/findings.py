# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host's state means: findings with evidence and remedy. Pure: a snapshot in, findings out.

A finding is no alarm by habit: what cannot be told apart from a healthy host at rest is not reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide import affinity, steering
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.boot_findings import boot_findings
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import AX650N, CardKind, cards
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clock_findings import clock_findings
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.conflict_findings import agent_off
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.drift import drift
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.expected_gain import is_measured, weigh
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.interrupt_findings import interrupt_findings
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.pcie_findings import pcie_findings
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import (
    INFO,
    OK,
    SEVERITIES,
    WARNING,
    Change,
    Finding,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpufreq import Policy
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpuidle import Idle
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list, parse_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpus import Cpu, tiers
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.devfreq import Devfreq
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.host import Host
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import Interrupt, Thread
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.irqbalance import Irqbalance
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.kernels import Kernel, release_key
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import PciDevice
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.raspberry_pi import RaspberryPi
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.services import Services
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.thermal import Thermal

if TYPE_CHECKING:
    from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl_host import AxclHost

OWN_POLICY = "/usr/lib/edgenpu-tuning/irqbalance.d"  # what we hand to irqbalance's --policyscript


class Snapshot(NamedTuple):
    """A host at one moment.

    WISHES: what is kept on the host, by role. UNREAD: (path, errno name) of what could not be read.
    THREADS: (interrupt, its kernel thread) of threaded interrupts of the cards. UPTIME_S: seconds since boot.
    KERNELS: from old to new. GONE: (address, vector) of interrupts that were moved during this boot, of cards that are
    not on the bus any more; None if that is not known. LOST: paths of files that keep wishes in force, and are gone.
    IDLE: sleep states of the CPUs that serve the cards. ARRIVED: counts that the cards' interrupts gained, by CPU,
    while the host was looked at. AXCL: what belongs to an AXCL card; None where there is none.
    RASPBERRY_PI: its boot configuration; None for another board. PLANNED: what a run would change, by role, where that
    was found out.
    """

    host: Host
    devices: Tuple[PciDevice, ...]
    catalogue: Tuple[CardKind, ...]
    interrupts: Dict[int, Interrupt]
    cpus: Tuple[Cpu, ...]
    policies: Tuple[Policy, ...]
    irqbalance: Irqbalance
    wishes: Mapping[str, Mapping[str, Any]]
    unread: Tuple[Tuple[str, str], ...] = ()
    threads: Tuple[Tuple[int, Thread], ...] = ()
    uptime_s: Optional[float] = None
    kernels: Tuple[Kernel, ...] = ()
    gone: Optional[Tuple[affinity.Vector, ...]] = ()
    lost: Tuple[str, ...] = ()
    thermal: Thermal = Thermal()
    devfreq: Tuple[Devfreq, ...] = ()
    idle: Mapping[int, Idle] = {}
    services: Services = Services()
    arrived: Mapping[int, Dict[int, int]] = {}
    axcl: Optional[AxclHost] = None
    raspberry_pi: Optional[RaspberryPi] = None
    planned: Mapping[str, Sequence[Change]] = {}

    @property
    def cards(self) -> List[PciDevice]:
        """The NPU cards, by address."""
        return cards(self.devices, self.catalogue)


def _fast_cpus(cpus: Sequence[Cpu]) -> Optional[Tuple[int, ...]]:
    """Return the CPUs of the fastest tier; None where all are equal."""
    ranking = tiers(cpus)
    return ranking[-1].cpus if len(ranking) > 1 else None


def _unsteerable(
    interrupt: Interrupt,
    card: PciDevice,
    snapshot: Snapshot,
    fast: Optional[Tuple[int, ...]],
    evidence: Dict[str, Any],
) -> Optional[Finding]:
    """An interrupt that nobody can move. Only where that costs speed is it more than a note."""
    board = snapshot.host.board
    stuck = steering.judge(interrupt, board)
    if stuck is None:
        return None
    served = steering.served_by(interrupt)
    slow = fast is not None and not (served is not None and set(served) <= set(fast))
    return Finding(
        "interrupt_unsteerable",
        WARNING if slow else INFO,
        "interrupt %d of %s cannot be put on another CPU: %s" % (interrupt.irq, card.bdf, stuck.why),
        dict(evidence, **steering.evidence(interrupt, board)),
        "%s %s" % (steering.what_helps(served, fast), steering.remedy(stuck.controller, board)),
        "governor",
    )


def _on_slow_core(
    interrupt: Interrupt, where: Sequence[int], card: PciDevice, snapshot: Snapshot, fast: Tuple[int, ...]
) -> Finding:
    summary = "interrupt %d of %s is served by CPU %s; the fastest are %s" % (
        interrupt.irq,
        card.bdf,
        format_list(where),
        format_list(fast),
    )
    named = parse_list(str(snapshot.wishes.get("irq_affinity", {}).get("cpus") or "")) or ()
    severity, remedy = WARNING, "Run the role irq_affinity: it puts it on a fast core and keeps it there."
    if set(where) <= set(named):
        severity, remedy = INFO, "It is where irq_affinity_cpus wants it; leave that empty to have a fast one chosen."
    elif all(cpu.quiet for cpu in snapshot.cpus if cpu.number in fast):
        severity = INFO
        remedy = "The fast ones are isolated or nohz_full, so they are taken only by name: see irq_affinity_cpus."
    return Finding("interrupt_on_slow_core", severity, summary, {}, remedy, "irq_affinity")


def _interrupts(snapshot: Snapshot, card: PciDevice, fast: Optional[Tuple[int, ...]]) -> List[Finding]:
    found = []
    for irq in affinity.vectors(card):
        interrupt = snapshot.interrupts.get(irq)
        if interrupt is None or not interrupt.has_proc_irq:
            continue
        where = interrupt.effective or interrupt.affinity
        evidence: Dict[str, Any] = {
            "/proc/irq/%d/smp_affinity_list" % irq: interrupt.affinity and format_list(interrupt.affinity),
            "/proc/irq/%d/effective_affinity_list" % irq: interrupt.effective and format_list(interrupt.effective),
        }
        if not interrupt.effective and any(interrupt.counts.values()):
            # It works all the same (as with the RP1 of a Raspberry Pi): where it was served, its counts tell.
            evidence["counts since boot, by CPU"] = {cpu: count for cpu, count in interrupt.counts.items() if count}
        stuck = _unsteerable(interrupt, card, snapshot, fast, evidence)
        if stuck is not None:
            found.append(stuck)
            continue
        if fast is None or where is None:
            continue
        waits = interrupt.affinity is not None and set(interrupt.affinity) <= set(fast)
        if set(where) <= set(fast):
            summary = "interrupt %d of %s is served by CPU %s, of the fastest tier" % (
                irq,
                card.bdf,
                format_list(where),
            )
            found.append(Finding("interrupt_on_fast_core", OK, summary, evidence, "", "irq_affinity"))
        elif not (waits and steering.moves_later(interrupt, snapshot.host.board)):
            # (One that waits is moved while it is handled next; until then nothing can be said of it.)
            slow = _on_slow_core(interrupt, where, card, snapshot, fast)
            found.append(slow._replace(evidence=evidence))
    vectors = affinity.vectors(card)
    handled = [irq for irq in vectors if irq in snapshot.interrupts and snapshot.interrupts[irq].has_proc_irq]
    if card.driver is not None and card.alive and vectors and not handled:
        summary = "%s has interrupts, but its driver has not asked for one yet" % card.bdf
        remedy = (
            "Some drivers ask only when the card is opened, and no event tells of it: run `edgenpu-tuning apply` then."
        )
        evidence = {"/proc/irq/%d" % irq: None for irq in vectors}
        found.append(Finding("interrupt_not_requested", WARNING, summary, evidence, remedy, "irq_affinity"))
    if card.driver is not None and card.alive and not vectors:
        path = "/sys/bus/pci/devices/%s/msi_irqs" % card.bdf
        summary = "%s has a driver, but no interrupt" % card.bdf
        remedy = "See the kernel log for a failed MSI allocation; load the card's other modules."
        found.append(Finding("interrupt_missing", WARNING, summary, {path: None}, remedy, None))
    return found


def _shared(snapshot: Snapshot, card: PciDevice) -> Optional[Finding]:
    """A card without MSI has a legacy line, and what others have on it goes where the card's interrupt goes."""
    if card.msi_irqs or not affinity.vectors(card):
        return None
    [irq] = affinity.vectors(card)
    actions = affinity.shared_line(card, snapshot.interrupts.get(irq))
    others = [one.bdf for one in snapshot.devices if one.bdf != card.bdf and affinity.vectors(one) == (irq,)]
    if not actions and not others:
        return None
    evidence: Dict[str, Any] = {"/sys/bus/pci/devices/%s/irq" % bdf: irq for bdf in (card.bdf, *others)}
    evidence["/sys/kernel/irq/%d/actions" % irq] = ",".join(actions) or None
    return Finding(
        "interrupt_shared",
        INFO,
        "interrupt %d of %s is a line that others share (%s): one CPU serves them all"
        % (irq, card.bdf, ", ".join((*actions, *others))),
        evidence,
        "Let the card use MSI: take pci=nomsi off the kernel's command line, see to its driver's options.",
        None,
    )


def _balancer(snapshot: Snapshot) -> Optional[Finding]:
    """Judge the irqbalance that runs, and what its unit will hand over at the next start.

    Only that counts: a drop-in of ours that another one overrides, or that came after the start, is no help.
    """
    balancer = snapshot.irqbalance
    if not balancer.running:
        return None
    evidence = {"irqbalance": " ".join(balancer.arguments) or balancer.exec_start}
    script, theirs = balancer.policy_script, balancer.unit_policy_without_ours
    ban = "Make sure that it prints ban=true for the NPU cards; irqbalance takes one script or directory only."
    if script not in (None, OWN_POLICY):
        summary = "irqbalance has a policy script of its own, %s" % script
        return Finding("irqbalance_foreign_policy", INFO, summary, evidence, ban, None)
    if script is not None and theirs not in (None, OWN_POLICY):
        summary = "irqbalance has a policy script of its own, %s, but was started with ours" % theirs
        remedy = "Run the role irq_affinity: it takes ours back. " + ban
        return Finding("irqbalance_foreign_policy", INFO, summary, evidence, remedy, "irq_affinity")
    lost = balancer.exec_start is not None and balancer.unit_policy is None
    if script is not None and not lost:
        return Finding("irqbalance_kept_off", OK, "irqbalance leaves the card alone", evidence, "", "irq_affinity")
    summary = "irqbalance runs and may move the card's interrupt at its next pass"
    if script is not None:
        summary = "irqbalance leaves the card alone now, but may move its interrupt once it has been started again"
    remedy = "Run the role irq_affinity: irqbalance then leaves the card alone and balances all others."
    if balancer.unit_policy is not None:
        remedy = "Run `systemctl restart irqbalance.service`: it runs without what its unit hands over by now."
    elif balancer.later_drop_in is not None:
        evidence[balancer.later_drop_in] = "ExecStart=%s" % balancer.exec_start
        remedy = (
            "Add --policyscript=%s to ExecStart= in %s, which systemd reads after our drop-in; then run `systemctl "
            "daemon-reload` and `systemctl restart irqbalance.service`." % (OWN_POLICY, balancer.later_drop_in)
        )
    return Finding("irqbalance_may_move", WARNING, summary, evidence, remedy, "irq_affinity")


def _movable(snapshot: Snapshot) -> bool:
    """Return False if every interrupt of the cards is known to stay where it is, whoever wants to move it."""
    lines = [snapshot.interrupts.get(irq) for card in snapshot.cards if card.alive for irq in affinity.vectors(card)]
    known = [line for line in lines if line is not None]
    return not known or any(steering.judge(line, snapshot.host.board) is None for line in known)


def _persistence(snapshot: Snapshot) -> List[Finding]:
    kept = sorted(snapshot.wishes)
    if not snapshot.cards or "irq_affinity" in kept:
        return []
    summary = "nothing on this host keeps the card's interrupt in place: a driver reload or a reboot loses it"
    remedy = "Run the role irq_affinity."
    return [Finding("not_kept", WARNING, summary, {"/etc/edgenpu-tuning/wishes.d": kept}, remedy, "irq_affinity")]


def _next_kernels(snapshot: Snapshot) -> List[Finding]:
    """Return a finding for each kernel that a reboot may start and that lacks a driver which this one was given.

    A driver that comes with the kernel is none of those that were added, and never reported.
    """
    running = next((kernel for kernel in snapshot.kernels if kernel.running), None)
    if running is None:
        return []
    found = []
    added = {module.name.replace("-", "_") for module in running.modules}
    for kernel in snapshot.kernels:
        missing = sorted(added - {module.name.replace("-", "_") for module in kernel.modules})
        if not missing or release_key(kernel.release) <= release_key(running.release):
            continue
        how = "Build it now, before a reboot (`dkms autoinstall -k %s`, or its role)." % kernel.release
        if not kernel.headers:
            how = "Install this kernel's headers, then build it, before a reboot."
        found.append(
            Finding(
                "next_kernel_without_driver",
                WARNING,
                "kernel %s is installed and lacks %s: after a reboot into it the card has no driver"
                % (kernel.release, ", ".join(missing)),
                {"/lib/modules/%s" % kernel.release: [module.path for module in kernel.modules]},
                how,
                "axcl_driver" if "ax_pcie_host_dev" in missing else None,
            )
        )
    return found


def _axcl(snapshot: Snapshot) -> List[Finding]:
    """What belongs to AXCL cards alone. Other hosts need none of its code, which is half of all."""
    axcl = snapshot.axcl
    if axcl is None:
        return []
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide import driver_findings as driver
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.host_findings import host_findings
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.kernel_log import Situation, log_findings

    mine = [card for card in snapshot.cards if (card.vendor, card.device) == AX650N]
    situation = Situation([card.bdf for card in mine], driver.working_cards(axcl.table), snapshot.uptime_s)
    found = driver.driver_findings(axcl, snapshot.kernels, mine, snapshot.interrupts)
    found += log_findings(axcl.events, situation)
    found += host_findings(snapshot.host, axcl, snapshot.kernels, driver.driver_sdk(axcl, snapshot.kernels))
    return found


def findings(snapshot: Snapshot) -> List[Finding]:
    """Return all findings on a host, gravest first."""
    found: List[Optional[Finding]] = []
    fast = _fast_cpus(snapshot.cpus)
    found += pcie_findings(snapshot.devices, snapshot.catalogue, snapshot.uptime_s)
    found += boot_findings(snapshot.raspberry_pi, snapshot.devices, snapshot.catalogue)
    for card in snapshot.cards:
        if card.alive:
            found += _interrupts(snapshot, card, fast)
            found.append(_shared(snapshot, card))
    if snapshot.cards:
        movable = _movable(snapshot)
        balancer = _balancer(snapshot) if movable else None
        found += [balancer, *interrupt_findings(snapshot, fast, balancer)]
        found += clock_findings(snapshot, fast)
        found += _persistence(snapshot) if movable else []
        found += agent_off(snapshot.services, snapshot.wishes, snapshot.host.systemd, snapshot.lost)
        found += _next_kernels(snapshot)
        found += _axcl(snapshot)
    found += drift(snapshot)
    if snapshot.unread:
        evidence = dict(snapshot.unread)
        forbidden = {"EACCES", "EPERM"}.intersection(evidence.values())
        found.append(
            Finding(
                "unread",
                INFO,
                "%d file%s could not be read" % (len(evidence), "" if len(evidence) == 1 else "s"),
                evidence,
                "Run as root on the host itself." if forbidden else "The kernel refuses that; its log may say why.",
                None,
            )
        )
    measured = is_measured(snapshot.cards, snapshot.host.compatible)
    ordered = sorted((one for one in found if one is not None), key=lambda one: -SEVERITIES.index(one.severity))
    return weigh(ordered, measured)
