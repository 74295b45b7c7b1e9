# Copyright: (c) 2026, The edgenpu.tuning authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which CPU serves which interrupt of an NPU card, and why. Pure: what was observed in, changes out."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.edgenpu.tuning.plugins.module_utils.decide import steering
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.catalogue import CardKind, resolve, to_data
from ansible_collections.edgenpu.tuning.plugins.module_utils.decide.shapes import Change, WishError
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.board import UNKNOWN, Board
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpumask import format_list, parse_list
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.cpus import CORE_KINDS, Cpu, Tier, cores, tiers
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.interrupts import Interrupt
from ansible_collections.edgenpu.tuning.plugins.module_utils.observe.pci import PciDevice, bdf_key

SPREADS = ("single", "tier")
VECTORS = ("together", "apart")
ONE_CPU = "this host has one CPU, so there is nothing to choose"
Vector = Tuple[str, int]  # a card's address and which of its vectors


class AffinityWishes(NamedTuple):
    """What the user wants. CPUS: a kernel CPU list, None for the fast tier.

    SPREAD: "single" (one CPU for each card) or "tier" (all of them, the controller picks one). KEEP_FREE: fast cores
    left to the application. BORN_THERE: while a card's module loads, new interrupts start on the card's CPU.
    VECTORS: those of one card "together" on its CPU, or "apart", each on a CPU of its own.
    """

    catalogue: Tuple[CardKind, ...]
    cpus: Optional[str] = None
    spread: str = "single"
    keep_free: int = 1
    born_there: bool = False
    vectors: str = "together"

    def to_data(self) -> Dict[str, Any]:
        """Return the wishes as JSON can hold them."""
        return dict(self._asdict(), catalogue=to_data(self.catalogue))

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> AffinityWishes:
        """Return wishes from the form of `to_data`; raises WishError where they make no sense."""
        cpus, spread, keep_free = data.get("cpus"), data.get("spread", "single"), data.get("keep_free", 1)
        if spread not in SPREADS:
            raise WishError("spread: %r is neither of %s" % (spread, " and ".join(SPREADS)))
        how = data.get("vectors", "together")
        if how not in VECTORS:
            raise WishError("vectors: %r is neither of %s" % (how, " and ".join(VECTORS)))
        if not isinstance(keep_free, int) or isinstance(keep_free, bool) or keep_free < 0:
            raise WishError("keep_free: %r is no count of cores; write 0 or more" % (keep_free,))
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
            str(how),
        )


