# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Interrupts: /proc/interrupts in its many layouts, /proc/irq, /sys/kernel/irq, and the kernel's interrupt threads.

The layouts come from kernel/irq/proc.c (show_interrupts) and the architectures' own lines below them. The columns of
/proc/interrupts are the online CPUs; the values of per_cpu_count are the possible ones.
"""

from __future__ import annotations

import re
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import parse_list, parse_mask
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

FEW = 16  # up to so many interrupts, single files in /sys/kernel/irq are cheaper than the whole of /proc/interrupts
MAX_DESCRIPTION = 4096  # characters; bounds what a corrupt line may cost
SYSFS_PAGE = 4096  # a sysfs file ends there, wherever that cuts its text
DEFAULT_AFFINITY = "/proc/irq/default_smp_affinity"
PF_KTHREAD = 0x00200000
POLICIES = {0: "other", 1: "fifo", 2: "rr", 3: "batch", 5: "idle", 6: "deadline", 7: "ext"}

_HEADER = re.compile(r"\s*CPU[0-9]+(?:\s+CPU[0-9]+)*\s*")
_COUNTS = re.compile(r"\s*((?:[0-9]+(?:\s+|$))*)")
_CPU_NAME = re.compile(r"CPU([0-9]{1,6})")
_BDF = re.compile(r"(?<![0-9a-fA-F:.])([0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7])(?![0-9a-fA-F])")
# After the counts, most telling layout first. A chip's name may have blanks and digits in it. Compiled on first use:
# the agent's fast path needs none of them.
_DESCRIPTIONS = (
    # GICv3  30 Level     arch_timer (with a flow handler's name, if any, after a dash)
    r"(?P<chip>.*?)\s+(?P<hwirq>[0-9]+)\s+(?P<trigger>Level|Edge)(?:\s+-\S+)?(?:\s+(?P<actions>.*))?",
    # IR-PCI-MSI-0000:03:00.0    0-edge      0000:03:00.0
    r"(?P<chip>.*?)\s+(?P<hwirq>[0-9]+)-(?P<trigger>\S+)(?:\s+(?P<actions>.*))?",
    # xen-dyn    -event     xenbus (no domain, hence no number)
    r"(?P<chip>.*?)\s+-(?P<trigger>[a-z]\S*)(?:\s+(?P<actions>.*))?(?P<hwirq>)",
    # IO-APIC-edge      timer (before 3.19)
    r"(?P<chip>\S+?)-(?P<trigger>edge|level|fasteoi)(?:\s+(?P<actions>.*))?(?P<hwirq>)",
    # None    Level     something
    r"(?P<chip>.*?)\s+(?P<trigger>Level|Edge)(?:\s+-\S+)?(?:\s+(?P<actions>.*))?(?P<hwirq>)",
    # MIPS   7  timer
    r"(?P<chip>.*?)\s+(?P<hwirq>[0-9]+)(?:\s+(?P<actions>.*))?(?P<trigger>)",
    # chip alone, or chip and action
    r"(?P<chip>\S+)(?:\s+(?P<actions>.*))?(?P<hwirq>)(?P<trigger>)",
)


class InterruptLine(NamedTuple):
    """One numbered line of /proc/interrupts. ``trigger`` is lower case: "edge", "level", or x86's "fasteoi"."""

    irq: int
    counts: tuple[int, ...]  # one per column; see counts_by_cpu for the CPUs
    chip: str | None
    hwirq: int | None
    trigger: str | None
    actions: tuple[str, ...]


class ProcInterrupts(NamedTuple):
    """/proc/interrupts. ``per_cpu`` holds the named lines (IPI0, NMI, ...), ERR and MIS with their one number."""

    cpus: tuple[int, ...] | None  # from the header; None if there is none
    lines: dict[int, InterruptLine]
    per_cpu: dict[str, tuple[int, ...]]
    unparsed: tuple[str, ...]


class Interrupt(NamedTuple):
    """One interrupt, from /proc/irq, /sys/kernel/irq and /proc/interrupts."""

    irq: int
    chip: str | None
    hwirq: str | None
    trigger: str | None
    actions: tuple[str, ...]
    affinity: tuple[int, ...] | None  # what was asked for; None not known
    effective: tuple[int, ...] | None  # what the hardware does; () where the kernel prints it empty
    counts: dict[int, int]  # since boot, by CPU; {} not known or not asked for
    has_proc_irq: bool  # False: nothing can be set yet, no driver has requested it
    settable: bool | None = None  # since 6.12 the kernel tells beforehand if it can never be moved; None not known


