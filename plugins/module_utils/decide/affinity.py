# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which CPU serves which interrupt of an NPU card, and why. Pure: what was observed in, changes out."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import CardKind, resolve, to_data
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change, WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list, parse_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpus import Cpu, tiers
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import Interrupt
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import PciDevice

SPREADS = ("single", "tier")


class AffinityWishes(NamedTuple):
    """What the user wants. CPUS: a kernel CPU list, None for the fast tier.

    SPREAD: "single" (one CPU for each card) or "tier" (all of them, the controller picks one). KEEP_FREE: fast CPUs
    left to the application. BORN_THERE: while a card's module loads, new interrupts start on the card's CPU.
    """

    catalogue: Tuple[CardKind, ...]
    cpus: Optional[str] = None
    spread: str = "single"
    keep_free: int = 1
    born_there: bool = False

    def to_data(self) -> Dict[str, Any]:
        """Return the wishes as JSON can hold them."""
        return dict(self._asdict(), catalogue=to_data(self.catalogue))

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> AffinityWishes:
        """Return wishes from the form of `to_data`; raises WishError where they make no sense."""
        cpus, spread, keep_free = data.get("cpus"), data.get("spread", "single"), data.get("keep_free", 1)
        if spread not in SPREADS:
            raise WishError("spread: %r is neither of %s" % (spread, " and ".join(SPREADS)))
        if not isinstance(keep_free, int) or isinstance(keep_free, bool) or keep_free < 0:
            raise WishError("keep_free: %r is no count of CPUs; write 0 or more" % (keep_free,))
        if cpus is not None and not parse_list(str(cpus)):
            raise WishError(
                'cpus: %r is no list of CPUs; write one as the kernel does, such as "4-7" or "4,6"' % (cpus,)
            )
        return cls(
            resolve(data.get("catalogue")),
            None if cpus is None else str(cpus),
            str(spread),
            keep_free,
            bool(data.get("born_there", False)),
        )


class Placement(NamedTuple):
    """Where one vector of a card is served (CPU lists) and where it should be.

    STATE is "right", "change" or "unknown"; for "unknown", UNKNOWN_UNTIL says what has to happen first.
    """

    bdf: str
    vector: int
    irq: Optional[int]
    before: Optional[str]
    effective_before: Optional[str]
    target: str
    why: str
    state: str
    unknown_until: Optional[str]


class AffinityPlan(NamedTuple):
    """Placements of all vectors; the changes they need, keyed "BDF#vector"; what only time can tell."""

    placements: List[Placement]
    changes: List[Tuple[str, Change]]
    unknown: List[str]


class _Choice(NamedTuple):
    candidates: List[int]  # in the order in which cards take them
    last_resort: List[int]  # of the same speed, but meant for the application
    why: str


def check_cpus(cpus: Sequence[Cpu], wishes: AffinityWishes) -> None:
    """Raise WishError if the CPUs asked for do not exist or are all offline."""
    if wishes.cpus is None:
        return
    asked = parse_list(wishes.cpus) or ()
    known = [cpu.number for cpu in cpus]
    impossible = sorted(set(asked) - set(known))
    if impossible:
        raise WishError(
            "cpus: %s names CPU %s, but this host has CPUs %s; name some of these"
            % (wishes.cpus, format_list(impossible), format_list(known))
        )
    online = [cpu.number for cpu in cpus if cpu.online]
    if not set(asked) & set(online):
        raise WishError(
            "cpus: %s is all offline on this host; bring one online (chcpu -e) or name others: CPUs %s are online"
            % (wishes.cpus, format_list(online))
        )


def _choose(cpus: Sequence[Cpu], card: PciDevice, wishes: AffinityWishes) -> _Choice:
    """Return the CPUs that may serve CARD. Offline ones are among them: who is online changes, this does not."""
    known = {cpu.number: cpu for cpu in cpus}
    ranking = tiers(cpus)
    fast = list(ranking[-1].cpus) if ranking else sorted(known)
    if len(ranking) > 1:
        why = "fastest tier, CPUs %s (%s %s of %s)" % (
            format_list(fast),
            ranking[-1].basis,
            ranking[-1].value,
            "/".join(str(tier.value) for tier in ranking),
        )
    else:
        why = "all CPUs are equally fast, so nothing is gained by tier"
        local = [number for number in fast if number in (card.local_cpus or ())]
        if local and len(local) < len(fast):
            fast, why = local, why + "; local to the card's NUMA node"
        if len(fast) > 1 and 0 in fast:
            fast, why = (
                [number for number in fast if number != 0],
                why + "; not CPU0, which serves most other interrupts",
            )
    quiet = [number for number in fast if not (known[number].isolated or known[number].nohz_full)]
    if quiet and len(quiet) < len(fast):
        fast, why = quiet, why + "; not the isolated or nohz_full ones"
    asked = [number for number in parse_list(wishes.cpus or "") or () if number in known]
    if asked:
        return _Choice(asked, fast, "asked for by name (cpus: %s)" % wishes.cpus)
    spare = min(wishes.keep_free, len(fast) - 1)
    if spare > 0 and wishes.spread == "single":
        why += "; CPU %s left to the application" % format_list(fast[-spare:])
        return _Choice(fast[:-spare], fast[-spare:], why)
    return _Choice(fast, [], why)


