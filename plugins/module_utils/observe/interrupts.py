# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Interrupts: /proc/interrupts in its many layouts, /proc/irq, /sys/kernel/irq, and the kernel's interrupt threads.

The layouts come from kernel/irq/proc.c (show_interrupts) and the architectures' own lines below them. The columns of
/proc/interrupts are the online CPUs; the values of per_cpu_count are the possible ones.
"""

from __future__ import annotations

import re
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import parse_list, parse_mask
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root

FEW = 16  # up to so many interrupts, single files in /sys/kernel/irq are cheaper than the whole of /proc/interrupts
MAX_DESCRIPTION = 4096  # characters; bounds what a corrupt line may cost
SYSFS_PAGE = 4096  # a sysfs file ends there, wherever that cuts its text
DEFAULT_AFFINITY = "/proc/irq/default_smp_affinity"
PF_KTHREAD = 0x00200000
POLICIES = {0: "other", 1: "fifo", 2: "rr", 3: "batch", 5: "idle", 6: "deadline", 7: "ext"}

_HEADER = re.compile(r"\s*CPU[0-9]{1,6}(?:\s+CPU[0-9]{1,6})*\s*")
_HEADER_PIECE = re.compile(r"[CPU0-9\s]+")  # wrapped within a word
_COUNTS = re.compile(r"\s*((?:[0-9]+(?:\s+|$))*)")
_CPU_NAME = re.compile(r"CPU([0-9]+)")
_NAMED = re.compile(r"[A-Za-z][A-Za-z0-9/_.+-]{0,15}")  # NMI, IPI0, Err; I/O on s390
_COUNTED_ONCE = ("ERR", "MIS", "BAD")  # the last on PowerPC
# Neither inside of a longer number nor of a row of bytes, but "mlx5_async0@pci:5ee1:00:02.0" has one.
_BDF = re.compile(
    r"(?<![0-9a-fA-F.])(?<![0-9a-fA-F]:)([0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7])(?![0-9a-fA-F])"
)
# Chips whose number encodes the PCI function though their names lack "PCI": ITS, GICv2m and MBI, MIP (BCM2712)
_PCI_CHIPS = ("ITS-MSI", "MSI", "MIP-MSI")
_BLANKS = "\0 \t\r"
# After the counts, most telling layout first. A chip's name may have blanks and digits in it (and is bounded, or a
# damaged line could cost the square of its length). Compiled on first use: the agent's fast path needs none of them.
_REST = r"(?:\s+(?P<actions>.*))?"
_DESCRIPTIONS = (
    # IR-PCI-MSI-0000:03:00.0    0-edge      0000:03:00.0, or
    # GICv3  30 Level     arch_timer (with a flow handler's name, if any, after a dash)
    r"(?P<chip>.{0,80}?)\s+(?P<hwirq>[0-9]+)(?:-(?P<flow>\S+)|\s+(?P<level>Level|Edge)(?!\S)(?:\s+-\S+)?)" + _REST,
    # IO-APIC-edge      timer; xen-percpu-virq      timer0 (before 3.19)
    r"(?P<chip>\S+?)-(?P<flow>edge|level|fasteoi|event|virq|ipi|ioapic-edge|ioapic-level|msi|msi-x)" + _REST,
    # MIPS   7  timer, or
    # xen-dyn    -event     xenbus (no domain, hence no number), or
    # None    Level     something
    r"(?P<chip>.{0,80}?)\s+(?:(?P<hwirq>[0-9]+)(?=\s)|-(?P<flow>[A-Za-z]\S*)|(?P<level>Level|Edge)(?!\S)(?:\s+-\S+)?)"
    + _REST,
    # ITS-MSI 570949 (a number that ends the line may have been cut)
    r"(?P<chip>.{0,80}?)\s+[0-9]+",
    # chip alone, or chip and action
    r"(?P<chip>\S+)" + _REST,
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
    """/proc/interrupts. ``per_cpu`` holds the named lines (IPI0, NMI, ...), ERR and MIS with their one number.

    ``cpus`` says what the columns stand for. ``cpus_assumed``: nothing does, and they are taken for CPU 0, 1, 2, ...,
    which is wrong on a host with offline CPUs.
    """

    cpus: tuple[int, ...] | None  # None: not known
    lines: dict[int, InterruptLine]
    per_cpu: dict[str, tuple[int, ...]]
    unparsed: tuple[str, ...]
    cpus_assumed: bool = False


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
    text = re.sub(r"\s{32,}", " ", text[:MAX_DESCRIPTION]).strip()  # the kernel pads less; each blank costs a try
    for layout in _DESCRIPTIONS:
        match = re.fullmatch(layout, text)
        if match is None:
            continue
        found = match.groupdict("")
        number = _numbers((found.get("hwirq", ""),))
        return (
            found["chip"].strip() or None,
            number[0] if number else None,
            (found.get("flow") or found.get("level") or "").lower() or None,
            tuple(action.strip() for action in found.get("actions", "").split(", ") if action.strip()),
        )
    return None, None, None, ()


def _numbered(label: str, counts: Tuple[int, ...], rest: str, columns: int) -> Optional[InterruptLine]:
    """Return a numbered line; None if it is none, or was cut or damaged.

    The kernel names a chip (or "None", or "-") after the counts, always: a line without was cut, perhaps within its
    last count. A count that is no number ends the counts early, and leaves the others in what looks like the chip.
    """
    irq = _numbers((label,))
    if irq is None or not counts or (len(label) > 1 and label[0] == "0"):
        return None
    if len(counts) < columns and rest[:1].isdecimal():
        return None
    chip, hwirq, trigger, actions = parse_description(rest)
    if chip is None or any(word.isdecimal() for word in chip.split()):
        return None
    return InterruptLine(irq[0], counts, chip, hwirq, trigger, actions)


def _is_named(label: str, counts: Tuple[int, ...], rest: str, columns: int) -> bool:
    """Tell whether a named line is whole: a number for each CPU, or the one of those that count for all."""
    if _NAMED.fullmatch(label) is None:
        return False
    if not counts:
        return label == "FIQ" and rest.strip() != ""  # 32-bit ARM names its owner and counts nothing
    if len(counts) == 1 and label.upper() in _COUNTED_ONCE:
        return True
    return len(counts) >= columns if columns else rest.strip() != ""  # without a header, it may have been cut


def parse_proc_interrupts(text: str, online: Optional[Sequence[int]] = None) -> ProcInterrupts:
    """Parse /proc/interrupts or a part of it; lines that cannot be one are listed in ``unparsed``.

    ONLINE: the online CPUs, if known from elsewhere; they count where the header is missing. Of a number or name that
    occurs again, and of another header with all that follows it (a second reading), only the first counts.
    """
    cpus: Optional[Tuple[int, ...]] = None
    lines: Dict[int, InterruptLine] = {}
    per_cpu: Dict[str, Tuple[int, ...]] = {}
    unparsed: List[str] = []
    bare: Optional[Tuple[str, str]] = None  # a named line without a text, just read: the next row may belong to it
    columns = 0
    broken = ended = False
    for row in text.split("\n"):
        line = row.strip(_BLANKS)
        if not line:
            continue
        before, bare = bare, None
        label, colon, body = line.partition(":")
        if not colon and before is not None:  # a terminal has wrapped it, perhaps within its last count
            del per_cpu[before[0]]
            unparsed.append(before[1])
        if ended or "\0" in line:
            unparsed.append(row)
        elif not colon:
            begun = bool(lines or per_cpu)
            if _HEADER.fullmatch(line) and not broken and not (begun and cpus):
                # one that was wrapped goes on in the next row; where it does not rise, a number was cut
                cpus = (cpus or ()) + tuple(int(number) for number in _CPU_NAME.findall(line))
                broken = any(low >= high for low, high in zip(cpus, cpus[1:]))
                if not broken:
                    columns = len(cpus)
                    continue
            elif begun:
                ended = _HEADER.fullmatch(line) is not None
            elif _HEADER_PIECE.fullmatch(line):
                broken = True
            if broken:
                cpus, columns = None, 0
            unparsed.append(row)
        else:
            label = label.rstrip()
            counts, rest = _columns(body, columns)
            if counts and counts[0] < 10**9 and not body[:1].isspace():
                # Only a number of ten digits touches the colon: a time of day, or "ARMH0061:00" of a wrapped line.
                counts = ()
            found = _numbered(label, counts, rest, columns)
            if found is not None and found.irq not in lines:
                lines[found.irq] = found
            elif found is None and label not in per_cpu and _is_named(label, counts, rest, columns):
                per_cpu[label] = counts
                bare = None if rest.strip() or len(counts) == 1 else (label, row)
            else:
                unparsed.append(row)
    cpus, assumed = _column_cpus(cpus, lines, online)
    return ProcInterrupts(cpus, lines, per_cpu, tuple(unparsed), assumed)


def _column_cpus(
    cpus: Optional[Tuple[int, ...]], lines: Mapping[int, InterruptLine], online: Optional[Sequence[int]]
) -> Tuple[Optional[Tuple[int, ...]], bool]:
    """Return what the columns stand for, and whether that is assumed. CPUS: what the header says."""
    widths = [len(line.counts) for line in lines.values()]
    # A CPU that comes online while the file is read adds a column to some lines; to all of them: the header was cut.
    cut = cpus is not None and cpus == tuple(range(len(cpus))) and widths and len(cpus) < min(widths) == max(widths)
    if cpus is not None and not cut:
        return cpus, False
    if not widths:
        return None, False
    usual = max(set(widths), key=lambda width: (widths.count(width), width))
    if online is not None:
        return (tuple(online) if len(online) == usual else None), False
    return tuple(range(usual)), True


def counts_by_cpu(interrupts: ProcInterrupts, irq: int) -> dict[int, int]:
    """Return the counts of one interrupt by CPU number; {} if the interrupt or its columns' CPUs are not known.

    A line with another number of columns than the header was printed while a CPU came or went, and nobody knows which.
    """
    line, cpus = interrupts.lines.get(irq), interrupts.cpus
    if line is None or cpus is None or len(cpus) != len(line.counts):
        return {}
    return dict(zip(cpus, line.counts))


def delta(before: ProcInterrupts, after: ProcInterrupts) -> dict[int, dict[int, int]]:
    """Return the new counts by interrupt and CPU; see `growth`.

    An interrupt that is only in AFTER was set up in between, and so was one whose number had another owner: all its
    counts are new. Where one of the two lacks a header, its columns are taken for those of the other.
    """
    before, after = _with_columns_of(before, after), _with_columns_of(after, before)
    found: Dict[int, Dict[int, int]] = {}
    for irq, line in after.lines.items():
        new = counts_by_cpu(after, irq)
        earlier = before.lines.get(irq)
        if earlier is not None and _same_owner(earlier, line):
            new = growth(counts_by_cpu(before, irq), new)
        found[irq] = new
    return found


def _with_columns_of(one: ProcInterrupts, other: ProcInterrupts) -> ProcInterrupts:
    known = other.cpus is not None and not other.cpus_assumed
    if known and one.cpus_assumed and len(one.cpus or ()) == len(other.cpus or ()):
        return one._replace(cpus=other.cpus, cpus_assumed=False)
    return one


def _same_owner(one: InterruptLine, other: InterruptLine) -> bool:
    """Tell whether two lines of one number are the same interrupt: after a reload, IRQ 29 may be the network card."""
    for mine, others in ((one.chip, other.chip), (one.hwirq, other.hwirq)):
        if mine is not None and others is not None and mine != others:
            return False
    # a line that is shared gains and loses handlers
    return not (one.actions and other.actions) or bool(set(one.actions) & set(other.actions))


def growth(old: Mapping[int, int], new: Mapping[int, int]) -> dict[int, int]:
    """Return the new counts by CPU between two readings of one interrupt.

    Of a CPU that is in one of the two only nothing can be said (its counts outlive its being offline): it is left out.
    Counters have 32 bits; one that wrapped is told from one that started again by the size of its fall. If one started
    again, all did (the interrupt was set up anew), and all counts are new.
    """
    grown: Dict[int, int] = {}
    for cpu, count in new.items():
        if cpu not in old:
            continue
        grown[cpu] = count - old[cpu]
        if grown[cpu] < 0:
            if old[cpu] >= 1 << 32 or grown[cpu] > -(1 << 31):
                return dict(new)
            grown[cpu] += 1 << 32
    return grown


def landing(new: Mapping[int, int]) -> Optional[Dict[int, float]]:
    """Return where an interrupt lands: the share (above 0, up to 1) of each CPU that took some of its NEW counts.

    None if nothing came, so that nothing can be said. NEW comes from `delta` or `growth`: totals since boot tell where
    it was, not where it is.
    """
    total = sum(new.values())
    return {cpu: count / total for cpu, count in new.items() if count} if total else None


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
    encodes both. MSIs of platform devices, of the IOMMU and of the HPET are not PCI ones; those behind Intel's VMD are,
    but their number is that of another interrupt.
    """
    if chip is None or hwirq is None:
        return None
    named = _BDF.search(chip)
    if named:
        return MsiSource(named.group(1).lower(), hwirq)
    upper = chip.upper()
    if upper in _PCI_CHIPS or ("PCI" in upper and upper.endswith(("MSI", "MSI-X", "MSIX"))):
        return decode_hwirq(hwirq)
    return None