class Thread(NamedTuple):
    """A threaded handler's kernel thread."""

    pid: int
    name: str  # whole since kernel 5.17, cut at 15 characters before
    allowed: tuple[int, ...] | None
    policy: str | None  # "fifo", "other", ...
    priority: int | None = None  # real-time priority, 0 for none


class MsiSource(NamedTuple):
    """The PCI function and the message number behind an MSI."""

    bdf: str
    entry: int


def _numbers(words: Sequence[str]) -> Optional[Tuple[int, ...]]:
    joined = "".join(words)
    if not (joined.isascii() and joined.isdecimal()):
        return None
    try:
        return tuple(map(int, words))
    except ValueError:  # thousands of digits
        return None


def _leading_numbers(text: str) -> Tuple[Tuple[int, ...], str]:
    """Return the counts at the start of TEXT, and what follows them."""
    match = _COUNTS.match(text)
    counts = _numbers(match.group(1).split()) if match else None
    return (counts, text[match.end() :]) if match and counts else ((), text)


def _columns(body: str, columns: int) -> Tuple[Tuple[int, ...], str]:
    # The short way is taken for all but a few lines: one split, one conversion.
    if columns:
        words = body.split(None, columns)
        counts = _numbers(words[:columns]) if len(words) >= columns else None
        if counts is not None:
            rest = words[columns] if len(words) > columns else ""
            if not rest[:1].isdecimal():
                return counts, rest
    return _leading_numbers(body)


def parse_description(text: str) -> Tuple[Optional[str], Optional[int], Optional[str], Tuple[str, ...]]:
    """Return (chip, hwirq, trigger, actions) from what follows the counts of a numbered line."""
    text = text.strip()[:MAX_DESCRIPTION]
    for layout in _DESCRIPTIONS:
        match = re.fullmatch(layout, text)
        if match is None:
            continue
        hwirq, actions = match.group("hwirq"), match.group("actions")
        number = _numbers((hwirq,)) if hwirq else None
        return (
            match.group("chip").strip() or None,
            number[0] if number else None,
            (match.group("trigger") or "").lower() or None,
            tuple(action.strip() for action in (actions or "").split(", ") if action.strip()),
        )
    return None, None, None, ()


def parse_proc_interrupts(text: str) -> ProcInterrupts:
    """Parse /proc/interrupts or a part of it; lines that cannot be one are listed in ``unparsed``."""
    cpus: Optional[Tuple[int, ...]] = None
    lines: Dict[int, InterruptLine] = {}
    per_cpu: Dict[str, Tuple[int, ...]] = {}
    unparsed: List[str] = []
    for line in text.splitlines():
        if not line.strip("\0 \t"):
            continue
        if cpus is None and _HEADER.fullmatch(line):
            cpus = tuple(int(number) for number in _CPU_NAME.findall(line))
            continue
        label, colon, body = line.partition(":")
        label = label.strip()
        if not colon or not label or len(label.split()) > 1:
            unparsed.append(line)
            continue
        counts, rest = _columns(body, len(cpus) if cpus else 0)
        number = _numbers((label,))
        if number is not None and counts:
            lines[number[0]] = InterruptLine(number[0], counts, *parse_description(rest))
        elif number is None and counts and label.isalnum():
            per_cpu[label] = counts
        else:
            unparsed.append(line)
    return ProcInterrupts(cpus, lines, per_cpu, tuple(unparsed))


def _column_cpus(cpus: Optional[Sequence[int]], columns: int) -> Optional[Sequence[int]]:
    if cpus is None:
        return range(columns)
    if len(cpus) == columns:
        return cpus
    if len(cpus) < columns and tuple(cpus) == tuple(range(len(cpus))):
        return range(columns)
    return None


def counts_by_cpu(interrupts: ProcInterrupts, irq: int) -> dict[int, int]:
    """Return the counts of one interrupt by CPU number; {} if the interrupt or its columns' CPUs are not known.

    Without a header the columns are taken for CPU 0, 1, 2, ..., as is the rest of a header that was cut. A line with
    another number of columns than the header was printed while a CPU came or went: which one cannot be told.
    """
    line = interrupts.lines.get(irq)
    if line is None:
        return {}
    cpus = _column_cpus(interrupts.cpus, len(line.counts))
    return {} if cpus is None else dict(zip(cpus, line.counts))


