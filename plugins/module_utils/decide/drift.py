# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the next run would change on a host: the wishes kept there, against what is in force. Pure.

The plans are those that modules and agent follow, so that what is told here is what they would do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide import affinity, clocks, steering
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import cards
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import WARNING, Change, Finding, WishError

if TYPE_CHECKING:
    from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.findings import Snapshot

INTERRUPTS, CLOCKS = "irq_affinity", "governor"  # roles, as the wishes' files name them


class Held(NamedTuple):
    """The wishes of one role against what is in force.

    STATES: by identity (BDF and vector, or policy), whether it is as wished; what cannot be told is not there.
    CHANGES: what a run would write.
    """

    states: Dict[Tuple[str, ...], bool]
    changes: List[Change]


def stuck_cpus(snapshot: Snapshot) -> List[int]:
    """Return the CPUs that serve interrupts of the cards which nobody can move."""
    irqs = [irq for card in snapshot.cards for irq in affinity.vectors(card)]
    found = [snapshot.interrupts[irq] for irq in irqs if irq in snapshot.interrupts]
    stuck = [one for one in found if one.has_proc_irq and steering.judge(one, snapshot.host.board) is not None]
    return [cpu for one in stuck for cpu in steering.served_by(one) or ()]


def _interrupts(snapshot: Snapshot) -> Held:
    wishes = affinity.AffinityWishes.from_data(snapshot.wishes[INTERRUPTS])
    if snapshot.gone is None:
        return Held({}, [])  # a card that is not there any more may keep its turn
    there = cards(snapshot.devices, wishes.catalogue)
    plan = affinity.plan(there, snapshot.interrupts, snapshot.cpus, wishes, snapshot.host.board, snapshot.gone)
    states: Dict[Tuple[str, ...], bool] = {
        (one.bdf, str(one.vector)): one.state == "right" for one in plan.placements if one.state != "unknown"
    }
    return Held(states, [change for _key, change in plan.changes])


def _clocks(snapshot: Snapshot) -> Held:
    wishes = clocks.ClockWishes.from_data(snapshot.wishes[CLOCKS])
    if wishes.only_with_card and not cards(snapshot.devices, wishes.catalogue):
        return Held({}, [])
    plan = clocks.plan(snapshot.policies, snapshot.cpus, wishes, None, stuck_cpus(snapshot))
    differing = {name for name, _change in plan.changes}
    states: Dict[Tuple[str, ...], bool] = {
        (policy.name,): policy.name not in differing for policy in snapshot.policies if not policy.all_offline
    }
    return Held(states, [change for _key, change in plan.changes])


# (role, what it sets, how it stands)
_PLANS = ((INTERRUPTS, "interrupt", _interrupts), (CLOCKS, "clock", _clocks))


def held(snapshot: Snapshot) -> Dict[str, Held]:
    """Return how the wishes stand, by role; a role without wishes, or with ones that make no sense, is not there."""
    found = {}
    for role, _what, plan in _PLANS:
        if role in snapshot.wishes:
            try:
                found[role] = plan(snapshot)
            except WishError:
                continue  # the agent tells of it, and so does whoever reads the catalogue
    return found


def _and_more(first: str, count: int) -> str:
    return first if count == 1 else "%s, and %d more" % (first, count - 1)


def drift(snapshot: Snapshot) -> List[Finding]:
    """Return a finding for each role of which a run would change something, and one for files that are gone.

    Where it is known what a role would change, that is told; else what the wishes kept on the host would.
    """
    found = [_planned(role, changes) for role, changes in sorted(snapshot.planned.items()) if changes]
    kept = {role: one for role, one in held(snapshot).items() if role not in snapshot.planned}
    for role, what, _plan in _PLANS:
        changes = kept[role].changes if role in kept else []
        if changes:
            found.append(_values(role, what, changes))
    if snapshot.lost and not snapshot.planned:
        found.append(_files(snapshot.lost, min(snapshot.wishes, default=INTERRUPTS)))
    return found


def _brief(text: Optional[str]) -> Optional[str]:
    lines = [] if text is None else str(text).splitlines()
    return text if len(lines) < 2 else "%d lines" % len(lines)


def _planned(role: str, changes: Sequence[Change]) -> Finding:
    first, count = changes[0], len(changes)
    one = "%s: %s, wished %s" % (first.path, _brief(first.before) or "nothing", _brief(first.after) or "nothing")
    return Finding(
        "drift",
        WARNING,
        "the role %s would change %d thing%s: %s" % (role, count, "" if count == 1 else "s", _and_more(one, count)),
        {one.path: {"before": _brief(one.before), "after": _brief(one.after), "why": one.why} for one in changes},
        "Run the role %s without --check." % role,
        role,
    )


def _values(role: str, what: str, changes: List[Change]) -> Finding:
    first, count = changes[0], len(changes)
    return Finding(
        "drift",
        WARNING,
        "%d %s%s not as the wishes on this host say: %s"
        % (
            count,
            what,
            " is" if count == 1 else "s are",
            _and_more("%s is %s, wished %s" % (first.path, first.before, first.after), count),
        ),
        {one.path: {"before": one.before, "after": one.after, "why": one.why} for one in changes},
        "Run `edgenpu-tuning apply` on the host, or the playbook again; find out who changes it if it comes back.",
        role,
    )


def _files(lost: Tuple[str, ...], role: str) -> Finding:
    count = len(lost)
    return Finding(
        "drift",
        WARNING,
        "%d file%s that keep%s the wishes in force %s gone: %s"
        % (
            count,
            "" if count == 1 else "s",
            "s" if count == 1 else "",
            "is" if count == 1 else "are",
            _and_more(lost[0], count),
        ),
        {
            path: {"before": "nothing", "after": "as the playbook left it", "why": "keeps the wishes in force"}
            for path in lost
        },
        "Run the playbook again: until then a boot, a driver reload or a CPU that goes may lose the tuning.",
        role,
    )
