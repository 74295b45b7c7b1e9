# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Giving back what the ledger recorded: files byte for byte, this boot's kernel values as found, then proof."""

from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.blocks import take_blocks
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import SHARED, Entry, Ledger
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.persist import (
    follow_up,
    overdue,
    put_files,
    remove_agent,
    shared_files,
    show,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import UNSTEERABLE, FileState, Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.tune import boot_id
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import vectors
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpufreq import default_governor
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import default_affinity, read_interrupts
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import read_devices
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.ran import Runner
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import read_wishes


class Undone(NamedTuple):
    """What was given back (or would be); its files with state before and after; what could not be, and why.

    LEFT: what needed no giving back (the interrupt no longer exists, say), in words.
    """

    changes: List[Change]
    files: List[Tuple[str, FileState, FileState]]
    refused: List[Change]
    left: List[str]


def _interrupt_change(root: Root, entry: Entry, same_boot: bool) -> Tuple[Optional[Change], Optional[str]]:
    bdf, _hash, vector = entry.id.partition("#")
    irqs = next((vectors(device) for device in read_devices(root) if device.bdf == bdf), ())
    irq = irqs[int(vector)] if int(vector) < len(irqs) else None
    interrupt = None if irq is None else read_interrupts(root, [irq], counts=False).get(irq)
    if interrupt is None or not interrupt.has_proc_irq or interrupt.affinity is None:
        return None, "vector %s of %s: it has no interrupt now, so there is nothing to give back" % (vector, bdf)
    default = default_affinity(root)
    wanted = entry.value if same_boot else (None if default is None else format_list(default))
    if wanted is None:
        return None, "interrupt %d of %s: its original is not known, left as it is" % (interrupt.irq, bdf)
    why = "original of this boot" if same_boot else "the kernel's default: the original is from an earlier boot"
    change = Change("/proc/irq/%d/smp_affinity_list" % interrupt.irq, format_list(interrupt.affinity), wanted, why)
    return (None, None) if change.before == wanted else (change, None)


def _governor_change(root: Root, entry: Entry, same_boot: bool) -> Tuple[Optional[Change], Optional[str]]:
    path = "/sys/devices/system/cpu/cpufreq/%s/scaling_governor" % entry.id
    before = root.text(path)
    if before is None:
        return None, "%s: not there or all its CPUs are offline, so there is nothing to give back" % entry.id
    wanted = entry.value if same_boot else default_governor(root, root.text("/proc/sys/kernel/osrelease") or "")
    if wanted is None:
        return None, "%s: the kernel's default governor is not known, left at %s" % (entry.id, before)
    why = "original of this boot" if same_boot else "the kernel's default: the original is from an earlier boot"
    return (None, None) if before == wanted else (Change(path, before, wanted, why), None)


_VALUE_CHANGE: Dict[str, Callable[[Root, Entry, bool], Tuple[Optional[Change], Optional[str]]]] = {
    "interrupt": _interrupt_change,
    "governor": _governor_change,
}


def _undo_values(sink: Sink, ledger: Ledger, role: str, check: bool) -> Undone:
    boot = boot_id(sink.root)
    result = Undone([], [], [], [])
    for kind, change_of in _VALUE_CHANGE.items():
        for entry in ledger.entries(role, kind):
            change, left = change_of(sink.root, entry, entry.boot_id == boot)
            if left is not None:
                result.left.append(left)
            reason = None
            if change is not None and not check:
                reason = sink.set_value(change.path, change.after or "")
            if change is not None and reason in UNSTEERABLE:
                # It never was where we wanted it, so there is nothing to give back.
                result.left.append("%s: %s" % (change.path, reason))
                change = None
            if change is not None and reason is not None:
                result.refused.append(change._replace(why=reason))
                continue
            if change is not None:
                result.changes.append(change)
            if not check:
                ledger.forget(entry)
    return result


def _undo_files(sink: Sink, ledger: Ledger, role: str, check: bool) -> List[Tuple[str, FileState, FileState]]:
    """Give files back, in the reverse order of writing; return those that differed, with before and after."""
    undone = []
    if not check:
        ledger.set_pending([*ledger.pending, *(entry.id for entry in ledger.entries(role, "file"))])
        ledger.save()
    for entry in reversed(ledger.entries(role, "file")):
        original = entry.state or FileState()
        if not check:
            sink.tidy(entry.id)
        before = sink.state(entry.id)
        if before != original:
            undone.append((entry.id, before, original))
            if not check:
                sink.put(entry.id, original)
        if not check:
            ledger.forget(entry)
    return undone


def _undo_made(sink: Sink, ledger: Ledger, trees: bool) -> None:
    """Remove the agent's TREES, and of the directories made by us those that are empty now, innermost first."""
    for entry in ledger.entries(SHARED, "tree") if trees else ():
        remove_agent(sink, entry.id)
        ledger.forget(entry)
    for entry in sorted(ledger.entries(SHARED, "directory"), key=lambda made: -len(made.id)):
        if sink.remove_if_empty(entry.id):
            ledger.forget(entry)


def undo(
    sink: Sink,
    ledger: Ledger,
    role: str,
    runner: Runner,
    check: bool,
    before_it: Sequence[str] = (),
    values: bool = True,
) -> Undone:
    """Give back all that ROLE changed on this host; with the last role go agent, unit, rules and command, too.

    BEFORE_IT: roles given back just before, of which check mode still sees the wishes. VALUES: false gives back only
    what keeps the role's wishes in force, and leaves the kernel's values (and their originals) as they are.

    The ledger forgets an original only when it has been given back, so that a killed or refused undo can be
    repeated. Wishes go first: the agent must not set again what is being given back.
    """
    root = sink.root
    left_over = ledger.pending
    files = _undo_files(sink, ledger, role, check)
    blocks = take_blocks(sink, ledger, role, check)
    remaining, _problems = read_wishes(root)
    for gone in (role, *before_it):
        remaining.pop(gone, None)
    given = _undo_values(sink, ledger, role, check) if values else Undone([], [], [], [])
    made: List[Change] = []
    if remaining:
        current = root.link("/usr/lib/edgenpu-tuning/current")
        if current is not None and ledger.entries(SHARED, "file"):
            wanted = {path: (SHARED, state) for path, state in shared_files(root, remaining, current).items()}
            files += put_files(sink, ledger, wanted, role, check)
    else:
        files += _undo_files(sink, ledger, SHARED, check)
        made = [Change(entry.id, "the agent", None, "made by us") for entry in ledger.entries(SHARED, "tree")]
    changes = given.changes + [Change(path, show(before), show(after), "original") for path, before, after in files]
    changes += [Change(path, show(before), show(after), "less our lines") for path, before, after in blocks.files]
    changes += made + overdue(left_over, [path for path, _before, _after in files])
    files += blocks.files
    refused = given.refused + blocks.refused
    if not check:
        _undo_made(sink, ledger, trees=not remaining)
        ledger.save()
        refused += follow_up(sink, ledger, runner)
        refused += [
            Change(path, show(sink.state(path)), show(after), "given back, but something else stands there now")
            for path, _before, after in files
            if not remaining and sink.state(path) != after
        ]
    left = [
        "%s: read at boot only, so what stood there works until a reboot" % path
        for path, _before, _after in blocks.files
    ]
    return Undone(changes, files, refused, given.left + left)