class Placement(NamedTuple):
    """Where one vector of a card is served (CPU lists) and where it should be.

    STATE is "right", "change" or "unknown"; for "unknown", UNKNOWN_UNTIL says what has to happen first.
    STEERABLE is False where nobody can move it, as far as is known without trying; else None.
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
    steerable: Optional[bool] = None


class AffinityPlan(NamedTuple):
    """Placements of all vectors; the changes they need, keyed "BDF#vector"; what only time can tell.

    ATTEMPTS are changes that the kernel will most likely refuse, keyed alike; why stands in their placements.
    """

    placements: List[Placement]
    changes: List[Tuple[str, Change]]
    unknown: List[str]
    attempts: List[Tuple[str, Change]]


class _Choice(NamedTuple):
    candidates: Tuple[int, ...]  # in the order in which cards take them
    last_resort: Tuple[int, ...]  # of the same speed, but meant for the application
    why: str


class _Seat(NamedTuple):
    cpus: Tuple[int, ...]  # (): none is online
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


def _measure(tier: Tier) -> str:
    return CORE_KINDS[(tier.value or 1) - 1] if tier.basis == "core kind" else str(tier.value)


def _unasked(cpus: Sequence[Cpu], local_cpus: Optional[Sequence[int]]) -> Tuple[List[int], str]:
    """Return the CPUs that are best for a card where the user named none, and why. Never an isolated one.

    Clusters that differ a little in clock are one tier. Cards fill it by number, one cluster after the other, so that
    what is left to the application is a cluster of its own, with its own clock, as long as there are few cards.
    """
    known = {cpu.number: cpu for cpu in cpus}
    ranking = tiers(cpus) or (Tier(tuple(sorted(known)), "single", None),)
    usable = [tier for tier in ranking if not all(known[number].quiet for number in tier.cpus)]
    if not usable:
        return [], "every CPU is isolated or nohz_full; name those that may serve the card (cpus)"
    tier = usable[-1]
    faster = sorted(number for one in ranking[ranking.index(tier) + 1 :] for number in one.cpus)
    chosen = [number for number in tier.cpus if not known[number].quiet]
    if len(ranking) > 1:
        measures = "/".join(_measure(one) for one in ranking)
        why = "fastest tier, CPUs %s (%s %s of %s)" % (format_list(tier.cpus), tier.basis, _measure(tier), measures)
        if faster:
            why = why.replace("fastest tier", "fastest tier that may be used", 1)
            why += "; CPUs %s are faster, but isolated or nohz_full: name them to use them" % format_list(faster)
    else:
        why = "all CPUs are equally fast, so nothing is gained by tier"
    if len(chosen) < len(tier.cpus):
        why += "; not the isolated or nohz_full ones"
    if len(ranking) == 1:
        local = [number for number in chosen if number in (local_cpus or ())]
        if local and len(local) < len(chosen):
            chosen, why = local, why + "; local to the card's NUMA node"
    first = cores(cpus)
    others = [number for number in chosen if first[number] != first.get(0)]
    # Where a tier has but two cores, one is the card's and the other the application's: CPU0's cannot be spared.
    if others and len(others) < len(chosen) and (len(ranking) == 1 or len({first[number] for number in others}) > 1):
        chosen, why = others, why + "; not CPU0, which serves most other interrupts"
    return chosen, why


def _choose(cpus: Sequence[Cpu], local_cpus: Optional[Sequence[int]], wishes: AffinityWishes) -> _Choice:
    """Return the CPUs that may serve a card that is close to LOCAL_CPUS.

    Offline ones are among them: who is online changes, this does not.
    """
    known = {cpu.number: cpu for cpu in cpus}
    if len(known) == 1:
        return _Choice(tuple(known), (), ONE_CPU)
    best, why = _unasked(cpus, local_cpus)
    asked = tuple(number for number in parse_list(wishes.cpus or "") or () if number in known)
    if asked:
        quiet = [number for number in asked if known[number].quiet]
        named = "; CPUs %s are isolated or nohz_full, and used because they were named" % format_list(quiet)
        return _Choice(asked, tuple(best), "asked for by name (cpus: %s)%s" % (wishes.cpus, named if quiet else ""))
    if wishes.spread == "tier":
        return _Choice(tuple(best), (), why)
    first = cores(cpus)
    whole = sorted({first[number] for number in best})
    spare = min(wishes.keep_free, len(whole) - 1)
    free = set(whole[-spare:] if spare > 0 else ())
    threads = [number for number in best if first[number] not in free]
    if len(whole) < len(best):
        why += "; one hardware thread of each core first"
    # A thread's place in its core comes first, so that no two cards share a core before all have one.
    seen: Dict[int, int] = {}
    place = {}
    for number in threads:
        place[number] = seen[first[number]] = seen.get(first[number], -1) + 1
    threads.sort(key=lambda number: place[number])
    rest = tuple(number for number in best if first[number] in free)
    if rest:
        why += "; CPU %s left to the application" % format_list(rest)
    return _Choice(tuple(threads), rest, why)


def _seats(
    cpus: Sequence[Cpu], turns: Sequence[Vector], cards: Mapping[str, PciDevice], wishes: AffinityWishes
) -> Dict[Vector, _Seat]:
    """Return the CPUs for each of TURNS, which is in the order in which they choose.

    The first choice follows from the place in that order alone, so that it is the same after every boot and others do
    not move when a CPU goes. Only while that CPU is offline is the interrupt served elsewhere: where the fewest are.
    """
    online = {cpu.number for cpu in cpus if cpu.online}
    seats: Dict[Vector, _Seat] = {}
    homeless: List[Tuple[Vector, _Choice, int]] = []
    taken: Dict[Tuple[int, ...], int] = {}
    load: Dict[int, int] = {}
    choices: Dict[Optional[Tuple[int, ...]], _Choice] = {}
    local = next((cards[bdf].local_cpus for bdf, _vector in turns if bdf in cards), None)
    for vector in turns:
        if vector[0] in cards:
            local = cards[vector[0]].local_cpus  # one that is gone keeps its turn where its neighbour is
        if local not in choices:
            choices[local] = _choose(cpus, local, wishes)
        choice = choices[local]
        if wishes.spread == "tier" and online.intersection(choice.candidates):
            seats[vector] = _Seat(choice.candidates, choice.why + "; all of them, the interrupt controller picks one")
            continue
        turn = taken.get(choice.candidates, 0)
        taken[choice.candidates] = turn + 1
        home = choice.candidates[turn % len(choice.candidates)] if choice.candidates else -1
        if home in online:
            seats[vector] = _Seat((home,), choice.why)
            load[home] = load.get(home, 0) + 1
        else:
            homeless.append((vector, choice, home))
    for vector, choice, home in homeless:
        start = choice.candidates.index(home) if home in choice.candidates else 0
        order = [number for number in choice.candidates[start:] + choice.candidates[:start] if number in online]
        order = order or [number for number in choice.last_resort if number in online]
        if not order:
            seats[vector] = _Seat((), "no CPU to serve it is online (%s)" % choice.why)
            continue
        chosen = min(order, key=lambda number: load.get(number, 0))
        load[chosen] = load.get(chosen, 0) + 1
        seats[vector] = _Seat((chosen,), "%s; CPU %d, the first choice, is offline" % (choice.why, home))
    return seats


def _turns(cards: Sequence[PciDevice], wishes: AffinityWishes, gone: Sequence[Vector]) -> List[Vector]:
    """Return who chooses a CPU, in order: each card, by address; or each vector, all first ones before the second.

    A driver asks for a card's first vectors; those that were granted and are never asked for come last, and so do not
    keep CPUs from those that work.
    """
    known = {(card.bdf, vector) for card in cards for vector in range(max(1, len(vectors(card))))}
    known.update(gone)
    if wishes.vectors == "together":
        known = {(bdf, 0) for bdf, _vector in known}
    return sorted(known, key=lambda one: (one[1], bdf_key(one[0]), one[0]))


def vectors(card: PciDevice) -> Tuple[int, ...]:
    """Return a card's interrupts by vector: its MSI ones; where it has none, the line it shares."""
    if card.msi_irqs:
        return card.msi_irqs
    return () if card.legacy_irq is None or card.driver is None else (card.legacy_irq,)


