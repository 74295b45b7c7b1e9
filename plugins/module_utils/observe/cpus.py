# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CPUs and their tiers: which ones are fast, by the kernel's own measures, never by name or part number."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import parse_blank_list, parse_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

CPUS = "/sys/devices/system/cpu"
NODES = "/sys/devices/system/node"
# Kinds of core of a hybrid x86 CPU, slowest first: the PMUs that the kernel names after them list their CPUs
CORE_KINDS = ("cpu_lowpower", "cpu_atom", "cpu_core")
ISOLATED_PARTITIONS = "/sys/fs/cgroup/cpuset.cpus.isolated"  # since 6.7, of all cpuset partitions
NO_CLUSTER = (-1, 65535)  # what topology/cluster_id holds where firmware tells of none
# Clusters of one kind differ a little (2304 and 2352 MHz in one SoC; favoured cores of a PC). Neighbours in the sorted
# list belong together up to this step, so that a PC's gently falling ranking of equal cores stays one tier.
TOLERANCE_PERCENT = 10


class Cpu(NamedTuple):
    """One present CPU. Of an offline one sysfs keeps little: what it does not tell is None."""

    number: int
    online: bool
    capacity: int | None  # cpu_capacity, 1024 for the fastest; arm64 and riscv only
    highest_perf: int | None  # ACPI CPPC, no unit
    max_freq_khz: int | None
    package: int | None
    cluster: int | None
    numa_node: int | None
    siblings: tuple[int, ...]  # hardware threads of its core, itself included; () if not known
    isolated: bool  # by boot parameter or cpuset partition
    nohz_full: bool
    policy_cpus: tuple[int, ...] = ()  # CPUs that share its clock, offline ones included; () if not known
    core_kind: int | None = None  # place in CORE_KINDS, counted from 1

    @property
    def quiet(self) -> bool:
        """True if somebody keeps it free of other work: nothing is put there unasked."""
        return self.isolated or self.nohz_full


class Tier(NamedTuple):
    """CPUs of about the same speed; ``value`` is the highest in the tier, in the unit of ``basis``."""

    cpus: tuple[int, ...]
    basis: str  # "capacity", "cppc highest_perf", "core kind", "maximum frequency", "single"
    value: int | None


def _listed(root: Root, path: str) -> Optional[Tuple[int, ...]]:
    text = root.text(path)
    # nohz_full reads "(null)" where the kernel can have it and does not use it
    return None if text is None else parse_list(text)


def read_policy_cpus(root: Root) -> Dict[str, Tuple[int, ...]]:
    """Return the CPUs that share a clock, by the policy's name; a policy whose CPUs are all offline does not tell."""
    found = {}
    for name in root.names(CPUS + "/cpufreq"):
        if not name.startswith("policy") or not name[6:].isdecimal():
            continue
        text = root.text("%s/cpufreq/%s/related_cpus" % (CPUS, name))
        cpus = parse_blank_list(text) if text is not None else None
        if cpus:
            found[name] = cpus
    return found


def _numa_nodes(root: Root) -> Dict[int, int]:
    found = {}
    for name in root.names(NODES):
        if name.startswith("node") and name[4:].isdecimal():
            for cpu in _listed(root, "%s/%s/cpulist" % (NODES, name)) or ():
                found[cpu] = int(name[4:])
    return found


def read_cpus(root: Root) -> tuple[Cpu, ...]:
    """Return all present CPUs in numeric order, offline ones included."""
    present = _listed(root, CPUS + "/present")
    if present is None:
        names = root.names(CPUS)
        present = tuple(sorted(int(name[3:]) for name in names if name[:3] == "cpu" and name[3:].isdecimal()))
    online = _listed(root, CPUS + "/online")
    isolated = (_listed(root, CPUS + "/isolated") or ()) + (_listed(root, ISOLATED_PARTITIONS) or ())
    nohz_full = _listed(root, CPUS + "/nohz_full") or ()
    nodes = _numa_nodes(root)
    kinds: Dict[int, int] = {}
    for kind, name in enumerate(CORE_KINDS, 1):
        kinds.update((cpu, kind) for cpu in _listed(root, "/sys/devices/%s/cpus" % name) or ())
    clocks: Dict[int, Tuple[Tuple[int, ...], Optional[int]]] = {}
    for name, members in read_policy_cpus(root).items():
        highest = root.number("%s/cpufreq/%s/cpuinfo_max_freq" % (CPUS, name))
        clocks.update((cpu, (members, highest)) for cpu in members)

    cpus = []
    for number in present:
        path = "%s/cpu%d" % (CPUS, number)
        cluster = root.number(path + "/topology/cluster_id")
        siblings = _listed(root, path + "/topology/thread_siblings_list")
        members, highest = clocks.get(number, ((), None))
        cpus.append(
            Cpu(
                number=number,
                online=number in online if online is not None else root.number(path + "/online") != 0,
                capacity=root.number(path + "/cpu_capacity"),
                highest_perf=root.number(path + "/acpi_cppc/highest_perf"),
                max_freq_khz=highest,
                package=root.number(path + "/topology/physical_package_id"),
                cluster=None if cluster in NO_CLUSTER else cluster,
                numa_node=nodes.get(number),
                siblings=siblings or (),
                isolated=number in isolated,
                nohz_full=number in nohz_full,
                policy_cpus=members,
                core_kind=kinds.get(number),
            )
        )
    return tuple(cpus)


