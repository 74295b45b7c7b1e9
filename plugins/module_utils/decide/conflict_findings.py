# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who undoes the tuning: services that set clocks too, irqbalance, and an agent of ours that nothing starts. Pure."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import KEEP
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import INFO, WARNING, Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpufreq import Policy
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.services import Service, Services

# power-profiles-daemon sets governors (and EPP) for these drivers only
_PROFILED = ("intel_pstate", "amd-pstate", "amd_pstate")
# thermald lowers limits when it gets hot, and touches no governor
_NO_GOVERNOR = ("thermald.service",)


class Wanted(NamedTuple):
    """The governor that is wished for the policies that matter (or "keep"), and whether all of them have it."""

    governor: Optional[str]
    in_force: bool


def wanted(wishes: Mapping[str, Mapping[str, Any]], held: Sequence[Policy]) -> Wanted:
    """Return what the role governor was told of the policies HELD; no governor where it was told nothing."""
    if "governor" not in wishes:
        return Wanted(None, False)
    governor = str(wishes["governor"].get("fast", "performance"))
    return Wanted(governor, all(policy.governor == governor for policy in held))


def _would_set(service: Service, governor: str, held: Sequence[Policy]) -> bool:
    """Tell whether a service may set another governor than the one wished for."""
    if service.unit in _NO_GOVERNOR:
        return False
    if service.unit == "power-profiles-daemon.service":
        return any((policy.driver or "").startswith(_PROFILED) for policy in held)
    if service.sets is None:
        return True
    return any(values[:1] != (governor,) for _path, _line, values in service.sets)


def _what_helps(service: Service, governor: str) -> str:
    off = "switch it off (`systemctl disable --now %s`)" % service.unit
    if service.sets:
        places = ", ".join(sorted({path for path, _line, _values in service.sets}))
        return "Let %s set %s (%s), or %s; then run `edgenpu-tuning apply`." % (service.unit, governor, places, off)
    return "%s; then run `edgenpu-tuning apply`." % (off[0].upper() + off[1:])


def clock_conflicts(services: Services, wish: Wanted, held: Sequence[Policy]) -> List[Finding]:
    """Return the services that set clocks as well: a note while the wish is in force, a warning once it is not.

    The agent comes after all services of the boot, so that one of them alone undoes nothing for long.
    """
    governor = wish.governor
    if governor is None or governor == KEEP or not held:
        return []
    found = []
    for service in services.clocks:
        if not _would_set(service, governor, held):
            continue
        evidence: Dict[str, Any] = {service.enabled_by: "enabled"}
        for path, line, _values in service.sets or ():
            evidence[path] = line
        for policy in held:
            evidence["/sys/devices/system/cpu/cpufreq/%s/scaling_governor" % policy.name] = policy.governor
        what = "sets" if service.sets else "may set"
        end = "its own way; just now they are as wished" if wish.in_force else "its own way, and they are not as wished"
        found.append(
            Finding(
                "clock_conflict",
                INFO if wish.in_force else WARNING,
                "%s is enabled and %s the CPU clocks %s" % (service.unit, what, end),
                evidence,
                _what_helps(service, governor),
                "governor",
            )
        )
    return found


def agent_off(services: Services, wishes: Mapping[str, Any], systemd: bool, lost: Sequence[str] = ()) -> List[Finding]:
    """Return a finding if part of what puts wishes in force is not there; drift tells of what is LOST by the ledger."""
    own = {path: what for path, what in services.own.items() if path not in lost}
    kept = sorted(set(wishes) & {"irq_affinity", "governor"})
    if not own or not kept or not systemd:
        return []
    return [
        Finding(
            "agent_off",
            WARNING,
            "wishes are kept on this host (%s), but part of what puts them in force is %s"
            % (", ".join(kept), " or ".join(sorted(set(own.values())))),
            own,
            "Run the role %s: it puts back what is missing. Take a mask away with `systemctl unmask`." % kept[-1],
            kept[-1],
        )
    ]