def delta(before: ProcInterrupts, after: ProcInterrupts) -> dict[int, dict[int, int]]:
    """Return the new counts by interrupt and CPU.

    Of a CPU that is in one of the two only nothing can be said (its counts outlive its being offline): it is left out.
    An interrupt that is only in AFTER was set up in between, and so was one whose count fell: theirs are all new.
    Counters have 32 bits; one that wrapped is told from one that started again by the size of its fall.
    """
    found: Dict[int, Dict[int, int]] = {}
    for irq in after.lines:
        new = counts_by_cpu(after, irq)
        if irq in before.lines:
            old = counts_by_cpu(before, irq)
            new = {cpu: _grown(old[cpu], count) for cpu, count in new.items() if cpu in old}
        found[irq] = new
    return found


def _grown(old: int, new: int) -> int:
    if new >= old:
        return new - old
    if old >= 1 << 31 and old - new >= 1 << 31:  # counters are 32 bits wide
        return new - old + (1 << 32)
    return new


def decode_hwirq(hwirq: int) -> Optional[MsiSource]:
    """Return what a global MSI domain's hardware number encodes (drivers/pci/msi, pci_msi_domain_calc_hwirq)."""
    if not 0 <= hwirq < 1 << 59:
        return None
    bdf = "%04x:%02x:%02x.%d" % (hwirq >> 27, hwirq >> 19 & 0xFF, hwirq >> 14 & 0x1F, hwirq >> 11 & 7)
    return MsiSource(bdf, hwirq & 0x7FF)


def bdf_of_hwirq(hwirq: int) -> Optional[str]:
    """Return the BDF in a global MSI domain's hardware number."""
    source = decode_hwirq(hwirq)
    return source.bdf if source else None


def msi_source(chip: Optional[str], hwirq: Optional[int]) -> Optional[MsiSource]:
    """Return where a PCI MSI comes from, by its chip's name and hardware number; None if it is no PCI MSI.

    Since 6.2 (x86) and 6.11 (arm64) the chip's name holds the BDF and the number is the entry; before, the number
    encodes both. MSIs of platform devices, of the IOMMU and of the HPET are not PCI ones.
    """
    if chip is None or hwirq is None:
        return None
    named = _BDF.search(chip)
    if named:
        return MsiSource(named.group(1).lower(), hwirq)
    upper = chip.upper()
    if upper in ("ITS-MSI", "VMD-MSI") or ("PCI" in upper and upper.endswith(("MSI", "MSI-X", "MSIX"))):
        return decode_hwirq(hwirq)
    return None


def bdf_of_line(line: InterruptLine) -> Optional[str]:
    """Return the BDF a line belongs to: from the chip, its number, or else an action's name; None if none tells."""
    source = msi_source(line.chip, line.hwirq)
    if source:
        return source.bdf
    for action in line.actions:
        named = _BDF.search(action)
        if named:
            return named.group(1).lower()
    return None


def parse_per_cpu_count(text: str, possible: Optional[Sequence[int]]) -> Optional[Dict[int, int]]:
    """Return the counts of /sys/kernel/irq/N/per_cpu_count by CPU; None if it was cut or fits no list of CPUs."""
    if len(text) >= SYSFS_PAGE - 1:
        return None
    counts = _numbers(text.strip().split(","))
    if counts is None:
        return None
    cpus = range(len(counts)) if possible is None else possible
    return dict(zip(cpus, counts)) if len(cpus) == len(counts) else None


def _listed(root: Root, path: str) -> Optional[Tuple[int, ...]]:
    text = root.text(path)
    return None if text is None else parse_list(text)


def _all_irqs(root: Root) -> List[int]:
    names = set(root.names("/proc/irq"))
    for device in root.names("/sys/bus/pci/devices"):
        names.update(root.names("/sys/bus/pci/devices/%s/msi_irqs" % device))
    return sorted(int(name) for name in names if name.isdecimal())


def read_proc_interrupts(root: Root) -> Optional[ProcInterrupts]:
    """Return /proc/interrupts parsed, None if it cannot be read."""
    raw = root.data("/proc/interrupts")
    return None if raw is None else parse_proc_interrupts(raw.decode("utf-8", "replace"))


