# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clocks and heat: what slows the CPUs that serve the card, and the memory behind it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Set, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide import affinity
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import KEEP
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.conflict_findings import (
    Wanted,
    clock_conflicts,
    wanted,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.drift import stuck_cpus
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import INFO, OK, WARNING, Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpufreq import Policy
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.thermal import FIRMWARE_BITS, Cooling, Thermal

if TYPE_CHECKING:
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.findings import Snapshot

NEAR_MC = 5000  # thousandths of a degree below the first temperature at which the kernel slows CPUs down
# Waking from a shorter sleep is lost among the 0.3 ms that the tuning saves for each inference
DEEP_US = 100
# Boards whose clocks outside the CPUs are known to follow the load, by the beginning of their device tree's name
_SCALING_BOARDS = ("rockchip,rk35", "rockchip,rk33")
_COOL = "Cool it better (heat sink, fan, dust, a place with air); the kernel takes the limit away by itself."


def _base(policy: Policy) -> str:
    return "/sys/devices/system/cpu/cpufreq/%s/" % policy.name


def _called(policy: Policy) -> str:
    return "%s (CPUs %s)" % (policy.name, format_list(policy.cpus))


def serving_cpus(snapshot: Snapshot) -> List[int]:
    """Return the CPUs that serve the cards' interrupts now, as far as that is known."""
    irqs = [irq for card in snapshot.cards for irq in affinity.vectors(card)]
    found = [snapshot.interrupts[irq] for irq in irqs if irq in snapshot.interrupts]
    return sorted({cpu for one in found if one.has_proc_irq for cpu in one.effective or ()})


def _stuck_cpus(snapshot: Snapshot) -> List[int]:
    """Return the CPUs that serve interrupts which cannot be moved, where the role governor holds their clock."""
    if snapshot.wishes.get("governor", {}).get("others", KEEP) != KEEP:
        return []
    return stuck_cpus(snapshot)


def _governor(policy: Policy, wish: Wanted, culprits: Sequence[Finding]) -> Finding:
    evidence: Dict[str, Any] = {_base(policy) + "scaling_governor": policy.governor}
    if policy.governor == "performance":
        return Finding("clock_held", OK, "%s holds its clock" % _called(policy), evidence, "", "governor")
    summary = "%s drops its clock between the short calls to the card: governor %s" % (
        _called(policy),
        policy.governor,
    )
    severity, remedy = WARNING, "Run the role governor: it holds the clock of the fast cores."
    if wish.governor is not None and wish.governor in (policy.governor, KEEP):
        severity = INFO
        remedy = "It is what governor_fast asks for; performance, its default, holds the clock."
    elif wish.governor is not None and culprits:
        remedy = culprits[0].remedy
    elif wish.governor is not None:
        remedy = (
            "Something sets it after the agent did (tuned, cpufrequtils, a power profile): switch that off, then run "
            "`edgenpu-tuning apply`."
        )
    return Finding("clock_drops", severity, summary, evidence, remedy, "governor")


def _heat_evidence(devices: Sequence[Cooling], thermal: Thermal) -> Dict[str, Any]:
    evidence: Dict[str, Any] = {}
    for device in devices:
        evidence[device.path + "/type"] = device.kind
        evidence[device.path + "/cur_state"] = "%s of %s" % (device.state, device.max_state)
    paths = {device.path for device in devices}
    for zone in thermal.zones:
        if paths & set(zone.cooling):
            evidence[zone.path + "/temp"] = zone.temperature_mc
            evidence.update((trip.path, trip.temperature_mc) for trip in zone.trips if trip.kind == "passive")
    return evidence


def _capped(policy: Policy, snapshot: Snapshot, hot: Sequence[Cooling]) -> Optional[Finding]:
    """A clock below its maximum, and whether heat is behind it. HOT: what cools its CPUs, or may do so."""
    if policy.max_khz is None or policy.hw_max_khz is None or policy.max_khz >= policy.hw_max_khz:
        return None
    summary = "%s is capped at %d MHz of %d" % (_called(policy), policy.max_khz // 1000, policy.hw_max_khz // 1000)
    evidence: Dict[str, Any] = {
        _base(policy) + "scaling_max_freq": policy.max_khz,
        _base(policy) + "cpuinfo_max_freq": policy.hw_max_khz,
    }
    remedy = "Find who lowered it (a power profile, a boot script) and raise it again: write %d to %s." % (
        policy.hw_max_khz,
        _base(policy) + "scaling_max_freq",
    )
    if hot:
        sure = any(device.cpu in policy.cpus for device in hot)
        summary += " by heat" if sure else ", probably by heat"
        evidence.update(_heat_evidence(hot, snapshot.thermal))
        remedy = _COOL
    elif snapshot.thermal.cooling:
        remedy = "It is not heat: no cooling device is at work. " + remedy
    for service in snapshot.services.clocks:
        if service.unit == "thermald.service" and not hot:
            evidence[service.enabled_by] = "enabled; it lowers limits when it gets hot"
    return Finding("clock_capped", WARNING, summary, evidence, remedy, None)


def _throttled(thermal: Thermal, hot: Sequence[Cooling], told: Set[str]) -> List[Finding]:
    """Heat that slows CPUs down now, as far as no cap has told of it; and what was counted since boot."""
    found = []
    rest = [device for device in hot if device.path not in told]
    if rest:
        summary = "heat slows the CPUs down: %s" % ", ".join(
            "%s is at %s of %s" % (device.kind, device.state, device.max_state) for device in rest
        )
        found.append(Finding("host_throttled", WARNING, summary, _heat_evidence(rest, thermal), _COOL, None))
    if thermal.firmware is not None:
        path, bits = thermal.firmware
        now = [name for at, name in enumerate(FIRMWARE_BITS) if bits >> at & 1]
        past = [name for at, name in enumerate(FIRMWARE_BITS) if bits >> (16 + at) & 1 and name not in now]
        remedy = "Cool it better, and use a power supply that the board's maker names for it."
        evidence = {path: "%x" % bits}
        if now:
            summary = "the firmware slows the CPUs down or lacks voltage now: %s" % ", ".join(now)
            found.append(Finding("host_throttled", WARNING, summary, evidence, remedy, None))
        elif past:
            summary = "since boot the firmware has seen: %s; not now" % ", ".join(past)
            found.append(Finding("throttled_before", INFO, summary, evidence, remedy, None))
    counted = {cpu: count for cpu, count in thermal.throttled.items() if count}
    if counted:
        summary = "CPUs %s have been slowed down by heat since boot, up to %d times" % (
            format_list(counted),
            max(counted.values()),
        )
        evidence = {
            "/sys/devices/system/cpu/cpu%d/thermal_throttle/core_throttle_count" % cpu: str(count)
            for cpu, count in counted.items()
        }
        remedy = "If these numbers grow while the card works, cool the host better."
        found.append(Finding("throttled_before", INFO, summary, evidence, remedy, None))
    return found


def _near_limit(thermal: Thermal, hot: Sequence[Cooling]) -> List[Finding]:
    found = []
    at_work = {device.path for device in hot}
    for zone in thermal.zones:
        passive = [trip for trip in zone.trips if trip.kind == "passive" and trip.temperature_mc > 0]
        if not passive or zone.temperature_mc is None or at_work & set(zone.cooling):
            continue
        first = min(passive, key=lambda trip: trip.temperature_mc)
        if zone.temperature_mc >= first.temperature_mc - NEAR_MC:
            summary = "%s is at %.1f degrees; from %.1f on the kernel slows the CPUs down" % (
                zone.kind or zone.path.rpartition("/")[2],
                zone.temperature_mc / 1000,
                first.temperature_mc / 1000,
            )
            evidence = {zone.path + "/temp": zone.temperature_mc, first.path: first.temperature_mc}
            remedy = "Cool it better before long runs (heat sink, fan, dust, a place with air)."
            found.append(Finding("temperature_near_limit", INFO, summary, evidence, remedy, None))
    return found


def _deep_sleep(snapshot: Snapshot) -> List[Finding]:
    """Return a note if a CPU that serves the card may sleep so deeply that waking takes long."""
    evidence: Dict[str, Any] = {}
    cpus: Dict[int, int] = {}
    for cpu in serving_cpus(snapshot):
        idle = snapshot.idle.get(cpu)
        for state in idle.states if idle is not None else ():
            latency_us = state.latency_us or 0
            barred = idle is not None and idle.limit_us is not None and latency_us > idle.limit_us
            if latency_us >= DEEP_US and state.disabled is False and not barred:
                evidence[state.path + "/latency"] = "%d us (%s)" % (latency_us, state.name)
                cpus[cpu] = max(latency_us, cpus.get(cpu, 0))
    if not cpus:
        return []
    summary = "CPU %s, which serves the card, may sleep in a state that takes up to %d us to leave" % (
        format_list(cpus),
        max(cpus.values()),
    )
    remedy = (
        "What it would gain was not measured, and a CPU that may not sleep draws more power. To try it until the next "
        "boot: write 1 to `disable` beside each `latency` above. A program that holds /dev/cpu_dma_latency does "
        "the same, and is not seen here."
    )
    return [Finding("idle_states_deep", INFO, summary, evidence, remedy, None)]


def _devfreq(snapshot: Snapshot) -> List[Finding]:
    """Return a note on boards whose memory and NPU clocks follow the load."""
    if not any(name.startswith(_SCALING_BOARDS) for name in snapshot.host.compatible):
        return []
    evidence: Dict[str, Any] = {}
    names = []
    for device in snapshot.devfreq:
        what = "memory" if device.name == "dmc" else "the board's own NPU" if device.name.endswith(".npu") else None
        fixed = device.governor == "userspace" and None not in (device.current_hz, device.max_hz)
        held = device.governor == "performance" or (fixed and (device.current_hz or 0) >= (device.max_hz or 0))
        if what is None or device.governor is None or held:
            continue
        names.append("%s (%s)" % (what, device.governor))
        evidence[device.path + "/governor"] = device.governor
        evidence[device.path + "/cur_freq"] = device.current_hz
    if not names:
        return []
    summary = "the clock of %s follows the load" % " and ".join(names)
    remedy = (
        "For a card in a slot the effect was not measured. Programs on the board's own NPU gain most from memory that "
        "holds its clock, at some 0.6 W more when idle; to try it until the next boot: write performance to `governor`."
    )
    return [Finding("devfreq_drops", INFO, summary, evidence, remedy, None)]


def _not_kept(held: Sequence[Policy], snapshot: Snapshot) -> List[Finding]:
    """Return a note if the clocks are held and nothing of ours keeps them so."""
    if "governor" in snapshot.wishes or not held or any(policy.governor != "performance" for policy in held):
        return []
    keepers = [
        service
        for service in snapshot.services.clocks
        if service.sets and all(values[:1] == ("performance",) for _path, _line, values in service.sets)
    ]
    if keepers:
        return []
    evidence: Dict[str, Any] = {_base(policy) + "scaling_governor": policy.governor for policy in held}
    evidence["/etc/edgenpu-tuning/wishes.d"] = sorted(snapshot.wishes)
    summary = (
        "the clocks are held now, but nothing known here keeps them so: a reboot loses it, unless performance is the "
        "kernel's own default"
    )
    remedy = "Run the role governor: it keeps it so."
    return [Finding("clock_not_kept", INFO, summary, evidence, remedy, "governor")]


def held_policies(snapshot: Snapshot, fast: Optional[Tuple[int, ...]]) -> List[Policy]:
    """Return the policies whose clock matters: those of the fastest tier, and of interrupts that cannot be moved."""
    cpus = None if fast is None else {*fast, *_stuck_cpus(snapshot)}
    return [
        policy for policy in snapshot.policies if not policy.all_offline and (cpus is None or set(policy.cpus) & cpus)
    ]


def clock_findings(snapshot: Snapshot, fast: Optional[Tuple[int, ...]]) -> List[Finding]:
    """Return what there is to say about clocks, heat and who else sets them. FAST: None where all CPUs are equal."""
    held = held_policies(snapshot, fast)
    wish = wanted(snapshot.wishes, held)
    conflicts = clock_conflicts(snapshot.services, wish, held)
    matter = {cpu for policy in held for cpu in policy.cpus}
    hot = [
        device
        for device in snapshot.thermal.cooling
        if (device.state or 0) > 0 and (device.cpu is None or not held or device.cpu in matter)
    ]
    found: List[Finding] = []
    told: Set[str] = set()
    for policy in held:
        found.append(_governor(policy, wish, [one for one in conflicts if one.severity == WARNING]))
        mine = [device for device in hot if device.cpu in policy.cpus]
        capped = _capped(policy, snapshot, mine or [device for device in hot if device.cpu is None])
        if capped is not None:
            found.append(capped)
            told.update(device.path for device in hot if device.path + "/cur_state" in capped.evidence)
    found += conflicts
    found += _throttled(snapshot.thermal, hot, told)
    found += _near_limit(snapshot.thermal, hot)
    found += _deep_sleep(snapshot)
    found += _devfreq(snapshot)
    found += _not_kept(held, snapshot)
    return found