def bdf_of_line(line: InterruptLine) -> Optional[str]:
    """Return the BDF a line belongs to: from the chip, its number, or else the actions' names.

    None if none tells, or if they tell of several: devices may share a line.
    """
    source = msi_source(line.chip, line.hwirq)
    if source:
        return source.bdf
    named = {match.group(1).lower() for action in line.actions for match in _BDF.finditer(action)}
    return named.pop() if len(named) == 1 else None


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


def _all_irqs(root: Root, whole: Optional[ProcInterrupts]) -> List[int]:
    names = set(root.names("/proc/irq"))
    for device in root.names("/sys/bus/pci/devices"):
        names.update(root.names("/sys/bus/pci/devices/%s/msi_irqs" % device))
    return sorted({int(name) for name in names if name.isdecimal()}.union(whole.lines if whole else ()))


def read_proc_interrupts(root: Root) -> Optional[ProcInterrupts]:
    """Return /proc/interrupts parsed, None if it cannot be read."""
    raw = root.data("/proc/interrupts")
    if raw is None:
        return None
    return parse_proc_interrupts(raw.decode("utf-8", "replace"), _listed(root, "/sys/devices/system/cpu/online"))


def read_interrupts(root: Root, irqs: Optional[Iterable[int]] = None, counts: bool = True) -> dict[int, Interrupt]:
    """Return the interrupts by number: all that /proc/irq, /proc/interrupts and every msi_irqs know of, or IRQS.

    One asked for that exists nowhere is left out. With COUNTS false no counts are read.
    """
    wanted = None if irqs is None else sorted(set(irqs))
    few = wanted is not None and len(wanted) <= FEW
    whole = None if few else read_proc_interrupts(root)
    tried = not few
    numbers = _all_irqs(root, whole) if wanted is None else wanted
    possible = _listed(root, "/sys/devices/system/cpu/possible") if counts else None
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