def read_interrupts(root: Root, irqs: Optional[Iterable[int]] = None, counts: bool = True) -> dict[int, Interrupt]:
    """Return the interrupts by number: all those with a directory in /proc/irq or an entry in a msi_irqs, or IRQS.

    One asked for that exists nowhere is left out. With COUNTS false no counts are read.
    """
    numbers = _all_irqs(root) if irqs is None else sorted(set(irqs))
    possible = _listed(root, "/sys/devices/system/cpu/possible") if counts else None
    few = irqs is not None and len(numbers) <= FEW
    whole = None if few else read_proc_interrupts(root)
    tried = not few
    found: Dict[int, Interrupt] = {}
    for irq in numbers:
        kernel, proc = "/sys/kernel/irq/%d/" % irq, "/proc/irq/%d" % irq
        chip = hwirq = trigger = None
        actions: Tuple[str, ...] = ()
        counted: Optional[Dict[int, int]] = None
        in_kernel = False
        if few or whole is None or irq not in whole.lines:
            chip = root.text(kernel + "chip_name") or None
            in_kernel = chip is not None or root.exists(kernel)
            if in_kernel:
                hwirq = root.text(kernel + "hwirq") or None
                trigger = root.text(kernel + "type") or None
                actions = tuple(name for name in (root.text(kernel + "actions") or "").split(",") if name)
                text = root.text(kernel + "per_cpu_count") if counts else None
                counted = parse_per_cpu_count(text, possible) if text is not None else None
        if not tried and (not in_kernel or (counts and counted is None)):
            whole, tried = read_proc_interrupts(root), True  # before 4.9, or too many CPUs for one page
        line = whole.lines.get(irq) if whole else None
        if line is not None and whole is not None:
            chip = chip or line.chip
            hwirq = hwirq if hwirq is not None else None if line.hwirq is None else str(line.hwirq)
            trigger = trigger or line.trigger
            actions = actions or line.actions
            if counts and counted is None:
                counted = counts_by_cpu(whole, irq)
        has_proc_irq = root.exists(proc)
        if not (has_proc_irq or in_kernel or line is not None or irqs is None):
            continue
        found[irq] = Interrupt(
            irq=irq,
            chip=chip,
            hwirq=hwirq,
            trigger=trigger,
            actions=actions,
            affinity=_affinity(root, proc + "/smp_affinity"),
            effective=_affinity(root, proc + "/effective_affinity"),
            counts=counted or {},
            has_proc_irq=has_proc_irq,
            settable=_settable(root, proc),
        )
    return found


def _settable(root: Root, proc: str) -> Optional[bool]:
    """Return whether the kernel shows an interrupt as one that can be moved (register_irq_proc, since 6.12).

    The default affinity, which can always be written, tells that a captured tree has kept the modes.
    """
    mode, writable = root.mode(proc + "/smp_affinity_list"), root.mode(DEFAULT_AFFINITY)
    return None if mode is None or writable is None or not writable & 0o200 else bool(mode & 0o200)


def _affinity(root: Root, path: str) -> Optional[Tuple[int, ...]]:
    listed = _listed(root, path + "_list")
    if listed is None:
        mask = root.text(path)
        listed = parse_mask(mask) if mask is not None else None
    return listed


def default_affinity(root: Root) -> Optional[Tuple[int, ...]]:
    """Return the CPUs that interrupts activated from now on may use."""
    text = root.text(DEFAULT_AFFINITY)
    return None if text is None else parse_mask(text)


def parse_stat(text: str) -> Optional[Tuple[str, int, int, int]]:
    """Return (comm, flags, real-time priority, policy) of a /proc/PID/stat (fields 2, 9, 40, 41 of proc(5))."""
    head, bracket, tail = text.rpartition(")")
    fields = tail.split()
    if not bracket or len(fields) < 39:
        return None
    numbers = [fields[at] for at in (6, 37, 38)]
    values = _numbers(numbers)
    return None if values is None else (head.partition("(")[2], values[0], values[1], values[2])


def read_thread(root: Root, irq: int) -> Optional[Thread]:
    """Return the kernel thread that handles IRQ; None if its handler is not threaded (or /proc does not tell)."""
    prefix = "irq/%d-" % irq
    found: List[Thread] = []
    for name in root.names("/proc"):
        if not name.isdecimal():
            continue
        comm = root.text("/proc/%s/comm" % name)
        if comm is None or not comm.startswith(prefix):
            continue
        stat = parse_stat(root.text("/proc/%s/stat" % name) or "")
        if stat is not None and not stat[1] & PF_KTHREAD:
            continue  # a program may give itself such a name
        allowed = None
        for line in (root.text("/proc/%s/status" % name) or "").splitlines():
            if line.startswith("Cpus_allowed_list:"):
                allowed = parse_list(line.partition(":")[2])
        policy, priority = (POLICIES.get(stat[3]), stat[2]) if stat is not None else (None, None)
        found.append(Thread(int(name), comm, allowed, policy, priority))
    # "irq/N-s-name" is the second thread of a handler that was threaded by force
    return min(found, key=lambda thread: (thread.name.startswith(prefix + "s-"), thread.pid)) if found else None
