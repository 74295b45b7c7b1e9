# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the AXCL driver, its package and the cards' own answers mean: versions, modules, nodes, memory, heat. Pure.

Nothing here speaks of what was not seen: where axcl-smi was not asked, or gave no answer for somebody else's reason
(another call was under way, no permission), its findings are silent.
"""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Sequence

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import vectors
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import CRITICAL, INFO, WARNING, Finding
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl import (
    LAST_MODULE,
    PCI_DRIVER,
    Card,
    Table,
    compare,
    placed,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.axcl_host import AxclHost, is_loading
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.driver import MODULES, SANDBOX, SANDBOX_TEXT
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import Interrupt
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.kernels import Kernel
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.packages import Package, number_of, sdk_version
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import PciDevice

ROLE = "axcl_driver"
# The card resets itself at 120 C of its junction; 29 to 81 C have been seen in healthy hosts, idle and at work.
HOT_C, TOO_HOT_C = 95, 110
# An idle card uses 18 MiB. Of 7040 MiB the last twentieth is 352: less than the smallest language model that is
# published for the card takes, so that the next program to start fails, and does so with an error that names no memory.
FULL_SHARE = 0.95
IDLE_MIB, LEAK_MIB = 18, 64  # what more than LEAK_MIB is beyond idle nobody uses for bookkeeping
_PEER_MODULE = "ax_pcie_p2p_rc"  # copies from card to card; one card does without
_NO_ANSWER = ("timed_out", "dead_card", "no_card")
_BROKEN = ("half-installed", "unpacked", "half-configured")
_PLACEHOLDER = 'GROUP="<'
_RECOVER = (
    "Stop what uses the card, then reboot the card (`axcl-smi reboot`) or reload the driver; if that does not help, "
    "switch the host's power off and on: a reboot leaves the card powered."
)


def working_cards(table: Optional[Table]) -> FrozenSet[str]:
    """Return the addresses of the cards that have told their firmware: they live."""
    rows = table.cards if table is not None else ()
    return frozenset(card.bdf for card in rows if card.bdf is not None and card.firmware is not None)


def driver_sdk(axcl: AxclHost, kernels: Sequence[Kernel]) -> Optional[str]:
    """Return the version of the driver in force, by what tells best: its modules, our record, its package."""
    built = [module.sdk for kernel in kernels if kernel.running for module in kernel.modules]
    packaged = [sdk_version("", package.version) for package in axcl.packages if package.sound]
    return next((version for version in (*built, axcl.record.sdk, *packaged) if version is not None), None)


def _versions(axcl: AxclHost, kernels: Sequence[Kernel], table: Optional[Table]) -> Optional[Finding]:
    """Tool, firmware, modules and package come from one package, or somebody has mixed two.

    Packages are known whose own tool calls itself by an older third number, so that alone is no more than a note.
    """
    told: Dict[str, str] = {}
    if table is not None and table.version is not None:
        told["axcl-smi"] = table.version.release
        told.update(("firmware of %s" % card.bdf, card.firmware) for card in table.cards if card.firmware is not None)
    for kernel in kernels:
        if kernel.running:
            told.update((module.path, module.sdk) for module in kernel.modules if module.sdk is not None)
    for package in axcl.packages:
        sdk = axcl.record.sdk if package.name in _recorded(axcl) else sdk_version("", package.version)
        if package.sound and sdk is not None:
            told["package %s" % package.name] = sdk
    numbers = {number_of(version) for version in told.values()}
    if len(numbers) < 2:
        return None
    grave = len({number[:2] for number in numbers if number is not None}) > 1
    return Finding(
        "driver_versions_differ",
        WARNING if grave else INFO,
        "parts of the card's driver are of different versions: %s"
        % ", ".join(
            sorted({version.lstrip("V") for version in told.values()}, key=lambda version: number_of(version) or ())
        ),
        dict(told),
        "Take the driver away and install one package whole (role axcl_driver); loading it renews the firmware."
        if grave
        else "Some packages are put together like this. If the card gives trouble, install another version whole.",
        ROLE if grave else None,
    )


def _recorded(axcl: AxclHost) -> List[str]:
    """Return the packages that the role has installed: a driver may come in several."""
    return (axcl.record.package or "").split()


def _package(package: Package, axcl: AxclHost) -> Optional[Finding]:
    evidence = {"/var/lib/dpkg/status": "%s: %s %s %s" % (package.name, package.want, package.flag, package.state)}
    if package.state in _BROKEN or (package.flag != "ok" and package.present):
        return Finding(
            "driver_package_broken",
            WARNING,
            "package %s is %s%s" % (package.name, package.state, "" if package.flag == "ok" else ", " + package.flag),
            evidence,
            "See /var/log/axclhost-install.log for why (headers, compiler); then run the role axcl_driver.",
            ROLE,
        )
    # Whoever has installed it with the role and without a hold has wished for that.
    unheld_by_wish = package.name in _recorded(axcl) and not axcl.record.held
    if package.sound and package.want != "hold" and not unheld_by_wish:
        return Finding(
            "driver_not_held",
            INFO,
            "package %s is not held: an upgrade of the system may replace the driver while the card is in use"
            % package.name,
            evidence,
            "Run `apt-mark hold %s`, or the role axcl_driver; upgrade by the role, which takes the old one away first."
            % package.name,
            ROLE,
        )
    return None


def _left_behind(axcl: AxclHost) -> List[Optional[Finding]]:
    """What packages leave that others than the card's users suffer from."""
    found: List[Optional[Finding]] = []
    if axcl.sandbox is not None and SANDBOX_TEXT in axcl.sandbox.splitlines():
        found.append(
            Finding(
                "apt_sandbox_off",
                WARNING,
                "apt downloads and unpacks as root: the driver's package has switched its sandbox off, for good",
                {SANDBOX: SANDBOX_TEXT},
                "Remove that line, or run the role axcl_driver: it gives apt its sandbox back.",
                ROLE,
            )
        )
    wide = {node.path: node.mode for node in axcl.driver.nodes if int(node.mode, 8) & 0o002}
    if wide:
        found.append(
            Finding(
                "device_nodes_open",
                WARNING,
                "everybody on this host may use the card, and memory that it reaches: %s" % ", ".join(wide),
                dict(wide),
                "Run the role axcl_driver: it gives the nodes to one group (axcl_driver_group).",
                ROLE,
            )
        )
    for rule in axcl.rules:
        line = next((line for line in rule.text.splitlines() if _PLACEHOLDER in line and line[:1] != "#"), None)
        if line is not None:
            found.append(
                Finding(
                    "udev_group_missing",
                    WARNING,
                    "%s gives the card's nodes to a group that nobody filled in, so that udev leaves them to root"
                    % rule.path,
                    {rule.path: line.strip()},
                    "Write a group's name there, or run the role axcl_driver (axcl_driver_group).",
                    ROLE,
                )
            )
    return found