def _target(choice: _Choice, turn: int, online: Set[int], spread: str) -> Tuple[List[int], str]:
    """Return the CPUs for the TURN-th card ([]: none is online) and the reason.

    The first choice follows from the card's place among the cards by address alone, so that it is the same after
    every boot. Only while that CPU is offline is the card served elsewhere.
    """
    if spread == "tier" and online.intersection(choice.candidates):
        return choice.candidates, choice.why + "; all of them, the interrupt controller picks one"
    turn %= len(choice.candidates) or 1
    order = choice.candidates[turn:] + choice.candidates[:turn] + choice.last_resort
    chosen = next((number for number in order if number in online), None)
    if chosen is None:
        return [], "no CPU to serve it is online (%s)" % choice.why
    why = choice.why if chosen == order[0] else "%s; CPU %d, the first choice, is offline" % (choice.why, order[0])
    return [chosen], why


def vectors(card: PciDevice) -> Tuple[int, ...]:
    """Return a card's interrupts by vector: its MSI ones; where it has none, the line it shares."""
    if card.msi_irqs:
        return card.msi_irqs
    return () if card.legacy_irq is None or card.driver is None else (card.legacy_irq,)


def plan(
    cards: Sequence[PciDevice], interrupts: Mapping[int, Interrupt], cpus: Sequence[Cpu], wishes: AffinityWishes
) -> AffinityPlan:
    """Return where every vector of every card belongs. CARDS come sorted by address.

    CPUs asked for by name that are offline or gone are replaced by the fast tier's: an interrupt that loses its
    CPU falls to any other, a slow one included, so this has to hold at any moment. `check_cpus` refuses them.
    """
    placements: List[Placement] = []
    changes: List[Tuple[str, Change]] = []
    unknown: List[str] = []
    online = {cpu.number for cpu in cpus if cpu.online}
    for turn, card in enumerate(cards):
        target, why = _target(_choose(cpus, card, wishes), turn, online, wishes.spread)
        wanted = format_list(target)
        irqs = vectors(card)
        if not target:
            unknown.append("CPU for %s: unknown until one of the wanted ones is online: %s" % (card.bdf, why))
        if not irqs:
            until = "its driver has asked for an interrupt" if card.driver else "a driver binds to it"
            placements.append(Placement(card.bdf, 0, None, None, None, wanted, why, "unknown", until))
            unknown.append("interrupt of %s: unknown until %s" % (card.bdf, until))
        for vector, irq in enumerate(irqs):
            interrupt = interrupts.get(irq)
            if interrupt is None or not interrupt.has_proc_irq:
                until = "the driver asks for this vector (it has been granted, but has no handler)"
                placements.append(Placement(card.bdf, vector, irq, None, None, wanted, why, "unknown", until))
                if vector == 0:
                    unknown.append("interrupt %d of %s: unknown until %s" % (irq, card.bdf, until))
                continue
            before = None if interrupt.affinity is None else format_list(interrupt.affinity)
            effective = None if interrupt.effective is None else format_list(interrupt.effective)
            reached = not interrupt.effective or set(interrupt.effective) <= set(target)
            state = "right" if not target or (before == wanted and reached) else "change"
            placements.append(Placement(card.bdf, vector, irq, before, effective, wanted, why, state, None))
            if state == "change":
                path = "/proc/irq/%d/smp_affinity_list" % irq
                reason = "vector %d of %s: %s" % (vector, card.bdf, why)
                changes.append(("%s#%d" % (card.bdf, vector), Change(path, before, wanted, reason)))
                if len(target) > 1:
                    unknown.append(
                        "effective CPU of interrupt %d: unknown until it is written, the controller picks one of %s"
                        % (irq, wanted)
                    )
    return AffinityPlan(placements, changes, unknown)
