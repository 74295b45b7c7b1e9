# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which governor for which cpufreq policy, and why. Pure: what was observed in, changes out."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import CardKind, resolve, to_data
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change, WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpufreq import Policy
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpus import Cpu, tiers

KEEP = "keep"
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


class ClockWishes(NamedTuple):
    """Governors wanted for the policies of the fastest tier and for all others; "keep" leaves them alone.

    A policy that serves an interrupt which cannot be moved counts as fast, unless a governor is wanted for the others.

    ONLY_WITH_CARD: change nothing while none of the CATALOGUE's cards is there.
    """

    fast: str = "performance"
    others: str = KEEP
    only_with_card: bool = False
    catalogue: Tuple[CardKind, ...] = ()

    def to_data(self) -> Dict[str, Any]:
        """Return the wishes as JSON can hold them."""
        return dict(self._asdict(), catalogue=to_data(self.catalogue))

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> ClockWishes:
        """Return wishes from the form of `to_data`; raises WishError where they make no sense."""
        wishes = cls(
            str(data.get("fast", "performance")),
            str(data.get("others", KEEP)),
            bool(data.get("only_with_card", False)),
            resolve(data.get("catalogue")),
        )
        for field, name in (("fast", wishes.fast), ("others", wishes.others)):
            if not _NAME.match(name):
                raise WishError(
                    "%s: %r is no governor's name; write one such as performance or schedutil" % (field, name)
                )
        return wishes


class ClockPlan(NamedTuple):
    """Changes keyed by the policy's first CPU (its identity across boots); what only time can tell."""

    changes: List[Tuple[str, Change]]
    unknown: List[str]


def _wanted(
    policy: Policy, fast: Sequence[int], stuck: Sequence[int], wishes: ClockWishes, why: str
) -> Tuple[str, str]:
    if set(policy.cpus) & set(fast):
        return wishes.fast, "%s serves %s" % (policy.name, why)
    if set(policy.cpus) & set(stuck) and wishes.others == KEEP:
        return wishes.fast, (
            "%s serves CPU %s, which has an interrupt of the card that cannot be moved: its clock is all that can be "
            "held there" % (policy.name, format_list(set(policy.cpus) & set(stuck)))
        )
    return wishes.others, "%s serves CPUs %s, outside the fastest tier" % (policy.name, format_list(policy.cpus))


def plan(
    policies: Sequence[Policy],
    cpus: Sequence[Cpu],
    wishes: ClockWishes,
    loadable: Optional[Sequence[str]],
    stuck: Sequence[int] = (),
) -> ClockPlan:
    """Return the governors to write.

    STUCK: CPUs that serve a card's interrupt which nobody can move. Outside the fastest tier, too, such a CPU's clock
    decides how fast the card is answered, so it gets the governor of the fast ones, unless the user has named one for
    all others.

    LOADABLE: governors that stand as modules for the running kernel, None where that cannot be known. What the
    kernel offers grows as such modules load, so a governor missing from its list is not yet an unknown one.
    Raises WishError for a governor that this kernel cannot have.
    """
    ranking = tiers(cpus)
    fast = ranking[-1].cpus if ranking else tuple(cpu.number for cpu in cpus)
    if len(ranking) > 1:
        why = "the fastest tier, CPUs %s: between the short calls to the card its clock must not drop" % format_list(
            fast
        )
    else:
        why = "CPUs that are all equally fast: between the short calls to the card their clock must not drop"
    changes: List[Tuple[str, Change]] = []
    unknown: List[str] = []
    for policy in policies:
        wanted, reason = _wanted(policy, fast, stuck, wishes, why)
        if wanted == KEEP:
            continue
        if policy.all_offline:
            unknown.append(
                "governor of %s: unknown until one of its CPUs %s is online" % (policy.name, format_list(policy.cpus))
            )
            continue
        if wanted not in policy.available_governors:
            offered = sorted(set(policy.available_governors) | set(loadable or ()))
            if loadable is not None and wanted not in loadable:
                raise WishError(
                    "governor %r does not exist for %s on this kernel; choose one of %s"
                    % (wanted, policy.name, ", ".join(offered))
                )
            if policy.governor != wanted:
                unknown.append(
                    "governor of %s: unknown until the kernel has loaded the module cpufreq_%s" % (policy.name, wanted)
                )
        if policy.governor != wanted:
            path = "/sys/devices/system/cpu/cpufreq/%s/scaling_governor" % policy.name
            changes.append((policy.name, Change(path, policy.governor, wanted, reason)))
    return ClockPlan(changes, unknown)