def _modules(axcl: AxclHost, kernels: Sequence[Kernel], cards: Sequence[PciDevice]) -> List[Finding]:
    """What is loaded, and what could be, for the kernel that runs."""
    loaded = {module.name for module in axcl.driver.modules}
    running = next((kernel for kernel in kernels if kernel.running), None)
    built = () if running is None else running.modules
    found = []
    if axcl.stale:
        found.append(
            Finding(
                "driver_stale",
                WARNING,
                "the loaded driver is not the installed one: %s" % ", ".join(axcl.stale),
                {"/sys/module/%s/srcversion" % name: "not that of the installed file" for name in axcl.stale},
                "Stop what uses the card, then reload the driver in order (role axcl_driver), or reboot.",
                ROLE,
            )
        )
    foreign = {
        module.path: module.vermagic
        for module in built
        if running is not None and module.vermagic is not None and module.vermagic.split(" ")[0] != running.release
    }
    unbound = [card for card in cards if card.driver is None]
    if foreign:
        found.append(
            Finding(
                "driver_of_other_kernel",
                WARNING,
                "modules of the driver are not built for the running kernel %s, which will not load them"
                % (running.release if running is not None else "?"),
                dict(foreign),
                "Build them for it: `dkms autoinstall`, or the role axcl_driver.",
                ROLE,
            )
        )
    others = [kernel.release for kernel in kernels if not kernel.running and kernel.modules]
    if unbound and running is not None and not built and others and not loaded:
        found.append(
            Finding(
                "driver_not_for_this_kernel",
                WARNING,
                "the running kernel %s has no driver for the card; kernel %s has" % (running.release, others[-1]),
                {"/lib/modules/%s" % running.release: [], "/lib/modules/%s" % others[-1]: "driver built"},
                "Install this kernel's headers, then `dkms autoinstall` or the role axcl_driver.",
                ROLE,
            )
        )
    # Other modules may have these names. Where the set is, or has begun to come, all of it belongs here.
    names = {module.name.replace("-", "_") for module in built} | loaded
    missing = [module for module in MODULES if module not in loaded]
    if loaded and missing and LAST_MODULE in names and not is_loading(axcl.driver) and not axcl.stale:
        only_peer = missing == [_PEER_MODULE]
        found.append(
            Finding(
                "driver_incomplete",
                INFO if only_peer and len(cards) < 2 else WARNING,
                "the driver is loaded in part: %s %s missing%s"
                % (
                    ", ".join(missing),
                    "is" if len(missing) == 1 else "are",
                    ", which only copies from card to card" if only_peer else "",
                ),
                {"/proc/modules": sorted(loaded)},
                "Load the rest in order (%s), or run the role axcl_driver." % ", ".join(MODULES),
                ROLE,
            )
        )
    if is_loading(axcl.driver):
        found.append(
            Finding(
                "driver_loading",
                INFO,
                "the driver hands each card its firmware now, which takes up to four minutes a card",
                {"/proc/modules": "%s Loading" % LAST_MODULE},
                "Look again when /dev/axcl_host exists.",
                None,
            )
        )
    return found


