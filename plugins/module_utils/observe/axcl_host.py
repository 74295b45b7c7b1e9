# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What surrounds an AXCL card on its host: the driver's package and modules, sleep, IOMMU, and what commands tell."""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import (
    ASK_S,
    LAST_MODULE,
    Driver,
    Event,
    Table,
    ask,
    driver_problem,
    find_tool,
    from_text,
    parse_kernel_log,
    parse_modules,
    parse_open_count,
    read_nodes,
    table_of,
    to_text,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import (
    RECORD,
    SANDBOX,
    UDEV_DIRS,
    FileThere,
    Record,
    is_driver_package,
    parse_record,
    read_effective,
    read_stale,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import parse_allowed
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.kernels import Kernel
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.packages import Package, read_packages
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import DEVICES
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Runner

KERNEL_LOG, AXCL_SMI = "kernel.txt", "axcl-smi.txt"  # names of what they printed
LOG_LIMIT_S = 10.0
# A healthy card answers within about two seconds; a dead one takes the tool 50, for which no diagnosis waits.
ANSWER_S, ANSWER_EACH_S, WAIT_S = 15.0, 5.0, 10
UNITS = ("/etc/systemd/system", "/run/systemd/system")
SLEEP_UNITS = ("sleep", "suspend", "hibernate")


class AxclHost(NamedTuple):
    """One host with an AXCL card. None: not known.

    OPEN_COUNT: how often programs have the driver open. SLEEP_STATES: what the kernel can do of mem, freeze, disk, ...
    MASKED: of `SLEEP_UNITS`. SLEPT: how often the host has slept since boot. IOMMU: (card's address, kind of its
    group: "DMA-FQ", "identity", ...). LOCKDOWN: "none", "integrity", "confidentiality". EVENTS and TABLE: the kernel
    log's and axcl-smi's, where commands could be run and it was right to ask. ALLOWED: (process that uses a card, CPUs
    that it may run on).
    """

    driver: Driver
    open_count: Optional[int]
    packages: Tuple[Package, ...]
    record: Record
    sandbox: Optional[str]
    rules: Tuple[FileThere, ...]
    stale: Tuple[str, ...]
    sleep_states: Tuple[str, ...]
    masked: Tuple[str, ...]
    slept: Optional[int]
    iommu: Tuple[Tuple[str, str], ...]
    lockdown: Optional[str]
    signatures_enforced: Optional[bool]
    events: Tuple[Event, ...] = ()
    table: Optional[Table] = None
    allowed: Tuple[Tuple[int, Tuple[int, ...]], ...] = ()


def parse_lockdown(text: Optional[str]) -> Optional[str]:
    """Return what is in force of "none [integrity] confidentiality"; None for unknown."""
    chosen = [word for word in (text or "").split() if word.startswith("[") and word.endswith("]")]
    return chosen[0][1:-1] if len(chosen) == 1 else None


def _masked(root: Root, unit: str) -> bool:
    return any(root.link_target("%s/%s.target" % (directory, unit)) == "/dev/null" for directory in UNITS)


def _iommu(root: Root, bdfs: Sequence[str]) -> Tuple[Tuple[str, str], ...]:
    groups: Dict[str, Optional[str]] = {bdf: root.link("%s/%s/iommu_group" % (DEVICES, bdf)) for bdf in bdfs}
    kinds = ((bdf, root.text("/sys/kernel/iommu_groups/%s/type" % group)) for bdf, group in groups.items() if group)
    return tuple((bdf, kind) for bdf, kind in kinds if kind)


def read_axcl_host(root: Root, kernels: Sequence[Kernel], bdfs: Sequence[str]) -> AxclHost:
    """Return what files tell of the host of the cards at BDFS. KERNELS: with the modules of the driver."""
    packages = read_packages(root, is_driver_package)
    modules = root.text("/proc/modules") or ""
    enforced = root.text("/sys/module/module/parameters/sig_enforce")
    return AxclHost(
        driver=Driver(parse_modules(modules), read_nodes(root)),
        open_count=parse_open_count(modules),
        packages=tuple(packages[name] for name in sorted(packages)),
        record=parse_record(root.text(RECORD)),
        sandbox=root.text(SANDBOX),
        rules=tuple(read_effective(root, UDEV_DIRS, ".rules", "axcl")),
        stale=read_stale(root, kernels),
        sleep_states=tuple((root.text("/sys/power/state") or "").split()),
        masked=tuple(unit for unit in SLEEP_UNITS if _masked(root, unit)),
        slept=root.number("/sys/power/suspend_stats/success"),
        iommu=_iommu(root, bdfs),
        lockdown=parse_lockdown(root.text("/sys/kernel/security/lockdown")),
        signatures_enforced=None if enforced is None else enforced == "Y",
    )


def read_events(root: Root, runner: Optional[Runner]) -> Tuple[Event, ...]:
    """Return what the kernel log tells; of a bundle, what it told there. What dmesg printed is left in the root."""
    if runner is not None:
        ran = runner(("dmesg",), LOG_LIMIT_S)
        if ran.status == 0:
            root.printed[KERNEL_LOG] = ran.output
    return parse_kernel_log(root.printed.get(KERNEL_LOG, ""))


def read_answer(root: Root, runner: Optional[Runner], driver: Driver, cards: int) -> Optional[Table]:
    """Return what axcl-smi tells of its cards; None where it was not asked. What it printed is left in the root.

    It is asked only when the driver has ended its start, one call at a time on this host, and not for long.
    """
    if runner is not None:
        tool = find_tool(root)
        if tool is None or driver_problem(driver) is not None:
            return None
        limit_s = min(ASK_S, ANSWER_S + ANSWER_EACH_S * cards)
        root.printed[AXCL_SMI] = to_text(ask(runner, tool, (), limit_s, wait_s=WAIT_S))
    text = root.printed.get(AXCL_SMI)
    return None if text is None else table_of(from_text(text))


def read_allowed(root: Root, table: Optional[Table]) -> Tuple[Tuple[int, Tuple[int, ...]], ...]:
    """Return (process, CPUs that it may run on) of the processes in TABLE, as far as they are still there."""
    pids = sorted({process.pid for process in table.processes}) if table is not None else ()
    told = ((pid, parse_allowed(root.text("/proc/%d/status" % pid) or "")) for pid in pids)
    return tuple((pid, cpus) for pid, cpus in told if cpus is not None)


def is_loading(driver: Driver) -> bool:
    """Return True while the driver hands the cards their firmware, which takes minutes."""
    return {module.name: module.state for module in driver.modules}.get(LAST_MODULE) == "Loading"