def shared_line(card: PciDevice, interrupt: Optional[Interrupt]) -> Tuple[str, ...]:
    """Return the names of all handlers on a card's line, if there are several; an MSI is the card's alone."""
    if card.msi_irqs or interrupt is None or len(interrupt.actions) < 2:
        return ()
    return interrupt.actions


def plan(
    cards: Sequence[PciDevice],
    interrupts: Mapping[int, Interrupt],
    cpus: Sequence[Cpu],
    wishes: AffinityWishes,
    board: Board = UNKNOWN,
    gone: Sequence[Vector] = (),
) -> AffinityPlan:
    """Return where every vector of every card belongs.

    GONE: vectors that were moved earlier during this boot. A card that has dropped off the bus is missing in CARDS; it
    keeps its turn, so that the others stay where they are while they work. (A dead one that is still there does so
    anyway.)

    CPUs asked for by name that are offline or gone are replaced by the fast tier's: an interrupt that loses its
    CPU falls to any other, a slow one included, so this has to hold at any moment. `check_cpus` refuses them.
    """
    found = AffinityPlan([], [], [], [])
    by_address = {card.bdf: card for card in cards}
    seats = _seats(cpus, _turns(cards, wishes, gone), by_address, wishes)
    lines: Dict[int, _Seat] = {}
    for card in sorted(cards, key=lambda one: bdf_key(one.bdf)):
        irqs = vectors(card)
        seat = seats[card.bdf, 0]
        if not seat.cpus:
            found.unknown.append(
                "CPU for %s: unknown until one of the wanted ones is online: %s" % (card.bdf, seat.why)
            )
        if not irqs:
            until = "its driver has asked for an interrupt" if card.driver else "a driver binds to it"
            target = format_list(seat.cpus)
            found.placements.append(Placement(card.bdf, 0, None, None, None, target, seat.why, "unknown", until))
            found.unknown.append("interrupt of %s: unknown until %s" % (card.bdf, until))
        for vector, irq in enumerate(irqs):
            own = seats[card.bdf, vector] if wishes.vectors == "apart" else seat
            # A line is moved for the first of the cards that share it, or they would take turns at every run.
            written_already = irq in lines
            own = lines.setdefault(irq, own)
            shared = shared_line(card, interrupts.get(irq))
            if shared:
                own = own._replace(
                    why="%s; its line has several handlers (%s), and all of them move" % (own.why, ", ".join(shared))
                )
            told = found._replace(changes=[], attempts=[], unknown=[]) if written_already else found
            _place(told, card, vector, irq, interrupts.get(irq), own, len(cpus) == 1, board)
    return found