def _answers(table: Table, cards: Sequence[PciDevice]) -> List[Finding]:
    """Cards that do not answer their own tool."""
    bdfs = [card.bdf for card in cards if card.driver == PCI_DRIVER and card.alive]
    missing, odd = compare(bdfs, table)
    problems = {one.id: one for one in reversed(table.problems)}
    known = [name for name in _NO_ANSWER if name in problems]
    whole = table.version is not None and all(one.id in _NO_ANSWER or one.id == "axcl_error" for one in table.problems)
    late = "timed_out" in problems
    found = []
    if missing and (late or whole):
        summary = "the driver is bound to %s and gets no answer" % ", ".join(missing)
        if late:
            summary = "axcl-smi gave no answer in its time: %s may be dead" % " or ".join(missing)
        evidence = {"axcl-smi": problems[known[0]].evidence if known else "no row for %s" % ", ".join(missing)}
        found.append(Finding("card_silent", WARNING if late else CRITICAL, summary, evidence, _RECOVER, ROLE))
    found += [Finding(one.id, WARNING, one.summary, {"axcl-smi": one.evidence}, one.remedy, None) for one in odd]
    return found


def _memory(card: Card, table: Table, open_count: Optional[int]) -> Optional[Finding]:
    """The card's own memory: what is left, and what is used with nobody there to use it."""
    used, total = card.cmm_mib
    if used is None or not total:
        return None
    users = [one for one in table.processes if one.card == card.number]
    evidence: Dict[str, Any] = {
        "axcl-smi, CMM of %s" % card.bdf: "%d of %d MiB" % (used, total),
        "axcl-smi, processes": ["%d %s: %d KiB" % (one.pid, one.name, one.npu_memory_kib) for one in users],
    }
    # A program may have the card open and no row yet, or no more.
    if not users and not open_count and used > IDLE_MIB + LEAK_MIB:
        return Finding(
            "card_memory_leaked",
            WARNING,
            "%d MiB of %s's memory are used by nobody: a program that crashed has left them" % (used, card.bdf),
            evidence,
            "Reboot the card (`axcl-smi reboot -d %d`) while nothing uses it; end programs by SIGTERM, not SIGKILL."
            % card.number,
            None,
        )
    if used >= total * FULL_SHARE:
        return Finding(
            "card_memory_full",
            WARNING,
            "%s has %d MiB of memory left of %d: the next model will not fit" % (card.bdf, total - used, total),
            evidence,
            "End programs that are not needed, or take a smaller model or a shorter context.",
            None,
        )
    return None