def parse_allowed(text: str) -> Optional[Tuple[int, ...]]:
    """Return the CPUs that a task may run on, of its /proc/PID/status; None if that does not tell."""
    lines = (line for line in text.splitlines() if line.startswith("Cpus_allowed_list:"))
    return next((parse_list(line.partition(":")[2]) for line in lines), None)


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
        allowed = parse_allowed(root.text("/proc/%s/status" % name) or "")
        policy, priority = (POLICIES.get(stat[3]), stat[2]) if stat is not None else (None, None)
        found.append(Thread(int(name), comm, allowed, policy, priority))
    # "irq/N-s-name" is the second thread of a handler that was threaded by force
    return min(found, key=lambda thread: (thread.name.startswith(prefix + "s-"), thread.pid)) if found else None


def read_arrivals(root: Root, before: Mapping[int, Interrupt]) -> dict[int, dict[int, int]]:
    """Return the new counts, by interrupt and CPU, since BEFORE was read; nothing of one that is not known any more.

    Few interrupts were counted by /sys/kernel/irq and are compared with /proc/interrupts: in a bundle each file has one
    content, that of its first reading, and so the two still are two readings there.
    """
    counted = {irq: one.counts for irq, one in before.items() if one.counts}
    text = (root.data("/proc/interrupts") or b"").decode("utf-8", "replace") if counted else ""
    header, _newline, rows = text.partition("\n")
    mine = [row for row in rows.split("\n") if row.partition(":")[0].strip() in {str(irq) for irq in counted}]
    now = parse_proc_interrupts("\n".join([header, *mine]))
    if now.cpus_assumed:
        return {}
    return {irq: growth(counts, counts_by_cpu(now, irq)) for irq, counts in counted.items() if irq in now.lines}