def _measured(cpus: Sequence[Cpu], values: Dict[int, Optional[int]]) -> Optional[Dict[int, int]]:
    """Return a value per CPU, an offline CPU's taken from one that shares its clock; None if an online one has none."""
    known = {number: value for number, value in values.items() if value is not None and value > 0}
    found = dict(known)
    for cpu in cpus:
        if cpu.number in known:
            continue
        shared = [known[other] for other in cpu.policy_cpus if other in known]
        if shared:
            found[cpu.number] = max(shared)
        elif cpu.online:
            return None
    return found


def _grouped(values: Dict[int, int]) -> List[List[int]]:
    groups: List[List[int]] = []
    last = 0
    for number in sorted(values, key=lambda cpu: (values[cpu], cpu)):
        if not groups or values[number] * 100 > last * (100 + TOLERANCE_PERCENT):
            groups.append([])
        groups[-1].append(number)
        last = values[number]
    return groups


def tiers(cpus: Sequence[Cpu]) -> tuple[Tier, ...]:
    """Return the tiers, slowest first.

    The first measure that all online CPUs have and that tells them apart counts: capacity, then CPPC, then the kind of
    core that x86 names, then the maximum frequency. (A device tree without capacities yields 1024 for every CPU.) An
    offline CPU of which nothing is known is in no tier, except where nothing is known of any CPU.
    """
    measures: List[Tuple[str, Dict[int, Optional[int]]]] = [
        ("capacity", {cpu.number: cpu.capacity for cpu in cpus}),
        ("cppc highest_perf", {cpu.number: cpu.highest_perf for cpu in cpus}),
        ("core kind", {cpu.number: cpu.core_kind for cpu in cpus}),
        ("maximum frequency", {cpu.number: cpu.max_freq_khz for cpu in cpus}),
    ]
    alike: Optional[Dict[int, int]] = None
    for basis, values in measures:
        found = _measured(cpus, values)
        if not found:
            continue
        groups = _grouped(found)
        if len(groups) > 1:
            return tuple(Tier(tuple(sorted(group)), basis, max(found[cpu] for cpu in group)) for group in groups)
        if alike is None:
            alike = found
    if alike is not None:
        return (Tier(tuple(sorted(alike)), "single", max(alike.values())),)
    return (Tier(tuple(sorted(cpu.number for cpu in cpus)), "single", None),) if cpus else ()


def cores(cpus: Sequence[Cpu]) -> Dict[int, int]:
    """Return the first hardware thread of each CPU's core, by CPU.

    sysfs lists online threads only. Of an offline CPU, and of one left alone by it, the partner is where the cores
    that are whole have theirs, so that a CPU's going changes nothing for the others.
    """
    first = {cpu.number: min(cpu.siblings, default=cpu.number) for cpu in cpus}
    steps = {cpu.siblings[1] - cpu.siblings[0] for cpu in cpus if len(cpu.siblings) == 2}
    alone = {cpu.number for cpu in cpus if cpu.online and cpu.siblings == (cpu.number,)}
    for cpu in cpus:
        if cpu.online or cpu.siblings or len(steps) != 1:
            continue
        step = min(steps)
        if cpu.number - step in alone:
            first[cpu.number] = cpu.number - step
        elif cpu.number + step in alone:
            first[cpu.number + step] = cpu.number
    return first