def _heat(card: Card) -> Optional[Finding]:
    heat = card.temperature_c
    if heat is None or heat < HOT_C:
        return None
    return Finding(
        "card_hot",
        CRITICAL if heat >= TOO_HOT_C else WARNING,
        "%s has %d C; at 120 C it resets itself, and all work on it is lost" % (card.bdf, heat),
        {"axcl-smi, Temp of %s" % card.bdf: "%d C" % heat},
        "See to its fan, heat sink and thermal pad, and to the air in the case.",
        None,
    )


def _beside_interrupt(
    table: Table, axcl: AxclHost, cards: Sequence[PciDevice], interrupts: Mapping[int, Interrupt]
) -> List[Finding]:
    """Programs that are bound to the CPUs that serve their card: all others the scheduler keeps out of the way."""
    allowed = dict(axcl.allowed)
    bdfs = {row.number: row.bdf for row in table.cards}
    found = []
    for process in table.processes:
        card = next((card for card in cards if card.bdf == bdfs.get(process.card)), None)
        lines = [interrupts[irq] for irq in vectors(card) if irq in interrupts] if card is not None else []
        serving = {line.irq: line.effective for line in lines if line.effective}
        mine = allowed.get(process.pid)
        if card is None or not mine or not set(mine) <= {cpu for cpus in serving.values() for cpu in cpus}:
            continue
        evidence: Dict[str, Any] = {"/proc/%d/status, Cpus_allowed_list" % process.pid: format_list(mine)}
        for irq, cpus in serving.items():
            evidence["/proc/irq/%d/effective_affinity_list" % irq] = format_list(cpus)
        found.append(
            Finding(
                "application_beside_interrupt",
                INFO,
                "process %d (%s) may run on CPU %s only, which serves the interrupt of its card %s as well: each "
                "waits for the other" % (process.pid, process.name, format_list(mine), card.bdf),
                evidence,
                "Give the program another of the fast CPUs (taskset, or CPUAffinity= in its unit), or the interrupt "
                "by irq_affinity_cpus.",
                None,
            )
        )
    return found


def driver_findings(
    axcl: AxclHost,
    kernels: Sequence[Kernel],
    cards: Sequence[PciDevice],
    interrupts: Mapping[int, Interrupt],
) -> List[Finding]:
    """Return the findings on the driver of CARDS (those of AXCL) and on what they answer. KERNELS: with its modules.

    INTERRUPTS: the cards', by number.
    """
    found: List[Optional[Finding]] = [_package(package, axcl) for package in axcl.packages]
    found += _left_behind(axcl)
    found += _modules(axcl, kernels, cards)
    table = None if axcl.table is None else placed(axcl.table, [card.bdf for card in cards])
    found.append(_versions(axcl, kernels, table))
    if table is not None:
        found += _answers(table, cards)
        found += _beside_interrupt(table, axcl, cards, interrupts)
        for row in table.cards:
            found += [_memory(row, table, axcl.open_count), _heat(row)]
    return [one for one in found if one is not None]
