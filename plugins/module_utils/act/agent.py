# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeping the wishes on the box in force: what boot, drivers and CPUs coming and going set off."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.act.ledger import Ledger, Locked
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.sink import Sink
from ansible_collections.edgenpu.tuning.plugins.module_utils.act.tune import (
    CLOCKS,
    INTERRUPTS,
    Outcome,
    npu_cards,
    tune_clocks,
    tune_interrupts,
)
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.affinity import AffinityWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.clocks import ClockWishes
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change, WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpufreq import read_policies
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.files import Root
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.wishes import read_wishes

# Below the 180 s after which systemd kills the agent: so the journal is told who holds the lock.
LOCK_LIMIT_S = 170.0
MAX_ROUNDS = 5  # a host that changes faster than this raises events of its own, and each starts the agent again


class Report(NamedTuple):
    """What one run of the agent did: changes, refusals, what is unknown, wishes it could not follow, rounds."""

    changes: List[Change]
    refused: List[Change]
    unknown: List[str]
    problems: List[str]
    rounds: int


def _circumstances(root: Root) -> Tuple[Any, ...]:
    """Return what decisions rest on and may change while the agent runs, cheaply read.

    An interrupt appears in /proc/irq when its driver asks for it. One that went and came back under the same number
    is not seen here; its driver's bind event starts the agent again.
    """
    directories = ("/sys/bus/pci/devices", "/proc/irq", "/sys/devices/system/cpu/cpufreq")
    names = tuple(tuple(root.names(directory)) for directory in directories)
    return names, root.text("/sys/devices/system/cpu/online")


def _one_round(
    sink: Sink,
    ledger: Ledger,
    wishes: Dict[str, Dict[str, Any]],
    problems: List[str],
    check: bool,
    tell: Callable[[Change], None],
) -> List[Outcome]:
    def interrupts() -> Outcome:
        asked = AffinityWishes.from_data(wishes[INTERRUPTS])
        return tune_interrupts(sink, ledger, asked, npu_cards(sink.root, asked.catalogue), check)[0]

    def clocks() -> Outcome:
        asked = ClockWishes.from_data(wishes[CLOCKS])
        if asked.only_with_card and not npu_cards(sink.root, asked.catalogue):
            return Outcome([], [], ["clocks: unknown until an NPU card is there"])
        return tune_clocks(sink, ledger, asked, read_policies(sink.root), check)[0]

    outcomes: List[Outcome] = []
    for role, tune in ((INTERRUPTS, interrupts), (CLOCKS, clocks)):
        if role not in wishes:
            continue
        try:
            outcomes.append(tune())
        except WishError as error:
            problems.append(str(error))
            continue
        for change in outcomes[-1].changes:
            tell(change)
    return outcomes


def keep_in_force(sink: Sink, check: bool = False, tell: Callable[[Change], None] = lambda change: None) -> Report:
    """Follow the wishes on the box, until nothing changed while doing so (at most MAX_ROUNDS times).

    TELL is called with each change as soon as it has been made.

    Check mode takes no lock, since it writes nothing and may be run by anyone.
    Raises WishError if the ledger cannot be used, or the lock not be had; nothing has been changed then.
    """
    changes: List[Change] = []
    refused: List[Change] = []
    unknown: List[str] = []
    with contextlib.nullcontext() if check else Locked(sink, limit_s=LOCK_LIMIT_S):
        wishes, unreadable = read_wishes(sink.root)
        ledger = Ledger(sink)
        rounds = 0
        while True:
            rounds += 1
            problems = list(unreadable)
            before = _circumstances(sink.root)
            outcomes = _one_round(sink, ledger, wishes, problems, check, tell)
            changes += [change for outcome in outcomes for change in outcome.changes]
            refused = [change for outcome in outcomes for change in outcome.refused]
            unknown = [line for outcome in outcomes for line in outcome.unknown]
            if check or rounds == MAX_ROUNDS or _circumstances(sink.root) == before:
                return Report(changes, refused, unknown, problems, rounds)
