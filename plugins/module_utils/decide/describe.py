# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Observed things as plain data: what modules return, reports hold and the command prints as JSON. Pure."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import vectors
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import CardKind, kind_of
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.expected_gain import (
    expectation,
    is_measured,
    verdict,
    worth_doing,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.findings import Snapshot, findings
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.topology import (
    CardPath,
    Rate,
    is_internal,
    judge_link,
    open_ports,
    survey,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpus import tiers
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import Interrupt, Thread
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import PciDevice, climb

SCHEMA = 1  # of the report


def plain(value: Any) -> Any:
    """Return VALUE with every named tuple as a dict and every other tuple as a list."""
    if hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value


def cpu_list(cpus: Optional[Iterable[int]]) -> Optional[str]:
    """Return CPUs as a kernel list; None for unknown."""
    return None if cpus is None else format_list(cpus)


def _hex(number: Optional[int], digits: int) -> Optional[str]:
    return None if number is None else "%0*x" % (digits, number)


def pci_device(
    device: PciDevice, by_bdf: Mapping[str, PciDevice], catalogue: Sequence[CardKind], way: Optional[CardPath] = None
) -> Dict[str, Any]:
    """Return a PCI device as data: identities in hexadecimal, speeds in GT/s, sizes in bytes.

    WAY is that of an NPU card.
    """
    data: Dict[str, Any] = plain(device)
    for name, digits in (
        ("vendor", 4),
        ("device", 4),
        ("subsystem_vendor", 4),
        ("subsystem_device", 4),
        ("class_code", 6),
    ):
        data[name] = _hex(getattr(device, name), digits)
    kind = kind_of(device, catalogue)
    data["npu"] = None if kind is None else kind.name
    data["local_cpus"] = cpu_list(device.local_cpus)
    data["path"] = [hop.bdf for hop in climb(by_bdf, device.bdf)]
    internal = is_internal(device, kind)
    data["link_verdict"] = None if internal else plain(judge_link(device, by_bdf.get(device.parent or "")))
    if way is not None:
        data["internal"] = internal
        data["hops"] = plain(way.hops)
        data["bottleneck"] = way.bottleneck
        data["shared_with"] = list(way.shared_with)
        data["bandwidth_mb_s"] = _rate(way.bandwidth)
        data["share_mb_s"] = _rate(way.share)
    return data


def _rate(rate: Optional[Rate]) -> Optional[Dict[str, float]]:
    return None if rate is None else {"read": round(rate.read, 1), "write": round(rate.write, 1)}


def open_places(devices: Sequence[PciDevice]) -> Dict[str, Any]:
    """Return the ports with nothing known behind them, as data."""
    ports = open_ports(devices)
    return {
        "empty_slots": [plain(port) for port in ports if not port.has_link],
        "needs_rescan": [plain(port) for port in ports if port.has_link],
    }


def interrupt(value: Interrupt) -> Dict[str, Any]:
    """Return an interrupt as data: CPUs as kernel lists, counts by CPU."""
    data: Dict[str, Any] = plain(value)
    data["affinity"], data["effective"] = cpu_list(value.affinity), cpu_list(value.effective)
    return data


def thread(value: Optional[Thread]) -> Optional[Dict[str, Any]]:
    """Return an interrupt's thread as data; None for an interrupt that has none."""
    return None if value is None else dict(plain(value), allowed=cpu_list(value.allowed))


def finding(value: Finding) -> Dict[str, Any]:
    """Return a finding as data."""
    data: Dict[str, Any] = plain(value)
    return data


def report(snapshot: Snapshot) -> Dict[str, Any]:
    """Return the whole report on a host."""
    found = findings(snapshot)
    threads = dict(snapshot.threads)
    by_bdf = {device.bdf: device for device in snapshot.devices}
    ways = survey(snapshot.devices, snapshot.catalogue)
    cards: List[Dict[str, Any]] = []
    for card in snapshot.cards:
        data = pci_device(card, by_bdf, snapshot.catalogue, ways.get(card.bdf))
        data["interrupts"] = [
            dict(interrupt(snapshot.interrupts[irq]), thread=thread(threads.get(irq)))
            for irq in vectors(card)
            if irq in snapshot.interrupts
        ]
        cards.append(data)
    return {
        "schema": SCHEMA,
        "verdict": verdict(found),
        "worth_doing": [plain(deed) for deed in worth_doing(found)],
        "expected_gain": expectation(found, is_measured(snapshot.cards, snapshot.host.compatible)),
        "host": plain(snapshot.host),
        "tiers": [dict(plain(tier), cpus=format_list(tier.cpus)) for tier in tiers(snapshot.cpus)],
        "cards": cards,
        **open_places(snapshot.devices),
        "policies": [
            dict(plain(policy), cpus=format_list(policy.cpus), affected=format_list(policy.affected))
            for policy in snapshot.policies
        ],
        "irqbalance": plain(snapshot.irqbalance),
        "kept": sorted(snapshot.wishes),
        "findings": [finding(one) for one in found],
    }