def _place(
    found: AffinityPlan,
    card: PciDevice,
    vector: int,
    irq: int,
    interrupt: Optional[Interrupt],
    seat: _Seat,
    nothing_to_choose: bool,
    board: Board,
) -> None:
    """Add one vector to the plan."""
    wanted = format_list(seat.cpus)
    placement = Placement(card.bdf, vector, irq, None, None, wanted, seat.why, "unknown", None)
    if interrupt is None or not interrupt.has_proc_irq:
        until = "the driver asks for this vector (it has been granted, but has no handler)"
        found.placements.append(placement._replace(unknown_until=until))
        if vector == 0:
            found.unknown.append("interrupt %d of %s: unknown until %s" % (irq, card.bdf, until))
        return
    before = None if interrupt.affinity is None else format_list(interrupt.affinity)
    effective = None if interrupt.effective is None else format_list(interrupt.effective)
    placement = placement._replace(before=before, effective_before=effective)
    reached = not interrupt.effective or set(interrupt.effective) <= set(seat.cpus)
    if not seat.cpus or nothing_to_choose or (before == wanted and reached):
        found.placements.append(placement._replace(state="right"))
        return
    if not card.alive:
        until = "the card answers again; it is dead now, and nothing comes from it"
        found.placements.append(placement._replace(unknown_until=until))
        found.unknown.append("interrupt %d of %s: unknown until %s" % (irq, card.bdf, until))
        return
    if before == wanted and steering.moves_later(interrupt, board):
        until = "the next interrupt comes: the move to CPU %s has been accepted and waits for it" % wanted
        found.placements.append(placement._replace(unknown_until=until))
        found.unknown.append("effective CPU of interrupt %d: unknown until %s" % (irq, until))
        return
    path = "/proc/irq/%d/smp_affinity_list" % irq
    change = Change(path, before, wanted, "vector %d of %s: %s" % (vector, card.bdf, seat.why))
    stuck = steering.judge(interrupt, board)
    if stuck is not None:
        until = "it is written: on this controller the kernel refuses (%s)" % stuck.why
        found.placements.append(placement._replace(unknown_until=until, steerable=False))
        found.attempts.append(("%s#%d" % (card.bdf, vector), change))
        return
    found.placements.append(placement._replace(state="change"))
    found.changes.append(("%s#%d" % (card.bdf, vector), change))
    if len(seat.cpus) > 1:
        found.unknown.append(
            "effective CPU of interrupt %d: unknown until it is written, the controller picks one of %s" % (irq, wanted)
        )


def summary(placed: Sequence[Tuple[Placement, bool]], cards: int, check: bool) -> str:
    """Return the outcome in one sentence. PLACED: each vector, and whether it is where it belongs."""
    right = [placement.target for placement, done in placed if done]
    many = sorted({int(target) for target in right if target.isdigit()})
    if len(right) < 2:
        where = "the wanted CPU"
    elif not all(target.isdigit() for target in right):
        where = "the wanted CPUs, %s" % " or ".join(sorted(set(right)))
    elif len(many) == 1:
        where = "CPU %d" % many[0]
    else:
        shares = "+".join(str(right.count(str(number))) for number in many)
        where = "CPUs %s, %s" % (format_list(many), shares)
    sentence = "%d interrupt%s of %d NPU card%s %s on %s" % (
        len(right),
        "" if len(right) == 1 else "s",
        cards,
        "" if cards == 1 else "s",
        "would be" if check else "is" if len(right) == 1 else "are",
        where,
    )
    if any(placement.why == ONE_CPU for placement, _done in placed):
        return "%s; %s" % (sentence, ONE_CPU)
    return sentence
